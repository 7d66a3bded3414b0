"""Python functions for the compiled loops that rotate tensors and harmonics."""

from __future__ import annotations

import torch

from dipy_dl_reg.geometry.kernels.arguments import address, three_sizes
from dipy_dl_reg.geometry.kernels.dispatch import run


def turn_tensors(
    channels: torch.Tensor, u: torch.Tensor, linear: torch.Tensor
) -> torch.Tensor:
    """Rotate tensors by the rotation of a map at each voxel, in place.

    Parameters
    ----------
    channels : Tensor, shape (1, 6, *shape)
        Elements xx, xy, yy, xz, yz, zz; overwritten.
    u : Tensor, shape (1, 3, *shape)
        Displacement in voxels.
    linear : Tensor, shape (3, 3, 3)
        Three matrices P, L and M: Jacobian matrices are ``P + L (du/dx) M``.

    Returns
    -------
    channels : Tensor, shape (1, 6, *shape)
        The same tensor.
    """
    u = u.contiguous()
    run(
        "turn_tensors",
        u,
        address(channels),
        address(u),
        three_sizes(u),
        address(linear),
    )
    return channels


def turn_harmonics(
    channels: torch.Tensor,
    u: torch.Tensor,
    linear: torch.Tensor,
    *,
    polynomials: torch.Tensor,
    directions: torch.Tensor,
    inverse: torch.Tensor,
) -> torch.Tensor:
    """Rotate functions on the sphere by the rotation of a map at each voxel, in place.

    Parameters
    ----------
    channels : Tensor, shape (1, C, *shape)
        Coefficients, at most 15; overwritten.
    u, linear : Tensor
        As for `turn_tensors`.
    polynomials : Tensor, shape (15, C)
        From coefficients to those of a polynomial of degree 4.
    directions : Tensor, shape (C, 3)
        Directions in which the rotated polynomials are evaluated.
    inverse : Tensor, shape (C, C)
        From these values to coefficients.

    Returns
    -------
    channels : Tensor, shape (1, C, *shape)
        The same tensor.
    """
    u, number = u.contiguous(), channels.shape[1]
    pointers = address(channels), address(u), three_sizes(u), number, address(linear)
    matrices = polynomials, directions, inverse
    run("turn_harmonics", u, *pointers, *(address(matrix) for matrix in matrices))
    return channels
