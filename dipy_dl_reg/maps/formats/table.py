"""The table of file formats of a map.

A new format is one module beside this one, with a function that reads and one that
writes, and one line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import os

from dipy_dl_reg.maps.formats import dipy, npz
from dipy_dl_reg.validation import wrong_value


@dataclass(frozen=True)
class MapFormat:
    """A file format of a map.

    Attributes
    ----------
    description : str
        The format in a few words, for help texts and messages.
    suffixes : tuple of str
        Those of its files; the first is the usual one.
    read : callable
        ``read(path, static=None, moving=None, prealign=None)`` returns the map, in the
        form that DIPY's registrations return.  `static` and `moving` are NIfTI images
        or their paths, of which only the grids are used; `prealign` is the matrix from
        static world to moving world.  They are given if the file does not hold them.
        Errors are `FileNotFoundError` and `ValueError`.
    write : callable
        ``write(mapping, path)`` writes the map, or raises a `ValueError` if the format
        cannot hold it.
    dimensions : tuple of int
        Dimensions of the maps that it holds.
    holds_prealign : bool
        Whether the file contains the prealign, separately or composed with the
        displacement.
    holds_moving_grid : bool
        Whether the file holds shape and affine of moving.
    """

    description: str
    suffixes: tuple[str, ...]
    read: Callable
    write: Callable
    dimensions: tuple[int, ...] = (3,)
    holds_prealign: bool = False
    holds_moving_grid: bool = False


#: By name.  If two formats have a suffix in common, the first is taken for such a file.
FORMATS = {
    "npz": MapFormat(
        "the whole map, as save_mapping writes it",
        (".npz",),
        npz.read,
        npz.write,
        dimensions=(2, 3),
        holds_prealign=True,
        holds_moving_grid=True,
    ),
    "dipy": MapFormat(
        "displacement fields in DIPY's format",
        (".nii.gz", ".nii", ".img", ".hdr"),
        dipy.read,
        dipy.write,
    ),
}


def find_format(path: str | os.PathLike) -> MapFormat:
    """Find the format of a file by its suffix.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    format : MapFormat
        An entry of `FORMATS`.

    Raises
    ------
    ValueError
        If no format has this suffix.
    """
    name = os.fspath(path).lower()
    for entry in FORMATS.values():
        if name.endswith(entry.suffixes):
            return entry
    known = "; ".join(
        f"{' or '.join(entry.suffixes)} ({entry.description})"
        for entry in FORMATS.values()
    )
    raise wrong_value("path", f"a file of a map: {known}", os.fspath(path))
