"""The package's own format: a NumPy archive of all data of a map.

The entries are `forward`, `backward` (mm, float32), the shapes and matrices of all
grids, the prealign as the map holds it, `is_inverse`, `dim`, and `format` and
`version`.  There are no pickles.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any
import zipfile

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.maps.dipy_map import FIELDS, check_mapping

#: Name of the format, in each file.  If it is changed, older files cannot be read.
FORMAT = "dipy_dl_reg.mapping"
VERSION = 1

# The matrices that `DiffeomorphicMap` derives from its affines are stored beside them:
# the map is then the same bit for bit on a machine whose linear algebra rounds
# differently.
MATRICES = (
    "disp_grid2world",
    "disp_world2grid",
    "domain_grid2world",
    "domain_world2grid",
    "codomain_grid2world",
    "codomain_world2grid",
    "prealign",
    "prealign_inv",
)
SHAPES = ("disp_shape", "domain_shape", "codomain_shape")

#: Largest ratio of compression by deflate.
_MAX_COMPRESSION = 1032


def write(mapping: DiffeomorphicMap, path: str | os.PathLike) -> None:
    """Write a map.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        Any map of DIPY, 2D or 3D.
    path : str or Path
        The file, ending in `.npz`.

    Raises
    ------
    ValueError
        If `mapping` is no map or has no fields.
    """
    check_mapping(mapping)
    with open(path, "wb") as file:  # to a path, `savez` may append a suffix
        np.savez(file, **_make_entries(mapping))


def _make_entries(mapping: DiffeomorphicMap) -> dict[str, Any]:
    """Convert all data of a map to arrays by name; None has no entry."""
    entries: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    entries.update(dim=mapping.dim, is_inverse=bool(mapping.is_inverse))
    for name in SHAPES:
        entries[name] = np.asarray(getattr(mapping, name), dtype=np.int32)
    for name in FIELDS:
        entries[name] = np.ascontiguousarray(getattr(mapping, name), dtype=np.float32)
    for name in MATRICES:
        if getattr(mapping, name) is not None:
            entries[name] = np.asarray(getattr(mapping, name))
    return entries


def read(
    path: str | os.PathLike,
    static: object = None,
    moving: object = None,
    prealign: object = None,
) -> DiffeomorphicMap:
    """Read a map.

    Parameters
    ----------
    path : str or Path
        The file.
    static, moving : None
        Not needed: the file holds the grids.
    prealign : None
        Must not be given: the file holds it.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map, bit for bit the one that was written.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a prealign is given, or the file is empty, cut off, damaged, of another
        kind, of a later version of this format, or declares larger arrays than it can
        hold.
    """
    if prealign is not None:
        raise ValueError(f"prealign must not be given: {path} contains it")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path: no such file: {path}")
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as archive:
            entries = {name: archive[name] for name in archive.files}
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive can raise errors of any type
        raise ValueError(
            f"path: {path} was not written by save_mapping, or is damaged ({error})"
        ) from error
    _check_kind(entries, path)
    _check_entries(entries, path)
    return _make_mapping(entries)


def _check_sizes(path: Path) -> None:
    """Check the declared size of each array before memory is allocated."""
    there = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as file:
                version = np.lib.format.read_magic(file)
                major = 1 if version == (1, 0) else 2
                read_header = getattr(np.lib.format, f"read_array_header_{major}_0")
                shape, _, dtype = read_header(file)
                declared = file.tell() + math.prod(shape) * dtype.itemsize
            packed = info.compress_size
            if info.compress_type != zipfile.ZIP_STORED:
                packed *= _MAX_COMPRESSION
            if declared != info.file_size or info.file_size > packed:
                raise ValueError(f"{info.filename} does not have its declared size")
            if info.compress_size > there:
                raise ValueError(f"{info.filename} is larger than the file")


def _check_kind(entries: dict[str, Any], path: Path) -> None:
    """Check that a file has this format, in a version that is known."""
    if str(entries.get("format")) != FORMAT:
        raise ValueError(f"path: {path} is an archive not written by save_mapping")
    version = entries.get("version")
    if version is None or version.shape or version.dtype.kind not in "iu":
        raise ValueError(f"path: {path} is damaged: no version")
    if version > VERSION:
        raise ValueError(
            f"path: {path} has version {version} of this format, but this release "
            f"reads versions up to {VERSION}; use the release that wrote it"
        )


def _check_entries(entries: dict[str, Any], path: Path) -> None:
    """Check that all entries are there and have the right shapes."""
    missing = {"dim", "is_inverse", *SHAPES, *FIELDS} - entries.keys()
    if missing:
        names = ", ".join(sorted(missing))
        raise ValueError(f"path: {path} is damaged: {names} missing")
    dim = int(entries["dim"])
    for name in SHAPES:
        if entries[name].shape != (dim,):
            raise ValueError(f"path: {path} is damaged: {name} is not of {dim} numbers")
    for name in FIELDS:
        if entries[name].shape != (*entries["disp_shape"], dim):
            raise ValueError(f"path: {path} is damaged: {name} is not on its grid")
    for name in MATRICES:
        if name in entries and entries[name].shape != (dim + 1, dim + 1):
            raise ValueError(f"path: {path} is damaged: {name} is no affine matrix")


def _make_mapping(entries: dict[str, Any]) -> DiffeomorphicMap:
    """A map from the entries of a file."""
    mapping = DiffeomorphicMap(int(entries["dim"]), entries["disp_shape"])
    for name in SHAPES:
        setattr(mapping, name, entries[name])
    for name in FIELDS:
        field = np.require(entries[name], np.float32, ["C", "W", "O"])
        setattr(mapping, name, field)
    for name in MATRICES:
        setattr(mapping, name, entries.get(name))
    mapping.is_inverse = bool(entries["is_inverse"])
    return mapping
