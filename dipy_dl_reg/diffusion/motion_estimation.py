"""Estimation of the motion in a diffusion series.

Start reading at `estimate_motion`: b0 volumes are registered to one of them, then all
others to the mean b0 at low resolution.  After that, the volumes of each shell are
predicted from each other (`motion_prediction`), and registered to their predictions;
the mean of each shell is registered to the mean b0.  This is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from dipy.core.gradients import GradientTable
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.diffusion.gradient_tables import find_shells, rotate_gradients
from dipy_dl_reg.diffusion.motion_options import (
    FAR,
    FINAL,
    NEAR,
    MotionOptions,
    VolumeSteps,
    choose_steps,
)
from dipy_dl_reg.diffusion.motion_prediction import (
    Prediction,
    SignalModel,
    choose_model,
    extrapolate_signal,
    fit_prediction,
    mean_model,
)
from dipy_dl_reg.diffusion.motion_registration import (
    Reference,
    Workers,
    align_volume,
    map_in_order,
    register_volume,
)
from dipy_dl_reg.io.series_files import VolumeSeries
from dipy_dl_reg.progress import track


class _Setting(NamedTuple):
    """What stays the same while the motion is estimated."""

    series: VolumeSeries
    gtab: GradientTable
    mask: np.ndarray | None
    options: MotionOptions
    workers: Workers


def estimate_motion(
    series: VolumeSeries,
    gtab: GradientTable,
    b0_ref: int,
    mask: np.ndarray | None,
    options: MotionOptions,
    workers: Workers,
) -> np.ndarray:
    """Estimate the affine of each volume of a diffusion series.

    Parameters
    ----------
    series : VolumeSeries
        The series as it was measured.
    gtab : GradientTable
        Its gradient table, with at least one b0 volume.
    b0_ref : int
        Which of the b0 volumes does not move.
    mask : ndarray of bool, shape (X, Y, Z), or None
        Voxels of the reference volume that are compared.
    options : MotionOptions
        Options of the registration.
    workers : Workers
        The threads.

    Returns
    -------
    affines : ndarray, shape (4, 4, N)
        From the world of the reference volume to that of each volume.
    """
    setting = _Setting(series, gtab, mask, options, workers)
    shells = find_shells(gtab)
    affines = np.repeat(np.eye(4)[None], series.volume_count, axis=0)
    reference = int(shells[0][b0_ref])
    _align_first(setting, shells, reference, affines)
    for iteration in range(1, options.iterations + 1):
        logger.info(f"Motion correction: iteration {iteration}")
        _improve(setting, shells, affines, last=iteration == options.iterations)
        affines[:] = affines @ np.linalg.inv(affines[reference])
        affines[reference] = np.eye(4)
    return np.moveaxis(affines, 0, -1)


def _align_first(
    setting: _Setting, shells: list[np.ndarray], reference: int, affines: np.ndarray
) -> None:
    """Align b0 volumes to one of them, then each shell to what those before predict."""
    logger.info("Motion correction: first alignment")
    far = choose_steps(setting.options, FAR)
    image = Reference(setting.series.read(reference), setting.mask)
    anchors: list[_Anchor] = []
    for shell in shells:
        bval = _mean_bval(setting, shell)
        if anchors:
            image = _reference_at(setting, bval, anchors)
        others = [int(k) for k in shell if k != reference]
        _register_all(setting, others, [image] * len(others), far, affines)
        if not anchors or len(shell) > 1:
            found = _predict(setting, shell, _one_shell(shell), affines)
            anchors.append(_Anchor(bval, found.means[0], found.known[0]))


def _mean_bval(setting: _Setting, shell: np.ndarray) -> float:
    return float(setting.gtab.bvals[shell].mean())


def _one_shell(shell: np.ndarray) -> SignalModel:
    return mean_model(np.zeros(len(shell), dtype=int))


def _improve(
    setting: _Setting, shells: list[np.ndarray], affines: np.ndarray, *, last: bool
) -> None:
    """Register all volumes to their predictions, and the shells to the mean b0."""
    how = choose_steps(setting.options, FINAL if last else NEAR)
    several = [shell for shell in shells[1:] if len(shell) > 1]
    single = [int(shell[0]) for shell in shells[1:] if len(shell) == 1]
    model = _choose_model(setting, several, affines, last) if several else None
    found = _predict(setting, shells[0], _one_shell(shells[0]), affines)
    _register_to_prediction(setting, shells[0], found, how, affines)
    anchors = [_Anchor(0.0, found.means[0], found.known[0])]
    if model is not None:
        weighted = np.concatenate(several)
        largest = float(found.means[0].max())
        found = _predict(setting, weighted, model, affines, largest)
        _register_to_prediction(setting, weighted, found, how, affines)
        for shell, mean, known in zip(several, found.means, found.known):
            bval = _mean_bval(setting, shell)
            matrix = _register_mean(setting, mean, bval, anchors)
            affines[shell] = affines[shell] @ matrix
            mean = align_volume(mean, matrix, setting.series.grid2world)[0]
            anchors.append(_Anchor(bval, mean, known))
    bvals = [float(setting.gtab.bvals[k]) for k in single]
    images = [_reference_at(setting, bval, anchors) for bval in bvals]
    _register_all(setting, single, images, how, affines)


class _Anchor(NamedTuple):
    """Mean of a shell in the space of the b0 volumes."""

    bval: float
    mean: np.ndarray
    known: np.ndarray


def _reference_at(
    setting: _Setting, bval: float, anchors: Sequence[_Anchor]
) -> Reference:
    """Predict the mean signal at a b-value from b0 and the shell nearest to it."""
    b0 = anchors[0]
    if len(anchors) == 1:
        return Reference(b0.mean, _join(b0.known, setting.mask))
    near = min(anchors[1:], key=lambda other: abs(other.bval - bval))
    image = extrapolate_signal(b0.mean, near.mean, bval / near.bval)
    return Reference(image, _join(b0.known & near.known, setting.mask))


def _register_mean(
    setting: _Setting, mean: np.ndarray, bval: float, anchors: Sequence[_Anchor]
) -> np.ndarray:
    """Register the mean of a shell rigidly to what the shells before it predict."""
    how = choose_steps(setting.options, FINAL)
    steps = how.steps if how.steps == ("translation",) else ("rigid",)
    return register_volume(
        _reference_at(setting, bval, anchors),
        mean,
        setting.series.grid2world,
        np.eye(4),
        how._replace(steps=steps),
        f"the mean of the shell b = {bval:g}",
    )


def _choose_model(
    setting: _Setting, shells: list[np.ndarray], affines: np.ndarray, last: bool
) -> SignalModel:
    """Choose the model of some shells, with directions in the axes of the head."""
    gtab = rotate_gradients(
        setting.gtab,
        np.moveaxis(affines, 0, -1),
        grid2world=setting.series.grid2world,
        frame=setting.options.frame,
    )
    volumes = np.concatenate(shells)
    numbers = np.repeat(np.arange(len(shells)), [len(shell) for shell in shells])
    return choose_model(numbers, gtab.bvals[volumes], gtab.bvecs[volumes], aligned=last)


def _predict(
    setting: _Setting,
    volumes: np.ndarray,
    model: SignalModel,
    affines: np.ndarray,
    largest: float = 1.0,
) -> Prediction:
    """Fit a model to volumes that are aligned by their affines."""
    aligned = map_in_order(setting.workers, partial(_align, setting, affines), volumes)
    return fit_prediction(aligned, model, largest)


def _align(
    setting: _Setting, affines: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read a volume and align it by its affine."""
    volume = setting.series.read(k)
    return align_volume(volume, affines[k], setting.series.grid2world)


def _register_to_prediction(
    setting: _Setting,
    volumes: np.ndarray,
    prediction: Prediction,
    how: VolumeSteps,
    affines: np.ndarray,
) -> None:
    """Register each volume to its prediction; changes `affines`."""
    if len(volumes) == 1:
        return
    grid = setting.series.grid2world

    def register(place: int) -> np.ndarray:
        k = int(volumes[place])
        known = prediction.known[prediction.model.shells[place]]
        volume = setting.series.read(k)
        aligned, _ = align_volume(volume, affines[k], grid)
        mask = _join(known, setting.mask)
        reference = Reference(prediction.predict(place, aligned), mask)
        return register_volume(reference, volume, grid, affines[k], how, _name(k))

    affines[volumes] = _collect(setting, register, range(len(volumes)), len(volumes))


def _register_all(
    setting: _Setting,
    volumes: Sequence[int],
    images: Sequence[Reference],
    how: VolumeSteps,
    affines: np.ndarray,
) -> None:
    """Register volumes to one image each; changes `affines`."""
    grid = setting.series.grid2world

    def register(item: tuple[int, Reference]) -> np.ndarray:
        k, image = item
        return register_volume(
            image, setting.series.read(k), grid, affines[k], how, _name(k)
        )

    items = zip(volumes, images, strict=True)
    found = _collect(setting, register, items, len(volumes))
    for k, matrix in zip(volumes, found, strict=True):
        affines[k] = matrix


def _collect(
    setting: _Setting, register: Callable, items: Iterable, count: int
) -> list[np.ndarray]:
    """Register volumes in the threads, and show how many are done."""
    results = map_in_order(setting.workers, register, items)
    return list(track(results, "Registration of volumes", count, unit="volume"))


def _name(k: int) -> str:
    return f"volume {k}"


def _join(known: np.ndarray, mask: np.ndarray | None) -> np.ndarray | None:
    """The user's mask without voxels that volumes do not show; None without a mask."""
    return None if mask is None else mask & known
