r"""FreeSurfer's morphs (``.m3z``), as ``mri_ca_register`` writes them.

The file is compressed by gzip, and big-endian: version, shape of the nodes, their
spacing in voxels of the output image (the *atlas*), an unused number; for each node,
along the last axis first, its voxel in the input image before and after the nonlinear
registration, and its index; then tags, of which 10 holds the geometries of the input
and the output image, and 11 the unit of the positions (1: mm, RAS, 2: voxels).
``mri_convert -at map.m3z moving.mgz warped.mgz`` warps an image by it.
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
from dipy_dl_reg.maps.formats.dense_field import (
    DenseField,
    grid_points,
    nearest_affine,
)
from dipy_dl_reg.maps.formats.freesurfer_geometry import (
    SIZE,
    pack_geometry,
    unpack_geometry,
)

_HEADER = struct.Struct(">f4if")
_NODE = np.dtype([("before", ">f4", 3), ("position", ">f4", 3), ("index", ">i4", 3)])
_GEOMETRY, _UNIT, _LABELS = 10, 11, 12
_RAS, _VOXELS = 1, 2


def write(field: DenseField, path: str | os.PathLike) -> None:
    """Write one direction of a map.

    Parameters
    ----------
    field : DenseField
        The positions, with the grid of the input image.
    path : str or Path
        The file, ending in ``.m3z``, or in ``.m3d`` without compression.

    Raises
    ------
    ValueError
        If the grid of the input image is unknown, or the axes of a grid are not
        perpendicular.
    """
    grid, input_grid = field.grid, field.input_grid
    if input_grid is None:
        raise ValueError(
            "static and moving must be given for FreeSurfer's .m3z, which holds both "
            f"grids, got none for {path}"
        )
    geometries = pack_geometry(input_grid) + pack_geometry(grid)
    nodes = np.empty(grid.shape, _NODE)
    index = grid_points(Grid(grid.shape, np.eye(4)))
    affine = nearest_affine(field) @ grid.affine
    nodes["before"] = apply_affine(input_grid.inverse @ affine, index)
    nodes["position"] = apply_affine(input_grid.inverse, field.positions)
    nodes["index"] = index
    content = _HEADER.pack(1.0, *grid.shape, 1, 0.0) + nodes.tobytes()
    content += struct.pack(">i", _GEOMETRY) + geometries
    content += struct.pack(">2i", _UNIT, _VOXELS)
    if not os.fspath(path).lower().endswith(".m3d"):
        # No time in the file: equal maps are equal files.
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
        The positions, on the grid of the output image, interpolated linearly between
        the nodes; NaN where the nodes are marked as invalid.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no morph, is damaged, or does not contain the grids.
    """
    content = _read_content(path)
    try:
        _, *shape, spacing, _ = _HEADER.unpack_from(content)
        count = int(np.prod(shape))
        nodes = np.frombuffer(content, _NODE, count, _HEADER.size).reshape(shape)
        tags = _read_tags(content, _HEADER.size + nodes.nbytes, count)
        source, grid = (unpack_geometry(tags[_GEOMETRY][k * SIZE :]) for k in (0, 1))
        (unit,) = struct.unpack(">i", tags.get(_UNIT, struct.pack(">i", _VOXELS)))
    except (struct.error, ValueError, KeyError) as error:
        raise ValueError(
            f"path: {path} is damaged, or contains no grids of its images"
        ) from error
    if source is None or grid is None:
        raise ValueError(f"path: {path} must contain the grids of both images")
    positions = nodes["position"].astype(np.float64)
    if unit != _RAS:
        positions = apply_affine(source.affine, positions)
    positions[_invalid(nodes)] = np.nan
    if spacing > 1:
        positions = _interpolate_nodes(positions, spacing, grid.shape)
    if positions.shape[:3] != grid.shape:
        raise ValueError(
            f"path: {path} is damaged: it has nodes for a grid of "
            f"{positions.shape[:3]} voxels, and the output image {grid.shape}"
        )
    return DenseField(positions, grid, input_grid or source)


def _read_content(path: str | os.PathLike) -> bytes:
    """Read and decompress a file, and check its version and size."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: no such file: {path}")
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"path: {path} is damaged ({error})") from error
    header = _HEADER.unpack_from(content) if len(content) >= _HEADER.size else (0,)
    if header[0] != 1.0 or min(header[1:5]) < 1:
        raise ValueError(f"path: {path} is no morph (.m3z) of FreeSurfer")
    return content


def _read_tags(content: bytes, start: int, count: int) -> dict[int, bytes]:
    """Content by tag; these tags have no length, so that unknown ones end the list."""
    sizes = {_GEOMETRY: 2 * SIZE, _UNIT: 4, _LABELS: 4 * count}
    tags: dict[int, bytes] = {}
    while start + 4 <= len(content):
        (tag,) = struct.unpack_from(">i", content, start)
        if tag not in sizes:
            break
        tags[tag] = content[start + 4 : start + 4 + sizes[tag]]
        start += 4 + sizes[tag]
    return tags


def _invalid(nodes: np.ndarray) -> np.ndarray:
    """FreeSurfer marks a node as invalid by zeros only."""
    zero = (nodes["before"] == 0) & (nodes["position"] == 0)
    return zero.all(axis=-1)


def _interpolate_nodes(
    positions: np.ndarray, spacing: int, shape: tuple[int, ...]
) -> np.ndarray:
    """Interpolate linearly between nodes; continue linearly beyond the last ones."""
    from scipy.ndimage import map_coordinates

    missing = [-(-(n - 1) // spacing) + 1 for n in shape]
    extra = [(0, max(0, n - old)) for n, old in zip(missing, positions.shape)]
    nodes = np.pad(positions, [*extra, (0, 0)], mode="reflect", reflect_type="odd")
    at = np.indices(shape, dtype=np.float64) / spacing
    return np.stack(
        [map_coordinates(nodes[..., d], at, order=1, mode="nearest") for d in range(3)],
        axis=-1,
    )
