"""Makes the record of a registration: its decisions and the time of its steps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dipy_dl_reg.initialization.metric_selection import MetricChoice
from dipy_dl_reg.initialization.starts import Start
from dipy_dl_reg.maps.record import MetricRecord, RegistrationRecord, list_versions
from dipy_dl_reg.metrics.registry import METRICS
from dipy_dl_reg.networks.pretrained import DEFAULT_MODELS
from dipy_dl_reg.registration.devices import describe_device

if TYPE_CHECKING:
    from dipy_dl_reg.registration.deformable import DeepRegistration

#: The reason if the user gave the metric.
_GIVEN = "Given by the user."


class Stopwatch:
    """Measures the time of the steps of a registration, which follow each other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        """Store the time since the last lap.

        Parameters
        ----------
        step : str
            Name of the step that ends now.
        """
        now = time.perf_counter()
        self.seconds[step] = now - self._last
        self._last = now


def make_record(
    registration: DeepRegistration, start: Start, stopwatch: Stopwatch
) -> RegistrationRecord:
    """Make the record of a registration that has just ended.

    Parameters
    ----------
    registration : DeepRegistration
        The registration; its results are set already.
    start : Start
        Initial field and metric.
    stopwatch : Stopwatch
        Time of the steps.

    Returns
    -------
    record : RegistrationRecord
        The record, without command and affine steps.
    """
    measures, distances = registration.verdict.measures, None
    if registration.landmark_distances is not None:
        distances = float(registration.landmark_distances.mean())
    similarity: dict[str, float | None] = {}
    if measures is not None:
        similarity = {
            "raw": measures.similarity_before,
            "affine": measures.similarity_affine,
            "deformed": measures.similarity,
        }
    return RegistrationRecord(
        metrics=describe_metrics(start.comparison),
        network=_name_network(registration),
        network_used=registration.network_used,
        network_reason=start.network_reason or _explain_absence(registration),
        start=start.source,
        levels=tuple(registration.level_records),
        seconds=stopwatch.seconds,
        device=describe_device(registration.device),
        repairs=registration.quality.repairs,
        similarity=similarity,
        landmark_error=distances,
        versions=list_versions(),
        anatomy_used=registration.anatomy_used,
        anatomy_reason=registration._anatomy_reason,
    )


def describe_metrics(choice: MetricChoice) -> tuple[MetricRecord, ...]:
    """Describe the metric of each channel.

    Parameters
    ----------
    choice : MetricChoice
        The metric that was given or chosen.

    Returns
    -------
    metrics : tuple of MetricRecord
        One for each channel.
    """
    channels = choice.channels or (choice,)
    weights = getattr(choice.metric, "weights", (1.0,) * len(channels))
    return tuple(_describe_metric(*each) for each in zip(channels, weights))


def _describe_metric(choice: MetricChoice, weight: float) -> MetricRecord:
    """The metric of one channel."""
    name = str(choice.metric.name or type(choice.metric).__name__)
    meaning = METRICS[name].meaning if name in METRICS else name
    if choice.intensity_mapping is not None:
        meaning += " of static and intensity-mapped moving"
    return MetricRecord(name, meaning, choice.reason or _GIVEN, float(weight))


def _name_network(registration: DeepRegistration) -> str | None:
    """Name of the network that was tried."""
    if registration.network is None:
        return None
    if registration.uses_default_network:
        return DEFAULT_MODELS[registration.dim]
    model: Any = registration.model
    return model if isinstance(model, str) else type(registration.network).__name__


def _explain_absence(registration: DeepRegistration) -> str:
    """Why no network was tried."""
    if registration.model is None:
        return "No network was requested (model=None)."
    if registration.phase_encoding is not None:
        return "A network's displacements do not lie on the axis of phase encoding."
    if registration.landmarks is not None:
        return "With landmarks, the default network is not used."
    if registration.initialization == "discrete":
        return "The search for large displacements was requested in its place."
    if registration.network is None:
        return "An image has less than 16 of the network's voxels along an axis."
    return "Memory was not sufficient for the initial field."
