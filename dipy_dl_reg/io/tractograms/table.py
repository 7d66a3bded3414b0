"""The table of tractogram formats.

A new format is one module beside this one, with a class that is a `TractogramFile`, and
one line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path

from dipy_dl_reg.io.tractograms.chunks import TractogramFile
from dipy_dl_reg.io.tractograms.tck import TckFile
from dipy_dl_reg.io.tractograms.trk import TrkFile
from dipy_dl_reg.io.tractograms.trx import TrxFile
from dipy_dl_reg.validation import wrong_value

#: By suffix.
FORMATS: dict[str, Callable[[Path], TractogramFile]] = {
    ".trk": TrkFile,
    ".tck": TckFile,
    ".trx": TrxFile,
}


def open_tractogram(
    path: str | os.PathLike, *, name: str = "tractogram"
) -> TractogramFile:
    """Open a tractogram file, and read its header.

    Parameters
    ----------
    path : str or Path
        The file.
    name : str, optional
        Name of the parameter, for error messages.

    Returns
    -------
    file : TractogramFile
        The file; its streamlines are still on the disk.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is in no format of `FORMATS`, or damaged.
    """
    if not isinstance(path, (str, os.PathLike)):
        wanted = "the path of a tractogram file (transform_streamlines is for others)"
        raise ValueError(f"{name} must be {wanted}, got {type(path).__name__}")
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        wanted = f"a tractogram file: {' or '.join(FORMATS)}"
        raise wrong_value(name, wanted, os.fspath(path))
    if not path.exists():
        raise FileNotFoundError(f"{name}: no such file: {path}")
    if not path.is_file() or path.stat().st_size == 0:
        raise ValueError(f"{name}: {path} is empty, or not a file")
    return FORMATS[path.suffix.lower()](path)
