"""Directions of fibres: vectors, and DIPY's peaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dipy.io.peaks import save_pam
import nibabel as nib
import numpy as np

from dipy_dl_reg.diffusion.frames import FRAMES
from dipy_dl_reg.diffusion.kinds.base import (
    FileKind,
    Match,
    Request,
    check_directions,
    check_frame,
    count_components,
    is_nifti,
    output_grid,
    require,
    save_directions,
)
from dipy_dl_reg.diffusion.peak_files import find_basis, read_peaks
from dipy_dl_reg.diffusion.peaks import (
    INTERPOLATIONS,
    transform_peaks,
    transform_vectors,
)
from dipy_dl_reg.io.images import open_image
from dipy_dl_reg.validation import check_affine

#: Suffix of DIPY's files of peaks.
_PEAKS = ".pam5"
_CHOICES = {"interpolation": INTERPOLATIONS, "frame": FRAMES}


def _match_vectors(path: Path, given: Mapping[str, object]) -> Match:
    """Three values in a voxel may be a vector."""
    if not is_nifti(path):
        return "no"
    shape = open_image(path).shape
    last = shape[-1] if len(shape) == 5 else count_components(path)
    return "possible" if last == 3 else "no"


def _check_vectors(path: Path, request: Request) -> None:
    """Check that an image has vectors in each voxel, and the map is 3D."""
    check_directions(path, request)
    if count_components(path) % 3:
        raise ValueError(
            f"kind: {path} must have 3 values in a voxel for each vector, got shape "
            f"{open_image(path).shape}"
        )
    require("frame", request, path, FRAMES)


def _transform_vectors(path: Path, targets: Sequence[Path], request: Request) -> None:
    """Transform vectors, with reorientation."""
    image = open_image(path)
    reference, grid = output_grid(image, request)
    warped = transform_vectors(request.mapping, image, **grid, **request.options)
    save_directions(targets[0], reference, warped, image)


def _match_peaks(path: Path, given: Mapping[str, object]) -> Match:
    """Files of peaks have a suffix of their own."""
    return "certain" if path.suffix.lower() == _PEAKS else "no"


def _check_peaks(path: Path, request: Request) -> None:
    """Check that a file contains peaks, and the map is 3D."""
    if request.mapping.dim != 3:
        raise ValueError(f"kind: the map is 2D, and {path} needs a 3D map")
    peaks = read_peaks(path, name="kind")
    if peaks.affine is None:
        raise ValueError(
            f"kind: {path} has no affine: save it with dipy.io.peaks.save_pam after "
            "peaks.affine was set to that of the image"
        )
    check_affine(peaks.affine, 3, f"kind: the affine of {path}")
    if peaks.shm_coeff is not None:
        find_basis(peaks)
    check_frame(path, peaks.affine, request)


def _transform_peaks(path: Path, targets: Sequence[Path], request: Request) -> None:
    """Transform peaks, with reorientation."""
    peaks = read_peaks(path)
    image = nib.Nifti1Image(np.zeros(peaks.peak_dirs.shape[:3]), peaks.affine)
    _, grid = output_grid(image, request)
    warped = transform_peaks(request.mapping, peaks, **grid, **request.options)
    save_pam(str(targets[0]), warped, affine=grid["out_grid2world"])


VECTORS = FileKind(_match_vectors, _check_vectors, _transform_vectors, _CHOICES)
PEAKS = FileKind(
    _match_peaks, _check_peaks, _transform_peaks, _CHOICES, suffixes=(_PEAKS,)
)
