"""Affine transforms of FreeSurfer (``.lta``), with the grids of both images.

The matrix leads from the source (moving) to the destination (static): between their
worlds (type 1, RAS, as written here) or their voxels (type 0).  A geometry holds the
shape, the voxel sizes, the directions of the axes and the world point of the voxel
``shape / 2``.
"""

from __future__ import annotations

import os
from pathlib import Path

from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.grid import Grid

_VOXELS, _RAS = 0, 1
#: Largest difference between the affines of grids that are the same.
_TOLERANCE = 1e-2


def matches(start: bytes, path: Path) -> bool:
    """Tell whether a file is a transform of FreeSurfer.

    Parameters
    ----------
    start : bytes
        Its first bytes.
    path : Path
        The file.

    Returns
    -------
    matches : bool
        Whether it ends in ``.lta``.
    """
    return path.name.lower().endswith(".lta")


def read(
    path: str | os.PathLike, static: Grid | None, moving: Grid | None
) -> np.ndarray:
    """Read an affine.

    Parameters
    ----------
    path : str or Path
        The file.
    static, moving : Grid or None
        The grids of the images.  If `static` is the source of the file, and not its
        destination, or `moving` its destination, the matrix is inverted.

    Returns
    -------
    matrix : ndarray, shape (4, 4)
        Static world to moving world, RAS.

    Raises
    ------
    ValueError
        If the file is damaged, or holds another type of transform.
    """
    lines = [line.partition("#")[0].strip() for line in _read_lines(path)]
    kind = int(_value(lines, "type"))
    at = lines.index("1 4 4")
    matrix = np.array([line.split() for line in lines[at + 1 : at + 5]], dtype=float)
    places = [k for k, line in enumerate(lines) if line.startswith("valid")]
    source, target = (_read_geometry(lines[place:]) for place in places[:2])
    if kind == _VOXELS:
        matrix = target.affine @ matrix @ source.inverse
    elif kind != _RAS:
        raise ValueError(f"it must hold a transform of type 0 or 1, got type {kind}")
    if _is_exchanged(static, target, source) or _is_exchanged(moving, source, target):
        logger.info(f"{path} leads from static to moving: its inverse is not taken")
        return matrix
    return np.linalg.inv(matrix)


def _is_exchanged(image: Grid | None, own: Grid, other: Grid) -> bool:
    """Whether an image has the grid of the other side, and not that of its own."""
    return image is not None and _is_same(image, other) and not _is_same(image, own)


def _is_same(grid: Grid, other: Grid) -> bool:
    """Whether two grids are the same."""
    same = grid.shape == other.shape
    return same and np.allclose(grid.affine, other.affine, atol=_TOLERANCE)


def _read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a text file."""
    return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()


def _value(lines: list[str], key: str) -> str:
    """What stands behind a key and an equals sign."""
    found = [line.partition("=") for line in lines if line.split("=")[0].strip() == key]
    if not found:
        raise ValueError(f"it has no entry {key}")
    return found[0][2].strip()


def _read_geometry(lines: list[str]) -> Grid:
    """A grid from the first geometry in some lines."""
    shape = tuple(int(n) for n in _value(lines, "volume").split())
    keys = ("voxelsize", "xras", "yras", "zras", "cras")
    sizes, *axes, centre = (
        np.array(_value(lines, key).split(), dtype=float) for key in keys
    )
    affine = np.eye(4)
    affine[:3, :3] = np.stack(axes, axis=1) * sizes
    affine[:3, 3] = centre - affine[:3, :3] @ (np.array(shape) / 2)
    return Grid(shape, affine)


def write(
    matrix: np.ndarray,
    path: str | os.PathLike,
    static: Grid | None,
    moving: Grid | None,
) -> None:
    """Write an affine.

    Parameters
    ----------
    matrix : ndarray, shape (4, 4)
        Static world to moving world, RAS.
    path : str or Path
        The file.
    static, moving : Grid
        The grids of the images, which the file holds.

    Raises
    ------
    ValueError
        If a grid is None.
    """
    if static is None or moving is None:
        name = "static" if static is None else "moving"
        raise ValueError(
            f"{name} must be given for a .lta file, which holds the grids of both "
            "images, got None"
        )
    rows = [_join(row) for row in np.linalg.inv(matrix)]
    lines = [
        f"type      = {_RAS}",
        "nxforms   = 1",
        "mean      = 0 0 0",
        "sigma     = 1",
    ]
    lines += ["1 4 4", *rows, "src volume info", *_geometry_lines(moving)]
    lines += ["dst volume info", *_geometry_lines(static)]
    Path(path).write_text("\n".join(lines) + "\n")


def _geometry_lines(grid: Grid) -> list[str]:
    """The lines of a geometry."""
    axes = grid.affine[:3, :3] / grid.spacing
    centre = grid.affine[:3] @ [*(np.array(grid.shape) / 2), 1]
    return [
        "valid = 1  # volume info valid",
        "filename = none",
        f"volume = {' '.join(str(n) for n in grid.shape)}",
        f"voxelsize = {_join(grid.spacing)}",
        *(f"{axis}ras   = {_join(axes[:, d])}" for d, axis in enumerate("xyz")),
        f"cras   = {_join(centre)}",
    ]


def _join(numbers: np.ndarray) -> str:
    """Numbers in one line."""
    return " ".join(f"{number:.15e}" for number in numbers)
