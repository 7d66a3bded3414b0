"""Images, labels, and series of images whose volumes are independent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dipy.utils.logging import logger
import nibabel as nib
import numpy as np

from dipy_dl_reg.diffusion.kinds.base import (
    FileKind,
    Match,
    Request,
    is_nifti,
    make_reference,
)
from dipy_dl_reg.io.image_kinds import (
    check_no_colour,
    declares_labels,
    is_slice,
    slice_affine,
)
from dipy_dl_reg.io.images import make_nifti, open_image, read_image
from dipy_dl_reg.maps.apply import SERIES_MESSAGE, transform_array
from dipy_dl_reg.maps.interpolation import (
    INTERPOLATIONS,
    choose_interpolation,
    should_warn_of_labels,
)
from dipy_dl_reg.validation import check_affine


def _match_image(path: Path, given: Mapping[str, object]) -> Match:
    """Any image may hold intensities."""
    return "possible" if is_nifti(path) else "no"


def _match_labels(path: Path, given: Mapping[str, object]) -> Match:
    """Labels are certain if the header declares them."""
    # Declared labels can be interpolated linearly, as probabilities, on request.
    if not is_nifti(path) or given.get("interpolation") == "linear":
        return "no"
    return "certain" if declares_labels(open_image(path)) else "no"


def _check(path: Path, request: Request) -> None:
    """Check that a file is an image of the map's dimension, or a series."""
    image, dim = open_image(path), request.mapping.dim
    check_no_colour(image.get_data_dtype(), f"image: {path}")
    shape = image.shape
    if dim == 3 and len(shape) not in (3, 4):
        raise ValueError(
            f"image: {path} must be a volume or a series of them, got {shape}"
        )
    if dim == 2 and not (is_slice(shape[:3]) and len(shape) <= 4):
        raise ValueError(
            f"image: the map is 2D, and {path} must be a slice, got {shape}"
        )
    check_affine(image.affine, 3, f"image: the affine of {path}")


def _transform_image(path: Path, targets: Sequence[Path], request: Request) -> None:
    """Transform an image; each volume of a series independently."""
    interpolation = request.options.get("interpolation", "auto")
    _transform(path, targets[0], request, interpolation)


def _transform_labels(path: Path, targets: Sequence[Path], request: Request) -> None:
    """Transform labels, whose values and type are kept."""
    _transform(path, targets[0], request, "nearest")


def _transform(path: Path, target: Path, request: Request, interpolation: str) -> None:
    """Transform an image file, and write the result."""
    image, dim = open_image(path), request.mapping.dim
    chosen = choose_interpolation(interpolation, image)
    data, _ = read_image(image, dtype=np.float32 if chosen == "linear" else None)
    if dim == 2:
        data = data.reshape(*data.shape[:2], *data.shape[3:])
    _log_interpolation(path, interpolation, chosen, data, dim)
    reference = request.reference
    if reference is None:
        reference = make_reference(request.mapping, image, request.inverse)
    warped = transform_array(
        request.mapping,
        data,
        image_grid2world=slice_affine(image.affine, dim),
        out_shape=reference.shape[:dim],
        out_grid2world=slice_affine(reference.affine, dim),
        interpolation=chosen,
        inverse=request.inverse,
    )
    if data.ndim > dim == 3:
        log = logger.warning if _may_hold_directions(data) else logger.info
        log(f"{path}: {SERIES_MESSAGE[0].lower()}{SERIES_MESSAGE[1:]}")
    if dim == 2 and len(image.shape) > 2:
        warped = warped[:, :, None]
    nib.save(make_nifti(reference, warped, series=image), target)


def _log_interpolation(
    path: Path, interpolation: str, chosen: str, data: np.ndarray, dim: int
) -> None:
    """Log which interpolation was chosen, if the user may not expect it."""
    if chosen == "nearest":
        logger.info(f"{path}: nearest neighbour interpolation, for labels")
    elif should_warn_of_labels(interpolation, chosen, data, dim):
        logger.warning(
            f"{path} seems to contain labels or a mask, but is interpolated linearly: "
            "give --interpolation nearest, or linear if this is intended"
        )


def _may_hold_directions(data: np.ndarray) -> bool:
    """Whether a series has as many volumes as vectors or tensors have components."""
    return data.shape[-1] in (3, 6)


IMAGE = FileKind(
    _match_image, _check, _transform_image, {"interpolation": INTERPOLATIONS}
)
LABELS = FileKind(
    _match_labels, _check, _transform_labels, {"interpolation": ("nearest",)}
)
