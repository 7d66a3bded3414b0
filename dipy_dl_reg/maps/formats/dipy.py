"""DIPY's own file of a map: NIfTI, 3D, without the prealign.

Elsewhere in this package a map is kept whole, by `save_mapping`. This layout is for
what other programs wrote, or shall read.
"""

import os
import warnings

from dipy.align.imwarp import DiffeomorphicMap
import nibabel as nib
import numpy as np

from dipy_dl_reg.io.images import (
    FIELDS,
    check_mapping,
    open_image,
    read_image,
    write_beside,
)
from dipy_dl_reg.validation import check_affine


def write_dipy_mapping(mapping, path, *, overwrite=False):
    """Write a map in the NIfTI layout of :func:`dipy.align.write_mapping`.

    The file has shape (X, Y, Z, 3, 2): in each voxel of static, the forward and the
    backward displacement in mm; its affine is the inverse of static's. DIPY's
    `read_mapping` reads it right when called as
    `read_mapping(path, moving, static, prealign=np.linalg.inv(prealign))`.

    The layout has **no room for the prealign**: keep it beside the file (a warning
    says so), or use `save_mapping`. NIfTI also rounds the affine to float32.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        A 3D map as registrations return it, made with affines.
    path : str or Path
        The file, ending in `.nii` or `.nii.gz`.
    overwrite : bool, optional
        Replace the file where it exists.

    Raises
    ------
    ValueError
        If the layout cannot hold the map: it is 2D, has no affines, is not in the
        form registrations return, or its field is not on static's grid.
    FileExistsError
        If the file exists and `overwrite` is False.

    See Also
    --------
    read_dipy_mapping, save_mapping
    """
    image = dipy_field_image(mapping)
    if not str(path).endswith((".nii", ".nii.gz")):
        raise ValueError(f"path must end in .nii or .nii.gz, got {path}")
    with write_beside(path, overwrite=overwrite) as temporary:
        nib.save(image, temporary)
    if not _is_identity(mapping.prealign):
        warnings.warn(
            "the map has a prealign, and DIPY's file format has no room for it: keep "
            "it (np.savetxt), and give it to read_dipy_mapping; or use save_mapping",
            UserWarning,
            stacklevel=2,
        )


def dipy_field_image(mapping):
    """The displacements of a map as the NIfTI image that DIPY stores.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        A 3D map as registrations return it, made with affines.

    Returns
    -------
    image : nibabel.Nifti1Image
        Shape (X, Y, Z, 3, 2), float32, with the inverse of static's affine.  It does
        not hold the prealign.

    Raises
    ------
    ValueError
        If the layout cannot hold the map.
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
    fields = np.stack([np.asarray(getattr(mapping, name)) for name in FIELDS], axis=-1)
    return nib.Nifti1Image(fields.astype(np.float32), mapping.codomain_world2grid)


def read_dipy_mapping(path, static, moving, *, prealign=None):
    """Read a map from the NIfTI layout of :func:`dipy.align.write_mapping`.

    Parameters
    ----------
    path : str or Path
        The file, of shape (X, Y, Z, 3, 2).
    static, moving : str, Path or nibabel image
        The images that were registered. Only their grids are used.
    prealign : ndarray, shape (4, 4), optional
        The prealign given to the registration: static world to moving world. DIPY's
        layout does not hold it, and without it the map is another one.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map, in the form registrations return.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no map in this layout, or was not made on static's grid.

    See Also
    --------
    write_dipy_mapping, load_mapping
    """
    grids = []
    for image, name in ((static, "static"), (moving, "moving")):
        if isinstance(image, (str, os.PathLike)):
            image = open_image(image, name=name)
        if not hasattr(image, "affine") or len(image.shape) < 3:
            raise ValueError(f"{name} must be a 3D image or its path")
        grids += [image.shape[:3], np.asarray(image.affine, dtype=float)]
    fields, world2grid = read_image(path, name="path", dtype=np.float32)
    _check_dipy_fields(fields, world2grid, path, *grids[:2])
    return mapping_from_fields(fields[..., 0], fields[..., 1], *grids, prealign)


def _check_dipy_fields(fields, world2grid, path, shape, grid2world):
    """Raise unless `fields` is DIPY's layout on the grid of static."""
    if fields.ndim != 5 or fields.shape[3:] != (3, 2):
        raise ValueError(
            f"path: {path} must have the shape (X, Y, Z, 3, 2) of DIPY's maps, got "
            f"{fields.shape}"
        )
    if fields.shape[:3] != tuple(shape):
        raise ValueError(
            f"path: {path} is on a grid of {fields.shape[:3]} voxels, and static has "
            f"{tuple(shape)}"
        )
    corners = np.array(np.meshgrid(*([0, n - 1] for n in shape))).reshape(3, -1)
    voxels = world2grid @ grid2world @ np.vstack([corners, np.ones(corners.shape[1])])
    # NIfTI holds affines in float32: far less than a hundredth of a voxel
    if not np.allclose(voxels[:3], corners, rtol=0, atol=0.01):
        raise ValueError(
            f"path: {path} was made on another grid than static's: its affine is not "
            "the inverse of static's"
        )
    if not np.isfinite(fields).all():
        raise ValueError(f"path: {path} has displacements that are not finite")


def mapping_from_fields(
    forward,
    backward,
    static_shape,
    static_grid2world,
    moving_shape,
    moving_grid2world,
    prealign=None,
):
    """A map in the form that DIPY's registrations return.

    Parameters
    ----------
    forward, backward : ndarray, shape (..., dim)
        Displacements in mm on static's grid: `moving` is sampled at
        `prealign @ (x + backward(x))`, and `forward` undoes `backward`.
    static_shape : tuple of int
        Static's shape.
    static_grid2world : ndarray or None
        Static's grid-to-world matrix.
    moving_shape : tuple of int
        Moving's shape.
    moving_grid2world : ndarray or None
        Moving's grid-to-world matrix.
    prealign : ndarray, shape (dim + 1, dim + 1), optional
        Static world to moving world.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map.

    Raises
    ------
    ValueError
        If `prealign` is not an invertible affine matrix.
    """
    dim = len(static_shape)
    if prealign is not None:
        prealign = np.linalg.inv(check_affine(prealign, dim, "prealign"))
    mapping = DiffeomorphicMap(
        dim,
        static_shape,
        disp_grid2world=static_grid2world,
        domain_shape=moving_shape,
        domain_grid2world=moving_grid2world,
        codomain_shape=static_shape,
        codomain_grid2world=static_grid2world,
        prealign=prealign,
    )
    mapping.forward = np.require(forward, np.float32, ["C", "W", "O"])
    mapping.backward = np.require(backward, np.float32, ["C", "W", "O"])
    mapping.is_inverse = True
    return mapping


def _is_identity(matrix):
    return matrix is None or np.array_equal(matrix, np.eye(len(matrix)))
