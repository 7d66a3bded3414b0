"""Resampling of images and displacement fields to other grids, linearly."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from dipy_dl_reg.geometry.fields import frame, warp
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.grid import Grid


def resize_image(image: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Interpolate an image on a grid of another shape over the same field of view.

    Parameters
    ----------
    image : Tensor, shape (B, C, *old)
        The image.
    shape : sequence of int
        New shape; the centres of the corner voxels are those of the old grid.

    Returns
    -------
    resized : Tensor, shape (B, C, *shape)
        The image on the new grid.
    """
    mode = {2: "bilinear", 3: "trilinear"}[len(shape)]
    return F.interpolate(image, size=tuple(shape), mode=mode, align_corners=True)


def shrink_mask(
    mask: torch.Tensor, sigmas: Sequence[float], shape: Sequence[int]
) -> torch.Tensor:
    """Resample a mask to a grid of larger voxels.

    Parameters
    ----------
    mask : Tensor, shape (B, C, *old)
        0 or 1, one mask for each channel.
    sigmas : sequence of float
        Standard deviation, in voxels along each axis, of the smoothing before.
    shape : sequence of int
        New shape.

    Returns
    -------
    mask : Tensor, shape (B, C, *shape)
        1 at voxels whose fraction in the mask is above half of the largest fraction of
        all voxels, which is 1 unless the mask is thinner than the voxels.
    """
    cover = resize_image(smooth(mask, sigmas), shape)
    highest = cover.flatten(2).amax(2).view(*cover.shape[:2], *[1] * len(shape))
    return (cover > 0.5 * highest).to(mask.dtype)


def sample_on_grid(
    image: torch.Tensor, shape: tuple[int, ...], matrix: np.ndarray
) -> torch.Tensor:
    """Interpolate an image at the voxels of another grid.

    Parameters
    ----------
    image : Tensor, shape (1, C, *image_shape)
        The image; beyond its edge it has the value there.
    shape : tuple of int
        Shape of the grid.
    matrix : ndarray, shape (D + 1, D + 1)
        From the grid's voxels to the image's.

    Returns
    -------
    sampled : Tensor, shape (1, C, *shape)
        The image on the grid.
    """
    no_displacement = image.new_zeros(1, len(shape), *shape)
    into = frame(shape, image.shape[2:], affine=matrix, device=image.device)
    return warp(image, no_displacement, frame_=into)


def resample_field(u: torch.Tensor, grid: Grid, target: Grid) -> torch.Tensor:
    """Resample a displacement field to another grid of the same world.

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
    matrix = grid.to(target)[: grid.dim, : grid.dim]
    linear = torch.as_tensor(matrix, dtype=u.dtype, device=u.device)
    # There is no image outside a single slice, so that the displacement must be 0.
    linear[[size == 1 for size in target.shape]] = 0
    return torch.einsum("ij,bj...->bi...", linear, sampled)
