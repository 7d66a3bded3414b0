"""What a `DeepRegistration` decides before refinement: levels, network, metric, field.

`choose_start` of `initialization.starts` makes the decisions about a pair.  This module
passes it the options of a registration, and stores what was decided as attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dipy.align.imwarp import DiffeomorphicRegistration, RegistrationStages

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.initialization.starts import Initializers, Start, choose_start
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.registration import channels, factory, monitor
from dipy_dl_reg.registration.deformable_options import automatic_iters, brief_iters
from dipy_dl_reg.registration.phase_encoding import without_mapping
from dipy_dl_reg.registration.refinement import memory_budget

if TYPE_CHECKING:
    from dipy_dl_reg.registration.anatomy_use import AnatomyUse
    from dipy_dl_reg.registration.deformable import DeepRegistration


def prepare_start(
    registration: DeepRegistration,
    pair: Pair,
    images: dict[str, Any],
    anatomy: AnatomyUse,
) -> Start:
    """Set the levels and the network for the images, and choose the first field.

    Parameters
    ----------
    registration : DeepRegistration
        Its attributes `dim`, `metric`, `network`, `sigma_field`, `level_iters`,
        `network_used`, `initialization_used` and `affine_only` are set.
    pair : Pair
        The images.
    images : dict
        The images, their affines and the prealign: arguments of `make_pair`.
    anatomy : AnatomyUse
        The anatomy maps of the images.

    Returns
    -------
    start : Start
        The first field, and the metric.
    """
    _set_levels(registration, pair)
    _set_network(registration, pair)
    given = registration._sigma_field
    metric = registration.metric
    registration.sigma_field = metric.sigma_field if given is None else given
    monitor.call_back(registration, RegistrationStages.OPT_START)
    whole = pair
    if registration.network is not None and not registration.uses_default_network:
        device = registration.device
        whole = channels.remove_masks(pair, registration._metric, images, device)
    start = choose_start(pair, make_initializers(registration, anatomy), whole)
    start = without_mapping(start) if registration.modulate else start
    monitor.log_messages(start.messages, registration.verbosity)
    comparison = start.comparison
    registration.metric = comparison.metric
    registration.sigma_field = comparison.sigma_field if given is None else given
    _store_decisions(registration, start, pair)
    return start


def make_objective(registration: DeepRegistration, metric: Any) -> Objective:
    """Make the objective that refinement minimizes, with a given metric.

    Parameters
    ----------
    registration : DeepRegistration
        Its penalties are used.
    metric : Metric
        The metric.

    Returns
    -------
    objective : Objective
        The metric with the penalties.
    """
    return Objective(
        metric,
        regularizer=registration.regularizer,
        weight=registration.regularizer_weight,
        landmark_weight=registration.landmark_weight,
    )


def make_initializers(
    registration: DeepRegistration, anatomy: AnatomyUse
) -> Initializers:
    """Collect the methods of initialization that the options allow.

    Parameters
    ----------
    registration : DeepRegistration
        The registration; its network and levels are set already.
    anatomy : AnatomyUse
        The anatomy maps of the images.

    Returns
    -------
    initializers : Initializers
        The methods, for `choose_start`.
    """
    names = registration.channel_names
    return Initializers(
        objective=lambda metric: make_objective(registration, metric),
        metric=channels.name_channels(registration._metric, names),
        network=registration.network,
        network_is_default=registration.uses_default_network,
        search=registration.initialization,
        level_iters=registration.level_iters,
        budget=memory_budget(registration.max_memory, registration.device),
        map_contrast=anatomy.map_contrast if anatomy.available else None,
    )


def _set_levels(registration: DeepRegistration, pair: Pair) -> None:
    """Check the metric's dimension, and set the default number of iterations."""
    registration.dim = pair.static_grid.dim
    registration.metric = channels.provisional_metric(registration._metric)
    factory.check_metric_dim(registration.metric, registration.dim)
    if registration._automatic_iters:
        _replace_iters(registration, automatic_iters(pair.static_grid))


def _set_network(registration: DeepRegistration, pair: Pair) -> None:
    """Choose the network for the images."""
    registration.network, messages = factory.choose_network(
        registration.network,
        pair,
        default=registration.uses_default_network,
        search=registration.initialization,
        level_iters=registration.level_iters,
    )
    monitor.log_messages(messages, registration.verbosity)


def _store_decisions(registration: DeepRegistration, start: Start, pair: Pair) -> None:
    """Set the attributes that say where the first field comes from."""
    registration.network_used = "network" in start.source
    registration.initialization_used = "search" in start.source
    unrefined = registration.model is not None and not any(registration.level_iters)
    registration.affine_only = unrefined and start.fields is None
    brief = registration.network_used and start.comparison.contrasts_differ
    brief = brief and not start.comparison.by_anatomy
    if registration._automatic_iters and brief:
        iters = brief_iters(registration.level_iters, pair.static_grid)
        _replace_iters(registration, iters)


def _replace_iters(registration: DeepRegistration, level_iters: list[int]) -> None:
    """Set the iterations of the levels; those of the next pair are default ones, too.

    `DeepRegistration.set_level_iters` is for the user's values.
    """
    DiffeomorphicRegistration.set_level_iters(registration, level_iters)
