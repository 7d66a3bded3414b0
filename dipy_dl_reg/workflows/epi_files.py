"""Corrects the distortion of echo-planar images in files, and writes all results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import nibabel as nib
import numpy as np

from dipy_dl_reg.diffusion.epi import apply_epi_correction, deep_epi_correction
from dipy_dl_reg.diffusion.epi_to_t1 import deep_epi_to_t1
from dipy_dl_reg.io.affine_files import read_affine
from dipy_dl_reg.io.atomic_files import write_all_or_none
from dipy_dl_reg.io.images import make_nifti, open_volume
from dipy_dl_reg.io.series_files import (
    VolumeSeries,
    open_series,
    unpack_series,
    write_series,
)
from dipy_dl_reg.maps.formats.table import find_format
from dipy_dl_reg.maps.verdict import Verdict
from dipy_dl_reg.registration.report_files import write_report
from dipy_dl_reg.workflows.base import PathLike
from dipy_dl_reg.workflows.register_files import format_command


class EpiFiles(NamedTuple):
    """The input files of `dipy_epi_deep`.

    Attributes
    ----------
    b0 : str or Path
        The distorted image.
    opposite, t1 : str, Path or None
        The image that it is corrected with; one of them is given.
    dwi : str, Path or None
        The series to correct, too.
    t1_mask, prealign : str, Path or None
        Mask of the T1 image, and a matrix from its world to that of b0.
    """

    b0: PathLike
    opposite: PathLike | None = None
    t1: PathLike | None = None
    dwi: PathLike | None = None
    t1_mask: PathLike | None = None
    prealign: PathLike | None = None

    def check_options(self, *, still: bool = False) -> None:
        """Check which files are given.

        Parameters
        ----------
        still : bool, optional
            Whether --still is given.

        Raises
        ------
        ValueError
            If the options exclude each other.
        """
        if (self.opposite is None) == (self.t1 is None):
            both = "not both" if self.t1 is not None else "got neither"
            raise ValueError(f"give either --opposite or --t1, {both}")
        if self.opposite is not None:
            for name in ("t1_mask", "prealign"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} can only be given with --t1")
        elif still:
            raise ValueError("still can only be given with --opposite")

    def check(self) -> None:
        """Check the grids in the headers of the files.

        Raises
        ------
        ValueError
            If the files cannot be used together.
        FileNotFoundError
            If a file is missing.
        """
        b0 = open_volume(self.b0, "b0_files")
        for name in ("opposite", "dwi"):
            path = getattr(self, name)
            if path is None:
                continue
            if name == "dwi":
                other = open_series(path, name=f"dwi: {path}")
                shape, affine = other.shape, other.grid2world
            else:
                other = open_volume(path, name)
                shape, affine = other.shape, other.affine
            if shape != b0.shape or not np.allclose(affine, b0.affine, atol=1e-3):
                raise ValueError(f"{name}: {path} is not on the grid of {self.b0}")
        if self.t1 is not None:
            open_volume(self.t1, "t1")


class _Found(NamedTuple):
    """The parts of a correction that are written."""

    corrected: np.ndarray
    field: np.ndarray
    mapping: DiffeomorphicMap
    rigid: np.ndarray
    rigid_meaning: str
    reference: np.ndarray
    after: np.ndarray
    verdict: Verdict | None = None


def correct_epi_files(
    files: EpiFiles,
    targets: dict[str, Path],
    *,
    overwrite: bool,
    **options: Any,
) -> str:
    """Correct the distortion of images in files, and write all results or none.

    Parameters
    ----------
    files : EpiFiles
        The inputs, checked.
    targets : dict of Path
        The files to be written, by the names of the command's parameters.
    overwrite : bool
        Replace files that exist.
    **options : dict
        Options of the command: `phase_encoding`, `iterations`, `still`, `device` and
        `num_threads`.

    Returns
    -------
    summary : str
        The result in one line.

    Raises
    ------
    ValueError
        If an image or an option cannot be used.
    """
    with write_all_or_none(list(targets.values()), overwrite=overwrite) as temporaries:
        places = dict(zip(targets, temporaries))
        found = _correct(files, **options)
        image = open_volume(files.b0, "b0_files")
        for name in ("corrected", "field"):
            values = getattr(found, name).astype(np.float32)
            nib.save(make_nifti(image, values), places[f"out_{name}"])
        mapping = places["out_mapping"]
        find_format(mapping).write(found.mapping, mapping)
        np.savetxt(places["out_rigid"], found.rigid, header=found.rigid_meaning)
        if "out_report" in places:
            _write_report(files, found, places["out_report"])
        if files.dwi is not None:
            _correct_series(files, found.mapping, places["out_dwi"])
    folders = ", ".join(dict.fromkeys(str(path.parent) for path in targets.values()))
    return (
        f"Corrected {files.b0}: shift of {abs(found.field).max():.1f} voxels at most; "
        f"saved in {folders}"
    )


def _correct(
    files: EpiFiles,
    *,
    phase_encoding: str,
    iterations: int | None,
    still: bool,
    device: str,
    num_threads: int | None,
) -> _Found:
    """Estimate the distortion."""
    options: dict[str, Any] = {
        "phase_encoding": phase_encoding,
        "device": device,
        "num_threads": num_threads,
    }
    if iterations is not None:
        options["iterations"] = iterations
    b0 = open_volume(files.b0, "b0_files")
    if files.opposite is not None:
        logger.info(f"Correcting {files.b0} and {files.opposite}")
        opposite = open_volume(files.opposite, "opposite")
        pair = deep_epi_correction(b0, opposite, motion=not still, **options)
        meaning = "world of the first image to world of the second"
        mapping = pair.first_mapping
        results = pair.corrected, pair.field, mapping, pair.motion, meaning
        return _Found(*results, reference=pair.second, after=pair.first)
    logger.info(f"Correcting {files.b0} with {files.t1}")
    if files.prealign is not None:
        options["prealign"] = read_affine(
            files.prealign, static=files.t1, moving=files.b0, dim=3, name="prealign"
        )
    assert files.t1 is not None  # see EpiFiles.check
    t1 = open_volume(files.t1, "t1")
    found = deep_epi_to_t1(b0, t1, t1_mask=files.t1_mask, **options)
    meaning = "T1 world to the world of the corrected image"
    results = found.corrected, found.field, found.mapping, found.t1_to_b0, meaning
    after = found.corrected
    return _Found(*results, reference=found.t1, after=after, verdict=found.verdict)


def _write_report(files: EpiFiles, found: _Found, path: Path) -> None:
    """Write the report: the first image beside the image it was corrected with."""
    write_report(
        path,
        found.reference,
        open_volume(files.b0, "b0_files"),
        found.mapping,
        verdict=found.verdict,
        warped=found.after,
        title=f"Distortion of {Path(files.b0).name}",
        command=format_command(),
    )


def _correct_series(files: EpiFiles, mapping: DiffeomorphicMap, target: Path) -> None:
    """Correct a series, volume by volume."""
    logger.info(f"Correcting {files.dwi}")
    packed = open_series(files.dwi, name=f"dwi: {files.dwi}")
    with unpack_series(packed, target.parent) as series:
        write_series(target, _correct_volumes(series, mapping), series)


def _correct_volumes(
    series: VolumeSeries, mapping: DiffeomorphicMap
) -> Iterator[np.ndarray]:
    """Each volume without distortion, interpolated once."""
    for k in range(series.values.shape[3]):
        yield apply_epi_correction(mapping, series.read(k))
