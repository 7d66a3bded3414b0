"""What is computed for each subject of a template, also in worker processes.

Each function reads its inputs from files, writes its result to a file, completely or
not at all, and does nothing if the file exists: a computation that was interrupted goes
on where it ended.
"""

from __future__ import annotations

from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dipy_dl_reg.geometry.mean_map import remove_mean_map
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.groupwise.provenance import write_json
from dipy_dl_reg.groupwise.template_average import warp_subject
from dipy_dl_reg.groupwise.template_options import TemplateOptions
from dipy_dl_reg.groupwise.template_subjects import load_subject
from dipy_dl_reg.io.atomic_files import write_atomically
from dipy_dl_reg.maps.dipy_map import make_mapping
from dipy_dl_reg.maps.storage import load_mapping, save_mapping
from dipy_dl_reg.registration.affine.call import find_prealign
from dipy_dl_reg.registration.deformable import DeepRegistration
from dipy_dl_reg.registration.deformable_options import automatic_iters
from dipy_dl_reg.registration.dipy_adapter import displacement_to_tensor, make_map
from dipy_dl_reg.registration.monitor import VerbosityLevels


class Reference(NamedTuple):
    """An image that subjects are registered to.

    Attributes
    ----------
    values : ndarray of float32, shape (*shape, K)
        Intensities.
    grid : Grid
        Its grid.
    mask : ndarray of bool, shape (*shape,), or None
        Voxels that are compared.
    """

    values: np.ndarray
    grid: Grid
    mask: np.ndarray | None


@dataclass(frozen=True)
class SubjectJob:
    """One subject at one step of the computation.

    Attributes
    ----------
    subject : Path
        File of the subject (`template_subjects.write_subject`).
    reference : Path
        File of the template (`write_reference`), or of the subject to align to.
    result : Path
        File of the result.
    affine : ndarray, shape (D + 1, D + 1), or None
        World of the template to the world of the subject.
    key : str
        Checksum of all that the result depends on, where it lies in a folder that
        results of another computation may lie in, too.
    """

    subject: Path
    reference: Path
    result: Path
    affine: np.ndarray | None = None
    key: str = ""

    @property
    def record(self) -> Path:
        """JSON file of the measures of a registration, which is written last."""
        return self.result.with_suffix(".json")


class _Grids(NamedTuple):
    """The grids of a template and of a subject."""

    static_grid: Grid
    moving_grid: Grid


def write_reference(reference: Reference, path: Path) -> None:
    """Store a template.

    Parameters
    ----------
    reference : Reference
        The template.
    path : Path
        A file of the suffix ``.npz``; an existing one is replaced.
    """
    entries: dict[str, Any] = {"values": reference.values}
    entries["affine"] = reference.grid.affine
    if reference.mask is not None:
        entries["mask"] = reference.mask
    with write_atomically(path, overwrite=True) as temporary:
        with open(temporary, "wb") as file:
            np.savez(file, **entries)


def load_reference(path: Path) -> Reference:
    """Read a template that `write_reference` stored, or a subject as a reference.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    reference : Reference
        The image.
    """
    with np.load(path) as stored:
        values = stored["values"]
        mask = stored["mask"] if "mask" in stored else None
        return Reference(values, Grid(values.shape[:-1], stored["affine"]), mask)


def align_subject(job: SubjectJob, *, options: TemplateOptions) -> None:
    """Register a subject affinely to a reference; write the matrix.

    Parameters
    ----------
    job : SubjectJob
        The subject; the result is a ``.npy`` file.  Without an affine, the images may
        be in any pose.
    options : TemplateOptions
        The options.
    """
    if job.result.is_file():
        return
    if job.subject == job.reference:
        matrix = np.eye(load_subject(job.subject).grid.dim + 1)
    else:
        subject, reference = load_subject(job.subject), load_reference(job.reference)
        matrix = find_prealign(
            reference.values[..., 0],
            subject.values[..., 0],
            reference.grid.affine,
            subject.grid.affine,
            static_mask=reference.mask,
            pipeline=options.first_steps if job.affine is None else options.steps,
            starting_affine=job.affine,
        )
    with write_atomically(job.result, overwrite=True) as temporary:
        with open(temporary, "wb") as file:
            np.save(file, matrix)


def register_subject(job: SubjectJob, *, options: TemplateOptions, fine: bool) -> None:
    """Register a subject to the template; write the map and the energy.

    Parameters
    ----------
    job : SubjectJob
        The subject; the result is a ``.npz`` file, with a ``.json`` file beside it.
    options : TemplateOptions
        The options.
    fine : bool
        Whether the finest level is used.
    """
    if _is_done(job):
        return
    subject, template = load_subject(job.subject), load_reference(job.reference)
    registration = make_registration(options, template, fine=fine)
    mapping = registration.optimize(
        static=_without_channel_axis(template.values),
        moving=_without_channel_axis(subject.values),
        static_grid2world=template.grid.affine,
        moving_grid2world=subject.grid.affine,
        prealign=job.affine,
        static_mask=template.mask,
    )
    save_mapping(mapping, job.result, overwrite=True)
    record = {**describe_registration(registration), "key": job.key}
    write_json(job.record, record, overwrite=True)


def _is_done(job: SubjectJob) -> bool:
    """Whether the result of a registration exists, of the same images and options."""
    if not (job.record.is_file() and job.result.is_file()):
        return False
    return json.loads(job.record.read_text()).get("key") == job.key


def describe_registration(registration: DeepRegistration) -> dict[str, Any]:
    """Describe the result of a registration by plain values.

    Parameters
    ----------
    registration : DeepRegistration
        After `optimize`.

    Returns
    -------
    measures : dict
        The verdict's grade and reasons, the last energy of the metric, and the fields
        of `Quality`.
    """
    energy = registration.full_energy_profile[-1:]
    return {
        "grade": registration.verdict.grade,
        "reasons": list(registration.verdict.reasons),
        "energy": float(energy[0]) if energy else None,
        **registration.quality._asdict(),
    }


def make_registration(
    options: TemplateOptions, template: Reference, *, fine: bool
) -> DeepRegistration:
    """Make the deformable registration of a subject to a template.

    Parameters
    ----------
    options : TemplateOptions
        The options.
    template : Reference
        The template.
    fine : bool
        Whether the finest of several levels is used.

    Returns
    -------
    registration : DeepRegistration
        It logs nothing.
    """
    levels: Any = options.level_iters
    levels = list(levels) if levels is not None else automatic_iters(template.grid)
    if not fine and len(levels) > 1 and any(levels[:-1]):
        levels[-1] = 0
    channels = template.values.shape[-1]
    metric = options.metric
    if channels > 1 and not isinstance(metric, (list, tuple)):
        metric = [metric] * channels
    registration = DeepRegistration(
        metric,
        level_iters=levels,
        model=options.model,
        sigma_field=options.sigma_field,
        channel_weights=options.channel_weights,
        device=options.device,
        progress=False,
    )
    registration.verbosity = VerbosityLevels.NONE
    return registration


def center_subject(
    job: SubjectJob, *, mean: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Compose a subject's map with the inverse of the mean map; warp the subject.

    Parameters
    ----------
    job : SubjectJob
        The subject; its reference is the map of `register_subject`, and the result is
        the file of the centred map.
    mean : tuple of ndarray, shape (*shape, D)
        The mean of all maps and its inverse, in mm.

    Returns
    -------
    warped : ndarray of float32, shape (*shape, K)
        The subject in the template's space.
    """
    subject = load_subject(job.subject)
    if not job.result.is_file():
        found = load_mapping(job.reference)
        grid = Grid(tuple(found.disp_shape), found.disp_grid2world)
        fields = (found.backward, found.forward, *mean)
        u, v = remove_mean_map(*(displacement_to_tensor(f, grid) for f in fields))
        mapping = make_map(
            u,
            v,
            _Grids(grid, subject.grid),
            static_grid2world=grid.affine,
            moving_grid2world=subject.grid.affine,
            prealign=job.affine,
        )
        save_mapping(mapping, job.result, overwrite=True)
    return warp_subject(subject, load_mapping(job.result))


def write_affine_map(job: SubjectJob, *, grid: Grid) -> np.ndarray:
    """Write a map that is only affine; warp the subject.

    Parameters
    ----------
    job : SubjectJob
        The subject; the result is the file of the map.
    grid : Grid
        Grid of the template.

    Returns
    -------
    warped : ndarray of float32, shape (*shape, K)
        The subject in the template's space.
    """
    subject = load_subject(job.subject)
    nothing = np.zeros((*grid.shape, grid.dim), np.float32)
    mapping = make_mapping(
        nothing,
        nothing.copy(),
        grid.shape,
        grid.affine,
        subject.grid.shape,
        subject.grid.affine,
        job.affine,
    )
    save_mapping(mapping, job.result, overwrite=True)
    return warp_subject(subject, mapping)


def _without_channel_axis(values: np.ndarray) -> np.ndarray:
    """Values without the last axis if there is one channel."""
    return values[..., 0] if values.shape[-1] == 1 else values
