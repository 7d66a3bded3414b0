"""JSON files beside outputs: the call, the versions, the checksums of the inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from dipy_dl_reg.io.atomic_files import write_atomically
from dipy_dl_reg.maps.record import list_versions

#: Suffixes of two parts.
_DOUBLE = (".nii.gz", ".img.gz")


def write_provenance(
    output: str | os.PathLike,
    call: str,
    inputs: Iterable[str | os.PathLike],
    *,
    overwrite: bool = False,
    **fields: Any,
) -> Path:
    """Write a JSON file beside an output: how it was made, and of what.

    Parameters
    ----------
    output : str or Path
        The output, such as ``warped.nii.gz``; the JSON file is ``warped.json``.
    call : str
        The command or the call of a function that made it.
    inputs : iterable of str or Path
        Files that it was made from.
    overwrite : bool, optional
        Replace the JSON file if it exists.
    **fields : object
        Further entries of the JSON file, such as ``SpatialReference``.

    Returns
    -------
    path : Path
        The JSON file.

    Raises
    ------
    OSError
        If an input cannot be read, or the JSON file cannot be written.
    """
    path = sidecar_path(output)
    content = {**describe_provenance(call, inputs), **fields}
    write_json(path, content, overwrite=overwrite)
    return path


def describe_provenance(
    call: str, inputs: Iterable[str | os.PathLike] | Mapping[str, str]
) -> dict[str, Any]:
    """Describe how an output was made: the content of its JSON file.

    Parameters
    ----------
    call : str
        The command or the call of a function that made it.
    inputs : iterable of str or Path, or mapping of str
        Files that it was made from; with a mapping, their checksums by path.

    Returns
    -------
    provenance : dict
        ``Call``; ``Versions`` by package; ``Sources``, the paths of the inputs, as in
        BIDS derivatives; and ``SHA256``, their checksums by path.

    Raises
    ------
    OSError
        If an input cannot be read.
    """
    if isinstance(inputs, Mapping):
        checksums = {str(path): checksum for path, checksum in inputs.items()}
    else:
        checksums = {str(path): compute_checksum(path) for path in inputs}
    return {
        "Call": call,
        "Versions": list_versions(),
        "Sources": list(checksums),
        "SHA256": checksums,
    }


def compute_checksum(path: str | os.PathLike) -> str:
    """Compute the SHA-256 checksum of a file.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    checksum : str
        64 hexadecimal digits.

    Raises
    ------
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from dipy_dl_reg.groupwise.provenance import compute_checksum
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.txt")
    ...     _ = path.write_bytes(b"abc")
    ...     compute_checksum(path)[:16]
    'ba7816bf8f01cfea'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sidecar_path(path: str | os.PathLike) -> Path:
    """Name the JSON file beside a file.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    sidecar : Path
        The same path with the suffix ``.json`` in place of its own.
    """
    path = Path(path)
    double = next((s for s in _DOUBLE if path.name.lower().endswith(s)), None)
    stem = path.name[: -len(double)] if double else path.stem
    return path.with_name(f"{stem}.json")


def write_json(
    path: str | os.PathLike, content: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """Write a JSON file, completely or not at all.

    Parameters
    ----------
    path : str or Path
        The file; its folder is made if needed.
    content : mapping
        The entries.  Paths and NumPy's numbers and arrays are converted; numbers that
        are not finite become null, because JSON has none.
    overwrite : bool, optional
        Replace the file if it exists.

    Raises
    ------
    OSError
        If the file cannot be written.
    TypeError
        If an entry cannot be converted.
    """
    text = json.dumps(_to_json(content), indent=2, allow_nan=False) + "\n"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _to_json(value: Any) -> Any:
    """Convert a value to types that JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(entry) for key, entry in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _to_json(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_to_json(entry) for entry in value]
    if isinstance(value, os.PathLike):
        return str(value)
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
