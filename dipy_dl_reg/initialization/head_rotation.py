"""The rotation between two whole heads, by a search over all rotations."""

from __future__ import annotations

import numpy as np
import torch

from dipy_dl_reg.anatomy.intensities import prepare_intensities
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.pair_scaling import scale_separately
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization.rotation_search import search_rotations


def find_head_rotation(
    image: np.ndarray, grid: Grid, upright: np.ndarray, upright_grid: Grid
) -> np.ndarray:
    """Find the rigid map from a head in any pose to an upright one.

    Parameters
    ----------
    image : ndarray, 3D
        The head that may be turned.
    grid : Grid
        Its grid.
    upright : ndarray, 3D
        The head that is upright.
    upright_grid : Grid
        Its grid.

    Returns
    -------
    pose : ndarray, shape (4, 4)
        From the world of `image` to that of `upright`.
    """
    prepared = [prepare_intensities(x) for x in (image, upright)]
    tensors = [torch.from_numpy(x)[None, None] for x in prepared]
    pair = Pair(tensors[0], tensors[1], grid, upright_grid, np.eye(4))
    start = np.eye(4)
    centres = [_find_centre(x, g) for x, g in zip(prepared, (grid, upright_grid))]
    start[:3, 3] = centres[1] - centres[0]
    return search_rotations(scale_separately(pair), start).best.matrix


def _find_centre(image: np.ndarray, grid: Grid) -> np.ndarray:
    """Centre of mass in the world."""
    total = image.sum(dtype=np.float64)
    voxel = [
        image.sum(tuple(k for k in range(3) if k != axis), dtype=np.float64)
        @ np.arange(size)
        / total
        for axis, size in enumerate(image.shape)
    ]
    return grid.affine[:3, :3] @ voxel + grid.affine[:3, 3]
