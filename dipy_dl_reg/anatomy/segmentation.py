"""Labels and brain masks on the grid of an image, from its anatomy maps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import binary_fill_holes, label
import torch

from dipy_dl_reg.anatomy.classes import CLASSES, brain_probability
from dipy_dl_reg.anatomy.prediction import AnatomyMaps
from dipy_dl_reg.anatomy.resampling import resample_maps
from dipy_dl_reg.grid import Grid

#: Probability above which a voxel belongs to the brain.  Masks of brain extraction are
#: a little wider than the brain; tools/experiments/anatomy.py compares with such masks.
BRAIN_THRESHOLD = 0.35
#: Number of values of all classes that are in memory at once.
_VALUES = 40_000_000


def label_voxels(maps: AnatomyMaps, grid: Grid) -> np.ndarray:
    """Label the voxels of a grid with the most probable class.

    Parameters
    ----------
    maps : AnatomyMaps
        The maps.
    grid : Grid
        Grid of the same world.

    Returns
    -------
    labels : ndarray of int16, shape (*grid.shape)
        Labels in FreeSurfer's numbering; 0 is air.
    """
    numbers = np.array([of.label for of in CLASSES], dtype=np.int16)
    labels = np.zeros(grid.shape, dtype=np.int16)
    for first, slab in _make_slabs(grid, maps.probabilities.shape[0]):
        number = resample_maps(maps, slab)[0].argmax(0).cpu().numpy()
        labels[first : first + slab.shape[0]] = numbers[number]
    return labels


def _make_slabs(grid: Grid, classes: int) -> Iterator[tuple[int, Grid]]:
    """Parts of a grid along its first axis, with the number of their first slice."""
    count = max(1, _VALUES // (classes * int(np.prod(grid.shape[1:]))))
    for first in range(0, grid.shape[0], count):
        affine = grid.affine.copy()
        affine[:3, 3] += first * affine[:3, 0]
        size = min(count, grid.shape[0] - first)
        yield first, Grid((size, *grid.shape[1:]), affine)


def sample_probability(probability: torch.Tensor, of: Grid, grid: Grid) -> np.ndarray:
    """Sample one map on another grid.

    Parameters
    ----------
    probability : Tensor, shape (*of.shape)
        Values of the map.
    of, grid : Grid
        The grid of the map, and the wanted one.

    Returns
    -------
    sampled : ndarray of float32, shape (*grid.shape)
        0 outside the field of view of the map.
    """
    both = torch.stack([1 - probability, probability])
    sampled = resample_maps(AnatomyMaps(both, of), grid)
    return sampled[0, 1].cpu().numpy()


def mask_brain(
    maps: AnatomyMaps,
    grid: Grid,
    *,
    fluid: bool = True,
    threshold: float = BRAIN_THRESHOLD,
) -> np.ndarray:
    """Mask the brain on a grid.

    Parameters
    ----------
    maps : AnatomyMaps
        The maps.
    grid : Grid
        Grid of the same world.
    fluid : bool, optional
        Whether the fluid around the brain belongs to the mask.
    threshold : float, optional
        Probability above which a voxel belongs to the brain.

    Returns
    -------
    mask : ndarray of bool, shape (*grid.shape)
        The largest connected part, with its holes filled; empty if there is no brain.
    """
    probability = brain_probability(maps.probabilities, fluid=fluid)
    sampled = sample_probability(probability, maps.grid, grid)
    return fill_largest_part(sampled > threshold)


def fill_largest_part(mask: np.ndarray) -> np.ndarray:
    """Select the largest connected part of a mask, and fill its holes.

    Parameters
    ----------
    mask : ndarray of bool
        The mask.

    Returns
    -------
    filled : ndarray of bool
        Voxels are connected by their faces.
    """
    parts, count = label(mask)
    if count > 1:
        mask = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    return binary_fill_holes(mask)
