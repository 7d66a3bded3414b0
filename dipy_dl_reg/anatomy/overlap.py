"""Overlap of the anatomy maps of two images: a measure of a registration.

The maps of both images are predicted from each image alone.  A registration that did
not use them is therefore judged by information that it did not optimize.  Between
opposite contrasts, `DeepRegistration` does use them (`anatomy="auto"`).
"""

from __future__ import annotations

from math import isnan
from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.anatomy.classes import CLASSES, FLUID, OUTSIDE
from dipy_dl_reg.anatomy.prediction import AnatomyMaps
from dipy_dl_reg.geometry.fields import frame, warp
from dipy_dl_reg.geometry.pair import inside_mask
from dipy_dl_reg.geometry.resampling import resample_field
from dipy_dl_reg.grid import Grid

#: Classes that are compared.  The fluid around the brain is not, because an image that
#: was stripped of its skull shows a part of it only.
STRUCTURES = tuple(k for k in range(len(CLASSES)) if k not in (*OUTSIDE, FLUID))
#: Every n-th voxel of static's maps is compared, along each axis.
_STEP = 2
#: Smallest volume of a structure, mm^3, and smallest number of structures of this
#: volume in an image that shows a brain.
_LEAST_VOLUME, _LEAST_COUNT = 1200.0, 8


class AnatomyOverlap(NamedTuple):
    """Overlap of the anatomy maps of two images in three positions.

    The overlap is the soft Dice coefficient ``2 sum(s m) / sum(s**2 + m**2)`` of the
    probabilities `s` and `m` of a structure, the mean over structures, weighted by the
    square root of the larger of both volumes: the maps of small structures are less
    certain.

    Attributes
    ----------
    before : float
        Overlap by the affines of the images alone.
    affine : float
        Overlap with the prealign.
    after : float
        Overlap with the whole map.
    """

    before: float
    affine: float
    after: float


def measure_anatomy_overlap(
    static: AnatomyMaps,
    moving: AnatomyMaps,
    *,
    prealign: np.ndarray,
    displacement: torch.Tensor | None = None,
    grid: Grid | None = None,
) -> AnatomyOverlap | None:
    """Measure how well the anatomy maps of two images overlap, before and after a map.

    Parameters
    ----------
    static, moving : AnatomyMaps
        The maps of both images.
    prealign : ndarray, shape (4, 4)
        Static world to moving world.
    displacement : Tensor, shape (1, 3, *grid.shape), optional
        Field in voxels of `grid`; by default the map is the prealign alone.
    grid : Grid, optional
        The grid of the displacement.

    Returns
    -------
    overlap : AnatomyOverlap or None
        The overlap at every second voxel along each axis of static's maps, as far as
        moving shows them.  None if an image does not show a brain: less than eight
        structures of 1.2 ml or more are found in it.
    """
    if not (_shows_brain(static) and _shows_brain(moving)):
        return None
    coarse = _subsample(static)
    zero = static.probabilities.new_zeros(1, 3, *coarse.grid.shape)
    before = _compare(coarse, moving, np.eye(4), zero)
    affine = _compare(coarse, moving, prealign, zero)
    after = affine
    if displacement is not None and grid is not None:
        u = resample_field(displacement.to(zero), grid, coarse.grid)
        after = _compare(coarse, moving, prealign, u)
    return None if isnan(affine) else AnatomyOverlap(before, affine, after)


def _shows_brain(maps: AnatomyMaps) -> bool:
    """Whether enough structures are large enough."""
    voxel = float(maps.grid.spacing.prod())
    volumes = maps.probabilities[list(STRUCTURES)].flatten(1).sum(1) * voxel
    return int((volumes >= _LEAST_VOLUME).sum()) >= _LEAST_COUNT


def _subsample(maps: AnatomyMaps) -> AnatomyMaps:
    """Every n-th voxel of the maps, along each axis."""
    part = maps.probabilities[:, ::_STEP, ::_STEP, ::_STEP]
    affine = maps.grid.affine @ np.diag([_STEP, _STEP, _STEP, 1.0])
    shape = tuple(int(n) for n in part.shape[1:])
    return AnatomyMaps(part.contiguous(), Grid(shape, affine))


def _compare(
    static: AnatomyMaps, moving: AnatomyMaps, prealign: np.ndarray, u: torch.Tensor
) -> float:
    """Mean soft Dice of the structures, where moving shows static's voxels."""
    shape, grid = static.grid.shape, moving.grid
    matrix, chosen = static.grid.to(grid, prealign), list(STRUCTURES)
    into = frame(shape, grid.shape, affine=matrix, device=u.device)
    warped = warp(moving.probabilities[None, chosen], u, frame_=into)[0]
    seen = inside_mask(shape, grid.shape, matrix, device=u.device)[0]
    first, second = static.probabilities[chosen] * seen, warped * seen
    both, each = (
        x.flatten(1).sum(1) for x in (2 * first * second, first**2 + second**2)
    )
    weights = torch.maximum(first.flatten(1).sum(1), second.flatten(1).sum(1)).sqrt()
    if float(weights.sum()) == 0:
        return float("nan")
    return float((weights * both / each.clamp_min(1e-6)).sum() / weights.sum())
