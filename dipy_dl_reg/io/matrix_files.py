"""Affine matrices in text files."""

from __future__ import annotations

import os
from pathlib import Path
import warnings

import numpy as np

from dipy_dl_reg.validation import check_affine


def read_matrix(path: str | os.PathLike, dim: int = 3, *, name: str) -> np.ndarray:
    """Read an affine matrix from a text file.

    Parameters
    ----------
    path : str or Path
        The file.
    dim : {2, 3}, optional
        Dimension of the space.
    name : str
        Name of the matrix in error messages.

    Returns
    -------
    matrix : ndarray, shape (dim + 1, dim + 1)
        An invertible affine matrix.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds no invertible affine matrix of this dimension.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{name}: no such file: {path}")
    try:
        with warnings.catch_warnings():
            # NumPy warns if the file is empty; the check below raises a clear error.
            warnings.simplefilter("ignore")
            matrix = np.loadtxt(path)
    except ValueError as error:
        raise ValueError(f"{name}: {path} is no matrix in text: {error}") from error
    return check_affine(matrix, dim, f"{name}: {path}")
