"""Finite differences and their transposes, for energies that are quadratic in a field.

Images and fields are ``(B, C, *shape)``; results have the same shape.
"""

import torch


def forward_difference(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Differences of each voxel's next neighbour and the voxel itself.

    Parameters
    ----------
    x : Tensor, shape (B, C, *shape)
        Images or fields.
    axis : int
        Spatial axis, 0 for the first after the channels.

    Returns
    -------
    difference : Tensor, same shape as `x`
        0 at the last voxel of the axis.
    """
    out, dim = torch.zeros_like(x), axis + 2
    size = x.shape[dim] - 1
    ahead, here = x.narrow(dim, 1, size), x.narrow(dim, 0, size)
    torch.sub(ahead, here, out=out.narrow(dim, 0, size))
    return out


def forward_transposed(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Apply the transpose of `forward_difference`.

    Parameters
    ----------
    x : Tensor, shape (B, C, *shape)
        Images or fields.
    axis : int
        Spatial axis.

    Returns
    -------
    transposed : Tensor, same shape as `x`
        ``sum(forward_difference(a) * x)`` is ``sum(a * transposed)``.
    """
    out, dim = torch.zeros_like(x), axis + 2
    size = x.shape[dim] - 1
    inner = x.narrow(dim, 0, size)
    out.narrow(dim, 0, size).sub_(inner)
    out.narrow(dim, 1, size).add_(inner)
    return out


def derivative_transposed(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Apply the transpose of `dipy_dl_reg.geometry.derivatives.derivative`.

    Parameters
    ----------
    x : Tensor, shape (B, C, *shape)
        Images or fields.
    axis : int
        Spatial axis.

    Returns
    -------
    transposed : Tensor, same shape as `x`
        ``sum(derivative(a) * x)`` is ``sum(a * transposed)``.
    """
    out, dim, size = torch.zeros_like(x), axis + 2, x.shape[axis + 2]
    if size == 1:
        return out
    weighted = x * 0.5
    for end in (0, size - 1):  # differences are one-sided there
        weighted.narrow(dim, end, 1).mul_(2)
    # The difference at a voxel has its upper neighbour with a positive weight and its
    # lower one with a negative weight; at an end, the voxel replaces the missing one.
    out.narrow(dim, 1, size - 1).add_(weighted.narrow(dim, 0, size - 1))
    out.narrow(dim, 0, size - 1).sub_(weighted.narrow(dim, 1, size - 1))
    out.narrow(dim, 0, 1).sub_(weighted.narrow(dim, 0, 1))
    out.narrow(dim, size - 1, 1).add_(weighted.narrow(dim, size - 1, 1))
    return out


def sum_of_neighbours(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Add the two neighbours of each voxel along an axis.

    Parameters
    ----------
    x : Tensor, shape (B, C, *shape)
        Images or fields.
    axis : int
        Spatial axis.

    Returns
    -------
    total : Tensor, same shape as `x`
        A neighbour beyond an end counts 0.
    """
    out, dim = torch.zeros_like(x), axis + 2
    size = x.shape[dim] - 1
    out.narrow(dim, 0, size).add_(x.narrow(dim, 1, size))
    out.narrow(dim, 1, size).add_(x.narrow(dim, 0, size))
    return out
