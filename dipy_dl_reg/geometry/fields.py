"""Dense displacement fields on a voxel grid.

The convention, said once for all of ``engine``, ``networks`` and ``training``:
a field `u` is a tensor ``(B, D, *shape)`` in voxels, component ``d`` moves along
array axis ``d``, and the map is ``y = x + u(x)``.  Images are ``(B, C, *shape)``.
Voxel centres are the integers (``align_corners=True``).  ``D = u.ndim - 2``, so
that 2D and 3D are one code path.  Beyond its grid a field goes on with the value
at the nearest edge voxel.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F

from dipy_dl_reg.geometry.kernels import dispatch
from dipy_dl_reg.geometry.kernels import functions as kernels


@dataclass(frozen=True, eq=False)
class Frame:
    """How displacements on one grid become coordinates of an image on another.

    Attributes
    ----------
    affine : Tensor, shape (D + 1, D + 1)
        From grid voxels to image voxels, float64 on the CPU.
    shape, image_shape : tuple of int
        Of the grid, ``prod(shape) == N``, and of the image.
    like : Tensor
        An empty one of the coordinates' type, where they live.
    """

    affine: torch.Tensor
    shape: tuple
    image_shape: tuple
    like: torch.Tensor

    @cached_property
    def normalised(self):
        """From displacements (rows) to `grid_sample` coordinates: (D, D) and (N, D).

        The second are the coordinates of every grid point that is not displaced.
        """
        # It wants [-1, 1] between the first and the last voxel centre; along an axis
        # of one voxel there is nothing to interpolate and 0 always means it.
        sizes, new = self.image_shape, self.affine.new_tensor
        scale = new([2 / (n - 1) if n > 1 else 0 for n in sizes])
        shift = new([-1 if n > 1 else 0 for n in sizes])
        matrix = (scale[:, None] * self.affine[:-1, :-1]).T
        points = identity(self.shape, dtype=torch.float64).flatten(2)[0].T
        base = torch.addmm(scale * self.affine[:-1, -1] + shift, points, matrix)
        return matrix.to(self.like), base.to(self.like)


def identity(shape, *, dtype=torch.float32, device="cpu"):
    """Voxel coordinates of a grid.

    Parameters
    ----------
    shape : tuple of int
        Grid shape, D numbers.
    dtype : torch.dtype, optional
        Type of the result.
    device : torch.device or str, optional
        Where the result lives.

    Returns
    -------
    coordinates : Tensor, shape (1, D, *shape)
        The index of every voxel along every axis.
    """
    axes = [torch.arange(n, dtype=dtype, device=device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def frame(shape, image_shape=None, *, affine=None, dtype=torch.float32, device="cpu"):
    """Prepare the sampling of an image at displaced points of a grid.

    Parameters
    ----------
    shape : tuple of int
        Shape of the grid that displacements live on.
    image_shape : tuple of int, optional
        Shape of the sampled image; by default the grid's own.
    affine : Tensor, shape (D + 1, D + 1), optional
        From grid voxels to image voxels; by default the identity.
    dtype : torch.dtype, optional
        Type of the coordinates.
    device : torch.device or str, optional
        Where they live.

    Returns
    -------
    frame : Frame
        To be given to `warp` as often as it is needed.
    """
    dim = len(shape)
    image_shape = shape if image_shape is None else image_shape
    if affine is None:
        affine = torch.eye(dim + 1, dtype=torch.float64, device="cpu")
    affine = torch.as_tensor(affine, dtype=torch.float64, device="cpu")
    shapes = (tuple(int(n) for n in sizes) for sizes in (shape, image_shape))
    return Frame(affine, *shapes, torch.empty(0, dtype=dtype, device=device))


def warp(image, displacement, *, frame_=None, mode="linear"):
    """Sample an image at displaced points: ``out(x) = image(A (x + u(x)))``.

    The affine `A` from grid to image voxels is the frame's, the identity by
    default.  Points beyond the image take the value at its edge.

    Parameters
    ----------
    image : Tensor, shape (B or 1, C, *image_shape)
        What is sampled.
    displacement : Tensor, shape (B, D, *shape)
        Field in voxels of its own grid.
    frame_ : Frame, optional
        Prepared by `frame`; by default image and field share a grid.
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
        points = _displaced(displacement)
    else:
        matrix, base = frame_.normalised
        moves = displacement.flatten(2).transpose(1, 2)
        points = torch.matmul(moves, matrix).add_(base)
    sampled = sample_at(image, points, mode)
    return sampled.reshape(batch, image.shape[1], *shape)


def _displaced(displacement):
    """Normalised coordinates ``(B, N, D)`` of ``x + u(x)`` on the field's own grid."""
    u, shape = displacement, displacement.shape[2:]
    traced = u.requires_grad and torch.is_grad_enabled()
    # In place where nothing is differentiated: that spares a copy.
    points = [None] * len(shape) if traced else u.new_empty(*u[:, 0].shape, len(shape))
    for axis, size in enumerate(shape):
        # An axis of one voxel: there is nothing to interpolate, and 0 means it.
        scale, first = (2 / (size - 1), -1) if size > 1 else (0, 0)
        line = torch.arange(size, dtype=torch.float64, device="cpu") * scale + first
        line = line.to(u).view(-1, *[1] * (len(shape) - 1 - axis))
        if traced:
            points[axis] = torch.add(line, u[:, axis], alpha=scale)
        else:
            torch.add(line, u[:, axis], alpha=scale, out=points[..., axis])
    points = torch.stack(points, -1) if traced else points
    return points.flatten(1, -2)


def sample(image, points):
    """Linear interpolation of an image at points given in its own voxels.

    Parameters
    ----------
    image : Tensor, shape (1, C, *shape)
        What is sampled; goes on beyond its edge with the value there.
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


def sample_at(image, points, mode="linear"):
    """Interpolate at points in `grid_sample`'s own coordinates.

    Parameters
    ----------
    image : Tensor, shape (B or 1, C, *shape)
        What is sampled; goes on beyond its edge with the value there.
    points : Tensor, shape (B, N, D)
        -1 and 1 are the first and last voxel centres; axes in their natural order.
    mode : {"linear", "nearest"}, optional
        Interpolation.

    Returns
    -------
    values : Tensor, shape (B, C, N)
        Differentiable by image and points.
    """
    # `grid_sample` counts axes from the last: an image with its axes reversed (a view)
    # spares a flip of every coordinate. It works one batch entry a thread: one
    # entry's points are dealt out as several.
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
def _pieces(count, threads):
    """A number of equal pieces of `count` points that keeps all threads busy."""
    if count < 4096:
        return 1
    return next((k for k in range(threads, 8 * threads) if count % k == 0), 1)


def compose(first, second, *, scale=1.0, out=None):
    """Displacement of one map after another.

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
        Where the result goes; neither of the two.

    Returns
    -------
    u : Tensor, shape (B, D, *shape)
        Their composition; `out` if it was given.
    """
    if dispatch.supports(first, second, out) and first.shape == second.shape:
        return kernels.warp(second, first, plus=first, sign=scale, out=out)
    return torch.add(first, warp(second, first), alpha=scale, out=out)


def exp(velocity, *, steps=7):
    """Flow of a stationary velocity field over unit time, by scaling and squaring.

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
        Displacement of the flow; that of ``-velocity`` is its inverse.

    References
    ----------
    .. footbibliography::
    """
    u = velocity / 2**steps
    for _ in range(steps):
        u = compose(u, u)
    return u


def resize(displacement, shape):
    """The same map on a grid of another shape over the same field of view.

    Linear interpolation between corner-aligned grids; the vectors are rescaled,
    for their unit is the voxel.

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
    # A grid of one voxel along an axis leaves that axis's unit undefined; nothing
    # moves along it either.
    scale = [(n - 1) / (o - 1) if o > 1 else 0.0 for n, o in zip(shape, old)]
    return u * u.new_tensor(scale).view(1, -1, *(1,) * len(old))


def derivative(x, axis, *, out=None):
    """Central differences along one spatial axis, one-sided at the two ends.

    Parameters
    ----------
    x : Tensor, shape (B, C, *shape)
        Images or fields.
    axis : int
        Spatial axis, 0 for the first after the channels.
    out : Tensor, optional
        Where the result goes; not `x`.

    Returns
    -------
    dx : Tensor, same shape as `x`
        Per voxel, as `numpy.gradient` computes it; zero along a singleton axis.
    """
    dim, size = axis + 2, x.shape[axis + 2]
    out = torch.empty_like(x) if out is None else out
    if size == 1:
        return out.zero_()
    torch.sub(x.narrow(dim, 1, 1), x.narrow(dim, 0, 1), out=out.narrow(dim, 0, 1))
    last = out.narrow(dim, size - 1, 1)
    torch.sub(x.narrow(dim, size - 1, 1), x.narrow(dim, size - 2, 1), out=last)
    if size > 2:
        inner = out.narrow(dim, 1, size - 2)
        torch.sub(x.narrow(dim, 2, size - 2), x.narrow(dim, 0, size - 2), out=inner)
        inner *= 0.5
    return out


def weighted_gradient(image, factor, *, out=None):
    """Derivatives of an image along every axis, times another image.

    Parameters
    ----------
    image : Tensor, shape (B, 1, *shape)
        Differentiated as `derivative` does.
    factor : Tensor, shape (B, 1, *shape)
        What the derivatives are multiplied with.
    out : Tensor, shape (B, D, *shape), optional
        Where the result goes; neither of the two.

    Returns
    -------
    weighted_gradient : Tensor, shape (B, D, *shape)
        Component ``d`` along axis ``d``; `out` if it was given.
    """
    if dispatch.supports(image, factor, out):
        return kernels.weighted_gradient(image, factor, out=out)
    dim = image.ndim - 2
    out = image.new_empty(len(image), dim, *image.shape[2:]) if out is None else out
    for axis in range(dim):
        torch.mul(derivative(image, axis), factor, out=out[:, axis : axis + 1])
    return out


def jacobian(displacement):
    """Determinant of the Jacobian matrix of ``x + u(x)``, by central differences.

    A ratio of volumes, and so the same whether the field is counted in voxels or
    in millimetres.  One-sided differences at the faces of the grid.

    Parameters
    ----------
    displacement : Tensor, shape (B, D, *shape)
        Field in voxels.

    Returns
    -------
    determinant : Tensor, shape (B, *shape)
        Above 0 everywhere if nothing folds.
    """
    dim = displacement.ndim - 2
    rows = [derivative(displacement, axis) for axis in range(dim)]
    for axis, row in enumerate(rows):
        row[:, axis] += 1
    if dim == 2:
        (a, b), (c, d) = (row.unbind(1) for row in rows)
        return a * d - b * c
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(1) for row in rows)
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
