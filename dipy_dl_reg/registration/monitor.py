"""What a deformable registration logs, records and shows while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from dipy.align.imwarp import DiffeomorphicMap, RegistrationStages
from dipy.utils.logging import logger
import numpy as np
from tqdm.auto import tqdm

from dipy_dl_reg.geometry.fold_repair import Quality
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization.starts import Message
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
    """What a `Monitor` reads and sets of a registration.

    Attributes
    ----------
    energy_list, full_energy_profile : list of float
        Energies of the current level and of all levels.
    current_level, niter : int
        The level, 0 the finest, and the iterations done on it.
    callback : callable or None
        The user's, called at each stage.
    progress : bool or None
        Whether to show a progress bar; None shows it at a terminal.
    verbosity : int
        Of DIPY's `VerbosityLevels`.
    """

    energy_list: list[float]
    full_energy_profile: list[float]
    current_level: int | None
    niter: int
    callback: Callable[[Any, Any], object] | None
    progress: bool | None
    verbosity: int


class Monitor(AbstractContextManager):
    """Observes a refinement: DIPY's records, a progress bar, the user's callback.

    The records are public attributes of the registration, as in SyN.

    Parameters
    ----------
    registration : Recorded
        Such as a `DeepRegistration`.
    iterations : int
        Most iterations that there will be.
    """

    def __init__(self, registration: Recorded, iterations: int):
        self.registration = registration
        registration.energy_list, registration.full_energy_profile = [], []
        disable = None if registration.progress is None else not registration.progress
        self.bar = tqdm(total=iterations, disable=disable, unit="it")

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def observe(self, stage: str, level: int, energy: float | None) -> None:
        """Record an event of `dipy_dl_reg.optimization.deformable.refine`.

        Parameters
        ----------
        stage : str
            Which event, see `refine`.
        level : int
            Of the pyramid; 0 is the finest.
        energy : float or None
            At the end of an iteration.
        """
        registration = self.registration
        if stage == "level_reverted":
            self._log(
                f"Level {level} ended with a higher energy than it began with: its "
                f"fields of the lowest energy, {energy:.4f}, are kept."
            )
            return
        if stage == "level_start":
            registration.current_level, registration.niter = level, 0
            registration.energy_list = []
            self.bar.set_description(f"level {level}")
            self._log(f"Optimizing level {level}")
        elif stage == "iteration_end" and energy is not None:
            self._record(energy)
        elif stage == "level_end":
            registration.full_energy_profile.extend(registration.energy_list)
        call_back(registration, _STAGES[stage])
        if stage == "iteration_end":
            registration.niter += 1  # after the callback, as SyN counts

    def _record(self, energy: float) -> None:
        """Keep an iteration's energy."""
        registration = self.registration
        registration.energy_list.append(energy)
        self.bar.update()
        self.bar.set_postfix(energy=f"{energy:.4f}", refresh=False)
        if registration.verbosity >= VerbosityLevels.DIAGNOSE:
            logger.info(f"{registration.niter + 1}:\t{energy:.6f}")

    def _log(self, text: str) -> None:
        log_messages([Message(text)], self.registration.verbosity)


def call_back(registration: Recorded, stage: int) -> None:
    """Call a registration's callback, if it has one.

    Parameters
    ----------
    registration : Recorded
        Its `callback` takes the registration and the stage.
    stage : int
        Of DIPY's `RegistrationStages`.
    """
    if registration.callback is not None:
        registration.callback(registration, stage)


def log_messages(messages: Iterable[Message], verbosity: int) -> None:
    """Log messages: warnings always, others from DIPY's verbosity STATUS.

    Parameters
    ----------
    messages : iterable of Message
        What to log.
    verbosity : int
        Of DIPY's `VerbosityLevels`.
    """
    for message in messages:
        if message.warns:
            logger.warning(message.text)
        elif verbosity >= VerbosityLevels.STATUS:
            logger.info(message.text)


def describe_quality(quality: Quality) -> Message:
    """The regularity of the fields in one line.

    Parameters
    ----------
    quality : Quality
        Of the final fields.

    Returns
    -------
    message : Message
        For the log.
    """
    repairs = f"; rounds of repair: {quality.repairs}." if quality.repairs else "."
    return Message(
        f"Least Jacobian determinant {quality.minimum_jacobian:.3f}, of the inverse "
        f"{quality.minimum_jacobian_inverse:.3f}; round trip "
        f"{quality.round_trip_mean:.3f} voxel on average, "
        f"{quality.round_trip_max:.3f} at most{repairs}"
    )


def measure_landmark_distances(
    mapping: DiffeomorphicMap, landmarks: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray | None:
    """How far a map misses landmarks.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        From static to moving.
    landmarks : tuple of ndarray, shape (N, dim), or None
        Points of static and of moving, mm.

    Returns
    -------
    distances : ndarray, shape (N,), or None
        From where the map takes each static point to its moving point, mm.
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
    """How near a map comes to its landmarks, with a warning if it misses some.

    Parameters
    ----------
    distances : ndarray, shape (N,)
        Of `measure_landmark_distances`.
    landmarks : tuple of ndarray, shape (N, dim)
        Points of static and of moving, mm.
    grid : Grid
        Of static; landmarks outside it are left out.
    weight : float
        Weight of the landmarks; 0 means that they need not be met.
    spline_folds : bool
        Whether the thin-plate spline through them had to be repaired.

    Returns
    -------
    messages : list of Message
        For the log.
    """
    inside = grid.contains(landmarks[0])
    errors = np.where(inside, distances, 0)
    mean, largest = errors.sum() / max(1, inside.sum()), errors.max()
    messages = [
        Message(f"Landmarks missed by {mean:.3f} mm on average, {largest:.3f} at most.")
    ]
    far = weight and largest > _LARGE_LANDMARK_ERROR * grid.spacing.max()
    if spline_folds or far:
        text = (
            "The map does not meet all landmarks"
            + (", for their spline folds. " if spline_folds else ". ")
            + describe_worst_landmark(errors, *landmarks)
            + " Landmarks that cross or contradict the images may be the cause."
            + (describe_swapped_rows(*landmarks) if spline_folds else "")
        )
        messages.append(Message(text, warns=True))
    return messages
