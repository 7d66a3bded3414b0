"""Reads the map and the reference of `dipy_apply_deep`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.io.affine_files import read_affine
from dipy_dl_reg.io.image_kinds import is_slice
from dipy_dl_reg.io.images import open_image
from dipy_dl_reg.maps.formats.map_format import MapFormat
from dipy_dl_reg.maps.formats.table import recognise_format
from dipy_dl_reg.validation import check_affine

#: Suffixes of images, in lower case.
IMAGE_SUFFIXES = (".nii", ".nii.gz", ".img", ".hdr", ".img.gz", ".mgz")


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
    moving: str | os.PathLike | None = None,
    inverse_mapping: str | os.PathLike | None = None,
) -> DiffeomorphicMap:
    """Read a map from a file of any format of `dipy_dl_reg.maps.formats.table`.

    Parameters
    ----------
    path : Path
        The file.
    prealign : str, Path or None
        File of the prealign, for maps that do not hold it.
    reference : nibabel image or None
        Image on whose grid the results will be.
    inverse : bool
        Whether images will be transformed from static to moving.
    moving : str, Path or None
        The moving image, of which only the grid is used.
    inverse_mapping : str, Path or None
        The file of the other direction, in formats that store each in a file.

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
    map_format = recognise_format(path)
    contents = map_format.contents(path)
    if moving is not None:
        contents.add("moving")
    _check_grids(path, contents, reference, inverse)
    static = None if "static" in contents else reference
    matrix = _read_prealign(path, prealign, map_format, moving)
    logger.info(f"{path}: {map_format.description}")
    mapping = map_format.read(path, static, moving, matrix, inverse=inverse_mapping)
    _check_reference(path, mapping.dim, reference)
    if mapping.domain_grid2world is None or mapping.codomain_grid2world is None:
        raise ValueError(f"mapping: {path} was made without affines; use apply_mapping")
    return mapping


def _check_grids(path: Path, contents: set[str], reference: Any, inverse: bool) -> None:
    """Check that grids that the file does not contain are given."""
    if inverse and "static" not in contents:
        raise ValueError(
            f"inverse: {path} does not contain static's grid, and --reference is an "
            "image on moving's; convert the file with save_mapping"
        )
    if reference is not None:
        return
    if "static" not in contents:
        raise ValueError(
            f"reference: {path} does not contain static's grid; give static as "
            "--reference"
        )
    if inverse and "moving" not in contents:
        raise ValueError(
            f"reference: {path} does not contain moving's grid; give moving, or "
            "another image, as --reference"
        )


def _read_prealign(
    path: Path,
    prealign: str | os.PathLike | None,
    map_format: MapFormat,
    moving: str | os.PathLike | None,
) -> np.ndarray | None:
    """Read the prealign for a file that does not contain it."""
    if map_format.holds_prealign and prealign is not None:
        raise ValueError(f"prealign must not be given: {path} contains it")
    if prealign is not None:
        return read_affine(prealign, moving=moving, name="prealign")
    if "prealign" not in map_format.contents(path):
        logger.warning(
            f"{path} contains no prealign, and --prealign was not given: the identity "
            "is used"
        )
    return None


def _check_reference(path: Path, dim: int, reference: Any) -> None:
    """Check that a reference has the dimension of a map."""
    if reference is None:
        return
    shape = reference.shape
    if not is_slice(shape) if dim == 2 else len(shape) < 3:
        raise ValueError(f"reference: the map in {path} is {dim}D, got shape {shape}")


def warn_of_other_space(
    path: Path, mapping: DiffeomorphicMap, *, inverse: bool
) -> None:
    """Warn if an image is on the grid of the result, and not on that of its own side.

    Parameters
    ----------
    path : Path
        A file; other files than images are left out.
    mapping : DiffeomorphicMap
        The map.
    inverse : bool
        Whether images are transformed from static to moving.
    """
    if not path.name.lower().endswith(IMAGE_SUFFIXES) or mapping.dim != 3:
        return
    image = open_image(path)
    own, other = ("codomain", "domain") if inverse else ("domain", "codomain")
    if _is_on_grid(image, mapping, other) and not _is_on_grid(image, mapping, own):
        names = ("static", "moving") if inverse else ("moving", "static")
        advice = "omit" if inverse else "add"
        logger.warning(
            f"{path} is on {names[1]}'s grid, but is transformed from {names[0]} to "
            f"{names[1]}: check that it is not already there, or {advice} --inverse"
        )


def _is_on_grid(image: Any, mapping: DiffeomorphicMap, side: str) -> bool:
    """Whether an image has the shape and the affine of one side of a map."""
    shape = tuple(int(n) for n in getattr(mapping, f"{side}_shape"))
    affine = getattr(mapping, f"{side}_grid2world")
    same = tuple(image.shape[:3]) == shape
    return same and np.allclose(image.affine, affine, atol=1e-3)
