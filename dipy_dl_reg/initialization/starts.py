"""Chooses the initial displacement field and the metric of a refinement.

`choose_start` decides in this order:

1. Landmarks, if there are any: the thin-plate spline through them is applied first, and
   all later steps use the images warped by the spline.
2. The network, if there is one: its field is used if it increases the similarity of the
   images (`_is_useful`); a field of zeros is ignored without a message.  The default
   network is not applied where refinement alone is as accurate (`explain_omission`).
3. The search for large displacements, if it was requested and no network's field is
   used: with "discrete" its field is always used, with "auto" only if a coarse
   refinement improves.
4. The metric, unless the user gave one: it is chosen for the images warped by the field
   that is used.  For a network that is not symmetric, a metric is chosen before, for
   the images without the field, to decide whether the field is used.  Without a network
   and iterations no metric is chosen.

If memory runs out, refinement begins without an initial field.

If the images have several channels, the network and the search take the channel in
which the images are most similar (`find_common_channel`), the metric is chosen for each
channel by itself, and whether a field is used is decided by the metric of all channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from dipy_dl_reg.geometry.fields import compose
from dipy_dl_reg.geometry.fold_repair import make_diffeomorphic
from dipy_dl_reg.geometry.pair import Pair, move_pair
from dipy_dl_reg.geometry.thin_plate_grid import start_field
from dipy_dl_reg.initialization.acceptance import (
    explain_omission,
    improves_refinement,
    improves_similarity,
)
from dipy_dl_reg.initialization.channel_metrics import (
    ChannelMetrics,
    combine_choices,
    metric_of_channel,
)
from dipy_dl_reg.initialization.channel_selection import (
    align_by_common_channel,
    estimate_weights,
    find_common_channel,
)
from dipy_dl_reg.initialization.displacement_search import search_displacements
from dipy_dl_reg.initialization.messages import Message, describe_dropped_field
from dipy_dl_reg.initialization.metric_selection import (
    ONE_CONTRAST,
    SAME_CONTRAST,
    ContrastMapper,
    MetricChoice,
    mean_local_correlation,
    select_metric,
)
from dipy_dl_reg.initialization.network import predict_displacement
from dipy_dl_reg.metrics.base import Metric
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.metrics.registry import METRICS
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.optimization import memory
from dipy_dl_reg.optimization.deformable import Fields

#: Factor by which the decrease of the energy in a coarse refinement must be larger with
#: the default network's field than without it: if two results are about equal, the one
#: with the smaller displacement is more reliable.
_WORTH_IT = 1.01
#: Mean local correlation below which images are of opposite contrasts, and not only
#: far apart.
_OPPOSITE = -0.15


@dataclass(frozen=True)
class Initializers:
    """The methods of initialization that a registration's options allow.

    Attributes
    ----------
    objective : callable
        ``objective(metric)`` is the `Objective` that refinement minimizes.
    metric : Metric, ChannelMetrics or None
        The user's metric, or those of the channels; with None the metric is chosen for
        the images.
    network : RegistrationNetwork or None
        The network whose field is tried.
    network_is_default : bool
        Whether the package chose the network: its field must then lead to a better
        coarse refinement, too.
    search : {"discrete", "auto"} or None
        Whether large displacements are searched for.
    level_iters : sequence of int
        Iterations of the refinement, coarsest level first.
    budget : float
        Bytes of memory that may be used.
    map_contrast : callable or None
        Estimates an intensity mapping for the images with anatomy maps, see
        `select_metric`; None if anatomy maps are not to be used.
    """

    objective: Callable[[Metric], Objective]
    metric: Metric | ChannelMetrics | None = None
    network: RegistrationNetwork | None = None
    network_is_default: bool = False
    search: Literal["discrete", "auto"] | None = None
    level_iters: Sequence[int] = ()
    budget: float = float("inf")
    map_contrast: ContrastMapper | None = None

    @property
    def refines(self) -> bool:
        """Whether any iterations follow."""
        return any(self.level_iters)

    @property
    def prefers_anatomy(self) -> bool:
        """Whether a mapping from anatomy maps makes the network unnecessary."""
        automatic = self.metric is None and self.network_is_default
        return automatic and self.refines and self.map_contrast is not None


class Start(NamedTuple):
    """Initial displacement field and metric of a refinement.

    Attributes
    ----------
    fields : tuple of Tensor, shape (1, D, *static_shape), or None
        A displacement and its inverse, in voxels of the static grid; None for no
        displacement.
    comparison : MetricChoice
        The metric, and the smoothing and intensity mapping that belong to it.
    source : tuple of str
        Where the fields come from: "landmarks", "network" and "search", in the order
        in which they were applied.
    messages : tuple of Message
        The decisions and their reasons, for the log.
    spline_folds : bool
        Whether the spline through the landmarks had to be repaired.
    network_reason : str
        Why the network's field is used or not; empty if no network was tried.
    """

    fields: Fields | None
    comparison: MetricChoice
    source: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    spline_folds: bool = False
    network_reason: str = ""


class _Attempt(NamedTuple):
    """Result of one method: fields, why, and a metric if one was chosen for it."""

    fields: Fields | None = None
    comparison: MetricChoice | None = None
    messages: tuple[Message, ...] = ()
    reason: str = ""


def choose_start(pair: Pair, initializers: Initializers, whole: Pair) -> Start:
    """Choose the initial field of a refinement, and its metric.

    Parameters
    ----------
    pair : Pair
        The images, masks and landmarks.
    initializers : Initializers
        The methods of initialization to try.
    whole : Pair
        The input of the network: the same images, possibly without masks.

    Returns
    -------
    start : Start
        See the docstring of this module for the order of decisions.
    """
    try:
        return _try_in_order(pair, whole, initializers)
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out_of_memory(error):
            raise
    # Outside `except`, so that the traceback and the tensors in it are freed.
    text = "Memory has run out: refinement begins without an initial field."
    warning = Message(text, True)
    comparison, messages = _choose_metric(pair, initializers)
    return Start(None, comparison, messages=(warning, *messages))


def _try_in_order(pair: Pair, whole: Pair, initializers: Initializers) -> Start:
    """Try landmarks, network and search; then choose the metric."""
    source: tuple[str, ...] = ()
    spline, folds = None, False
    if pair.landmarks is not None:
        u, v, quality = make_diffeomorphic(start_field(pair))
        spline, folds, source = (u, v), quality.repairs > 0, ("landmarks",)
        pair, whole = move_pair(pair, *spline), move_pair(whole, *spline)
    attempt, kind = _try_network(pair, whole, initializers), "network"
    messages, reason = attempt.messages, attempt.reason
    if attempt.fields is None:
        attempt, kind = _try_search(pair, initializers, attempt.comparison), "search"
        messages += attempt.messages
    comparison = attempt.comparison
    if comparison is None:
        seen = pair if attempt.fields is None else move_pair(pair, *attempt.fields)
        comparison, more = _choose_metric(seen, initializers)
        messages += more
    if attempt.fields is not None:
        source += (kind,)
    fields = _compose_starts(attempt.fields, spline)
    return Start(fields, comparison, source, messages, folds, reason)


def _compose_starts(last: Fields | None, first: Fields | None) -> Fields | None:
    """Compose two pairs of a displacement and its inverse."""
    if last is None or first is None:
        return last or first
    return compose(last[0], first[0]), compose(first[1], last[1])


def _try_network(pair: Pair, whole: Pair, initializers: Initializers) -> _Attempt:
    """Compute the network's field; return it if it is useful, and its metric."""
    network = initializers.network
    if network is None:
        return _Attempt()
    seen = find_common_channel(pair)
    if initializers.network_is_default:
        given, levels = initializers.metric, initializers.level_iters
        omitted = explain_omission(pair.channel(seen), given, levels)
        if omitted:
            return _Attempt(messages=(Message(omitted),), reason=omitted)
    comparison: MetricChoice | None = None
    messages: tuple[Message, ...] = ()
    if initializers.prefers_anatomy:
        choice, lines = _choose_metric(pair, initializers)
        if choice.by_anatomy:
            return _Attempt(None, choice, lines, ONE_CONTRAST)
    metric = initializers.metric or CCMetric()
    if not network.symmetric:  # the metric is needed to compare its predictions
        comparison, messages = _choose_metric(pair, initializers)
        metric = comparison.metric
    objective = initializers.objective(metric_of_channel(metric, seen))
    predicted = predict_displacement(
        network, whole.channel(seen), objective, alone=not initializers.refines
    )
    u, v, _ = make_diffeomorphic(*predicted)
    if not bool(u.any()):
        return _Attempt(None, comparison, messages, "Its field is 0.")
    if comparison is None:
        moved = move_pair(pair, u, v)
        comparison, messages = _choose_metric(moved, initializers, aligned=True)
    name = str(comparison.metric.name)
    if _is_useful(pair, (u, v), comparison, initializers):
        reason = f"With its field, the images are more similar, by the metric {name}."
        return _Attempt((u, v), comparison, messages, reason)
    default, alone = initializers.network_is_default, not initializers.refines
    dropped = describe_dropped_field(name, default=default, alone=alone)
    reason = f"With its field, the images are not more similar, by the metric {name}."
    # The metric was chosen for images that were warped by the rejected field.
    return _Attempt(None, None, (*messages, dropped), reason)


def _choose_metric(
    pair: Pair, initializers: Initializers, *, aligned: bool = False
) -> tuple[MetricChoice, tuple[Message, ...]]:
    """Return the user's metric or choose one for the pair, with a message."""
    given = initializers.metric
    if isinstance(given, ChannelMetrics):
        return _choose_for_channels(pair, initializers, given, aligned)
    unused = initializers.network is None and not initializers.refines
    if given is not None or unused:
        metric = given or CCMetric()
        return MetricChoice(metric, metric.sigma_field, False, None, ""), ()
    choice = select_metric(
        pair, aligned=aligned, map_contrast=initializers.map_contrast
    )
    name = str(choice.metric.name)
    mapped = ""
    if choice.intensity_mapping is not None:
        mapped = " of static and intensity-mapped moving"
    meaning = METRICS[name].meaning
    text = f"Metric: {name} ({meaning}{mapped}). {choice.reason}"
    return choice, (Message(text),)


def _choose_for_channels(
    pair: Pair, initializers: Initializers, given: ChannelMetrics, aligned: bool
) -> tuple[MetricChoice, tuple[Message, ...]]:
    """Return or choose the metric of each channel and the weights, with messages."""
    unused = initializers.network is None and not initializers.refines
    if not (given.given or unused):
        pair = align_by_common_channel(pair)
    choices: list[MetricChoice] = []
    messages: tuple[Message, ...] = ()
    for k, (label, metric) in enumerate(zip(given.labels, given.metrics)):
        own = replace(initializers, metric=metric, map_contrast=None)
        choice, lines = _choose_metric(pair.channel(k), own, aligned=aligned)
        choices.append(choice)
        messages += tuple(line._replace(text=f"{label}: {line.text}") for line in lines)
    weights = given.weights
    if weights is None and not unused:
        weights = estimate_weights(pair, choices)
        pairs = zip(given.labels, weights)
        text = ", ".join(f"{label} {weight:.2f}" for label, weight in pairs)
        messages += (Message(f"Weights of the channels: {text}."),)
    return combine_choices(choices, weights), messages


def _is_useful(
    pair: Pair, fields: Fields, comparison: MetricChoice, initializers: Initializers
) -> bool:
    """Whether a network's field is better than no displacement.

    The field of the default network must also lead to a better coarse refinement, if
    there are coarse levels.  This is not required if the images are far apart or have
    different contrasts, because the network is then more reliable than any metric.
    """
    shown = comparison.apply_to(pair)
    objective = initializers.objective(comparison.metric)
    spacing = getattr(initializers.network, "spacing", None)
    if not improves_similarity(shown, fields[0], objective, spacing=spacing):
        return False
    if not (initializers.network_is_default and any(initializers.level_iters[:-1])):
        return True
    correlation = mean_local_correlation(pair.channel(find_common_channel(pair)))
    far = correlation is not None and _OPPOSITE < correlation < SAME_CONTRAST
    if far or comparison.contrasts_differ:
        return True
    return improves_refinement(shown, objective, *fields, worth=_WORTH_IT)


def _try_search(
    pair: Pair, initializers: Initializers, comparison: MetricChoice | None
) -> _Attempt:
    """Search for a field, if requested and memory suffices; return it if useful."""
    if initializers.search is None:
        return _Attempt(None, comparison)
    needed = memory.estimate_search_memory(pair.static_grid)
    budget = initializers.budget
    if needed > budget:
        text = (
            f"The search is omitted: it would need {needed:.2g} bytes of memory, but "
            f"{budget:.2g} may be used."
        )
        return _Attempt(None, comparison, (Message(text, warns=True),))
    seen = pair.channel(find_common_channel(pair))
    u, v, _ = make_diffeomorphic(*search_displacements(seen))
    if initializers.search == "discrete":
        return _Attempt((u, v), comparison)
    messages: tuple[Message, ...] = ()
    if comparison is None:
        comparison, messages = _choose_metric(pair, initializers)
    objective = initializers.objective(comparison.metric)
    if improves_refinement(comparison.apply_to(pair), objective, u, v):
        return _Attempt((u, v), comparison, messages)
    return _Attempt(None, comparison, messages)
