"""Affine matrices in text, as `numpy.savetxt` writes them: static to moving world."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from dipy_dl_reg.grid import Grid


def matches(start: bytes, path: Path) -> bool:
    """Tell whether a file is a matrix in text.

    Parameters
    ----------
    start : bytes
        Its first bytes.
    path : Path
        The file.

    Returns
    -------
    matches : bool
        True: it is the last of the formats, and its reader checks the rest.
    """
    return True


def read(
    path: str | os.PathLike, static: Grid | None, moving: Grid | None
) -> np.ndarray:
    """Read an affine.

    Parameters
    ----------
    path : str or Path
        The file.
    static, moving : Grid or None
        Not needed.

    Returns
    -------
    matrix : ndarray, shape (D + 1, D + 1)
        Static world to moving world, RAS.

    Raises
    ------
    ValueError
        If the file holds no numbers.
    """
    return np.loadtxt(path)


def write(
    matrix: np.ndarray,
    path: str | os.PathLike,
    static: Grid | None,
    moving: Grid | None,
) -> None:
    """Write an affine.

    Parameters
    ----------
    matrix : ndarray, shape (D + 1, D + 1)
        Static world to moving world, RAS.
    path : str or Path
        The file.
    static, moving : Grid or None
        Not needed.
    """
    np.savetxt(path, matrix, header="static world to moving world")
