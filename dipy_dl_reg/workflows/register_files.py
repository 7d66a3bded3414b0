"""Registers two image files, and writes the result files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
import os
from pathlib import Path
import shlex
import sys
import time
from types import MappingProxyType
from typing import Any, NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import nibabel as nib
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.affine_files import affine_format_name, write_affine
from dipy_dl_reg.io.atomic_files import write_all_or_none
from dipy_dl_reg.io.images import make_nifti
from dipy_dl_reg.io.input_image import InputImage
from dipy_dl_reg.maps.apply import transform_array
from dipy_dl_reg.maps.formats.table import FORMATS, find_format
from dipy_dl_reg.maps.record import RegistrationRecord
from dipy_dl_reg.maps.report import plot_registration
from dipy_dl_reg.maps.verdict import PoseComparison, Verdict
from dipy_dl_reg.registration.affine.call import find_affine
from dipy_dl_reg.registration.anatomy_check import check_anatomy
from dipy_dl_reg.registration.head_masks import mask_heads
from dipy_dl_reg.registration.report_files import write_report
from dipy_dl_reg.registration.uncertainty import mapping_uncertainty
from dipy_dl_reg.validation import check_affine
from dipy_dl_reg.workflows.commands import name_of_command
from dipy_dl_reg.workflows.image_pair import ImagePair, distinct_names, read_pair

try:  # DIPY 1.13 moves it
    from dipy.utils import VerbosityLevels
except ImportError:
    from dipy.align import VerbosityLevels

#: Verbosity of a registration that logs every iteration.
DIAGNOSE = VerbosityLevels.DIAGNOSE


class FileResult(NamedTuple):
    """The result of a registration, to be written to files.

    Attributes
    ----------
    mapping : DiffeomorphicMap
        The map of moving to static.
    prealign : ndarray, shape (dim + 1, dim + 1)
        Static world to moving world; the identity if there is none.
    warped : ndarray
        Moving on static's grid.
    verdict : Verdict
        Verdict on the registration.
    record : RegistrationRecord
        How the map was computed.
    expected_error : ndarray or None
        The expected error of the map, if it is to be written.
    """

    mapping: DiffeomorphicMap
    prealign: np.ndarray
    warped: np.ndarray
    verdict: Verdict
    record: RegistrationRecord
    expected_error: np.ndarray | None = None


def register_files(
    static: Path,
    moving: Path,
    files: dict[str, Path],
    *,
    registration: Any,
    masks: Mapping[str, str | os.PathLike | None],
    steps: Sequence[str],
    prealigns: dict[int, np.ndarray | None],
    num_threads: int | None,
    overwrite: bool,
    channels: Sequence[Sequence[str | os.PathLike]] = ((), ()),
    uncertainty: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Register two image files, and write either all result files or none.

    Parameters
    ----------
    static, moving : Path
        The images' files.
    files : dict of Path
        The files to be written, by the names of the command's parameters (see
        `WRITERS`).
    registration : DeepRegistration
        The deformable registration.
    masks : dict
        Paths or None, by the names "static_mask" and "moving_mask".
    steps : sequence of str
        Affine steps that come first.
    prealigns : dict of ndarray or None
        By dimension, the matrix from static world to moving world with which the
        registration starts.
    num_threads : int or None
        Threads on the CPU.
    overwrite : bool
        Replace files that exist.
    channels : sequence of sequence of str or Path, optional
        Files of further images of static and of moving.
    uncertainty : dict, optional
        Options of `mapping_uncertainty`, for the file "out_uncertainty".

    Returns
    -------
    summary : str
        One line with the names of the images, the time, the output folder and the
        verdict.

    Raises
    ------
    ValueError
        If an image cannot be registered.
    RuntimeError
        If no refinement was requested and no initial field was used.
    OSError
        If a file cannot be written.
    """
    with write_all_or_none(list(files.values()), overwrite=overwrite) as temporaries:
        pair = read_pair(static, moving, channels=channels, **masks)
        if channels[0]:
            pairs = zip((moving, *channels[1]), (static, *channels[0]), strict=True)
            registration.channel_names = [
                " to ".join(distinct_names(*paths)) for paths in pairs
            ]
        prealign = prealigns[pair.dim]
        poses: PoseComparison | None = None
        began = time.perf_counter()
        if steps and pair.dim == 3 and not pair.channels[0]:
            pair = _mask_heads(pair, num_threads)
        if steps:
            prealign, poses = find_affine_prealign(pair, steps, prealign, num_threads)
        start = time.perf_counter()
        affine_seconds = start - began
        mapping = register_pair(pair, registration, prealign, poses, num_threads)
        seconds = time.perf_counter() - start
        verdict = registration.verdict
        if "out_report" in files:
            images = pair.static, pair.moving
            verdict = check_anatomy(verdict, mapping, *images, num_threads=num_threads)
        result = FileResult(
            mapping=mapping,
            prealign=np.eye(pair.dim + 1) if prealign is None else prealign,
            warped=transform_array(mapping, pair.moving),
            verdict=verdict,
            record=describe_command(registration.record, steps, affine_seconds),
        )
        if "out_uncertainty" in files:
            options = {"num_threads": num_threads, **uncertainty}
            result = result._replace(expected_error=_find_error(pair, mapping, options))
        for (parameter, path), temporary in zip(files.items(), temporaries):
            logger.info(f"Writing {path}")
            WRITERS[parameter](pair, result, temporary)
    folders = ", ".join(dict.fromkeys(str(path.parent) for path in files.values()))
    return (
        f"Registered {pair.name} in {seconds:.1f} s; saved in {folders}; "
        f"verdict: {result.verdict}"
    )


def _mask_heads(pair: ImagePair, num_threads: int | None) -> ImagePair:
    """Add masks of the brains for all steps, if both images show whole heads."""
    static, moving = mask_heads(
        InputImage(pair.static, pair.static_grid2world, pair.masks["static_mask"]),
        InputImage(pair.moving, pair.moving_grid2world, pair.masks["moving_mask"]),
        num_threads=num_threads,
    )
    masks = {"static_mask": static.mask, "moving_mask": moving.mask}
    return replace(pair, masks=masks)


def find_affine_prealign(
    pair: ImagePair,
    steps: Sequence[str],
    starting_affine: np.ndarray | None,
    num_threads: int | None,
) -> tuple[np.ndarray, PoseComparison | None]:
    """Register two images affinely.

    Parameters
    ----------
    pair : ImagePair
        The images.
    steps : sequence of str
        Affine steps.
    starting_affine : ndarray, shape (dim + 1, dim + 1), or None
        Initial matrix of the first step.
    num_threads : int or None
        Threads on the CPU.

    Returns
    -------
    prealign : ndarray, shape (dim + 1, dim + 1)
        Static world to moving world.
    poses : PoseComparison or None
        Comparison of the search over poses.
    """
    logger.info(f"Affine registration of {pair.name}")
    found = find_affine(
        pair.moving,
        pair.static,
        static_affine=pair.static_grid2world,
        moving_affine=pair.moving_grid2world,
        pipeline=list(steps),
        starting_affine=starting_affine,
        num_threads=num_threads,
        **pair.masks,
    )
    return check_affine(found.matrix, pair.dim, "the affine found"), found.poses


def register_pair(
    pair: ImagePair,
    registration: Any,
    prealign: np.ndarray | None,
    poses: PoseComparison | None,
    num_threads: int | None,
) -> DiffeomorphicMap:
    """Register two images deformably.

    Parameters
    ----------
    pair : ImagePair
        The images.
    registration : DeepRegistration
        The registration.
    prealign : ndarray or None
        Static world to moving world.
    poses : PoseComparison or None
        Comparison of the search over poses, for the verdict.
    num_threads : int or None
        Threads on the CPU.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map of moving to static.

    Raises
    ------
    RuntimeError
        If no refinement was requested and no initial field was used, so that the map
        would contain only the affine.
    """
    logger.info(f"Deformable registration of {pair.name}")
    registration.poses = poses
    mapping = registration.optimize(
        *pair.images(),
        static_grid2world=pair.static_grid2world,
        moving_grid2world=pair.moving_grid2world,
        prealign=prealign,
        num_threads=num_threads,
        **pair.masks,
    )
    if registration.affine_only:
        raise RuntimeError(
            f"no deformation of {pair.name}, no file is written: --level_iters 0 "
            "requests only the network's field, which was not used (see the warning). "
            "Omit --level_iters 0 to refine without this field"
        )
    return mapping


def describe_command(
    record: RegistrationRecord, steps: Sequence[str], seconds: float
) -> RegistrationRecord:
    """Add the command and its affine registration to a record.

    Parameters
    ----------
    record : RegistrationRecord
        The record of the deformable registration.
    steps : sequence of str
        Affine steps.
    seconds : float
        Their time.

    Returns
    -------
    record : RegistrationRecord
        A new record.
    """
    record = replace(record, command=format_command())
    return record.with_affine(steps, seconds) if steps else record


def format_command() -> str:
    """Format the command that runs now, for a report.

    Returns
    -------
    command : str
        Name of the program and its arguments, quoted for a shell.
    """
    return shlex.join([name_of_command(), *sys.argv[1:]])


def _write_warped(pair: ImagePair, result: FileResult, path: Path) -> None:
    """Write moving on static's grid."""
    _save_on(pair.static_image, result.warped, path)


def _write_inverse(pair: ImagePair, result: FileResult, path: Path) -> None:
    """Write static on moving's grid."""
    warped = transform_array(result.mapping, pair.static, inverse=True)
    _save_on(pair.moving_image, warped, path)


def _write_field(pair: ImagePair, result: FileResult, path: Path) -> None:
    """Write the displacement fields in DIPY's format."""
    FORMATS["dipy"].write(result.mapping, path)


def _write_mapping(pair: ImagePair, result: FileResult, path: Path) -> None:
    """Write the whole map."""
    find_format(path).write(result.mapping, path)


def _write_prealign(pair: ImagePair, result: FileResult, path: Path) -> None:
    """Write the prealign, in the format of the suffix."""
    static, moving = (
        Grid(image.shape[: pair.dim], grid2world)
        for image, grid2world in (
            (pair.static, pair.static_grid2world),
            (pair.moving, pair.moving_grid2world),
        )
    )
    like = affine_format_name(path, "text")
    write_affine(
        result.prealign, path, static=static, moving=moving, like=like, overwrite=True
    )


def _find_error(
    pair: ImagePair, mapping: DiffeomorphicMap, options: Mapping[str, Any]
) -> np.ndarray:
    """Estimate the expected error of the map, mm, at each voxel of static."""
    given: dict[str, Any] = {**pair.masks, **options}
    return mapping_uncertainty(mapping, *pair.images(), **given).expected_error


def _write_uncertainty(pair: ImagePair, result: FileResult, path: Path) -> None:
    """Write the expected error."""
    assert result.expected_error is not None
    _save_on(pair.static_image, result.expected_error, path)


def _write_report(pair: ImagePair, result: FileResult, path: Path) -> None:
    """The report, or the picture."""
    if path.suffix.lower() == ".html":
        write_report(
            path,
            *pair.images(),
            result.mapping,
            static_grid2world=pair.static_grid2world,
            moving_grid2world=pair.moving_grid2world,
            record=result.record,
            verdict=result.verdict,
            warped=None if pair.channels[0] else result.warped,
            title=pair.name,
            static_mask=pair.masks["static_mask"],
            moving_mask=pair.masks["moving_mask"],
        )
        return
    plot_registration(
        path,
        pair.static,
        pair.moving,
        result.mapping,
        warped=result.warped,
        title=pair.name,
        verdict=result.verdict,
    )


#: Functions that write the files, by the parameters of `dipy_align_deep`.
WRITERS = {
    "out_warped": _write_warped,
    "out_inv_static": _write_inverse,
    "out_field": _write_field,
    "out_mapping": _write_mapping,
    "out_prealign": _write_prealign,
    "out_uncertainty": _write_uncertainty,
    "out_report": _write_report,
}


def _save_on(reference: Any, data: np.ndarray, path: Path) -> None:
    """Write values as an image with the grid and the number of axes of another."""
    if data.ndim == 2 and len(reference.shape) > 2:
        data = data[..., None]
    nib.save(make_nifti(reference, data), path)
