"""Dense displacement fields on a voxel grid.

The convention of all torch code in this package: a field `u` is a tensor
``(B, D, *shape)`` in voxels, component ``d`` is the displacement along array axis
``d``, and the map is ``y = x + u(x)``.  Images are ``(B, C, *shape)``.  Voxel centres
have whole-number coordinates (``align_corners=True``).  ``D = u.ndim - 2``, so that the
same code is used in 2D and 3D.  Outside its grid a field has the value of the nearest
voxel at the edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from dipy_dl_reg.geometry.kernels import dispatch
from dipy_dl_reg.geometry.kernels import functions as kernels


@dataclass(frozen=True, eq=False)
class Frame:
    """Two grids and the affine between them, to sample an image of one on the other.

    Attributes
    ----------
    affine : Tensor, shape (D + 1, D + 1)
        From grid voxels to image voxels, float64 on the CPU.
    shape, image_shape : tuple of int
        Shape of the grid, ``prod(shape) == N``, and of the image.
    like : Tensor
        An empty tensor of the type and on the device of the coordinates.
    """

    affine: torch.Tensor
    shape: tuple[int, ...]
    image_shape: tuple[int, ...]
    like: torch.Tensor

    @cached_property
    def normalised_affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Matrix (D, D) and points (N, D) of the map to `grid_sample` coordinates.

        The image is read at ``u @ matrix + points``, with a displacement in each row of
        ``u``; the points are those of the grid without displacement.
        """
        # `grid_sample` has -1 and 1 at the first and the last voxel centre.  An axis of
        # one voxel is not interpolated; its only position is 0.
        sizes, new = self.image_shape, self.affine.new_tensor
        scale = new([2 / (n - 1) if n > 1 else 0 for n in sizes])
        shift = new([-1 if n > 1 else 0 for n in sizes])
        matrix = (scale[:, None] * self.affine[:-1, :-1]).T
        points = identity(self.shape, dtype=torch.float64).flatten(2)[0].T
        base = torch.addmm(scale * self.affine[:-1, -1] + shift, points, matrix)
        return matrix.to(self.like), base.to(self.like)


def identity(
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Voxel coordinates of a grid.

    Parameters
    ----------
    shape : tuple of int
        Grid shape, D numbers.
    dtype : torch.dtype, optional
        Type of the result.
    device : torch.device or str, optional
        Device of the result.

    Returns
    -------
    coordinates : Tensor, shape (1, D, *shape)
        The index of every voxel along every axis.
    """
    axes = [torch.arange(n, dtype=dtype, device=device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def frame(
    shape: Sequence[int],
    image_shape: Sequence[int] | None = None,
    *,
    affine: torch.Tensor | np.ndarray | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Frame:
    """Prepare the sampling of an image at displaced points of a grid.

    Parameters
    ----------
    shape : tuple of int
        Shape of the grid of the displacements.
    image_shape : tuple of int, optional
        Shape of the sampled image; by default the grid's own.
    affine : Tensor or ndarray, shape (D + 1, D + 1), optional
        From grid voxels to image voxels; by default the identity.
    dtype : torch.dtype, optional
        Type of the coordinates.
    device : torch.device or str, optional
        Device of the coordinates.

    Returns
    -------
    frame : Frame
        For `warp`; can be used many times.
    """
    dim = len(shape)
    image_shape = shape if image_shape is None else image_shape
    if affine is None:
        affine = torch.eye(dim + 1, dtype=torch.float64, device="cpu")
    affine = torch.as_tensor(affine, dtype=torch.float64, device="cpu")
    shape, image_shape = (tuple(int(n) for n in s) for s in (shape, image_shape))
    return Frame(affine, shape, image_shape, torch.empty(0, dtype=dtype, device=device))


def warp(
    image: torch.Tensor,
    displacement: torch.Tensor,
    *,
    frame_: Frame | None = None,
    mode: str = "linear",
) -> torch.Tensor:
    """Sample an image at displaced points: ``out(x) = image(A (x + u(x)))``.

    The affine `A` from grid to image voxels is that of the frame, by default the
    identity.  Points beyond the image get the value at its edge.

    Parameters
    ----------
    image : Tensor, shape (B or 1, C, *image_shape)
        The image.
    displacement : Tensor, shape (B, D, *shape)
        Field in voxels of its own grid.
    frame_ : Frame, optional
        From `frame`; by default image and field have the same grid.
    mode : {"linear", "nearest"}, optional
        Interpolation.

    Returns
    -------
    warped : Tensor, shape (B, C, *shape)
        The image on the field's grid.

    Raises
    ------
    ValueError
        If there is no frame and the two grids differ in shape.
    """
    batch, shape = displacement.shape[0], displacement.shape[2:]
    if frame_ is None and image.shape[2:] != shape:
        raise ValueError(
            f"image and displacement must share a grid unless a frame is given, got "
            f"shapes {tuple(image.shape)} and {tuple(displacement.shape)}."
        )
    if mode == "linear" and dispatch.supports(image[:1], displacement[:1]):
        affine = None if frame_ is None else frame_.affine
        entries = zip(image.expand(batch, *image.shape[1:]).split(1),
                      displacement.split(1))  # fmt: skip
        warped = [kernels.warp(i, u, affine=affine) for i, u in entries]
        return torch.cat(warped) if batch > 1 else warped[0]
    if frame_ is None:
        points = _displaced_points(displacement)
    else:
        matrix, base = frame_.normalised_affine
        moves = displacement.flatten(2).transpose(1, 2)
        points = torch.matmul(moves, matrix).add_(base)
    sampled = sample_at(image, points, mode)
    return sampled.reshape(batch, image.shape[1], *shape)


def _displaced_points(displacement: torch.Tensor) -> torch.Tensor:
    """Normalized coordinates ``(B, N, D)`` of ``x + u(x)`` on the field's own grid."""
    u, dim = displacement, displacement.ndim - 2
    lines = [_normalised_axis(u, axis) for axis in range(dim)]
    if u.requires_grad and torch.is_grad_enabled():
        each = [
            torch.add(line, u[:, axis], alpha=scale)
            for axis, (line, scale) in enumerate(lines)
        ]
        return torch.stack(each, -1).flatten(1, -2)
    # Without autograd, writing in place is possible and saves a copy.
    points = u.new_empty(*u[:, 0].shape, dim)
    for axis, (line, scale) in enumerate(lines):
        torch.add(line, u[:, axis], alpha=scale, out=points[..., axis])
    return points.flatten(1, -2)


def _normalised_axis(u: torch.Tensor, axis: int) -> tuple[torch.Tensor, float]:
    """`grid_sample` coordinates along one axis of a field, and of one voxel of it."""
    size, dim = u.shape[axis + 2], u.ndim - 2
    # An axis of one voxel is not interpolated; its only position is 0.
    scale, first = (2 / (size - 1), -1) if size > 1 else (0, 0)
    line = torch.arange(size, dtype=torch.float64, device="cpu") * scale + first
    return line.to(u).view(-1, *[1] * (dim - 1 - axis)), scale


def sample(image: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Linear interpolation of an image at points given in its own voxels.

    Parameters
    ----------
    image : Tensor, shape (1, C, *shape)
        The image; beyond its edge it has the value there.
    points : Tensor, shape (D, N)
        Voxel coordinates.

    Returns
    -------
    values : Tensor, shape (C, N)
        The image at the points.
    """
    ends = points.new_tensor([n - 1 for n in image.shape[2:]])
    normal = (points.T * (2 / ends.clamp_min(1)) - 1)[None]
    return sample_at(image, normal)[0]


def sample_at(
    image: torch.Tensor, points: torch.Tensor, mode: str = "linear"
) -> torch.Tensor:
    """Interpolate at points in the coordinates of `grid_sample`.

    Parameters
    ----------
    image : Tensor, shape (B or 1, C, *shape)
        The image; beyond its edge it has the value there.
    points : Tensor, shape (B, N, D)
        -1 and 1 are the first and last voxel centres; axes in the order of the image.
    mode : {"linear", "nearest"}, optional
        Interpolation.

    Returns
    -------
    values : Tensor, shape (B, C, N)
        Differentiable by image and points.
    """
    # `grid_sample` counts axes from the last: reversing the axes of the image, which is
    # a view, avoids reversing every coordinate.  It computes each batch entry on one
    # thread: the points of a single entry are passed as several entries.
    batch, count, dim = points.shape
    channels = image.shape[1]
    pieces = _pieces(count, torch.get_num_threads()) if batch == 1 else 1
    image = image.permute(0, 1, *range(dim + 1, 1, -1))
    sampled = F.grid_sample(
        image.expand(batch * pieces, *image.shape[1:]),
        points.reshape(batch * pieces, *(1,) * (dim - 1), -1, dim),
        mode={"linear": "bilinear", "nearest": "nearest"}[mode],
        padding_mode="border",
        align_corners=True,
    )
    if pieces > 1 and channels > 1:
        sampled = sampled.flatten(2).transpose(0, 1)
    return sampled.reshape(batch, channels, count)


@lru_cache(maxsize=256)
def _pieces(count: int, threads: int) -> int:
    """Number of equal pieces of `count` points that keeps all threads busy."""
    if count < 4096:
        return 1
    return next((k for k in range(threads, 8 * threads) if count % k == 0), 1)


def compose(
    first: torch.Tensor,
    second: torch.Tensor,
    *,
    scale: float = 1.0,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compose two maps: compute the displacement of one map after another.

    ``x + u(x) = second(first(x))``, that is ``u = first + second(x + first(x))``.

    Parameters
    ----------
    first : Tensor, shape (B, D, *shape)
        The map applied first, in voxels.
    second : Tensor, shape (B, D, *shape)
        The map applied to its result, in voxels of the same grid.
    scale : float, optional
        Multiplies the second displacement.
    out : Tensor, optional
        Tensor for the result; it must be neither of the two.

    Returns
    -------
    u : Tensor, shape (B, D, *shape)
        Their composition; `out` if it was given.
    """
    if dispatch.supports(first, second, out) and first.shape == second.shape:
        return kernels.warp(second, first, plus=first, sign=scale, out=out)
    return torch.add(first, warp(second, first), alpha=scale, out=out)


def exp(velocity: torch.Tensor, *, steps: int = 7) -> torch.Tensor:
    """Integrate a stationary velocity field over unit time, by scaling and squaring.

    The velocity is divided by ``2**steps`` and the small map composed with itself
    `steps` times :footcite:p:`Arsigny2006`.

    Parameters
    ----------
    velocity : Tensor, shape (B, D, *shape)
        In voxels per unit time.
    steps : int, optional
        Number of squarings.

    Returns
    -------
    u : Tensor, shape (B, D, *shape)
        Displacement of the flow; the flow of ``-velocity`` is its inverse.

    References
    ----------
    .. footbibliography::
    """
    u = velocity / 2**steps
    for _ in range(steps):
        u = compose(u, u)
    return u


def resize(displacement: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Resample a field to a grid of another shape over the same field of view.

    The field is interpolated linearly between corner-aligned grids; the vectors are
    rescaled, because their unit is the voxel.

    Parameters
    ----------
    displacement : Tensor, shape (B, D, *old)
        Field in voxels of its grid.
    shape : tuple of int
        New shape.

    Returns
    -------
    u : Tensor, shape (B, D, *shape)
        Field in voxels of the new grid.
    """
    old = displacement.shape[2:]
    if tuple(old) == tuple(shape):
        return displacement
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(old)]
    u = F.interpolate(displacement, size=tuple(shape), mode=mode, align_corners=True)
    # Along an axis of one voxel the unit is undefined; the displacement is 0.
    scale = [(n - 1) / (o - 1) if o > 1 else 0.0 for n, o in zip(shape, old)]
    return u * u.new_tensor(scale).view(1, -1, *(1,) * len(old))
