"""Affine matrices of FSL's FLIRT: text, from moving to static in FSL's coordinates."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.fsl_coordinates import flirt_matrix, prealign_of_flirt


def matches(start: bytes, path: Path) -> bool:
    """Tell whether a file is a matrix of FLIRT.

    Parameters
    ----------
    start : bytes
        Its first bytes.
    path : Path
        The file.

    Returns
    -------
    matches : bool
        Whether it ends in ``.mat`` and holds numbers in text.
    """
    return path.name.lower().endswith(".mat") and b"\0" not in start


def read(
    path: str | os.PathLike, static: Grid | None, moving: Grid | None
) -> np.ndarray:
    """Read an affine.

    Parameters
    ----------
    path : str or Path
        The file.
    static, moving : Grid
        The grids of FLIRT's ``-ref`` and ``-in``.

    Returns
    -------
    matrix : ndarray, shape (4, 4)
        Static world to moving world, RAS.

    Raises
    ------
    ValueError
        If a grid is None, or the file holds no such matrix.
    """
    return prealign_of_flirt(np.loadtxt(path), *_check_grids(static, moving))


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
        The grids of FLIRT's ``-ref`` and ``-in``.

    Raises
    ------
    ValueError
        If a grid is None.
    """
    np.savetxt(path, flirt_matrix(matrix, *_check_grids(static, moving)), fmt="%.15g")


def _check_grids(static: Grid | None, moving: Grid | None) -> tuple[Grid, Grid]:
    """Check that both grids are given."""
    if static is None or moving is None:
        name = "static" if static is None else "moving"
        raise ValueError(
            f"{name} must be given for a matrix of FLIRT, which depends on the grids "
            "of both images, got None; like names another format of a text file "
            "that ends in .mat"
        )
    return static, moving
