"""FreeSurfer's warps in ``.mgz`` files, with four kinds of vectors.

The header is that of MGH images, with a code for warps in its version.  The vectors are
positions or displacements, in voxels (column, row, slice) or in mm (RAS); a
displacement in voxels is the voxel in the input image less the voxel in the output
image.  Tags behind the data hold the geometries of both images and the kind.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path
import struct
import zlib

from nibabel.affines import apply_affine
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.formats.dense_field import DenseField, grid_points
from dipy_dl_reg.maps.formats.freesurfer_geometry import (
    SIZE,
    pack_geometry,
    unpack_geometry,
)

#: Kinds of vectors.
POSITION_VOXEL, DISPLACEMENT_VOXEL, POSITION_RAS, DISPLACEMENT_RAS = range(4)
#: Version of MGH files with the code of warps.
_VERSION = (3 << 8) | 1
#: Version, shape, type (float32), degrees of freedom, flag; voxel sizes, axes, centre.
_HEADER = struct.Struct(">7iH15f")
_DATA_START, _FLOAT = 284, 3
_GEOMETRY, _KIND, _SHEARED_GEOMETRY = 10, 13, 15


def has_suffix(path: str | os.PathLike) -> bool:
    """Tell whether a file is an MGH file by its suffix.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    has_suffix : bool
        True for ``.mgz`` and ``.mgh``.
    """
    return os.fspath(path).lower().endswith((".mgz", ".mgh"))


def write(field: DenseField, path: str | os.PathLike) -> None:
    """Write one direction of a map, as displacements in RAS.

    Parameters
    ----------
    field : DenseField
        The positions, with the grid of the input image.
    path : str or Path
        The file.

    Raises
    ------
    ValueError
        If the axes of a grid are not perpendicular.
    """
    assert field.input_grid is not None
    both = (field.input_grid, field.grid)
    # The numbers of the grid stand in the header as in a geometry, behind its shape.
    numbers = struct.unpack_from(">15f", pack_geometry(field.grid), 16)
    header = _HEADER.pack(_VERSION, *field.grid.shape, 3, _FLOAT, 1, 1, *numbers)
    vectors = (field.positions - grid_points(field.grid)).astype(">f4")
    scan = struct.pack(">5f", 0, 0, 0, 0, 0)
    sheared = b"".join(pack_geometry(g, sheared=True) for g in both)
    kind = struct.pack(">2if", DISPLACEMENT_RAS, 1, 0.0)
    content = header.ljust(_DATA_START, b"\0") + vectors.tobytes(order="F") + scan
    content += struct.pack(">i", _GEOMETRY) + b"".join(map(pack_geometry, both))
    content += struct.pack(">iq", _SHEARED_GEOMETRY, len(sheared)) + sheared
    content += struct.pack(">iq", _KIND, len(kind)) + kind
    if os.fspath(path).lower().endswith("z"):
        content = gzip.compress(content, compresslevel=6, mtime=0)
    Path(path).write_bytes(content)


def read(path: str | os.PathLike, input_grid: Grid | None = None) -> DenseField:
    """Read one direction of a map.

    Parameters
    ----------
    path : str or Path
        The file.
    input_grid : Grid, optional
        Grid of the image that the field warps; by default that in the file.

    Returns
    -------
    field : DenseField
        The positions.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no warp of FreeSurfer, or is damaged.
    """
    content = _read_content(path)
    shape, frames = _read_header(content, path)
    count = int(np.prod(shape)) * frames
    try:
        data = np.frombuffer(content, ">f4", count, _DATA_START)
        tags = _read_tags(content, _DATA_START + data.nbytes + 20)
        kind, spacing = struct.unpack_from(">2i", tags[_KIND])
        grids = [unpack_geometry(tags[_GEOMETRY][k * SIZE :]) for k in (0, 1)]
    except (struct.error, ValueError, KeyError) as error:
        raise ValueError(f"path: {path} is a damaged warp of FreeSurfer") from error
    source, grid = grids
    if source is None or grid is None or spacing != 1 or grid.shape != shape:
        raise ValueError(
            f"path: {path} must contain the grids of both images, and a vector for "
            "each voxel"
        )
    vectors = data.reshape(*shape, frames, order="F")[..., :3].astype(np.float64)
    positions = _to_positions(vectors, kind, source, grid)
    return DenseField(positions, grid, input_grid or source)


def _to_positions(
    vectors: np.ndarray, kind: int, source: Grid, grid: Grid
) -> np.ndarray:
    """Positions in mm from vectors of any kind."""
    if kind == DISPLACEMENT_VOXEL:
        vectors = vectors + grid_points(Grid(grid.shape, np.eye(4)))
    if kind == DISPLACEMENT_RAS:
        return vectors + grid_points(grid)
    return vectors if kind == POSITION_RAS else apply_affine(source.affine, vectors)


def _read_header(
    content: bytes, path: str | os.PathLike
) -> tuple[tuple[int, ...], int]:
    """Shape and number of values for each voxel, if it is a warp."""
    numbers = (0,) * 6
    if len(content) >= _DATA_START:
        numbers = struct.unpack_from(">6i", content)
    version, *shape, frames, dtype = numbers
    if version != _VERSION or frames not in (3, 4) or dtype != _FLOAT or min(shape) < 1:
        raise ValueError(
            f"path: {path} must be a warp of FreeSurfer in MGH's format (code "
            f"{_VERSION}, 3 values of float32 for each voxel), got code {version} and "
            f"{frames} values"
        )
    return tuple(shape), frames


def _read_content(path: str | os.PathLike) -> bytes:
    """Read and decompress a file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: no such file: {path}")
    content = path.read_bytes()
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"path: {path} is damaged ({error})") from error


def _read_tags(content: bytes, start: int) -> dict[int, bytes]:
    """Content by tag.  All tags but that of the geometries have a length."""
    tags: dict[int, bytes] = {}
    while start + 4 <= len(content):
        (tag,) = struct.unpack_from(">i", content, start)
        length, start = 2 * SIZE, start + 4
        if tag != _GEOMETRY:
            if start + 8 > len(content):
                break
            (length,) = struct.unpack_from(">q", content, start)
            start += 8
        if not 0 <= length <= len(content) - start:
            break
        tags[tag] = content[start : start + length]
        start += length
    return tags
