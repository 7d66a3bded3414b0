"""Reading and writing of HDF5 files by h5py, which is imported when it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
from typing import Any


def load_h5py() -> Any:
    """Import h5py.

    Returns
    -------
    h5py : module
        The library.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "h5py is needed for .h5 and .x5 files: pip install 'dipy_dl_reg[exchange]'"
        ) from error
    return h5py


@contextmanager
def open_hdf5(path: str | os.PathLike) -> Iterator[Any]:
    """Open a file for reading.

    Parameters
    ----------
    path : str or Path
        The file.

    Yields
    ------
    file : h5py.File
        The file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or what is read in the ``with`` block is not there.
    """
    h5py = load_h5py()
    if not Path(path).is_file():
        raise FileNotFoundError(f"path: no such file: {path}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, TypeError, IndexError) as error:
        raise ValueError(
            f"path: {path} is damaged, or of another kind: {error}"
        ) from error
