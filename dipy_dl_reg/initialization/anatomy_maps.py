"""Anatomy maps of both images of a pair, and what they say about the intensities.

An intensity mapping that is estimated from corresponding voxels needs images that are
well aligned: at the affine alignment, cerebrospinal fluid in a sulcus of one image lies
on the cortex of the other, and the contrast of sulci is lost.  The anatomy maps of each
image give the intensities of each structure without any alignment
(`map_intensities`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from dipy_dl_reg.anatomy.brain_view import can_show_brain
from dipy_dl_reg.anatomy.classes import CLASSES, OUTSIDE
from dipy_dl_reg.anatomy.plausibility import is_plausible
from dipy_dl_reg.anatomy.prediction import AnatomyMaps, predict_anatomy
from dipy_dl_reg.geometry.pair import Pair, inside_mask
from dipy_dl_reg.geometry.resampling import sample_on_grid
from dipy_dl_reg.grid import Grid, rotation_angle
from dipy_dl_reg.initialization.intensity_mapping import (
    BINS,
    IntensityMapping,
    find_highest,
    smooth_rows,
)

#: Exponent of probabilities: a larger one counts fewer voxels at the boundaries of
#: structures, where images mix intensities and maps are least certain.
_SHARPNESS = 8
#: Smallest sum of weights of a structure in an image that is counted, voxels of 2 mm.
_LEAST_WEIGHT = 20.0
#: Intensities up to this part of an image's range are background.
_BACKGROUND = 0.02
#: A rotation that can turn a head against its header, degrees.
_TURNED = 30.0
#: Bins of the histograms of structures, for each bin of an intensity mapping.
_FINE = 8


#: Structures whose maps are channels of the objective, each left and right together.
CHANNELS = (
    ("cerebral white matter",),
    ("cerebral cortex",),
    ("lateral ventricle", "third ventricle"),
    ("cerebellar white matter",),
    ("cerebellar cortex",),
    ("thalamus",),
    ("caudate",),
    ("putamen", "pallidum"),
    ("brain stem",),
    ("cerebrospinal fluid",),
)


class PairMaps(NamedTuple):
    """Anatomy maps of the two images of a pair.

    Attributes
    ----------
    static, moving : AnatomyMaps
        Each on a grid of the field of view of its image.
    """

    static: AnatomyMaps
    moving: AnatomyMaps


def predict_pair_maps(pair: Pair) -> PairMaps | None:
    """Predict the anatomy maps of both images.

    Parameters
    ----------
    pair : Pair
        The images; of images with several channels, the first is used.  Voxels outside
        the masks are background.

    Returns
    -------
    maps : PairMaps or None
        None if an image does not show a whole brain.  A head that is turned against its
        header is found if the other one is upright, and the prealign contains the
        rotation.
    """
    if not (can_show_brain(pair.static_grid) and can_show_brain(pair.moving_grid)):
        return None
    first = pair.channel(0)
    static = first.static, first.static_mask, pair.static_grid
    moving = first.moving, first.moving_mask, pair.moving_grid
    found = _predict(*static, None)
    if found is not None:
        other = _predict(*moving, np.linalg.inv(pair.prealign))
        return None if other is None else PairMaps(found, other)
    if rotation_angle(pair.prealign[:3, :3]) < _TURNED:
        return None
    other = _predict(*moving, None)
    found = None if other is None else _predict(*static, pair.prealign)
    return None if other is None or found is None else PairMaps(found, other)


def _predict(
    image: torch.Tensor,
    mask: torch.Tensor | None,
    grid: Grid,
    pose: np.ndarray | None,
) -> AnatomyMaps | None:
    """The maps of one image, on its device; None if they do not show a brain."""
    values = image[0, 0].cpu().numpy()
    counted = None if mask is None else mask[0, 0].cpu().numpy()
    maps = predict_anatomy(values, grid, device=image.device, mask=counted, pose=pose)
    return maps if is_plausible(maps, pose) else None


def add_map_channels(pair: Pair, maps: PairMaps) -> Pair:
    """Add the maps of `CHANNELS` to the channels of both images.

    Parameters
    ----------
    pair : Pair
        The images.
    maps : PairMaps
        Their maps.

    Returns
    -------
    pair : Pair
        With the maps as last channels, masked as the first channel is.
    """
    return pair._replace(
        static=_append_maps(pair.static, maps.static, pair.static_grid),
        moving=_append_maps(pair.moving, maps.moving, pair.moving_grid),
        static_mask=_extend_mask(pair.static_mask),
        moving_mask=_extend_mask(pair.moving_mask),
    )


def _append_maps(image: torch.Tensor, maps: AnatomyMaps, grid: Grid) -> torch.Tensor:
    """An image with the maps of `CHANNELS`, which are 0 outside their field of view."""
    matrix = grid.to(maps.grid)
    parts = torch.stack(
        [maps.probabilities[_find_classes(names)].sum(0) for names in CHANNELS]
    )
    inside = inside_mask(grid.shape, maps.grid.shape, matrix, device=image.device)
    sampled = sample_on_grid(parts[None], grid.shape, matrix) * inside
    return torch.cat([image, sampled], 1)


def _extend_mask(mask: torch.Tensor | None) -> torch.Tensor | None:
    """The masks of all channels; one for all remains one."""
    if mask is None or mask.shape[1] == 1:
        return mask
    shape = (1, len(CHANNELS), *mask.shape[2:])
    return torch.cat([mask, mask[:, :1].expand(shape)], 1)


def map_intensities(pair: Pair, maps: PairMaps) -> IntensityMapping:
    r"""Estimate a function from moving's to static's intensities, without alignment.

    With the probability :math:`p(k \mid v)` that a voxel of moving of intensity
    :math:`v` belongs to structure :math:`k`, from moving's maps, and the quantile
    functions :math:`Q_k` of the intensities of the structure in static and
    :math:`F_k` the distribution function of those in moving,

    .. math:: f(v) = \sum_k p(k \mid v) \; Q_k(F_k(v))

    with :math:`Q_k(1 - F_k(v))` if the medians of the structures in the two images are
    negatively correlated: bright voxels within a structure of moving, such as cortex
    beside the fluid of a sulcus in a b0 image, are then dark in static.

    Parameters
    ----------
    pair : Pair
        The images, of one channel.
    maps : PairMaps
        Their maps.

    Returns
    -------
    mapping : IntensityMapping
        For the intensities of moving.
    """
    static = _measure(pair.static, pair.static_mask, pair.static_grid, maps.static)
    moving = _measure(pair.moving, pair.moving_mask, pair.moving_grid, maps.moving)
    least = np.minimum(static.counts.sum(1), moving.counts.sum(1))
    known = np.flatnonzero(least > _LEAST_WEIGHT)
    reverse = _median_correlation(static, moving, known) < 0
    centres = (np.arange(BINS) + 0.5) / BINS * moving.highest
    given = moving.counts.reshape(len(least), BINS, _FINE).sum(2)
    shares = smooth_rows(torch.from_numpy(given).float()).numpy()
    total = np.zeros(BINS)
    for k in known:
        rank = moving.rank(int(k), centres)
        # Outside of the brain: the background of one is that of the other.
        level = np.full(BINS, 0.5) if k == 0 else 1 - rank if reverse else rank
        total += shares[k] * static.quantile(int(k), level)
    values = total / np.maximum(shares[known].sum(0), 1e-6)
    return IntensityMapping(
        torch.from_numpy(values).float().to(pair.moving), moving.highest
    )


class _Intensities(NamedTuple):
    """Intensities of the structures of an image.

    Attributes
    ----------
    counts : ndarray, shape (K, _FINE * BINS)
        Histogram of each structure, left and right together.
    highest : float
        Upper end of the last bin.
    """

    counts: np.ndarray
    highest: float

    @property
    def centres(self) -> np.ndarray:
        """Centres of the bins."""
        return (np.arange(_FINE * BINS) + 0.5) / (_FINE * BINS) * self.highest

    def rank(self, structure: int, values: np.ndarray) -> np.ndarray:
        """Part of a structure that is darker than each of some intensities."""
        return np.interp(values, self.centres, self._cumulative(structure))

    def quantile(self, structure: int, level: np.ndarray) -> np.ndarray:
        """Intensity below which a part of a structure lies."""
        # Strictly increasing: bins can be empty.
        rank = self._cumulative(structure) + 1e-9 * np.arange(_FINE * BINS)
        return np.interp(level, rank, self.centres)

    def median(self, structure: int) -> float:
        """Median intensity of a structure."""
        return float(self.quantile(structure, np.array(0.5)))

    def _cumulative(self, structure: int) -> np.ndarray:
        """Distribution function at the centres of the bins."""
        counts = self.counts[structure]
        return (counts.cumsum() - counts / 2) / max(counts.sum(), 1e-6)


def _find_classes(structures: tuple[str, ...]) -> list[int]:
    """Numbers of the classes of some structures, on both sides."""
    return [k for k, of in enumerate(CLASSES) if of.structure in structures]


#: Numbers of the classes of each structure: air, bone and soft tissue first.
_STRUCTURES = (
    list(OUTSIDE),
    *(
        _find_classes((name,))
        for name in dict.fromkeys(
            of.structure for k, of in enumerate(CLASSES) if k not in OUTSIDE
        )
    ),
)


def _measure(
    image: torch.Tensor, mask: torch.Tensor | None, grid: Grid, maps: AnatomyMaps
) -> _Intensities:
    """Histograms of an image on the grid of its maps, without masked voxels."""
    shape, matrix = maps.grid.shape, maps.grid.to(grid)
    inside = inside_mask(shape, grid.shape, matrix, device=image.device)
    if mask is not None:
        inside = inside & (sample_on_grid(mask, shape, matrix) > 0.5)
    values = sample_on_grid(image, shape, matrix)[inside].cpu()
    highest = find_highest(values[values > _BACKGROUND])
    bins = (values * (_FINE * BINS / highest)).long().clamp_(0, _FINE * BINS - 1)
    weights = maps.probabilities[:, inside[0, 0]].cpu()
    counts = [
        # In double precision, as `bincount` sums in the order of the voxels.
        torch.bincount(bins, weights[of].sum(0).double().pow(_SHARPNESS), _FINE * BINS)
        for of in _STRUCTURES
    ]
    return _Intensities(torch.stack(counts).numpy(), highest)


def _median_correlation(
    static: _Intensities, moving: _Intensities, known: Any
) -> float:
    """Correlation of the structures' medians in the two images, air left out."""
    inner = [k for k in known if k > 0]
    if len(inner) < 2:
        return 0.0
    medians = np.array([[each.median(k) for each in (static, moving)] for k in inner])
    # By the root of the volume: the ventricles count beside the white matter.
    weights = np.sqrt([moving.counts[k].sum() for k in inner])
    centred = medians - np.average(medians, axis=0, weights=weights)
    covariance = np.einsum("k,ki,kj->ij", weights, centred, centred)
    scale = np.sqrt(covariance[0, 0] * covariance[1, 1])
    return float(covariance[0, 1] / scale) if scale > 0 else 0.0
