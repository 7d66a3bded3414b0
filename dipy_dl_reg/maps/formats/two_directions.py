"""Reading and writing of formats that store each direction of a map by itself."""

from __future__ import annotations

import os
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.image_grids import read_grid
from dipy_dl_reg.maps.formats.dense_field import (
    DenseField,
    forward_field,
    inverse_field,
    map_grids,
    mapping_from_fields,
    user_prealign,
)
from dipy_dl_reg.maps.formats.plausibility import (
    check_contained,
    check_grid,
    check_positions,
)
from dipy_dl_reg.validation import check_affine

if TYPE_CHECKING:
    from dipy_dl_reg.maps.formats.map_format import MapFormat


class MapFiles(NamedTuple):
    """The files of a map.

    Attributes
    ----------
    path : str or Path
        The map; in formats that store each direction in a file, that of `transform`.
    inverse : str, Path or None
        The file of the other direction.
    affine : str, Path or None
        The file of the affine part.
    """

    path: str | os.PathLike
    inverse: str | os.PathLike | None = None
    affine: str | os.PathLike | None = None


def read_dense(
    entry: MapFormat,
    module: ModuleType,
    files: MapFiles,
    static: Any,
    moving: Any,
    prealign: np.ndarray | None,
) -> DiffeomorphicMap:
    """Read a map from files of positions.

    Parameters
    ----------
    entry : MapFormat
        The format.
    module : module
        Its module, with ``read(path, input_grid)``.
    files : MapFiles
        The files.
    static, moving, prealign : optional
        As in `MapFormat.read`.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a file is no such field, is on another grid than static's, or holds
        something else than positions in mm.
    """
    _check_moving(entry, files.path, moving)
    forward, prealign = _read_forward(entry, module, files, moving, prealign)
    dim = forward.grid.dim
    check_grid(forward.grid, read_grid(static, "static", dim), files.path)
    check_positions(forward, files.path)
    if prealign is not None:
        prealign = check_affine(prealign, dim, "prealign")
        check_contained(forward, files.path, prealign)
    other: DenseField | None = None
    if files.inverse is not None:
        other = module.read(files.inverse, forward.grid)
        if other.grid.dim != dim:
            raise ValueError(f"inverse: {files.inverse} must be {dim}D")
    return mapping_from_fields(forward, other, prealign=prealign)


def _read_forward(
    entry: MapFormat,
    module: ModuleType,
    files: MapFiles,
    moving: Any,
    prealign: np.ndarray | None,
) -> tuple[DenseField, np.ndarray | None]:
    """Read the direction of `transform`, with moving's grid, and the prealign."""
    input_grid = read_grid(moving, "moving") if entry.needs_moving else None
    if files.affine is None:
        forward = module.read(files.path, input_grid)
    else:
        if prealign is not None:
            raise ValueError("prealign must not be given beside affine, which holds it")
        forward, prealign = module.read_with_affine(
            files.path, files.affine, input_grid
        )
    grid = read_grid(moving, "moving", forward.grid.dim) or forward.input_grid
    return forward._replace(input_grid=grid), prealign


def read_pair(
    entry: MapFormat,
    module: ModuleType,
    files: MapFiles,
    static: Any,
    moving: Any,
    prealign: np.ndarray | None,
) -> DiffeomorphicMap:
    """Read a map from files whose module makes a map of both directions.

    Parameters
    ----------
    entry : MapFormat
        The format.
    module : module
        Its module, with ``read(path, inverse, affine, prealign, moving)``.
    files : MapFiles
        The files.
    static, moving, prealign : optional
        As in `MapFormat.read`.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a file is no such map, or is on another grid than static's.
    """
    _check_moving(entry, files.path, moving)
    mapping = module.read(*files, prealign, read_grid(moving, "moving"))
    grid = read_grid(static, "static", mapping.dim)
    check_grid(map_grids(mapping)[0], grid, files.path)
    # Without `moving`, the map has static's grid on both sides.
    field = forward_field(mapping)
    check_positions(field if moving else field._replace(input_grid=None), files.path)
    return mapping


def check_grids(
    mapping: DiffeomorphicMap, path: str | os.PathLike, static: Any, moving: Any
) -> None:
    """Check that a map that was read is one between two images.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    path : str or Path
        Its file, for messages.
    static, moving : str, Path, nibabel image, Grid or None
        The images, of which only the grids are used; None is not checked.

    Raises
    ------
    ValueError
        If an image is not on the grid that the map has for it, or the map has no
        affines.
    """
    given = {"static": static, "moving": moving}
    if all(image is None for image in given.values()):
        return
    if mapping.domain_grid2world is None or mapping.codomain_grid2world is None:
        raise ValueError(
            f"path: {path} holds a map without affines, which cannot be compared with "
            "static and moving: leave them out"
        )
    for grid, (name, image) in zip(map_grids(mapping), given.items(), strict=True):
        wanted = read_grid(image, name, mapping.dim)
        check_grid(grid, wanted, path, name)


def write_dense(
    entry: MapFormat, module: ModuleType, mapping: DiffeomorphicMap, files: MapFiles
) -> None:
    """Write a map as files of positions.

    Parameters
    ----------
    entry : MapFormat
        The format.
    module : module
        Its module, with ``write(field, path)``.
    mapping : DiffeomorphicMap
        The map.
    files : MapFiles
        The files.

    Raises
    ------
    ValueError
        If the format cannot store the map.
    """
    _check_dimension(entry, mapping)
    field = forward_field(mapping)
    if files.affine is None:
        module.write(field, files.path)
    else:
        prealign = user_prealign(mapping)
        module.write_with_affine(field, prealign, files.path, files.affine)
    if files.inverse is not None:
        module.write(inverse_field(mapping), files.inverse)


def write_pair(
    entry: MapFormat, module: ModuleType, mapping: DiffeomorphicMap, files: MapFiles
) -> None:
    """Write a map by the module of its format.

    Parameters
    ----------
    entry : MapFormat
        The format.
    module : module
        Its module, with ``write(mapping, path, inverse, affine)``.
    mapping : DiffeomorphicMap
        The map.
    files : MapFiles
        The files.

    Raises
    ------
    ValueError
        If the format cannot store the map.
    """
    _check_dimension(entry, mapping)
    module.write(mapping, *files)


def _check_moving(entry: MapFormat, path: str | os.PathLike, moving: Any) -> None:
    """Check that moving is given for a format that cannot be read without."""
    if entry.needs_moving and moving is None:
        raise ValueError(
            f"moving must be given: {path} is {entry.description}, whose positions "
            "depend on the grid of the moving image"
        )


def _check_dimension(entry: MapFormat, mapping: DiffeomorphicMap) -> None:
    """Check the dimension and the affines of a map that is to be written."""
    grid: Grid = map_grids(mapping)[0]
    if grid.dim not in entry.dimensions:
        wanted = " or ".join(f"{dim}D" for dim in entry.dimensions)
        raise ValueError(
            f"mapping must be {wanted} for {entry.description}, got {grid.dim}D; use "
            "save_mapping"
        )
