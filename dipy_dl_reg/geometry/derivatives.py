"""Derivatives of images and fields on a voxel grid, by finite differences.

A field is ``(B, D, *shape)`` in voxels, as in `dipy_dl_reg.geometry.fields`.
"""

import torch

from dipy_dl_reg.geometry.kernels import dispatch
from dipy_dl_reg.geometry.kernels import functions as kernels


def derivative(
    x: torch.Tensor, axis: int, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Central differences along one spatial axis, one-sided at the two ends.

    Parameters
    ----------
    x : Tensor, shape (B, C, *shape)
        Images or fields.
    axis : int
        Spatial axis, 0 for the first after the channels.
    out : Tensor, optional
        Tensor for the result; it must not be `x`.

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


def weighted_gradient(
    image: torch.Tensor, factor: torch.Tensor, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Gradient of images, times other images at each voxel, summed over channels.

    Parameters
    ----------
    image : Tensor, shape (B, C, *shape)
        Differentiated as by `derivative`.
    factor : Tensor, shape (B, C, *shape)
        Factor of each channel's derivatives at each voxel.
    out : Tensor, shape (B, D, *shape), optional
        Tensor for the result; it must be neither of the two.

    Returns
    -------
    gradient : Tensor, shape (B, D, *shape)
        Component ``d`` along axis ``d``; `out` if it was given.
    """
    if dispatch.supports(image, factor, out):
        return kernels.weighted_gradient(image, factor, out=out)
    dim = image.ndim - 2
    out = image.new_empty(len(image), dim, *image.shape[2:]) if out is None else out
    for axis in range(dim):
        component, parts = out[:, axis : axis + 1], derivative(image, axis)
        if image.shape[1] == 1:
            torch.mul(parts, factor, out=component)
        else:
            torch.sum(parts.mul_(factor), 1, keepdim=True, out=component)
    return out


def jacobian(displacement: torch.Tensor) -> torch.Tensor:
    """Determinant of the Jacobian matrix of ``x + u(x)``, by central differences.

    The determinant is a ratio of volumes; it is therefore the same for a field in
    voxels and in mm.
    Differences are one-sided at the faces of the grid.

    Parameters
    ----------
    displacement : Tensor, shape (B, D, *shape)
        Field in voxels.

    Returns
    -------
    determinant : Tensor, shape (B, *shape)
        Above 0 everywhere if the map does not fold.
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
