"""Evaluation of thin-plate splines on a voxel grid, mostly on a coarser grid.

The exact sum over all points at every voxel would need much time.  `sample_spline`
splits the kernel into two parts, like particle-mesh methods: a part that is smooth
everywhere, which is computed on a coarse grid and interpolated; and a part that is 0
beyond a small radius, which is added around each point.
"""

import itertools
import math
from typing import Any

import numpy as np
import torch

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.thin_plate import (
    ThinPlateSpline,
    chunks,
    evaluate_kernel,
    fit_spline,
)
from dipy_dl_reg.validation import wrong_value

#: If the number of voxels times points is at most this, all voxels are exact.
_EXACT = 2**24
#: Distance between coarse nodes, in voxels of the finest axis, and the radius, in such
#: distances, beyond which the short part of the kernel is 0.
_STRIDE, _RADIUS = 4, 3
#: Terms of the Taylor series within the radius, see `_smooth_part`.
_TERMS = 3
#: Accepted root mean square error of a sampled field, in voxels, and the number of
#: voxels where it is measured: those where errors are largest.
TOLERANCE, _CHECKED_VOXELS = 0.03, 256
#: Smallest distance between nodes, in voxels.  The remaining error is between landmarks
#: that are one or two voxels apart and have different displacements; no map on this
#: grid can represent these.
_LEAST_STRIDE = 2
#: Number of nodes on each side of a voxel that are used to interpolate it.
_NODES = 3


def sample_spline(
    spline: ThinPlateSpline,
    shape: tuple[int, ...],
    to_world: np.ndarray,
    from_world: np.ndarray,
    *,
    stride: float | None = None,
) -> torch.Tensor:
    """Sample a spline as a field: ``u(i) = from_world(f(to_world(i))) - i``.

    Parameters
    ----------
    spline : ThinPlateSpline
        From `fit_spline`.
    shape : tuple of int
        The grid's.
    to_world, from_world : array, shape (D + 1, D + 1)
        From voxels to the world of the spline's points, and from the world of its
        targets to voxels.
    stride : float, optional
        Distance between nodes of the coarse grid, in voxels of the finest axis; 0
        computes each voxel exactly.  By default 0 for few voxels and points; otherwise
        4, or a smaller number down to 2 with which the error at the voxels next to the
        points of largest weights is below `TOLERANCE`.

    Returns
    -------
    u : Tensor, shape (1, D, *shape)
        In voxels, float32.
    """
    into, back = (spline.points.new_tensor(m) for m in (to_world, from_world))
    u = _linear_part(back @ spline.affine @ into, shape)
    if stride is None and math.prod(shape) * len(spline.points) <= _EXACT:
        stride = 0
    sampling = _Sampling(spline, shape, into, back)
    rest = sampling.exact() if stride == 0 else sampling.split(stride or _STRIDE)
    if stride is None:
        error = sampling.error(rest)
        if error > TOLERANCE:  # it is proportional to the square of the stride
            closer = 0.9 * _STRIDE * math.sqrt(TOLERANCE / error)
            rest = sampling.split(max(_LEAST_STRIDE, closer))
    return u.add_(rest)


def start_field(pair: Pair) -> torch.Tensor:
    """Compute the spline through a pair's landmarks, as the first field of refinement.

    The biharmonic spline is used because it oscillates less if landmarks are
    inaccurate.

    Parameters
    ----------
    pair : Pair
        With landmarks.

    Returns
    -------
    u : Tensor, shape (1, D, *static_shape)
        In voxels of the static grid; may fold where landmarks cross.

    Raises
    ------
    ValueError
        If the pair has no landmarks.
    """
    if pair.landmarks is None:
        raise wrong_value("pair", "a pair with landmarks", pair)
    spline = fit_spline(*pair.landmarks, kernel="biharmonic")
    grid = pair.static_grid
    return sample_spline(spline, grid.shape, grid.affine, grid.inverse).to(pair.static)


def _linear_part(matrix: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Displacement of an affine map from voxels to voxels, exact to float32."""
    dim = len(shape)
    eye = torch.eye(dim + 1, dtype=matrix.dtype, device=matrix.device)
    move = matrix[:dim] - eye[:dim]
    u = move[:, dim].reshape(1, dim, *[1] * dim)
    for axis, size in enumerate(shape):
        line = _range(size, matrix)
        line = (move[:, axis, None] * line).view(1, dim, *_axis_shape(axis, size, dim))
        u = u + line if axis < dim - 1 else (u.float() + line.float())
    return u.float().contiguous()


def _range(count: int, like: torch.Tensor) -> torch.Tensor:
    """0, 1, 2, ... as a tensor of the type and on the device of another."""
    return torch.arange(count, dtype=like.dtype, device=like.device)


def _axis_shape(axis: int, size: int, dim: int) -> list[int]:
    """Shape of a line along one of `dim` axes."""
    return [size if d == axis else 1 for d in range(dim)]


class _Sampling:
    """Evaluates the sum of a spline's kernels on a grid, in voxels."""

    def __init__(
        self,
        spline: ThinPlateSpline,
        shape: tuple[int, ...],
        to_world: torch.Tensor,
        from_world: torch.Tensor,
    ) -> None:
        dim = len(shape)
        self.spline, self.shape, self.dim = spline, tuple(shape), dim
        self.to_scaled = to_world[:dim].clone()
        self.to_scaled[:, dim] -= spline.centre
        self.to_scaled /= spline.scale
        self.weights = spline.weights @ from_world[:dim, :dim].T
        linear = self.to_scaled[:, :dim]
        self.metric = linear.T @ linear
        self.spacing = linear.norm(dim=0)
        inverse = torch.linalg.inv(linear)
        self.positions = (spline.points - self.to_scaled[:, dim]) @ inverse.T
        #: Radius along each axis, in voxels, of a ball of radius 1.
        self.reach = inverse.norm(dim=1)

    def exact(self) -> torch.Tensor:
        """The exact sum at every voxel."""
        axes = [_range(n, self.weights) for n in self.shape]
        return self._sums(axes, None).float()

    def error(self, rest: torch.Tensor) -> float:
        """Root mean square error, in voxels, next to the points of largest weights."""
        largest = self.weights.norm(dim=1).argsort(descending=True)
        sizes = self.positions.new_tensor(self.shape)
        voxels = self.positions.round().long()
        inside = ((voxels >= 0) & (voxels < sizes)).all(1)
        voxels = voxels[largest][inside[largest]][:_CHECKED_VOXELS]
        exact = self._sum(voxels.to(self.weights), None)
        found = rest[(0, slice(None), *voxels.T)].T
        squares = (exact - found).square().sum(1).mean() if len(voxels) else 0.0
        return math.sqrt(float(squares))

    def split(self, stride: float) -> torch.Tensor:
        """The smooth part, from coarse nodes, plus the short part around each point."""
        used = [s for s, n in zip(self.spacing.tolist(), self.shape) if n > 1]
        distance = stride * min(used, default=1.0)
        radius = _RADIUS * distance
        coarse = [
            _coarse_nodes(size, distance / spacing, self.weights)
            for size, spacing in zip(self.shape, self.spacing.tolist())
        ]
        u = self._sums([nodes for nodes, _ in coarse], radius)
        for axis, (_, matrix) in enumerate(coarse):
            if matrix is not None:
                u = _apply_along(u, axis + 2, matrix)
        u = u.float().contiguous()
        self._add_short_parts(u, radius)
        return u

    def _sums(self, axes: list[torch.Tensor], radius: float | None) -> torch.Tensor:
        """The sum at the nodes of a grid given by its axes: (1, D, *sizes)."""
        sizes = [len(axis) for axis in axes]
        nodes = torch.cartesian_prod(*axes).view(-1, self.dim)
        return self._sum(nodes, radius).T.reshape(1, self.dim, *sizes)

    def _sum(self, voxels: torch.Tensor, radius: float | None) -> torch.Tensor:
        """The sum at points in voxels, (M, D); with a radius, of the smooth part."""
        total = torch.empty_like(voxels)
        scaled = voxels @ self.to_scaled[:, : self.dim].T + self.to_scaled[:, self.dim]
        for chunk in chunks(voxels, len(self.weights)):
            values = _fast_squared_distances(scaled[chunk], self.spline.points)
            if radius is None:
                values = evaluate_kernel(values, self.spline.logarithmic)
            else:
                values = _smooth_part(values, radius, self.spline.logarithmic)
            torch.mm(values, self.weights, out=total[chunk])
        return total

    def _add_short_parts(self, u: torch.Tensor, radius: float) -> None:
        """Add the short part of the kernel in the ball around each point."""
        reach = (self.reach * radius).tolist()
        metric = self.metric.tolist()
        # All numbers in one transfer, because each transfer from a GPU takes time.
        positions, weights = self.positions.tolist(), self.weights.float()
        lines = [_range(n, u) for n in self.shape]
        shape = (self.dim, *[1] * self.dim)
        for position, weight in zip(positions, weights):
            box = self._box(position, reach)
            if any(part.start >= part.stop for part in box):
                continue
            away = [
                (line[part] - p).view(_axis_shape(axis, -1, self.dim))
                for axis, (line, part, p) in enumerate(zip(lines, box, position))
            ]
            squares = _squared_lengths(away, metric)
            rest = _short_part(squares, radius, self.spline.logarithmic)
            index: tuple[Any, ...] = (0, slice(None), *box)
            u[index].addcmul_(weight.view(shape), rest)

    def _box(self, position: list[float], reach: list[float]) -> tuple[slice, ...]:
        """Voxels of the grid within a distance of a position, along each axis."""
        return tuple(
            slice(max(0, math.ceil(p - r)), min(n, math.floor(p + r) + 1))
            for p, r, n in zip(position, reach, self.shape)
        )


def _squared_lengths(
    away: list[torch.Tensor], metric: list[list[float]]
) -> torch.Tensor:
    """Squared lengths of vectors given by their components along the axes of a box."""
    squares = metric[0][0] * away[0].square()
    for axis in range(1, len(away)):
        squares = squares + metric[axis][axis] * away[axis].square()
    for a, b in itertools.combinations(range(len(away)), 2):
        if abs(metric[a][b]) > 1e-9 * metric[a][a]:  # voxels with a shear
            squares = squares + 2 * metric[a][b] * away[a] * away[b]
    return squares.clamp(min=0)


def _taylor_series(
    squares: torch.Tensor, radius: float, logarithmic: bool
) -> torch.Tensor:
    """Taylor series of the kernel, in the squared distance, about the radius.

    The constant term is left out.  The series is for ``squares <= radius**2``.
    """
    end = radius**2
    t = squares / end - 1
    if logarithmic:
        factors = [(math.log(end) + 1) * end / 2]
        factors += [end / 2 * (-1) ** k / (k * (k - 1)) for k in range(2, _TERMS + 1)]
    else:
        factors, binomial = [], 1.0
        for k in range(1, _TERMS + 1):
            binomial *= (1.5 - k) / k
            factors.append(-radius * binomial)
    value = torch.full_like(t, factors[-1])
    for factor in reversed(factors[:-1]):
        value.mul_(t).add_(factor)
    return value.mul_(t)


def _smooth_part(
    squares: torch.Tensor, radius: float, logarithmic: bool
) -> torch.Tensor:
    """The kernel outside a radius; inside it, its Taylor series about the radius.

    It is three times differentiable everywhere.  Overwrites `squares`.
    """
    inside = _taylor_series(squares.clamp(max=radius**2), radius, logarithmic)
    return evaluate_kernel(squares.clamp_(min=radius**2), logarithmic).add_(inside)


def _short_part(
    squares: torch.Tensor, radius: float, logarithmic: bool
) -> torch.Tensor:
    """The kernel minus its smooth part, 0 from the radius on.  Overwrites `squares`."""
    squares = squares.clamp_(max=radius**2)
    end = radius**2 * math.log(radius) if logarithmic else -radius
    smooth = _taylor_series(squares, radius, logarithmic).add_(end)
    return evaluate_kernel(squares, logarithmic).sub_(smooth)


def _coarse_nodes(
    size: int, stride: float, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Coarse nodes along an axis, in voxels, and the matrix that interpolates them.

    There are two nodes beyond each end, so that each voxel has three nodes on either
    side; it is interpolated by the polynomial through these six nodes.  The matrix is
    None if every voxel is a node.
    """
    count = math.floor((size - 1) / stride) + 2 * _NODES
    if count >= size:
        return _range(size, like), None
    nodes = (_range(count, like) - (_NODES - 1)) * stride
    place = _range(size, like) / stride
    before = place.floor()
    t = place - before
    matrix = like.new_zeros(size, count)
    offsets = range(1 - _NODES, _NODES + 1)
    rows = torch.arange(size, device=like.device)
    for k, own in enumerate(offsets):
        factors = [(t - other) / (own - other) for other in offsets if other != own]
        matrix[rows, before.long() + k] = torch.stack(factors).prod(0)
    return nodes, matrix


def _apply_along(u: torch.Tensor, axis: int, matrix: torch.Tensor) -> torch.Tensor:
    """Multiply one axis by a matrix, (new, old)."""
    matrix = matrix.to(u.dtype)
    if axis == u.ndim - 1:
        return u @ matrix.T
    after = math.prod(u.shape[axis + 1 :])
    flat = u.reshape(-1, u.shape[axis], after)
    return torch.matmul(matrix, flat).view(
        *u.shape[:axis], len(matrix), *u.shape[axis + 1 :]
    )


def _fast_squared_distances(x: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Squared distances of two sets of points, (C, D) and (N, D): (C, N).

    By the binomial formula: errors are 1e-15 of the squared lengths of the points, so
    that small distances are inaccurate.
    """
    lengths = x.square().sum(1)[:, None], points.square().sum(1)
    squares = torch.addmm(lengths[1].expand(len(x), -1), x, points.T, alpha=-2)
    return squares.add_(lengths[0]).clamp_(min=0)
