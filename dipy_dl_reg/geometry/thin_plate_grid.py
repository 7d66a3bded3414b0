"""Thin-plate splines on a voxel grid, for the price of a coarse one.

The sum over the points is not taken voxel by voxel.  `sample_spline` splits the kernel
as particle-mesh methods do, into a part that is smooth everywhere, which a coarse grid
and interpolation suffice for, and one that ends at a small radius, which is added
around each point.
"""

import itertools
import math

import torch

from dipy_dl_reg.geometry.thin_plate import chunks, fit_spline, kernel_of

#: Up to so many voxels times points every voxel is computed exactly.
_EXACT = 2**24
#: Distance of the coarse nodes, in voxels of the finest axis, and the radius, in such
#: distances, within which the kernel is split.
_STRIDE, _RADIUS = 4, 3
#: Terms of the kernel's smooth part within the radius, see `_smooth`.
_TERMS = 3
#: Root mean square error, in voxels, of a sampled field at the voxels where it is
#: looked at, and how many these are; they are the worst.
TOLERANCE, _LOOKED_AT = 0.03, 256
#: Nodes are brought no closer than this: what is left lies between landmarks that are
#: a voxel or two apart and go different ways, where no map can follow them.
_CLOSEST = 2
#: Where an axis is interpolated: nodes on each side of a voxel.
_NODES = 3


def sample_spline(spline, shape, to_world, from_world, *, stride=None):
    """The spline as a field on a grid: ``u(i) = from_world(f(to_world(i))) - i``.

    Parameters
    ----------
    spline : ThinPlateSpline
        From `fit_spline`.
    shape : tuple of int
        The grid's.
    to_world, from_world : array, shape (D + 1, D + 1)
        From voxels to the spline's points, and from its targets to voxels.
    stride : float, optional
        Distance of the nodes of the coarse grid, in voxels of the finest axis; 0
        computes each voxel exactly.  By default that if it takes no time, else 4, or
        as much less, down to 2, as brings the error below `TOLERANCE` at the voxels
        next to those points whose weights are largest.

    Returns
    -------
    u : Tensor, shape (1, D, *shape)
        In voxels, float32.
    """
    to_world, from_world = (
        spline.points.new_tensor(matrix) for matrix in (to_world, from_world)
    )
    u = _linear_part(from_world @ spline.affine @ to_world, shape)
    if stride is None and math.prod(shape) * len(spline.points) <= _EXACT:
        stride = 0
    task = _Sampling(spline, shape, to_world, from_world)
    rest = task.exact() if stride == 0 else task.split(stride or _STRIDE)
    if stride is None:
        error = task.error(rest)
        if error > TOLERANCE:  # it goes with the square of the stride
            closer = 0.9 * _STRIDE * math.sqrt(TOLERANCE / error)
            rest = task.split(max(_CLOSEST, closer))
    return u.add_(rest)


def start_field(pair):
    """The spline through a pair's landmarks, for refinement to start from.

    The biharmonic one, which swings less where landmarks are a little off.

    Parameters
    ----------
    pair : Pair
        With landmarks.

    Returns
    -------
    u : Tensor, shape (1, D, *static_shape)
        In voxels of the static grid; may fold where landmarks cross.
    """
    spline = fit_spline(*pair.landmarks, kernel="biharmonic")
    grid = pair.static_grid
    return sample_spline(spline, grid.shape, grid.affine, grid.inverse).to(pair.static)


def _linear_part(matrix, shape):
    """Displacement of an affine map from voxels to voxels, exact to float32."""
    dim = len(shape)
    eye = torch.eye(dim + 1, dtype=matrix.dtype, device=matrix.device)
    move = matrix[:dim] - eye[:dim]
    u = move[:, dim].reshape(1, dim, *[1] * dim)
    for axis, size in enumerate(shape):
        line = _numbers(size, matrix)
        line = (move[:, axis, None] * line).view(1, dim, *_along(axis, size, dim))
        u = u + line if axis < dim - 1 else (u.float() + line.float())
    return u.float().contiguous()


def _numbers(count, like):
    """0, 1, 2, ... as a tensor of another one's kind."""
    return torch.arange(count, dtype=like.dtype, device=like.device)


def _along(axis, size, dim):
    """Shape of a line along one of `dim` axes."""
    return [size if d == axis else 1 for d in range(dim)]


class _Sampling:
    """The kernels' part of a spline, in voxels, on a grid."""

    def __init__(self, spline, shape, to_world, from_world):
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
        self.places = (spline.points - self.to_scaled[:, dim]) @ inverse.T
        #: Voxels along each axis that a ball of radius 1 spans, to either side.
        self.reach = inverse.norm(dim=1)

    def exact(self):
        """Every voxel by the whole sum."""
        axes = [_numbers(n, self.weights) for n in self.shape]
        return self._sums(axes, None).float()

    def error(self, rest):
        """Root mean square error, in voxels, next to points of the largest weights."""
        largest = self.weights.norm(dim=1).argsort(descending=True)
        sizes = self.places.new_tensor(self.shape)
        voxels = self.places.round().long()
        inside = ((voxels >= 0) & (voxels < sizes)).all(1)
        voxels = voxels[largest][inside[largest]][:_LOOKED_AT]
        exact = self._sum(voxels.to(self.weights), None)
        found = rest[(0, slice(None), *voxels.T)].T
        missed = (exact - found).square().sum(1).mean() if len(voxels) else 0.0
        return math.sqrt(float(missed))

    def split(self, stride):
        """The smooth part on coarse nodes, and what is left around each point."""
        used = [s for s, n in zip(self.spacing.tolist(), self.shape) if n > 1]
        distance = stride * min(used, default=1.0)
        radius = _RADIUS * distance
        axes, weights = zip(
            *(
                _nodes(size, distance / spacing, self.weights)
                for size, spacing in zip(self.shape, self.spacing.tolist())
            )
        )
        u = self._sums(axes, radius)
        # The shortest axis last: the largest product has the smallest matrix.
        for axis, matrix in enumerate(weights):
            if matrix is not None:
                u = _interpolated(u, axis + 2, matrix)
        u = u.float().contiguous()
        self._add_near(u, radius)
        return u

    def _sums(self, axes, radius):
        """The sum at the nodes of a grid given by its axes: (1, D, *sizes)."""
        sizes = [len(axis) for axis in axes]
        nodes = torch.cartesian_prod(*axes).view(-1, self.dim)
        return self._sum(nodes, radius).T.reshape(1, self.dim, *sizes)

    def _sum(self, voxels, radius):
        """The sum at points given in voxels, (M, D); smooth within a radius."""
        total = torch.empty_like(voxels)
        scaled = voxels @ self.to_scaled[:, : self.dim].T + self.to_scaled[:, self.dim]
        for chunk in chunks(voxels, len(self.weights)):
            values = _quick_squares(scaled[chunk], self.spline.points)
            if radius is None:
                values = kernel_of(values, self.spline.logarithmic)
            else:
                values = _smooth(values, radius, self.spline.logarithmic)
            torch.mm(values, self.weights, out=total[chunk])
        return total

    def _add_near(self, u, radius):
        """Add the rest of the kernel in the ball around each point."""
        reach = (self.reach * radius).tolist()
        metric = self.metric.tolist()
        # On another device each number fetched would have to be waited for.
        places, weights = self.places.tolist(), self.weights.float()
        lines = [_numbers(n, u) for n in self.shape]
        shape = (self.dim, *[1] * self.dim)
        for place, weight in zip(places, weights):
            first = [max(0, math.ceil(p - r)) for p, r in zip(place, reach)]
            last = [
                min(n, math.floor(p + r) + 1)
                for p, r, n in zip(place, reach, self.shape)
            ]
            if any(a >= b for a, b in zip(first, last)):
                continue
            box = tuple(slice(a, b) for a, b in zip(first, last))
            away = [
                (line[part] - p).view(_along(axis, -1, self.dim))
                for axis, (line, part, p) in enumerate(zip(lines, box, place))
            ]
            rest = _near(_lengths(away, metric), radius, self.spline.logarithmic)
            u[(0, slice(None), *box)].addcmul_(weight.view(shape), rest)


def _lengths(away, metric):
    """Squared lengths of vectors given by lines along the axes of a box."""
    squares = sum(metric[a][a] * line.square() for a, line in enumerate(away))
    for a, b in itertools.combinations(range(len(away)), 2):
        if abs(metric[a][b]) > 1e-9 * metric[a][a]:  # voxels with a shear
            squares = squares + 2 * metric[a][b] * away[a] * away[b]
    return squares.clamp(min=0)


def _taylor(squares, radius, logarithmic):
    """The kernel's Taylor series in the squared distance about the radius.

    Without its constant, of ``squares <= radius**2``.
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


def _smooth(squares, radius, logarithmic):
    """The kernel outside a radius; inside it, its Taylor series at the radius.

    Three times differentiable, and even: it has no tip.  Takes the squares' place.
    """
    inside = _taylor(squares.clamp(max=radius**2), radius, logarithmic)
    return kernel_of(squares.clamp_(min=radius**2), logarithmic).add_(inside)


def _near(squares, radius, logarithmic):
    """The kernel less its smooth part: 0 from the radius on.  Takes their place."""
    squares = squares.clamp_(max=radius**2)
    end = radius**2 * math.log(radius) if logarithmic else -radius
    smooth = _taylor(squares, radius, logarithmic).add_(end)
    return kernel_of(squares, logarithmic).sub_(smooth)


def _nodes(size, stride, like):
    """Coarse nodes along an axis, in voxels, and the matrix from them to voxels.

    Two nodes lie beyond each end, so that each voxel has three on either side: it
    takes their values by the polynomial through all six.
    """
    count = math.floor((size - 1) / stride) + 2 * _NODES
    if count >= size:
        return _numbers(size, like), None
    nodes = (_numbers(count, like) - (_NODES - 1)) * stride
    place = _numbers(size, like) / stride
    before = place.floor()
    t = place - before
    matrix = like.new_zeros(size, count)
    offsets = range(1 - _NODES, _NODES + 1)
    rows = torch.arange(size, device=like.device)
    for k, own in enumerate(offsets):
        factors = [(t - other) / (own - other) for other in offsets if other != own]
        matrix[rows, before.long() + k] = torch.stack(factors).prod(0)
    return nodes, matrix


def _interpolated(u, axis, matrix):
    """Multiply one axis by a matrix, (new, old)."""
    matrix = matrix.to(u.dtype)
    if axis == u.ndim - 1:
        return u @ matrix.T
    after = math.prod(u.shape[axis + 1 :])
    flat = u.reshape(-1, u.shape[axis], after)
    return torch.matmul(matrix, flat).view(
        *u.shape[:axis], len(matrix), *u.shape[axis + 1 :]
    )


def _quick_squares(x, points):
    """The same sooner, to 1e-15 of the points' own lengths: no good for tiny roots."""
    lengths = x.square().sum(1)[:, None], points.square().sum(1)
    squares = torch.addmm(lengths[1].expand(len(x), -1), x, points.T, alpha=-2)
    return squares.add_(lengths[0]).clamp_(min=0)
