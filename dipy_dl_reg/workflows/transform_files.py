"""Transforms image files by a map that is read from a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import nibabel as nib
import numpy as np

from dipy_dl_reg.io.image_kinds import (
    check_no_colour,
    is_slice,
    plane_axes,
    slice_affine,
)
from dipy_dl_reg.io.images import make_nifti, open_image, read_image
from dipy_dl_reg.io.matrix_files import read_matrix
from dipy_dl_reg.maps.apply import SERIES_MESSAGE, transform_array
from dipy_dl_reg.maps.formats.table import MapFormat, find_format
from dipy_dl_reg.maps.interpolation import choose_interpolation, should_warn_of_labels
from dipy_dl_reg.validation import check_affine


def open_reference(path: str | os.PathLike | None) -> Any:
    """Open the image that defines the grid of the results.

    Parameters
    ----------
    path : str, Path or None
        The file.

    Returns
    -------
    reference : nibabel image or None
        The image; None if there is none.

    Raises
    ------
    ValueError
        If it has fewer than 2 axes or its affine is singular.
    """
    if path is None:
        return None
    reference = open_image(path, name="reference")
    if len(reference.shape) < 2:
        raise ValueError(f"reference: {path} must have 2 axes or more")
    check_affine(reference.affine, 3, "reference's affine")
    return reference


def read_map(
    path: Path,
    *,
    prealign: str | os.PathLike | None,
    reference: Any,
    inverse: bool,
) -> DiffeomorphicMap:
    """Read a map from a file of any format of `dipy_dl_reg.maps.formats.table`.

    Parameters
    ----------
    path : Path
        The file.
    prealign : str, Path or None
        Text file of the prealign, for formats that do not hold it.
    reference : nibabel image or None
        Image on whose grid the results will be.
    inverse : bool
        Whether images will be transformed from static to moving.

    Returns
    -------
    mapping : DiffeomorphicMap
        A map with affines.

    Raises
    ------
    ValueError
        If the file does not contain such a map, or if information that is missing in
        the file was not given.
    """
    map_format = find_format(path)
    _check_grids(path, map_format, reference, inverse)
    matrix = _read_prealign(path, prealign, map_format)
    static = None if map_format.holds_static_grid else reference
    mapping = map_format.read(path, static, prealign=matrix)
    _check_reference(path, mapping.dim, reference)
    if mapping.domain_grid2world is None or mapping.codomain_grid2world is None:
        raise ValueError(f"mapping: {path} was made without affines; use apply_mapping")
    return mapping


def _check_grids(
    path: Path, map_format: MapFormat, reference: Any, inverse: bool
) -> None:
    """Check that grids that the file does not contain are given."""
    if inverse and not map_format.holds_static_grid:
        raise ValueError(
            f"inverse: {path} does not contain static's grid, and --reference is an "
            "image on moving's; convert the file with save_mapping"
        )
    if reference is not None:
        return
    if not map_format.holds_static_grid:
        raise ValueError(
            f"reference: {path} does not contain static's grid; give static as "
            "--reference"
        )
    if inverse and not map_format.holds_moving_grid:
        raise ValueError(
            f"reference: {path} does not contain moving's grid; give moving, or "
            "another image, as --reference"
        )


def _read_prealign(
    path: Path, prealign: str | os.PathLike | None, map_format: MapFormat
) -> np.ndarray | None:
    """Read the prealign for a file format that does not contain it."""
    if map_format.holds_prealign:
        if prealign is not None:
            raise ValueError(f"prealign must not be given: {path} contains it")
        return None
    if prealign is None:
        logger.warning(
            f"{path} contains no prealign, and --prealign was not given: the identity "
            "is used"
        )
        return None
    return read_matrix(prealign, name="prealign")


def _check_reference(path: Path, dim: int, reference: Any) -> None:
    """Check that a reference has the dimension of a map."""
    if reference is None:
        return
    shape = reference.shape
    if not is_slice(shape) if dim == 2 else len(shape) < 3:
        raise ValueError(f"reference: the map in {path} is {dim}D, got shape {shape}")


def check_image_file(path: Path, dim: int) -> None:
    """Check by its header that an image can be transformed.

    Parameters
    ----------
    path : Path
        The image's file.
    dim : {2, 3}
        Dimension of the map.

    Raises
    ------
    ValueError
        If it is neither an image of this dimension nor a series of such images.
    """
    image = open_image(path)
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


def transform_file(
    mapping: DiffeomorphicMap,
    path: Path,
    target: Path,
    *,
    reference: Any,
    interpolation: str,
    inverse: bool,
) -> None:
    """Transform one image file, and write the result.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    path : Path
        The image's file.
    target : Path
        The file to be written.
    reference : nibabel image or None
        Image with the grid of the result; by default the map's own image.
    interpolation : {"auto", "linear", "nearest"}
        As in `apply_mapping`.
    inverse : bool
        Transform from static to moving.
    """
    image, dim = open_image(path), mapping.dim
    chosen = choose_interpolation(interpolation, image)
    data, _ = read_image(image, dtype=np.float32 if chosen == "linear" else None)
    if dim == 2:
        data = data.reshape(*data.shape[:2], *data.shape[3:])
    _log_interpolation(path, interpolation, chosen, data, dim)
    if reference is None:
        reference = _make_reference(mapping, image, inverse)
    warped = transform_array(
        mapping,
        data,
        image_grid2world=slice_affine(image.affine, dim),
        out_shape=reference.shape[:dim],
        out_grid2world=slice_affine(reference.affine, dim),
        interpolation=chosen,
        inverse=inverse,
    )
    if data.ndim > dim == 3:
        log = logger.warning if _holds_directions(path, data) else logger.info
        log(f"{path}: {SERIES_MESSAGE[0].lower()}{SERIES_MESSAGE[1:]}")
    if dim == 2 and len(image.shape) > 2:
        warped = warped[:, :, None]
    nib.save(make_nifti(reference, warped, series=image), target)


def _log_interpolation(
    path: Path, interpolation: str, chosen: str, data: np.ndarray, dim: int
) -> None:
    """Log which interpolation was chosen, if the user may not expect it."""
    if interpolation == "auto" and chosen == "nearest":
        logger.info(f"{path}: its header declares labels; nearest neighbour is used")
    elif should_warn_of_labels(interpolation, chosen, data, dim):
        logger.warning(
            f"{path} seems to contain labels or a mask, but is interpolated linearly: "
            "give --interpolation nearest, or linear if this is intended"
        )


def _make_reference(
    mapping: DiffeomorphicMap, image: Any, inverse: bool
) -> nib.Nifti1Image:
    """An image with the map's own grid for the result.

    A 2D map does not hold the position of its plane: it is taken from the image.
    """
    side = "domain" if inverse else "codomain"
    shape = tuple(int(n) for n in getattr(mapping, f"{side}_shape"))
    affine = getattr(mapping, f"{side}_grid2world")
    if mapping.dim == 2:
        plane, affine = affine, np.array(image.affine)
        affine[np.ix_([*plane_axes(affine), 3], [0, 1, 3])] = plane
    return nib.Nifti1Image(np.broadcast_to(np.uint8(0), shape), affine)


def _holds_directions(path: Path, data: np.ndarray) -> bool:
    """Whether a series seems to hold vectors, tensors or volumes with b-vectors."""
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    return data.shape[-1] in (3, 6) or any(
        path.with_name(f"{stem}{ending}").exists() for ending in (".bvec", ".bvecs")
    )
