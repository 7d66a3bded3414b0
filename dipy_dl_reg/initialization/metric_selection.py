"""Choice of the metric from the images themselves.

Images of the same contrast are positively correlated, and local correlation is the best
metric for them.  Between T1 and b0 the correlation is negative within the tissue, but
positive at the edge of the brain.  Because the metric squares the correlation, it does
not distinguish the two signs and would align wrong structures.  In this case the
intensities of the moving image are first mapped to static's contrast
(`IntensityMapping`): with the anatomy maps of both images, if they show brains
(`anatomy_maps.map_intensities`), else by corresponding voxels; if no function of
intensity explains static, the metric is self-similarity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch

from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.geometry.pair import Pair, compared_voxels
from dipy_dl_reg.geometry.pyramid import coarsen
from dipy_dl_reg.geometry.smoothing import window_moments
from dipy_dl_reg.initialization.intensity_mapping import (
    BINS,
    IntensityMapping,
    find_bins,
    find_highest,
    smooth_rows,
)
from dipy_dl_reg.metrics.base import Metric
from dipy_dl_reg.metrics.histogram import sum_by_index
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.mind import MINDMetric

#: Voxel size, mm, at which the correlation is measured; for images smaller than heads,
#: the voxel size as a fraction of the longest side.  The intensity mapping is estimated
#: with voxels that are larger by the last factor.
_SPACING, _PARTS, _FOR_MAPPING = 3.0, 48, 2 / 3
#: Smoothing of the images before they are sampled on these voxels, see `coarsen`.
_SIGMA_FACTOR = 0.5
#: Windows are cubes ``2 _RADIUS + 1`` voxels wide.
_RADIUS = 2
#: Intensities up to this part of an image's range are background.
_BACKGROUND = 0.05
#: Smallest variance of a window that is counted, and the least number of such windows.
_LEAST_VARIANCE, _LEAST_WINDOWS = 1e-5, 30
#: Part of static's variance that an intensity mapping must explain.  From b0 and MD to
#: T1, in real images of one subject and in T1 brains with the contrast of b0, it
#: explains half and more; from FA to T1, a tenth.
_LEAST_EXPLAINED = 0.3
#: Mean local correlation from which images count as having one contrast.  After the
#: network's alignment that of T1 brains is .6 and more; that of FA with T1, about .3.
SAME_CONTRAST = 0.45
#: Smoothing of the field, voxels, for images of different contrasts: with an intensity
#: mapping, with a weak correlation of either sign, with self-similarity.  In real
#: images, with a weak correlation, less smoothing made the network's field worse (MD:
#: Dice -.010 instead of +.001); in T1 brains with the contrast of b0, whose correlation
#: is strong, more smoothing did (-.019).
_SIGMA_MAPPED, _SIGMA_WEAK, _SIGMA_MIND = 1.0, 1.4, 1.2
#: End of the sentence that says so.
_WEAK = (
    "after the network's alignment: the images agree weakly, and the field is smoothed "
    "more."
)
#: The same with an intensity mapping from anatomy maps, in voxels of the coarser image.
_SIGMA_ANATOMY = 1.0

#: Estimates an intensity mapping with anatomy maps; None if there are no maps.
ContrastMapper = Callable[[], "IntensityMapping | None"]

#: The reason for a mapping from anatomy maps.
_BY_ANATOMY = (
    "Moving's intensities are mapped to static's contrast with the anatomy maps of "
    "both images."
)
#: Why the default network is not tried with such a mapping.
ONE_CONTRAST = (
    "After the intensity mapping with the anatomy maps the images have one contrast, "
    "and refinement finds more of the deformation than the network."
)


class IntensityFunction(Protocol):
    """A function of the intensities of an image, such as an `IntensityMapping`."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Apply the function to an image."""


class MetricChoice(NamedTuple):
    """The metric for two images, and the smoothing and mapping that belong to it.

    Attributes
    ----------
    metric : Metric
        The dissimilarity of the images.
    sigma_field : float
        Smoothing of the field for this metric, voxels.
    contrasts_differ : bool
        Whether the images have different contrasts.
    intensity_mapping : callable or None
        The function to apply to the moving image first, if any: an `IntensityMapping`,
        or one for each channel.
    reason : str
        Sentences for the log: the values on which the choice depends, with their
        ranges.  Empty if the user gave the metric.
    channels : tuple of MetricChoice
        The choices for the channels, if the images have several.
    by_anatomy : bool
        Whether the intensity mapping was estimated with anatomy maps.
    """

    metric: Metric
    sigma_field: float
    contrasts_differ: bool
    intensity_mapping: IntensityFunction | None
    reason: str
    channels: tuple[MetricChoice, ...] = ()
    by_anatomy: bool = False

    def apply_to(self, pair: Pair) -> Pair:
        """Map the intensities of the moving image, if the choice includes a mapping.

        Parameters
        ----------
        pair : Pair
            The images.

        Returns
        -------
        pair : Pair
            The images for the metric.
        """
        if self.intensity_mapping is None:
            return pair
        return pair._replace(moving=self.intensity_mapping(pair.moving))


class _Sampled(NamedTuple):
    """Both images on one grid, through the prealign.

    Attributes
    ----------
    static, moving : Tensor, shape (1, 1, *shape)
        The images.
    compared : Tensor of bool, shape (1, 1, *shape)
        Voxels within both fields of view and both masks.
    foreground : Tensor of bool, shape (1, 1, *shape)
        Compared voxels that are background in neither image.
    """

    static: torch.Tensor
    moving: torch.Tensor
    compared: torch.Tensor
    foreground: torch.Tensor


def select_metric(
    pair: Pair, *, aligned: bool = False, map_contrast: ContrastMapper | None = None
) -> MetricChoice:
    """Choose the metric for two images that are roughly aligned.

    If `mean_local_correlation` is 0 or more, the metric is local correlation, with a
    smoother field if the correlation is weak.  If it is negative, the metric is local
    correlation with the moving image mapped to static's contrast, provided that a
    function of intensity explains enough of static's variance; else self-similarity.
    With a mapping, too, the field is smoother if the correlation is weak.

    Parameters
    ----------
    pair : Pair
        The images.
    aligned : bool, optional
        Whether a network has already aligned the images.  Only then does a weak
        correlation indicate different contrasts; otherwise it can also result from a
        misalignment of a few mm.
    map_contrast : callable, optional
        Estimates an intensity mapping with anatomy maps.  It is called if the
        correlation is negative; its mapping, if there is one, is then used with local
        correlation.

    Returns
    -------
    choice : MetricChoice
        Metric, smoothing of the field and intensity mapping.
    """
    correlation = mean_local_correlation(pair)
    reason = _describe_correlation(correlation)
    if map_contrast is not None and correlation is not None and correlation < 0:
        mapping = map_contrast()
        if mapping is not None:
            sigma = _SIGMA_ANATOMY * _relative_spacing(pair)
            reason = f"{reason} {_BY_ANATOMY}"
            return MetricChoice(CCMetric(), sigma, True, mapping, reason, (), True)
    if correlation is not None and correlation < 0:
        weak = aligned and correlation > -SAME_CONTRAST
        return _select_across_contrasts(pair, reason, weak)
    if not (aligned and correlation is not None and correlation < SAME_CONTRAST):
        return MetricChoice(CCMetric(), CCMetric.sigma_field, False, None, reason)
    reason += f" It is below {SAME_CONTRAST} {_WEAK}"
    return MetricChoice(CCMetric(), _SIGMA_WEAK, True, None, reason)


def _select_across_contrasts(pair: Pair, reason: str, weak: bool) -> MetricChoice:
    """The choice for images with a negative correlation, which may be weak."""
    mapping, explained = _estimate_mapping(_sample_on_one_grid(pair, _FOR_MAPPING))
    reason += (
        " An intensity mapping from moving to static explains "
        f"{100 * max(explained, 0):.0f} % of static's variance "
        f"({100 * _LEAST_EXPLAINED:.0f} % needed)."
    )
    if explained >= _LEAST_EXPLAINED:
        sigma = _SIGMA_WEAK if weak else _SIGMA_MAPPED
        reason += f" The correlation is above -{SAME_CONTRAST} {_WEAK}" if weak else ""
        return MetricChoice(CCMetric(), sigma, True, mapping, reason)
    return MetricChoice(MINDMetric(), _SIGMA_MIND, True, None, reason)


def _relative_spacing(pair: Pair) -> float:
    """Voxel size of moving over that of static, at least 1."""
    sizes = [
        float(np.prod(grid.spacing)) ** (1 / grid.dim)
        for grid in (pair.moving_grid, pair.static_grid)
    ]
    return max(1.0, sizes[0] / sizes[1])


def _describe_correlation(correlation: float | None) -> str:
    """The mean local correlation as a sentence for the log."""
    if correlation is None:
        return (
            "Mean local correlation of the images is unknown: too few windows hold "
            "structure in both."
        )
    return (
        f"Mean local correlation of the images is {correlation:.2f} (range -1 to 1; "
        "negative for opposite contrasts)."
    )


def mean_local_correlation(pair: Pair) -> float | None:
    """Mean signed local correlation of the foreground of two images.

    In windows of 5 voxels of 3 mm (of images smaller than heads, of 1/48 of the longest
    side), ``cov(s, m) / sqrt(var(s) var(m))``, averaged over the windows whose centre
    is background in neither image.

    Parameters
    ----------
    pair : Pair
        The images, roughly aligned.

    Returns
    -------
    correlation : float or None
        Between -1 and 1; None if too few windows hold structure in both images.
    """
    images = _sample_on_one_grid(pair)
    *variances, covariance = window_moments(
        images.static, images.moving, images.foreground, _RADIUS
    )
    counted = images.foreground & (torch.minimum(*variances) > _LEAST_VARIANCE)
    if int(counted.sum()) < _LEAST_WINDOWS:
        return None
    correlation = covariance[counted] / (variances[0] * variances[1])[counted].sqrt()
    return float(correlation.mean())


def _sample_on_one_grid(pair: Pair, factor: float = 1.0) -> _Sampled:
    """Both images on coarse voxels of the static grid, larger by a factor."""
    spacing = factor * min(_SPACING, pair.static_grid.longest_side / _PARTS)
    pair = coarsen(pair, spacing, sigma_factor=_SIGMA_FACTOR)
    static, frame = pair.static, pair.frame()
    zero = static.new_zeros(1, static.ndim - 2, *static.shape[2:])
    moving = warp(pair.moving, zero, frame_=frame)
    compared = compared_voxels(pair, zero, frame)
    foreground = (static > _BACKGROUND) & (moving > _BACKGROUND)
    return _Sampled(static, moving, compared, compared & foreground)


def _estimate_mapping(images: _Sampled) -> tuple[IntensityMapping, float]:
    """Estimate static's mean at each intensity of moving, and the explained variance.

    Background voxels are included, so that background is mapped to background; masked
    voxels are excluded.
    """
    static, moving, compared, foreground = images
    highest = find_highest(moving[foreground])
    bins = find_bins(moving[compared], highest)
    count = torch.bincount(bins, minlength=BINS).to(static)
    total = sum_by_index(bins, static[compared], BINS)
    count, total = smooth_rows(torch.stack([count, total.to(static)]))
    mapping = IntensityMapping(total / count.clamp_min(1e-6), highest)
    residual = (static - mapping(moving))[foreground]
    unexplained = residual.square().mean() / static[foreground].var()
    return mapping, 1 - float(unexplained)
