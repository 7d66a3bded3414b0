"""What the channels of two images have in common, and how much each is worth.

The metric of each channel is chosen as for images of one channel, but the images can be
aligned better before: if one channel has the same contrast in both images, such as FA
in a registration of b0 and FA to T1 and FA, a coarse refinement by this channel alone
aligns all of them.  An intensity mapping from b0 to T1 is then estimated from
corresponding tissues, and the weights from aligned images.
"""

from __future__ import annotations

from collections.abc import Sequence

from dipy_dl_reg.geometry.fields import resize
from dipy_dl_reg.geometry.pair import Pair, move_pair
from dipy_dl_reg.initialization.acceptance import refine_coarsely
from dipy_dl_reg.initialization.metric_selection import (
    MetricChoice,
    mean_local_correlation,
)
from dipy_dl_reg.metrics.channels import normalise_weights
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.objective import Objective

#: Largest squared correlation that is taken into account in a weight.
_MOST = 0.95
#: Smallest weight of a channel, as a fraction of the largest.  Even a b0 without any
#: correlation with T1 lowered the error of a known field with about this weight.
_LEAST_WEIGHT = 0.06


def find_common_channel(pair: Pair) -> int:
    """Find the channel in which the two images are most similar.

    Parameters
    ----------
    pair : Pair
        The images, roughly aligned.

    Returns
    -------
    index : int
        The channel of the highest `mean_local_correlation`, which networks and the
        search for large displacements use: they take images of one channel.
    """
    if pair.channels == 1:
        return 0
    correlations = [
        mean_local_correlation(pair.channel(k)) for k in range(pair.channels)
    ]
    known = [-1.0 if value is None else value for value in correlations]
    return known.index(max(known))


def align_by_common_channel(pair: Pair) -> Pair:
    """Align two images coarsely by the channel that has the same contrast in both.

    Parameters
    ----------
    pair : Pair
        The images, roughly aligned.

    Returns
    -------
    pair : Pair
        The images after a coarse refinement; the same images if there is no such
        channel, because the mean local correlation is negative or unknown in all.
    """
    index = find_common_channel(pair)
    correlation = mean_local_correlation(pair.channel(index))
    if correlation is None or correlation < 0:
        return pair
    fields = refine_coarsely(pair.channel(index), Objective(CCMetric()))
    shape = pair.static_grid.shape
    u, v = (resize(field, shape) for field in fields)
    return move_pair(pair, u, v)


def estimate_weights(pair: Pair, choices: Sequence[MetricChoice]) -> tuple[float, ...]:
    r"""Estimate the weights of the channels from images that are roughly aligned.

    The weight of a channel is proportional to :math:`r^2 / (1 - r^2)`, with the mean
    local correlation :math:`r` of static and of moving, after its intensity mapping if
    it has one.  This is the ratio of explained to unexplained variance: a channel in
    which the images have little in common, such as FA and T1, has a small weight.  No
    weight is smaller than 0.06 times the largest.

    Parameters
    ----------
    pair : Pair
        The images.
    choices : sequence of MetricChoice
        One for each channel.

    Returns
    -------
    weights : tuple of float
        One for each channel; their sum is 1.
    """
    ratios = []
    for k, choice in enumerate(choices):
        correlation = mean_local_correlation(choice.apply_to(pair.channel(k)))
        square = min((correlation or 0.0) ** 2, _MOST)
        ratios.append(square / (1 - square))
    least = _LEAST_WEIGHT * max(ratios)
    weights = [max(ratio, least) for ratio in ratios] if least else [1.0] * len(ratios)
    return normalise_weights(weights, len(weights))
