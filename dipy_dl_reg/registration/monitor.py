"""Log messages, records and progress bar of a deformable registration."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
import time
from typing import Any, Protocol

from dipy.align.imwarp import DiffeomorphicMap, RegistrationStages
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.geometry.fold_repair import Quality
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization.messages import Message
from dipy_dl_reg.maps.record import LevelRecord
from dipy_dl_reg.maps.regularity import format_regularity
from dipy_dl_reg.progress import Progress
from dipy_dl_reg.registration.deformable_options import DeformableOptions
from dipy_dl_reg.registration.landmark_checks import (
    describe_swapped_rows,
    describe_worst_landmark,
)

try:  # DIPY 1.13 moves it
    from dipy.utils import VerbosityLevels
except ImportError:
    from dipy.align import VerbosityLevels

#: Landmark error, in static's voxels, above which a warning is logged.
_LARGE_LANDMARK_ERROR = 2
_STAGES = {
    "level_start": RegistrationStages.SCALE_START,
    "level_end": RegistrationStages.SCALE_END,
    "iteration_start": RegistrationStages.ITER_START,
    "iteration_end": RegistrationStages.ITER_END,
}


class Recorded(Protocol):
    """The attributes of a registration that a `Monitor` reads and sets.

    Attributes
    ----------
    energy_list, full_energy_profile : list of float
        Energies of the current level and of all levels.
    current_level, niter : int
        The current level (0 is the finest), and the number of iterations done at it.
    callback : callable or None
        The user's function, which is called at each stage.
    progress : bool or None
        Whether to show a progress bar; None shows it at a terminal.
    verbosity : int
        One of DIPY's `VerbosityLevels`.
    level_records : list of LevelRecord
        Iterations, time and energies of the levels that are finished.
    """

    energy_list: list[float]
    full_energy_profile: list[float]
    level_records: list[LevelRecord]
    current_level: int | None
    niter: int
    callback: Callable[[Any, Any], object] | None
    progress: bool | None
    verbosity: int


class Monitor(AbstractContextManager):
    """Records energies, shows a progress bar and calls the callback during refinement.

    The records are stored in public attributes of the registration, as in SyN.

    Parameters
    ----------
    registration : Recorded
        Such as a `DeepRegistration`.
    iterations : int
        Maximum number of iterations of all levels.
    """

    def __init__(self, registration: Recorded, iterations: int):
        self.registration = registration
        registration.energy_list, registration.full_energy_profile = [], []
        registration.level_records, self._level_began = [], time.perf_counter()
        self.progress = Progress(
            "Registration",
            iterations,
            unit="iteration",
            shown=registration.progress,
            format_line=self._format_line,
        )

    def __exit__(self, *error: object) -> None:
        self.progress.__exit__(*error)

    def observe(self, stage: str, level: int, energy: float | None) -> None:
        """Record an event of `dipy_dl_reg.optimization.deformable.refine`.

        Parameters
        ----------
        stage : str
            Name of the event, see `refine`.
        level : int
            Level of the pyramid; 0 is the finest.
        energy : float or None
            Energy at the end of an iteration; None for other events.
        """
        registration = self.registration
        if stage == "level_reverted":
            self._log(
                f"Level {level} ended with a higher energy than it began with: the "
                f"fields with the lowest energy, {energy:.4f}, are used instead."
            )
            return
        if stage == "level_start":
            registration.current_level, registration.niter = level, 0
            registration.energy_list, self._level_began = [], time.perf_counter()
            self.progress.describe(f"Level {level}")
            self._log(f"Optimizing level {level}")
        elif stage == "iteration_end" and energy is not None:
            self._record(energy)
        elif stage == "level_end":
            registration.full_energy_profile.extend(registration.energy_list)
            self._record_level(level)
        call_back(registration, _STAGES[stage])
        if stage == "iteration_end":
            registration.niter += 1  # after the callback, as SyN counts

    def _record(self, energy: float) -> None:
        """Store the energy of an iteration."""
        registration = self.registration
        registration.energy_list.append(energy)
        self.progress.bar.set_postfix(energy=f"{energy:.4f}", refresh=False)
        self.progress.update()
        if registration.verbosity >= VerbosityLevels.DIAGNOSE:
            logger.info(f"{registration.niter + 1}:\t{energy:.6f}")

    def _format_line(self) -> str:
        """A line of the log; finer levels take longer, so that no time is estimated."""
        progress, registration = self.progress, self.registration
        return (
            f"Level {registration.current_level}, energy "
            f"{registration.energy_list[-1]:.4f}: {progress.done} of at most "
            f"{progress.total} iterations done"
        )

    def _record_level(self, level: int) -> None:
        """Store the record of a level that is finished."""
        energies = tuple(self.registration.energy_list)
        seconds = time.perf_counter() - self._level_began
        record = LevelRecord(level, len(energies), seconds, energies)
        self.registration.level_records.append(record)

    def _log(self, text: str) -> None:
        log_messages([Message(text)], self.registration.verbosity)


def call_back(registration: Recorded, stage: int) -> None:
    """Call a registration's callback, if it has one.

    Parameters
    ----------
    registration : Recorded
        The registration; its `callback` is called with it and the stage.
    stage : int
        One of DIPY's `RegistrationStages`.
    """
    if registration.callback is not None:
        registration.callback(registration, stage)


def log_messages(messages: Iterable[Message], verbosity: int) -> None:
    """Log messages: warnings always, others from DIPY's verbosity STATUS on.

    Parameters
    ----------
    messages : iterable of Message
        The messages.
    verbosity : int
        One of DIPY's `VerbosityLevels`.
    """
    for message in messages:
        if message.warns:
            logger.warning(message.text)
        elif verbosity >= VerbosityLevels.STATUS:
            logger.info(message.text)


def log_ignored_options(options: DeformableOptions) -> None:
    """Log which options of SyN were given but have no effect.

    Parameters
    ----------
    options : DeformableOptions
        The user's.
    """
    for name in ("inv_iter", "inv_tol"):
        if getattr(options, name) is not None:
            logger.info(
                f"{name} has no effect: the inverse is always computed until its "
                "error is below a fixed bound."
            )


def describe_quality(quality: Quality) -> Message:
    """Describe the regularity of the fields in one line.

    Parameters
    ----------
    quality : Quality
        Quality of the final fields.

    Returns
    -------
    message : Message
        Message for the log.
    """
    repairs = f"; rounds of repair: {quality.repairs}." if quality.repairs else "."
    return Message(f"{format_regularity(quality)}{repairs}")


def measure_landmark_distances(
    mapping: DiffeomorphicMap, landmarks: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray | None:
    """Measure the distances between mapped static landmarks and moving landmarks.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map from static to moving.
    landmarks : tuple of ndarray, shape (N, dim), or None
        Points in static and in moving, mm.

    Returns
    -------
    distances : ndarray, shape (N,), or None
        Distance of each mapped static point from its moving point, mm.
    """
    if landmarks is None:
        return None
    mapped = np.asarray(mapping.transform_points(landmarks[0]))
    return np.linalg.norm(mapped - landmarks[1], axis=1)


def describe_landmark_errors(
    distances: np.ndarray,
    landmarks: tuple[np.ndarray, np.ndarray],
    grid: Grid,
    *,
    weight: float,
    spline_folds: bool,
) -> list[Message]:
    """Describe the landmark errors of a map, with a warning if they are large.

    Parameters
    ----------
    distances : ndarray, shape (N,)
        The result of `measure_landmark_distances`.
    landmarks : tuple of ndarray, shape (N, dim)
        Points in static and in moving, mm.
    grid : Grid
        Grid of static; landmarks outside it are not used.
    weight : float
        Weight of the landmarks; with 0, large errors give no warning.
    spline_folds : bool
        Whether the thin-plate spline through the landmarks had to be repaired.

    Returns
    -------
    messages : list of Message
        Messages for the log.
    """
    inside = grid.contains(landmarks[0])
    errors = np.where(inside, distances, 0)
    mean, largest = errors.sum() / max(1, inside.sum()), errors.max()
    messages = [Message(f"Landmark error: mean {mean:.3f}, maximum {largest:.3f} mm.")]
    far = weight and largest > _LARGE_LANDMARK_ERROR * grid.spacing.max()
    if spline_folds or far:
        text = (
            "The map does not meet all landmarks"
            + (", because their spline folds. " if spline_folds else ". ")
            + describe_worst_landmark(errors, *landmarks)
            + " Landmarks that cross or contradict the images may be the cause."
            + (describe_swapped_rows(*landmarks) if spline_folds else "")
        )
        messages.append(Message(text, warns=True))
    return messages
