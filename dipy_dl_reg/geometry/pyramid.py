"""A pair of images at several resolutions, with exact affines."""

import numpy as np
import torch

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.resampling import resize_image, shrink_mask
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.grid import Grid


def level_spacings(grid: Grid, levels: int) -> list[float]:
    """Voxel sizes of the levels of a pyramid.

    Parameters
    ----------
    grid : Grid
        Grid of the static image.
    levels : int
        Number of levels.

    Returns
    -------
    spacings : list of float
        mm, coarsest first: the smallest voxel size times 2**(levels - 1), ..., 2, 1.
    """
    axes = [s for s, n in zip(grid.spacing, grid.shape) if n > 1]
    return [float(min(axes)) * 2**level for level in range(levels - 1, -1, -1)]


def coarsen(pair: Pair, spacing: float, *, sigma_factor: float) -> Pair:
    """Resample a pair to a coarser resolution.

    Both images are smoothed and resampled to voxels of about `spacing`.  Axes that are
    at least as coarse are not changed, so that anisotropic voxels become isotropic at
    the coarser levels.

    Parameters
    ----------
    pair : Pair
        At full resolution.
    spacing : float
        Wanted voxel size, mm.
    sigma_factor : float
        The standard deviation of the Gaussian along an axis is this times
        ``ratio - 1`` voxels, with ``ratio`` the new voxel size over the old.

    Returns
    -------
    pair : Pair
        At `spacing`.
    """
    static, static_mask, static_grid = _coarsen(
        pair.static, pair.static_mask, pair.static_grid, spacing, sigma_factor
    )
    dim = pair.static_grid.dim
    # If the prealign scales, `spacing` is another length in moving's world.
    scale = abs(np.linalg.det(pair.prealign[:dim, :dim])) ** (1 / dim)
    moving, moving_mask, moving_grid = _coarsen(
        pair.moving, pair.moving_mask, pair.moving_grid, spacing * scale, sigma_factor
    )
    return Pair(
        static,
        moving,
        static_grid,
        moving_grid,
        pair.prealign,
        static_mask,
        moving_mask,
        pair.landmarks,
        pair.reorient,
    )


def _coarsen(
    image: torch.Tensor,
    mask: torch.Tensor | None,
    grid: Grid,
    spacing: float,
    sigma_factor: float,
) -> tuple[torch.Tensor, torch.Tensor | None, Grid]:
    """One image at a coarser resolution, its mask and its grid."""
    new = grid.coarsen(spacing)
    if new.shape == grid.shape:
        return image, mask, grid
    sigma = sigma_factor * (new.spacing / grid.spacing - 1)
    image = resize_image(smooth(image, list(sigma)), new.shape)
    if mask is not None:
        mask = shrink_mask(mask, list(sigma), new.shape)
    return image, mask, new
