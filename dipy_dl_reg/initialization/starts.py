"""Where refinement begins and what it compares the images by: one value, one function.

`choose_start` decides in this order:

1. Landmarks, if there are any: the thin-plate spline through them comes first, and
   what follows sees the images as the spline has moved them.
2. The network, if there is one: its field is kept if the images are closer with it
   than without (`_is_useful`); a field of zeros is left out without a message.
3. The search for large displacements, if it was asked for and no network's field was
   kept: "discrete" keeps what it finds, "auto" only if a coarse refinement improves.
4. The metric, unless the user gave one: chosen on the images as the kept field has
   moved them.  A network that is not symmetric is judged by a metric chosen before,
   on the images as they are; and without a network and iterations none is chosen.

Where memory runs out on the way, refinement begins without a start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from dipy_dl_reg.geometry.fields import compose
from dipy_dl_reg.geometry.fold_repair import make_diffeomorphic
from dipy_dl_reg.geometry.pair import Pair, move_pair
from dipy_dl_reg.geometry.thin_plate_grid import start_field
from dipy_dl_reg.initialization.acceptance import (
    improves_refinement,
    improves_similarity,
)
from dipy_dl_reg.initialization.displacement_search import search_displacements
from dipy_dl_reg.initialization.metric_selection import (
    SAME_CONTRAST,
    MetricChoice,
    mean_local_correlation,
    select_metric,
)
from dipy_dl_reg.initialization.network import predict_displacement
from dipy_dl_reg.metrics.base import Metric
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.metrics.registry import describe_metrics
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.optimization import memory

#: A displacement and its inverse, each of shape (1, D, *static_shape), in voxels.
Fields = tuple[torch.Tensor, torch.Tensor]

#: How much more the energy must fall, in a coarse refinement, from the field of the
#: default network: of two results that are about equal the smaller displacement is the
#: safer one.
_WORTH_IT = 1.01
#: Mean local correlation below which images are of opposite contrasts, and not only
#: far apart.
_OPPOSITE = -0.15
#: What remains where the field of a network or search was the whole registration.
NO_DISPLACEMENT = (
    "level_iters=0 asks for no refinement, so the map holds no displacement: it is the "
    "affine (prealign) alone, or the spline through landmarks."
)


class Message(NamedTuple):
    """A line for the log.

    Attributes
    ----------
    text : str
        What to log.
    warns : bool
        Whether as a warning.
    """

    text: str
    warns: bool = False


@dataclass(frozen=True)
class Initializers:
    """What a registration may begin with, as its options say.

    Attributes
    ----------
    objective : callable
        ``objective(metric)`` is the `Objective` that refinement minimises.
    metric : Metric or None
        The user's; None lets the images decide.
    network : RegistrationNetwork or None
        Its field is tried.
    network_is_default : bool
        Whether the package chose the network: its field must then lead to a better
        coarse refinement, too.
    search : {"discrete", "auto"} or None
        Whether large displacements are searched for.
    level_iters : sequence of int
        Iterations of the refinement, coarsest level first.
    budget : float
        Bytes of memory that may be used.
    """

    objective: Callable[[Metric], Objective]
    metric: Metric | None = None
    network: RegistrationNetwork | None = None
    network_is_default: bool = False
    search: Literal["discrete", "auto"] | None = None
    level_iters: Sequence[int] = ()
    budget: float = float("inf")

    @property
    def refines(self) -> bool:
        """Whether any iterations follow."""
        return any(self.level_iters)


class Start(NamedTuple):
    """Where refinement begins.

    Attributes
    ----------
    fields : tuple of Tensor, shape (1, D, *static_shape), or None
        A displacement and its inverse, in voxels of the static grid; None for no
        displacement.
    comparison : MetricChoice
        What the images are compared by.
    source : tuple of str
        Where the fields come from: "landmarks", "network" and "search", in the order
        in which they were applied.
    messages : tuple of Message
        What was decided and why, for the log.
    spline_folds : bool
        Whether the spline through the landmarks had to be repaired.
    """

    fields: Fields | None
    comparison: MetricChoice
    source: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    spline_folds: bool = False


class _Attempt(NamedTuple):
    """What one initialiser gave: fields, and a metric if it was chosen for it."""

    fields: Fields | None = None
    comparison: MetricChoice | None = None
    messages: tuple[Message, ...] = ()


def choose_start(pair: Pair, initializers: Initializers, whole: Pair) -> Start:
    """Decide where refinement begins, and by what it compares the images.

    Parameters
    ----------
    pair : Pair
        The images, masks and landmarks.
    initializers : Initializers
        What may be tried.
    whole : Pair
        What the network sees: the same images, perhaps without masks.

    Returns
    -------
    start : Start
        See the module's beginning for the order of decisions.
    """
    try:
        return _try_in_order(pair, whole, initializers)
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out_of_memory(error):
            raise
    # Here the exception, and the tensors that its traceback holds, are gone.
    warning = Message("Memory has run out: refinement begins without a start.", True)
    comparison, messages = _choose_metric(pair, initializers)
    return Start(None, comparison, messages=(warning, *messages))


def _try_in_order(pair: Pair, whole: Pair, initializers: Initializers) -> Start:
    """Landmarks, network, search, metric."""
    source: tuple[str, ...] = ()
    spline, folds = None, False
    if pair.landmarks is not None:
        u, v, quality = make_diffeomorphic(start_field(pair))
        spline, folds, source = (u, v), quality.repairs > 0, ("landmarks",)
        pair, whole = move_pair(pair, *spline), move_pair(whole, *spline)
    attempt, kind = _try_network(pair, whole, initializers), "network"
    messages = attempt.messages
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
    return Start(fields, comparison, source, messages, folds)


def _compose_starts(last: Fields | None, first: Fields | None) -> Fields | None:
    """One displacement and its inverse for two that are applied one after the other."""
    if last is None or first is None:
        return last or first
    return compose(last[0], first[0]), compose(first[1], last[1])


def _try_network(pair: Pair, whole: Pair, initializers: Initializers) -> _Attempt:
    """The network's field, if it is of use, and the metric that was chosen with it."""
    network = initializers.network
    if network is None:
        return _Attempt()
    comparison: MetricChoice | None = None
    messages: tuple[Message, ...] = ()
    objective = initializers.objective(initializers.metric or CCMetric())
    if not network.symmetric:  # its predictions are compared by the metric
        comparison, messages = _choose_metric(pair, initializers)
        objective = initializers.objective(comparison.metric)
    alone = not initializers.refines
    predicted = predict_displacement(network, whole, objective, alone=alone)
    u, v, _ = make_diffeomorphic(*predicted)
    if not bool(u.any()):
        return _Attempt(None, comparison, messages)
    if comparison is None:
        moved = move_pair(pair, u, v)
        comparison, messages = _choose_metric(moved, initializers, aligned=True)
    if _is_useful(pair, (u, v), comparison, initializers):
        return _Attempt((u, v), comparison, messages)
    dropped = describe_dropped_field(str(comparison.metric.name), initializers)
    # The metric was chosen on images that the dropped field had moved.
    return _Attempt(None, None, (*messages, dropped))


def _choose_metric(
    pair: Pair, initializers: Initializers, *, aligned: bool = False
) -> tuple[MetricChoice, tuple[Message, ...]]:
    """The user's metric, or the one that suits the pair, and a message about it."""
    given = initializers.metric
    unused = initializers.network is None and not initializers.refines
    if given is not None or unused:
        metric = given or CCMetric()
        return MetricChoice(metric, metric.sigma_field, False, None, ""), ()
    choice = select_metric(pair, aligned=aligned)
    name = str(choice.metric.name)
    mapped = ""
    if choice.intensity_mapping is not None:
        mapped = " of static and intensity-mapped moving"
    meaning = describe_metrics()[name]
    text = f"Metric: {name} ({meaning}{mapped}). {choice.reason}"
    return choice, (Message(text),)


def _is_useful(
    pair: Pair, fields: Fields, comparison: MetricChoice, initializers: Initializers
) -> bool:
    """Whether a network's field is better than no displacement.

    That of the default network must lead to a better coarse refinement, too, if there
    are coarse levels; but where the images are far apart, or of different contrasts,
    the network is more reliable than any metric.
    """
    shown = comparison.apply_to(pair)
    objective = initializers.objective(comparison.metric)
    spacing = getattr(initializers.network, "spacing", None)
    if not improves_similarity(shown, fields[0], objective, spacing=spacing):
        return False
    if not (initializers.network_is_default and any(initializers.level_iters[:-1])):
        return True
    correlation = mean_local_correlation(pair)
    far = correlation is not None and _OPPOSITE < correlation < SAME_CONTRAST
    if far or comparison.contrasts_differ:
        return True
    return improves_refinement(shown, objective, *fields, worth=_WORTH_IT)


def describe_dropped_field(metric_name: str, initializers: Initializers) -> Message:
    """The message on a network's field that is not used, and what to do.

    Parameters
    ----------
    metric_name : str
        Of the metric that decided.
    initializers : Initializers
        The options.

    Returns
    -------
    message : Message
        A warning, unless the default network was only tried.
    """
    fact = (
        "The network's field is not used: by the metric "
        f"{metric_name} the images are aligned no better with it than without"
    )
    alone = not initializers.refines
    if initializers.network_is_default and not alone:
        return Message(f"{fact}. Refinement begins without it.")
    advice = (
        "check that the images are aligned by an affine, and are of the kind that "
        "the network was trained on"
    )
    if alone:
        advice = f"{NO_DISPLACEMENT} Leave out level_iters, or {advice}"
    else:
        advice = f"Refinement begins without it; {advice}"
    return Message(f"{fact}. {advice}.", warns=True)


def _try_search(
    pair: Pair, initializers: Initializers, comparison: MetricChoice | None
) -> _Attempt:
    """The field of the search, if it is wanted, affordable and of use."""
    if initializers.search is None:
        return _Attempt(None, comparison)
    needed = memory.estimate_search_memory(pair.static_grid)
    budget = initializers.budget
    if needed > budget:
        text = (
            f"The search is left out: it would take {needed:.2g} bytes of memory "
            f"where {budget:.2g} may be used."
        )
        return _Attempt(None, comparison, (Message(text, warns=True),))
    u, v, _ = make_diffeomorphic(*search_displacements(pair))
    if initializers.search == "discrete":
        return _Attempt((u, v), comparison)
    messages: tuple[Message, ...] = ()
    if comparison is None:
        comparison, messages = _choose_metric(pair, initializers)
    objective = initializers.objective(comparison.metric)
    if improves_refinement(comparison.apply_to(pair), objective, u, v):
        return _Attempt((u, v), comparison, messages)
    return _Attempt(None, comparison, messages)
