"""Finite differences that the regularizers share."""

import torch


def forward_difference(u: torch.Tensor, axis: int) -> torch.Tensor:
    """Differences between neighbours along one spatial axis.

    Parameters
    ----------
    u : Tensor, shape (B, D, *shape)
        A field.
    axis : int
        Spatial axis, 0 for the first after the components.

    Returns
    -------
    difference : Tensor
        One voxel shorter than `u` along that axis.
    """
    dim = axis + 2
    return u.narrow(dim, 1, u.shape[dim] - 1) - u.narrow(dim, 0, u.shape[dim] - 1)


def differentiable_axes(u: torch.Tensor) -> list[int]:
    """Spatial axes of more than one voxel.

    Parameters
    ----------
    u : Tensor, shape (B, D, *shape)
        A field.

    Returns
    -------
    axes : list of int
        0 for the first axis after the components.
    """
    return [axis for axis in range(u.ndim - 2) if u.shape[axis + 2] > 1]
