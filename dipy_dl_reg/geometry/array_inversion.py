"""Inversion of a displacement field that is a NumPy array in mm."""

from __future__ import annotations

import numpy as np
import torch

from dipy_dl_reg.geometry.inversion import invert
from dipy_dl_reg.grid import Grid


def invert_array(displacement: np.ndarray, grid: Grid) -> np.ndarray:
    """Invert a map: ``f(z) = -b(z + f(z))`` at every voxel.

    Parameters
    ----------
    displacement : ndarray, shape (*shape, D)
        The field `b`, in mm along the world axes.
    grid : Grid
        Its grid.

    Returns
    -------
    inverse : ndarray of float64, shape (*shape, D)
        The field `f`, in mm along the world axes.
    """
    dim = grid.dim
    linear = grid.affine[:dim, :dim]
    voxels = np.moveaxis(displacement @ np.linalg.inv(linear).T, -1, 0)
    field = torch.from_numpy(np.ascontiguousarray(voxels, dtype=np.float32))[None]
    with torch.no_grad():
        inverse = invert(field)[0].numpy()
    return np.moveaxis(inverse.astype(np.float64), 0, -1) @ linear.T
