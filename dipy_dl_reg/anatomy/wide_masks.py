"""Masks of the brain with a margin."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt
import torch

from dipy_dl_reg.anatomy.prediction import AnatomyMaps
from dipy_dl_reg.anatomy.segmentation import mask_brain, sample_probability
from dipy_dl_reg.grid import Grid

#: Volume of a brain with its fluid, mm^3, that a mask must have at least.
_LEAST_VOLUME = 4e5


def mask_brain_with_margin(
    maps: AnatomyMaps, grid: Grid, margin: float
) -> np.ndarray | None:
    """Make a mask of the brain and of all voxels near it.

    Parameters
    ----------
    maps : AnatomyMaps
        The maps.
    grid : Grid
        Grid of the mask, of the same world.
    margin : float
        Largest distance from the brain, mm.

    Returns
    -------
    mask : ndarray of bool, shape (*grid.shape), or None
        The mask; None if the brain has less than 400 ml.
    """
    brain = mask_brain(maps, maps.grid)
    if brain.sum() * maps.grid.spacing.prod() < _LEAST_VOLUME:
        return None
    away = distance_transform_edt(~brain, sampling=maps.grid.spacing)
    wide = torch.from_numpy((away <= margin).astype(np.float32))
    return sample_probability(wide, maps.grid, grid) > 0.5
