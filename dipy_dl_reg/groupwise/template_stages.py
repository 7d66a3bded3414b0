"""The stages of the computation of a template: alignment, iterations, their state.

The state lies in a folder.  Each file is written completely or not at all, and a stage
begins with what it finds there.  The order of the subjects is that of their checksums,
so that the result does not depend on the order in which they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
import json
from pathlib import Path
import shutil
from typing import NamedTuple

from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.geometry.mean_map import invert_mean
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.groupwise.mean_affine import remove_mean_affine
from dipy_dl_reg.groupwise.provenance import write_json
from dipy_dl_reg.groupwise.template_average import average_images
from dipy_dl_reg.groupwise.template_grid import choose_grid
from dipy_dl_reg.groupwise.template_jobs import (
    Reference,
    SubjectJob,
    align_subject,
    center_subject,
    load_reference,
    register_subject,
    write_affine_map,
    write_reference,
)
from dipy_dl_reg.groupwise.template_study import AVERAGE, TemplateState
from dipy_dl_reg.groupwise.template_subjects import find_foreground, load_subject
from dipy_dl_reg.maps.dipy_map import displacement_to_voxels
from dipy_dl_reg.maps.storage import load_mapping
from dipy_dl_reg.progress import Progress
from dipy_dl_reg.registration.dipy_adapter import displacement_to_tensor, make_map

#: The mean displacement is removed again, at most so many times in all, while its
#: maximum is above this many voxels.
_CENTERINGS, _MOST_DISPLACEMENT = 3, 0.05


class IterationMeasures(NamedTuple):
    """Measures of a template after one iteration.

    Attributes
    ----------
    iteration : int
        0 is the template of affine maps alone.
    energy : float or None
        Mean over the subjects of the last energy of the registration to the previous
        template; lower is better, and levels of other voxel sizes are not comparable.
    sharpness : float
        Root mean square of the gradient magnitude before sharpening, divided by that
        of the intensity: 1/mm.
    spread : float
        Standard deviation over the warped subjects, divided by the mean intensity.
    displacement : float
        Mean length of the displacements, over subjects and foreground, voxels.
    shape_update, shape_update_max : float
        Length of the mean over the subjects of their displacements, as they were
        registered to the previous template: mean and maximum over the foreground,
        voxels.  This is how far the template's shape was changed.
    mean_displacement, mean_displacement_max : float
        The same after this change, of the maps that are returned.
    """

    iteration: int
    energy: float | None
    sharpness: float
    spread: float
    displacement: float
    shape_update: float
    shape_update_max: float
    mean_displacement: float
    mean_displacement_max: float


def align_all(study: TemplateState) -> tuple[list[np.ndarray], Grid]:
    """Align all subjects affinely with their mean, and choose the template's grid.

    All are registered to one of them first, then to the average of all; the mean of the
    affine maps is removed each time, so that the template's size, shape and pose are
    the mean of those of the subjects.

    Parameters
    ----------
    study : TemplateState
        The subjects.

    Returns
    -------
    affines : list of ndarray, shape (D + 1, D + 1)
        World of the template to the world of each subject.
    grid : Grid
        Grid of the template.
    """
    subjects = [load_subject(study.subject_file(name)) for name in study.names]
    reference = study.subject_file(study.names[0])
    affines = _align_to(study, "affine_00", reference, None)
    grid = choose_grid(subjects, affines, study.options.voxel_size)
    for k in range(1, study.options.affine_iterations + 1):
        stage = study.stage(f"affine_{k:02d}")
        template = stage / AVERAGE
        if not template.is_file():
            _average_affinely(study, stage, affines, grid, template)
        affines = _align_to(study, stage.name, template, affines)
        grid = choose_grid(subjects, affines, study.options.voxel_size)
    return affines, grid


def _align_to(
    study: TemplateState, stage: str, reference: Path, affines: list[np.ndarray] | None
) -> list[np.ndarray]:
    """Align all subjects to a reference, and remove the mean of the matrices."""
    folder = study.stage(stage)
    jobs = [
        SubjectJob(
            study.subject_file(name),
            reference,
            folder / f"{name}.npy",
            None if affines is None else affines[k],
        )
        for k, name in enumerate(study.names)
    ]
    function = partial(align_subject, options=study.options)
    study.call(function, jobs, f"Affine registration {int(stage[-2:])}")
    return remove_mean_affine([np.load(job.result) for job in jobs])


def _average_affinely(
    study: TemplateState,
    stage: Path,
    affines: Sequence[np.ndarray],
    grid: Grid,
    path: Path,
) -> IterationMeasures:
    """Write the maps of affine transforms and the average through them."""
    jobs = [
        SubjectJob(study.subject_file(name), path, stage / f"{name}.npz", affine)
        for name, affine in zip(study.names, affines)
    ]
    warped = study.call(partial(write_affine_map, grid=grid), jobs, "Affine average")
    zero = [0.0] * 5
    return _write_average(study, np.stack(warped), grid, path, 0, None, zero)


def _write_average(
    study: TemplateState,
    warped: np.ndarray,
    grid: Grid,
    path: Path,
    iteration: int,
    energy: float | None,
    displacements: Sequence[float],
) -> IterationMeasures:
    """Write the average of warped subjects; return its measures."""
    options = study.options
    average = average_images(
        warped, grid, average=options.average, sharpening=options.sharpening
    )
    mask = None if average.seen.all() else average.seen
    write_reference(Reference(average.values, grid, mask), path)
    return IterationMeasures(
        iteration, energy, average.sharpness, average.spread, *displacements
    )


def iterate(
    study: TemplateState, affines: list[np.ndarray], grid: Grid
) -> list[IterationMeasures]:
    """Register the subjects to the template, change its shape, average; repeat.

    Parameters
    ----------
    study : TemplateState
        The subjects.
    affines : list of ndarray
        As `align_all` returns them.
    grid : Grid
        Grid of the template.

    Returns
    -------
    history : list of IterationMeasures
        From the average of the affine maps to the last iteration, whose folder has the
        results.
    """
    history = []
    total = study.options.iterations
    with Progress("Template", total, unit="iteration") as progress:
        for number in range(total + 1):
            folder = study.iteration(number)
            done = folder / "measures.json"
            if not done.is_file():
                measures = _run_iteration(study, affines, grid, number)
                write_json(done, measures._asdict(), overwrite=True)
            history.append(IterationMeasures(**json.loads(done.read_text())))
            logger.info(describe_measures(history[-1]))
            if number:
                progress.update()
    return history


def describe_measures(measures: IterationMeasures) -> str:
    """Describe the measures of an iteration in one line.

    Parameters
    ----------
    measures : IterationMeasures
        The measures.

    Returns
    -------
    text : str
        For the log.
    """
    m = measures
    energy = "" if m.energy is None else f"energy {m.energy:.4f}, "
    return (
        f"Template {m.iteration}: {energy}sharpness {m.sharpness:.4f} /mm, spread "
        f"{m.spread:.4f}, shape changed by {m.shape_update:.3f} voxel, mean "
        f"displacement now {m.mean_displacement:.4f} voxel (maximum "
        f"{m.mean_displacement_max:.4f})"
    )


def _run_iteration(
    study: TemplateState, affines: list[np.ndarray], grid: Grid, number: int
) -> IterationMeasures:
    """Run one iteration; iteration 0 averages the affine maps."""
    folder = study.iteration(number)
    path = folder / AVERAGE
    if number == 0:
        return _average_affinely(study, folder, affines, grid, path)
    previous = study.iteration(number - 1) / AVERAGE
    jobs = _register_all(study, affines, number, previous)
    foreground = find_foreground(load_reference(previous).values[..., 0])
    warped, lengths = _center_all(study, jobs, grid, number, foreground)
    first, last = lengths
    figures = [last.each, first.mean, first.most, last.mean, last.most]
    energy = _mean_energy(jobs)
    return _write_average(study, warped, grid, path, number, energy, figures)


def _center_all(
    study: TemplateState,
    jobs: list[SubjectJob],
    grid: Grid,
    number: int,
    foreground: np.ndarray,
) -> tuple[np.ndarray, list[_Displacements]]:
    """Remove the mean of all maps; return the warped subjects and both means.

    It is removed again if interpolation leaves a part of it.
    """
    folder = study.iteration(number)
    first, mean = _mean_displacement([job.result for job in jobs], foreground)
    for k in range(_CENTERINGS):
        stage = study.stage(f"{folder.name}/centered_{k}")
        jobs = [
            SubjectJob(job.subject, job.result, stage / job.result.name, job.affine)
            for job in jobs
        ]
        center = partial(center_subject, mean=_invert_mean(mean, grid))
        warped = study.call(center, jobs, f"Change of the template's shape {number}")
        last, mean = _mean_displacement([job.result for job in jobs], foreground)
        if last.most < _MOST_DISPLACEMENT:
            break
    for job in jobs:
        shutil.copyfile(job.result, folder / job.result.name)
    return np.stack(warped), [first, last]


def _register_all(
    study: TemplateState, affines: Sequence[np.ndarray], number: int, template: Path
) -> list[SubjectJob]:
    """Register all subjects to the template of the previous iteration."""
    folder = study.stage(f"{study.iteration(number).name}/registered")
    jobs = [
        SubjectJob(study.subject_file(name), template, folder / f"{name}.npz", affine)
        for name, affine in zip(study.names, affines)
    ]
    fine = number > study.options.iterations // 2
    register = partial(register_subject, options=study.options, fine=fine)
    study.call(register, jobs, f"Registration to template {number - 1}")
    return jobs


def _mean_energy(jobs: Sequence[SubjectJob]) -> float | None:
    """Mean of the last energies of registrations; None if there are none."""
    energies = [json.loads(job.record.read_text())["energy"] for job in jobs]
    known = [energy for energy in energies if energy is not None]
    return float(np.mean(known)) if known else None


class _Displacements(NamedTuple):
    """Lengths in voxels over the foreground: of each map, and of the mean of all."""

    each: float
    mean: float
    most: float


def _mean_displacement(
    paths: Sequence[Path], foreground: np.ndarray
) -> tuple[_Displacements, np.ndarray]:
    """Average the displacements of maps, and measure them in voxels."""
    lengths: list[float] = []
    total: np.ndarray = np.zeros(())
    for path in paths:
        mapping = load_mapping(path)
        affine = mapping.disp_grid2world
        total = total + mapping.backward.astype(np.float64)
        inside = displacement_to_voxels(mapping.backward[foreground], affine)
        lengths.append(np.linalg.norm(inside, axis=-1).mean())
    mean = total / len(paths)
    length = np.linalg.norm(displacement_to_voxels(mean[foreground], affine), axis=-1)
    measured = (np.mean(lengths), length.mean(), length.max())
    return _Displacements(*map(float, measured)), mean


def _invert_mean(mean: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The mean displacement, without folds, and its inverse, mm."""
    fields = invert_mean(displacement_to_tensor(mean, grid))
    mapping = make_map(*fields, _SameGrids(grid, grid), static_grid2world=grid.affine)
    return mapping.backward, mapping.forward


class _SameGrids(NamedTuple):
    """One grid for both sides of a map."""

    static_grid: Grid
    moving_grid: Grid
