"""Displacement fields of ITK, ANTs and SimpleITK, as NIfTI.

Shape (X, Y, Z, 1, 3), intent 1007 (vector), with the affine of the output image: in
each voxel ``y - x`` in mm, along ITK's world axes (LPS), whose first two point against
RAS.  In 2D shape (X, Y, 1, 1, 2).  ITK changes the signs of vectors of intent 1006 on
reading, so that these are along RAS in the file.
"""

from __future__ import annotations

import os
from typing import Any

import nibabel as nib
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.formats.dense_field import DenseField, grid_points
from dipy_dl_reg.maps.formats.vector_images import (
    DISPLACEMENT,
    VECTOR,
    has_vectors,
    is_sheared,
    make_vector_image,
    read_vectors,
)

#: Name of the intent in SPM's deformations, which have the same shape and code.
_SPM_NAME = "Mapping"


def matches(image: Any) -> bool:
    """Tell from the header whether an image is a displacement field of ITK.

    Parameters
    ----------
    image : nibabel image
        An opened file; its values are not read.

    Returns
    -------
    matches : bool
        Whether its shape and its intent say so.
    """
    if not has_vectors(image, axes=5):
        return False
    code = int(image.header["intent_code"])
    return code == VECTOR and image.header.get_intent()[2] != _SPM_NAME


def lps(dim: int) -> np.ndarray:
    """Signs that convert a vector from RAS to LPS, and back.

    Parameters
    ----------
    dim : int
        2 or 3.

    Returns
    -------
    signs : ndarray, shape (dim,)
        -1, -1 and, in 3D, 1.
    """
    return np.array([-1.0, -1.0, 1.0][:dim])


def read(path: str | os.PathLike, input_grid: Grid | None) -> DenseField:
    """Read one direction of a map.

    Parameters
    ----------
    path : str or Path
        The file.
    input_grid : Grid or None
        Grid of the input image, which is not needed.

    Returns
    -------
    field : DenseField
        The positions.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no such field.
    """
    displacement, grid = read_displacement(path)
    return DenseField(grid_points(grid) + displacement, grid, input_grid)


def read_displacement(path: str | os.PathLike) -> tuple[np.ndarray, Grid]:
    """Read the displacement and its grid.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    displacement : ndarray of float64, shape (*shape, D)
        In mm, RAS.
    grid : Grid
        Its grid.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no such field.
    """
    vectors, affine, header = read_vectors(
        path, axes=5, kind="ITK's displacements", slices=True
    )
    grid = Grid(vectors.shape[:-1], affine)
    if int(header["intent_code"]) == DISPLACEMENT:
        return vectors, grid
    return vectors * lps(grid.dim), grid


def write(field: DenseField, path: str | os.PathLike) -> None:
    """Write one direction of a map.

    Parameters
    ----------
    field : DenseField
        The positions.
    path : str or Path
        The file.

    Raises
    ------
    ValueError
        If the grid is sheared, which ITK refuses.
    """
    write_displacement(field.positions - grid_points(field.grid), field.grid, path)


def write_displacement(
    displacement: np.ndarray, grid: Grid, path: str | os.PathLike
) -> None:
    """Write a displacement.

    Parameters
    ----------
    displacement : ndarray, shape (*shape, D)
        In mm, RAS.
    grid : Grid
        Its grid.
    path : str or Path
        The file.

    Raises
    ------
    ValueError
        If the grid is sheared, which ITK refuses.
    """
    check_not_sheared(grid)
    vectors = displacement * lps(grid.dim)
    nib.save(make_vector_image(vectors, grid.affine, axes=5, intent=VECTOR), path)


def check_not_sheared(grid: Grid) -> None:
    """Check that ITK can store a grid.

    Parameters
    ----------
    grid : Grid
        The grid.

    Raises
    ------
    ValueError
        If its axes are not perpendicular.
    """
    if is_sheared(grid.affine):
        raise ValueError(
            "mapping must have grids with perpendicular axes for ITK's formats, got a "
            f"sheared affine {grid.affine.tolist()}: resample the image first"
        )
