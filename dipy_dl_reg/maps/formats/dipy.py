"""DIPY's format of a map: NIfTI, 3D.

The image has shape (X, Y, Z, 3, 2): in each voxel of static, the forward and the
backward displacement in mm; its affine is the inverse of static's.  DIPY does not store
moving's grid and the prealign.  This package stores them as JSON in an extension of the
header (a comment), which other programs skip.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from dipy.align.imwarp import DiffeomorphicMap
import nibabel as nib
import numpy as np

from dipy_dl_reg.io.images import open_image, read_image
from dipy_dl_reg.maps.dipy_map import FIELDS, check_mapping, make_mapping
from dipy_dl_reg.validation import check_affine

#: Name of this package's entries in the extension.
_KEY = "dipy_dl_reg"


def matches(image: Any) -> bool:
    """Tell from the header whether an image is a map in DIPY's format.

    Parameters
    ----------
    image : nibabel image
        An opened file; its values are not read.

    Returns
    -------
    matches : bool
        Whether its shape is (X, Y, Z, 3, 2).
    """
    return tuple(image.shape[3:]) == (3, 2)


def write(mapping: DiffeomorphicMap, path: str | os.PathLike) -> None:
    """Write the displacements of a map.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        A 3D map as registrations return it, made with affines.
    path : str or Path
        The file, of NIfTI.

    Raises
    ------
    ValueError
        If the format cannot hold the map.
    """
    check_storable(mapping)
    fields = np.stack([np.asarray(getattr(mapping, name)) for name in FIELDS], axis=-1)
    image = nib.Nifti1Image(fields.astype(np.float32), mapping.codomain_world2grid)
    image.header.extensions.append(_make_extension(mapping))
    nib.save(image, path)


def _make_extension(mapping: DiffeomorphicMap) -> nib.nifti1.Nifti1Extension:
    """The part of a map that DIPY's format lacks, as an extension of the header."""
    prealign, grid2world = mapping.prealign_inv, mapping.domain_grid2world
    entries = {
        "prealign": None if prealign is None else np.asarray(prealign).tolist(),
        "moving_shape": [int(n) for n in mapping.domain_shape],
        "moving_grid2world": None if grid2world is None else grid2world.tolist(),
    }
    text = json.dumps({_KEY: entries})
    return nib.nifti1.Nifti1Extension("comment", text.encode())


def _read_extension(image: Any) -> dict[str, Any]:
    """The entries of the extension; none if the file was written by DIPY."""
    for extension in getattr(image.header, "extensions", []):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return json.loads(extension.text.rstrip("\0"))[_KEY]
    return {}


def contents(path: str | os.PathLike) -> set[str]:
    """Find out what a file contains besides the displacement.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    contents : set of str
        "prealign" and "moving" if this package wrote the file.
    """
    return {"prealign", "moving"} if _read_extension(open_image(path)) else set()


def check_storable(mapping: DiffeomorphicMap) -> None:
    """Check that the format can hold a map.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        A map.

    Raises
    ------
    ValueError
        If it is 2D, has no affines, is not in the form that registrations return, or
        its field is not on static's grid.
    """
    check_mapping(mapping)
    if mapping.dim != 3:
        raise ValueError("mapping must be 3D for DIPY's file format; use save_mapping")
    if not mapping.is_inverse:
        raise ValueError(
            "mapping must be as registrations return it (is_inverse=True) for DIPY's "
            "file format; use save_mapping"
        )
    grids = [mapping.disp_grid2world, mapping.codomain_grid2world]
    if any(grid is None for grid in grids):
        raise ValueError(
            "mapping must have affines for DIPY's file format; use save_mapping"
        )
    same_shape = np.array_equal(mapping.disp_shape, mapping.codomain_shape)
    if not same_shape or not np.allclose(*grids):
        raise ValueError(
            "mapping must have its field on static's grid for DIPY's file format; use "
            "save_mapping"
        )


def read(
    path: str | os.PathLike,
    static: Any = None,
    moving: Any = None,
    prealign: np.ndarray | None = None,
) -> DiffeomorphicMap:
    """Read a map.

    Parameters
    ----------
    path : str or Path
        The file.
    static : str, Path or nibabel image, optional
        The static image.  By default its grid is taken from the file, which stores the
        affine in float32.
    moving : str, Path or nibabel image, optional
        The moving image.  By default the map's moving grid is that in the file, or
        static's.
    prealign : ndarray, shape (4, 4), optional
        Static world to moving world; by default that in the file, or the identity.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map, in the form that registrations return.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no map in this format, was not made on static's grid, or
        contains another prealign.
    """
    given = None if static is None else _read_grid(static, "static")
    moving_grid = None if moving is None else _read_grid(moving, "moving")
    fields, world2grid = read_image(path, name="path", dtype=np.float32)
    if fields.ndim != 5 or fields.shape[3:] != (3, 2):
        raise ValueError(
            f"path: {path} must have the shape (X, Y, Z, 3, 2) of DIPY's maps, got "
            f"{fields.shape}"
        )
    world2grid = check_affine(world2grid, 3, f"path: the affine of {path}")
    static_shape, static_affine = given or (fields.shape[:3], np.linalg.inv(world2grid))
    _check_grid(fields, world2grid, path, static_shape, static_affine)
    entries = _read_extension(open_image(path, name="path"))
    prealign = _choose_prealign(entries.get("prealign"), prealign, path)
    if moving_grid is None and entries.get("moving_grid2world"):
        matrix = np.array(entries["moving_grid2world"])
        moving_grid = tuple(entries["moving_shape"]), matrix
    moving_shape, moving_affine = moving_grid or (static_shape, static_affine)
    return make_mapping(
        fields[..., 0],
        fields[..., 1],
        static_shape,
        static_affine,
        moving_shape,
        moving_affine,
        prealign,
    )


def _choose_prealign(
    stored: list | None, given: np.ndarray | None, path: str | os.PathLike
) -> np.ndarray | None:
    """The prealign in the file, or the user's; both must be the same."""
    if stored is None:
        return given
    matrix = check_affine(stored, 3, f"path: the prealign in {path}")
    if given is not None:
        given = check_affine(given, 3, "prealign")
        if not np.allclose(given, matrix, rtol=1e-3, atol=1e-3):
            raise ValueError(f"prealign must be that in {path}, got another one")
    return matrix


def _read_grid(image: Any, name: str) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of a 3D image."""
    if isinstance(image, (str, os.PathLike)):
        image = open_image(image, name=name)
    if not hasattr(image, "affine") or len(image.shape) < 3:
        raise ValueError(f"{name} must be a 3D image or its path")
    return image.shape[:3], np.asarray(image.affine, dtype=float)


def _check_grid(
    fields: np.ndarray,
    world2grid: np.ndarray,
    path: str | os.PathLike,
    shape: tuple[int, ...],
    grid2world: np.ndarray,
) -> None:
    """Check that fields are finite and lie on static's grid."""
    if fields.shape[:3] != tuple(shape):
        raise ValueError(
            f"path: {path} is on a grid of {fields.shape[:3]} voxels, and static has "
            f"{tuple(shape)}"
        )
    corners = np.array(np.meshgrid(*([0, n - 1] for n in shape))).reshape(3, -1)
    voxels = world2grid @ grid2world @ np.vstack([corners, np.ones(corners.shape[1])])
    # NIfTI stores affines in float32, which rounds far less than 0.01 voxel.
    if not np.allclose(voxels[:3], corners, rtol=0, atol=0.01):
        raise ValueError(
            f"path: {path} was made on another grid than static's: its affine is not "
            "the inverse of static's"
        )
    if not np.isfinite(fields).all():
        raise ValueError(f"path: {path} has displacements that are not finite")
