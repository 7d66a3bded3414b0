"""Displacement fields in the BIDS X5 format (HDF5), as nitransforms reads them.

``TransformGroup/0`` is of the type "nonlinear" and the subtype "densefield", with
"displacements" ``y - x`` in mm, RAS, of shape (X, Y, Z, 3); ``Domain`` holds size and
affine of the output image.  The draft of the format is version 1.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.hdf5_files import load_h5py, open_hdf5
from dipy_dl_reg.maps.formats.dense_field import DenseField, grid_points
from dipy_dl_reg.validation import check_affine


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
    with open_hdf5(path) as file:
        if file.attrs.get("Format") != "X5":
            raise ValueError(f"path: {path} must have the format X5")
        if len(file["TransformGroup"]) != 1:
            raise ValueError(
                f"path: {path} must hold one transform, got "
                f"{len(file['TransformGroup'])}; merge them first"
            )
        node = file["TransformGroup"]["0"]
        _check_kind(node, path)
        values = np.array(node["Transform"], dtype=np.float64)
        shape = tuple(int(n) for n in np.asarray(node["Domain"]["Size"]))
        affine = np.array(node["Domain"]["Mapping"], dtype=np.float64)
        representation = node.attrs.get("Representation", "displacements")
    if len(shape) != 3 or values.shape != (*shape, 3):
        raise ValueError(
            f"path: {path} must hold vectors of shape (X, Y, Z, 3) on its domain "
            f"{shape}, got {values.shape}"
        )
    grid = Grid(shape, check_affine(affine, 3, f"path: the affine of {path}"))
    if representation == "displacements":
        values += grid_points(grid)
    return DenseField(values, grid, input_grid)


def _check_kind(node: Any, path: str | os.PathLike) -> None:
    """Check that a transform is a field of displacements or of positions."""
    kind = node.attrs.get("Type"), node.attrs.get("SubType", "densefield")
    representation = node.attrs.get("Representation", "displacements")
    known = representation in ("displacements", "deformations")
    if kind != ("nonlinear", "densefield") or not known:
        raise ValueError(
            f"path: {path} must hold a nonlinear densefield of displacements, got "
            f"{kind[0]}, {kind[1]}, {representation}"
        )


def write(field: DenseField, path: str | os.PathLike) -> None:
    """Write one direction of a map.

    Parameters
    ----------
    field : DenseField
        The positions.
    path : str or Path
        The file.
    """
    displacement = field.positions - grid_points(field.grid)
    with load_h5py().File(path, "w") as file:
        file.attrs["Format"] = "X5"
        file.attrs["Version"] = np.uint16(1)
        node = file.create_group("TransformGroup").create_group("0")
        node.attrs["Type"] = "nonlinear"
        node.attrs["SubType"] = "densefield"
        node.attrs["Representation"] = "displacements"
        node.attrs["ArrayLength"] = 1
        node.create_dataset("Transform", data=displacement.astype(np.float32))
        kinds = np.asarray(["space", "space", "space", "vector"], dtype="S")
        node.create_dataset("DimensionKinds", data=kinds)
        domain = node.create_group("Domain")
        domain.attrs["Coordinates"] = "cartesian"
        domain.create_dataset("Grid", data=np.uint8(1))
        domain.create_dataset("Size", data=np.asarray(field.grid.shape))
        domain.create_dataset("Mapping", data=field.grid.affine)
