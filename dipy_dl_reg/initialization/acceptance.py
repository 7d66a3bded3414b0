"""Decides whether refinement starts from a field or from no displacement."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dipy_dl_reg.geometry.fields import resize
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.pyramid import coarsen
from dipy_dl_reg.geometry.resampling import resample_field
from dipy_dl_reg.initialization.channel_metrics import ChannelMetrics
from dipy_dl_reg.initialization.displacement_search import longest_extent
from dipy_dl_reg.initialization.metric_selection import (
    SAME_CONTRAST,
    mean_local_correlation,
)
from dipy_dl_reg.metrics.base import Metric
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.optimization.deformable import Fields, evaluate_energies, refine

#: Smoothing of the images before they are sampled on larger voxels, see `coarsen`.
_SIGMA_FACTOR = 0.5
#: Coarse refinement: voxels along the image's longest side, iterations of each level.
_COARSE, _COARSE_ITERS = 48, (20, 20)


def explain_omission(
    pair: Pair, metric: Metric | ChannelMetrics | None, level_iters: Sequence[int]
) -> str:
    """Say why the default network is not applied to a pair, if this is the case.

    Volumes of the same contrast that are close to each other are registered as
    accurately by a refinement at several levels alone, in half the time.  This was
    measured for local correlation.

    Parameters
    ----------
    pair : Pair
        The images, of one channel.
    metric : Metric, ChannelMetrics or None
        The user's metric, or those of the channels; None is chosen for the images.
    level_iters : sequence of int
        Iterations of the refinement, coarsest level first.

    Returns
    -------
    reason : str
        A text for the log; empty if the network is to be applied.
    """
    given = metric.metrics if isinstance(metric, ChannelMetrics) else (metric,)
    measured = all(each is None or isinstance(each, CCMetric) for each in given)
    if not (measured and any(level_iters[:-1]) and pair.static_grid.dim == 3):
        return ""
    correlation = mean_local_correlation(pair)
    if correlation is None or correlation < SAME_CONTRAST:
        return ""
    return (
        "The network is not applied: the mean local correlation of the images is "
        f"{correlation:.2f} (at least {SAME_CONTRAST}), so that they have the same "
        "contrast and are close to each other, and refinement alone is as accurate."
    )


def improves_similarity(
    pair: Pair,
    displacement: torch.Tensor,
    objective: Objective,
    *,
    spacing: float | None = None,
) -> bool:
    """Whether a field lowers the objective.

    Parameters
    ----------
    pair : Pair
        The images.
    displacement : Tensor, shape (1, D, *static_shape)
        Field in voxels of the static grid.
    objective : Objective
        The function that refinement minimizes.
    spacing : float, optional
        Voxel size, mm, at which it is evaluated; by default that of the images.

    Returns
    -------
    improves : bool
        True if the energy is lower than without displacement.
    """
    if spacing is not None:
        coarse = coarsen(pair, spacing, sigma_factor=_SIGMA_FACTOR)
        displacement = resample_field(
            displacement, pair.static_grid, coarse.static_grid
        )
        pair = coarse
    zero = torch.zeros_like(displacement)
    without, with_field = evaluate_energies(pair, objective, (zero, displacement))
    return with_field < without


def improves_refinement(
    pair: Pair,
    objective: Objective,
    u: torch.Tensor,
    v: torch.Tensor,
    *,
    worth: float = 1.05,
) -> bool:
    """Whether a coarse refinement that starts from a field ends with a lower energy.

    Parameters
    ----------
    pair : Pair
        The images.
    objective : Objective
        The function that refinement minimizes.
    u, v : Tensor, shape (1, D, *static_shape)
        The field and its inverse, in voxels of the static grid.
    worth : float, optional
        Factor by which the decrease of the energy must be larger than without the
        field.  It is above 1 because, if two results have about the same energy, the
        one with the smaller displacement is more reliable.

    Returns
    -------
    improves : bool
        True if the decrease is larger by this factor, on voxels of 1/48 of the longest
        side.
    """
    coarse = _coarsen(pair)
    shape = coarse.static_grid.shape
    start = resize(u, shape), resize(v, shape)
    without, with_field = (
        _refine(coarse, objective, first)[0] for first in (None, start)
    )
    fields = torch.zeros_like(without), without, with_field
    initial, reached, reached_with_field = evaluate_energies(coarse, objective, fields)
    return initial - reached_with_field > worth * (initial - reached)


def refine_coarsely(pair: Pair, objective: Objective) -> Fields:
    """Refine a field on voxels of 1/48 of the longest side.

    Parameters
    ----------
    pair : Pair
        The images.
    objective : Objective
        The function to minimize.

    Returns
    -------
    displacement, inverse : Tensor, shape (1, D, *coarse_shape)
        In voxels of the coarse grid, which has the field of view of static.
    """
    return _refine(_coarsen(pair), objective)


def _coarsen(pair: Pair) -> Pair:
    """The images on the voxels of a coarse refinement."""
    spacing = longest_extent(pair.static_grid) / _COARSE
    return coarsen(pair, spacing, sigma_factor=_SIGMA_FACTOR)


def _refine(coarse: Pair, objective: Objective, start: Fields | None = None) -> Fields:
    """Field and inverse after a coarse refinement."""
    return refine(
        coarse,
        objective,
        level_iters=_COARSE_ITERS,
        start=start,
        sigma_factor=_SIGMA_FACTOR,
    )
