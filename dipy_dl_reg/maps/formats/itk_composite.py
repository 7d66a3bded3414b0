"""Composite transforms of ITK and ANTs (``.h5``): the affine and the displacement.

``TransformGroup/1`` and ``/2`` hold the affine and the displacement field, in LPS.  ITK
applies the last to points first.  For `transform` these are ``P`` and ``b``; the
inverse composite holds ``f`` and then ``inv(P)``.  The displacements stay on static's
grid, and are neither composed nor interpolated.  Affines that follow each other, such
as those of an initial, a rigid and an affine stage, are read as their product.
Parameters of fields are stored voxel by voxel, the first axis fastest.
"""

from __future__ import annotations

from functools import reduce
import os
from typing import Any, NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.affine_itk import affine_of_parameters, parameters_of_affine
from dipy_dl_reg.io.hdf5_files import load_h5py, open_hdf5
from dipy_dl_reg.maps.formats.itk import check_not_sheared, lps
from dipy_dl_reg.maps.formats.map_parts import (
    MapParts,
    join_parts,
    split_map,
)
from dipy_dl_reg.validation import check_affine

#: Type of a displacement, without "Transform" and what follows.
_FIELD = "DisplacementField"


class _Transforms(NamedTuple):
    """What a composite holds."""

    matrix: np.ndarray
    displacement: np.ndarray
    grid: Grid
    affine_first: bool


def read(
    path: str | os.PathLike,
    inverse: str | os.PathLike | None,
    affine: str | os.PathLike | None,
    prealign: np.ndarray | None,
    moving: Grid | None,
) -> DiffeomorphicMap:
    """Read a map.

    Parameters
    ----------
    path : str or Path
        The composite of `transform`.
    inverse : str, Path or None
        The inverse composite; without it the inverse is computed.
    affine, prealign : None
        Must not be given: the file holds the affine.
    moving : Grid or None
        Moving's grid; by default static's.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a file is no composite of affines and a displacement in this order.
    """
    if affine is not None or prealign is not None:
        name = "prealign" if affine is None else "affine"
        raise ValueError(f"{name} must not be given: {path} contains it")
    found = _read(path)
    if found.affine_first:
        raise ValueError(
            f"path: {path} must displace points before its affine maps them, got the "
            "other order, that of an inverse: give it as inverse"
        )
    parts = MapParts(found.matrix, found.displacement, None, found.grid, moving)
    if inverse is not None:
        other = _read(inverse, name="inverse")
        has_affine = not np.array_equal(other.matrix, np.eye(found.grid.dim + 1))
        if has_affine and not other.affine_first:
            raise ValueError(
                f"inverse: {inverse} must map points by its affine before it displaces "
                "them, got the other order"
            )
        parts = parts.with_inverse(other.displacement, other.grid, other.matrix)
    return join_parts(parts, path)


def write(
    mapping: DiffeomorphicMap,
    path: str | os.PathLike,
    inverse: str | os.PathLike | None,
    affine: str | os.PathLike | None,
) -> None:
    """Write a map.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    path : str or Path
        The composite of `transform`.
    inverse : str, Path or None
        The inverse composite.
    affine : None
        Must not be given: the composites hold the affine.

    Raises
    ------
    ValueError
        If `affine` is given, or static's grid is sheared, which ITK refuses.
    """
    if affine is not None:
        raise ValueError("affine must not be given for composites, which contain it")
    parts = split_map(mapping)
    check_not_sheared(parts.static)
    matrix = _affine_entry(parts.prealign)
    _write(path, [matrix, _field_entry(parts.backward, parts.static)])
    if inverse is not None:
        back = _affine_entry(np.linalg.inv(parts.prealign))
        _write(inverse, [_field_entry(np.asarray(parts.forward), parts.static), back])


def _affine_entry(matrix: np.ndarray) -> tuple[str, np.ndarray, np.ndarray]:
    """Type, parameters and fixed parameters of an affine, in RAS."""
    dim = len(matrix) - 1
    kind = f"AffineTransform_double_{dim}_{dim}"
    return kind, parameters_of_affine(matrix), np.zeros(dim)


def _field_entry(
    displacement: np.ndarray, grid: Grid
) -> tuple[str, np.ndarray, np.ndarray]:
    """Type, parameters and fixed parameters of a displacement in RAS."""
    dim = grid.dim
    signs = lps(dim)
    axes = grid.affine[:dim, :dim] * signs[:, None] / grid.spacing
    fixed = [grid.shape, grid.affine[:dim, dim] * signs, grid.spacing, axes.ravel()]
    vectors = np.moveaxis(displacement * signs, -1, 0).ravel(order="F")
    kind = f"DisplacementFieldTransform_double_{dim}_{dim}"
    return kind, vectors.astype(np.float32), np.concatenate(fixed).astype(float)


def _write(
    path: str | os.PathLike, entries: list[tuple[str, np.ndarray, np.ndarray]]
) -> None:
    """Write transforms, the last of which is applied first."""
    h5py = load_h5py()
    text = h5py.string_dtype("ascii")
    dim = int(entries[0][0][-1])
    with h5py.File(path, "w") as file:
        group = file.create_group("TransformGroup")
        kind = f"CompositeTransform_double_{dim}_{dim}"
        first = group.create_group("0")
        first.create_dataset("TransformType", data=[kind], dtype=text)
        for k, (name, parameters, fixed) in enumerate(entries, 1):
            node = group.create_group(str(k))
            node.create_dataset("TransformType", data=[name], dtype=text)
            node.create_dataset("TransformParameters", data=parameters)
            node.create_dataset("TransformFixedParameters", data=fixed)


def _read(path: str | os.PathLike, *, name: str = "path") -> _Transforms:
    """Read affines, as their product, and a displacement, in RAS."""
    matrices, fields, places = [], [], []
    with open_hdf5(path) as file:
        group = file["TransformGroup"]
        for key in sorted(group, key=int):
            kind = _kind(group[key])
            if kind.startswith("CompositeTransform"):
                continue
            parameters, fixed = _numbers(group[key])
            places.append(kind.partition("Transform")[0])
            if places[-1] == _FIELD:
                fields.append(_make_field(parameters, fixed, path))
            else:
                matrices.append(_read_matrix(parameters, fixed, kind, path))
    if len(fields) != 1 or _FIELD not in (places[0], places[-1]):
        raise ValueError(
            f"{name}: {path} must hold one displacement field, before or after all "
            f"affines, got {', '.join(places) or 'nothing'}"
        )
    # The last is applied first.
    product = reduce(np.matmul, matrices, np.eye(fields[0][1].dim + 1))
    return _Transforms(product, *fields[0], places[-1] != _FIELD)


def _read_matrix(
    parameters: np.ndarray, fixed: np.ndarray, kind: str, path: str | os.PathLike
) -> np.ndarray:
    """An affine in RAS."""
    try:
        return affine_of_parameters(parameters, fixed, kind)
    except ValueError as error:
        raise ValueError(f"path: {path}: {error}") from error


def _kind(node: Any) -> str:
    """Type of a transform, such as "AffineTransform_double_3_3"."""
    kind = np.asarray(node["TransformType"]).ravel()[0]
    return kind.decode() if isinstance(kind, bytes) else str(kind)


def _numbers(node: Any) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and fixed parameters; ITK misspelt their names before version 5."""
    misspelt = "Tranform"  # codespell:ignore
    start = "Transform" if "TransformParameters" in node else misspelt
    names = f"{start}Parameters", f"{start}FixedParameters"
    parameters, fixed = (np.array(node[n], dtype=np.float64).ravel() for n in names)
    return parameters, fixed


def _make_field(
    parameters: np.ndarray, fixed: np.ndarray, path: str | os.PathLike
) -> tuple[np.ndarray, Grid]:
    """A displacement in RAS, and its grid."""
    dim = 2 if len(fixed) == 10 else 3
    if len(fixed) != dim * (dim + 3):
        raise ValueError(f"path: {path} is damaged: the grid of its displacement")
    shape = tuple(int(n) for n in fixed[:dim])
    if parameters.size != dim * np.prod(shape):
        raise ValueError(f"path: {path} is damaged: the size of its displacement")
    signs = lps(dim)
    affine = np.eye(dim + 1)
    axes = fixed[3 * dim :].reshape(dim, dim) * fixed[2 * dim : 3 * dim]
    affine[:dim, :dim] = axes * signs[:, None]
    affine[:dim, dim] = fixed[dim : 2 * dim] * signs
    vectors = np.moveaxis(parameters.reshape((dim, *shape), order="F"), 0, -1)
    grid = Grid(shape, check_affine(affine, dim, f"path: the affine of {path}"))
    return vectors * signs, grid
