"""Two images at a series of resolutions, their geometry kept exact."""

import numpy as np

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.resampling import resize_image, shrink_mask
from dipy_dl_reg.geometry.smoothing import smooth


def level_spacings(grid, levels):
    """Voxel sizes of a pyramid's levels.

    Parameters
    ----------
    grid : Grid
        The static image's.
    levels : int
        How many.

    Returns
    -------
    spacings : list of float
        mm, coarsest first: the smallest voxel size times 2**(levels - 1), ..., 2, 1.
    """
    axes = [s for s, n in zip(grid.spacing, grid.shape) if n > 1]
    return [float(min(axes)) * 2**level for level in range(levels - 1, -1, -1)]


def coarsen(pair, spacing, *, sigma_factor):
    """The pair at a coarser resolution.

    Both images are smoothed and resampled to voxels of about `spacing`; axes that
    are as coarse already stay as they are, so that anisotropic voxels become
    isotropic on the way up.

    Parameters
    ----------
    pair : Pair
        At full resolution.
    spacing : float
        Wanted voxel size, mm.
    sigma_factor : float
        Standard deviation of the Gaussian along an axis is this times
        ``ratio - 1`` voxels, ``ratio`` the new voxel size over the old.

    Returns
    -------
    pair : Pair
        At `spacing`.
    """
    static, static_mask, static_grid = _coarsen(
        pair.static, pair.static_mask, pair.static_grid, spacing, sigma_factor
    )
    dim = pair.static_grid.dim
    # A prealign that scales: as coarse in moving's world as `spacing` is in static's.
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
    )


def _coarsen(image, mask, grid, spacing, sigma_factor):
    new = grid.coarsen(spacing)
    if new.shape == grid.shape:
        return image, mask, grid
    sigma = sigma_factor * (new.spacing / grid.spacing - 1)
    image = resize_image(smooth(image, list(sigma)), new.shape)
    if mask is not None:
        mask = shrink_mask(mask, list(sigma), new.shape)
    return image, mask, new
