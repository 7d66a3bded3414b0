"""Images and displacement fields brought from one grid to another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dipy_dl_reg.geometry.fields import frame, warp
from dipy_dl_reg.grid import Grid


def sample_on_grid(
    image: torch.Tensor, shape: Sequence[int], matrix: np.ndarray
) -> torch.Tensor:
    """Interpolate an image linearly at the voxels of a grid.

    Parameters
    ----------
    image : Tensor, shape (B, C, *image_shape)
        Image or field.
    shape : tuple of int
        Shape of the grid.
    matrix : ndarray, shape (D + 1, D + 1)
        Voxels of the grid to voxels of the image.

    Returns
    -------
    sampled : Tensor, shape (B, C, *shape)
        Beyond the image, the value at its edge.
    """
    zero = image.new_zeros(1, len(shape), *shape)
    frame_ = frame(shape, image.shape[2:], affine=matrix, device=image.device)
    return warp(image, zero, frame_=frame_)


def resample_field(u: torch.Tensor, grid: Grid, target: Grid) -> torch.Tensor:
    """Bring a displacement field to another grid of the same world.

    Parameters
    ----------
    u : Tensor, shape (1, D, *grid.shape)
        Displacements in voxels of `grid`.
    grid, target : Grid
        The grid of the field, and the wanted one.

    Returns
    -------
    resampled : Tensor, shape (1, D, *target.shape)
        The same displacements in voxels of `target`; 0 across a single slice.
    """
    sampled = sample_on_grid(u, target.shape, target.to(grid))
    linear = grid.to(target)[: grid.dim, : grid.dim]
    linear = torch.as_tensor(linear, dtype=u.dtype, device=u.device)
    # A displacement out of a single slice would lead to where there is no image.
    linear[[size == 1 for size in target.shape]] = 0
    return torch.einsum("ij,bj...->bi...", linear, sampled)
