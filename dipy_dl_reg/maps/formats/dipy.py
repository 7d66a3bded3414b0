"""DIPY's format of a map: NIfTI, 3D, without the prealign.

The image has shape (X, Y, Z, 3, 2): in each voxel of static, the forward and the
backward displacement in mm; its affine is the inverse of static's.  Moving's grid and
the prealign are not stored.
"""

from __future__ import annotations

import os
from typing import Any

from dipy.align.imwarp import DiffeomorphicMap
import nibabel as nib
import numpy as np

from dipy_dl_reg.io.images import open_image, read_image
from dipy_dl_reg.maps.dipy_map import FIELDS, check_mapping, make_mapping
from dipy_dl_reg.validation import check_affine


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
    nib.save(image, path)


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
        The moving image.  By default the map's moving grid is static's.
    prealign : ndarray, shape (4, 4), optional
        Static world to moving world; by default the identity.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map, in the form that registrations return.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no map in this format, or was not made on static's grid.
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
