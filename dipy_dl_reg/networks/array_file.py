"""Files of named arrays and one JSON header, in a zip, with a checksum.

Such a file is an ``.npz`` that `numpy.load` opens too.  Reading it runs no code, and
gives the same in every version of Torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
import json
import os
from pathlib import Path
from typing import Any
import zipfile
import zlib

import numpy as np
import torch

FORMAT, VERSION = "dipy_dl_reg network", 1
_HEADER = "header.json"
#: Errors that can occur when a damaged file is read; a missing file is found earlier.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    EOFError,
    OSError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)


def write_arrays(
    path: str | Path, header: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """Write arrays and a header to a file, completely or not at all.

    Parameters
    ----------
    path : str or Path
        The file; it is replaced if it exists.
    header : dict
        Values that JSON can store; the format and a checksum of the header and all
        arrays are added.
    arrays : dict of ndarray
        Numerical arrays by name.

    Raises
    ------
    ValueError
        If an array is not finite.
    """
    path = Path(path)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite and is not written to {path}.")
    header = {"format": FORMAT, "version": VERSION, **header}
    header = {"sha256": _checksum(header, arrays), **header}
    text = json.dumps(header, indent=1, allow_nan=False)
    part_written = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(part_written, "w") as file:
            file.writestr(zipfile.ZipInfo(_HEADER), text)
            for name, array in sorted(arrays.items()):
                info = zipfile.ZipInfo(f"{name}.npy")
                with file.open(info, "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
        os.replace(part_written, path)
    finally:
        part_written.unlink(missing_ok=True)


def read_arrays(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a file that `write_arrays` wrote.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    header : dict
        With "format", "version" and "sha256".
    arrays : dict of ndarray
        By their names.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or has another format.
    """
    with open(path, "rb") as stream, errors_name_file(path):
        with zipfile.ZipFile(stream) as file:
            header = json.loads(file.read(_HEADER))
            _check_format(header)
            names = [n for n in file.namelist() if n != _HEADER]
            arrays = {n.removesuffix(".npy"): _read_entry(file, n) for n in names}
        if _checksum(header, arrays) != header.get("sha256"):
            raise ValueError("its checksum is wrong: it was damaged or changed")
    return header, arrays


def arrays_under(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Select the arrays whose names begin with a prefix.

    Parameters
    ----------
    arrays : dict of ndarray
        Arrays by name, such as "weights/flow.bias".
    prefix : str
        First part of the name, without the slash.

    Returns
    -------
    selected : dict of ndarray
        By the rest of their names.
    """
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """Copy a tensor to an array of a type that NumPy knows.

    Parameters
    ----------
    tensor : Tensor
        Of any type and device.

    Returns
    -------
    array : ndarray
        Half precisions become float32.
    """
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return np.array(tensor.detach().cpu().numpy())


@contextmanager
def errors_name_file(
    path: str | Path, what: str = "a network that can be read"
) -> Iterator[None]:
    """Convert errors while a file is read to errors with the name of the file.

    Parameters
    ----------
    path : str or Path
        The file.
    what : str, optional
        What it should be.

    Yields
    ------
    nothing : None
        While the file is read.

    Raises
    ------
    ValueError
        If an error occurs while the file is read.
    """
    try:
        yield
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        message = f"{path} is not {what}: {reason.rstrip('.')}."
        raise ValueError(message) from None


def canonical_json(value: object) -> str:
    """Convert a value to a unique JSON text: equal values have equal texts.

    Parameters
    ----------
    value : object
        What JSON can hold.

    Returns
    -------
    text : str
        With sorted keys.
    """
    return json.dumps(json.loads(json.dumps(value)), sort_keys=True)


def _check_format(header: dict[str, Any]) -> None:
    """Check that a file is of this format, and of a version known here."""
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError("it is another kind of file")
    if header.get("version") != VERSION:
        raise ValueError(
            f"its version is {header.get('version')!r}, but only {VERSION} can be read"
        )


def _read_entry(file: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read one array of a zip."""
    with file.open(name) as entry:
        return np.lib.format.read_array(entry, allow_pickle=False)


def _checksum(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of the header without its checksum, and of all arrays.

    The checksum depends on the name, type, shape and values of each array.
    """
    rest = {key: value for key, value in header.items() if key != "sha256"}
    total = sha256(canonical_json(rest).encode())
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
