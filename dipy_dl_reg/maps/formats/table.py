"""The table of file formats of a map.

A new format is one module beside this one, with a function that reads and one that
writes, and one line in `FORMATS`.  A module is imported when its format is first used,
so that ``--help`` need not wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
import os
from typing import TYPE_CHECKING, Any

from dipy_dl_reg.validation import wrong_value

if TYPE_CHECKING:
    from types import ModuleType

    from dipy.align.imwarp import DiffeomorphicMap
    import numpy as np


@dataclass(frozen=True)
class MapFormat:
    """A file format of a map.

    Attributes
    ----------
    description : str
        The format in a few words, for help texts and messages.
    suffixes : tuple of str
        Those of its files, in lower case and with their dots; the first is the usual
        one.
    module : str
        The module of this folder with the functions `read` and `write`.
    dimensions : tuple of int
        Dimensions of the maps that it can store.
    holds_prealign : bool
        Whether the file contains the prealign, separately or composed with the
        displacement.
    holds_static_grid : bool
        Whether the file contains shape and affine of static.
    holds_moving_grid : bool
        Whether the file contains shape and affine of moving.
    """

    description: str
    suffixes: tuple[str, ...]
    module: str
    dimensions: tuple[int, ...] = (3,)
    holds_prealign: bool = False
    holds_static_grid: bool = True
    holds_moving_grid: bool = False

    @property
    def holds_whole_map(self) -> bool:
        """Whether a file alone is enough to read the map that was written."""
        return self.holds_prealign and self.holds_static_grid and self.holds_moving_grid

    def read(
        self,
        path: str | os.PathLike,
        static: Any = None,
        moving: Any = None,
        prealign: np.ndarray | None = None,
    ) -> DiffeomorphicMap:
        """Read a map.

        Parameters
        ----------
        path : str or Path
            The file.
        static : str, Path or nibabel image, optional
            The static image, of which only the grid is used.  Needed if the file does
            not contain this grid.
        moving : str, Path or nibabel image, optional
            The moving image, of which only the grid is used.  Without it, if the file
            does not contain this grid, the map's moving grid is static's.
        prealign : ndarray, shape (dim + 1, dim + 1), optional
            Static world to moving world, if the file does not contain it; by default
            the identity.

        Returns
        -------
        mapping : DiffeomorphicMap
            The map, in the form that DIPY's registrations return.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is no map in this format, or does not contain static's grid and
            `static` is None.
        """
        return self._load().read(path, static, moving, prealign)

    def write(self, mapping: DiffeomorphicMap, path: str | os.PathLike) -> None:
        """Write a map.

        Parameters
        ----------
        mapping : DiffeomorphicMap
            The map.
        path : str or Path
            The file.

        Raises
        ------
        ValueError
            If the format cannot store the map.
        """
        self._load().write(mapping, path)

    def _load(self) -> ModuleType:
        """Import the module of the format."""
        return import_module(f"dipy_dl_reg.maps.formats.{self.module}")


#: By name.  If two formats have a suffix in common, the first is taken for such a file.
FORMATS = {
    "npz": MapFormat(
        "the whole map, as save_mapping writes it",
        (".npz",),
        "npz",
        dimensions=(2, 3),
        holds_prealign=True,
        holds_moving_grid=True,
    ),
    "dipy": MapFormat(
        "displacement fields in DIPY's format",
        (".nii.gz", ".nii", ".img", ".hdr"),
        "dipy",
    ),
}


def whole_map_suffixes() -> tuple[str, ...]:
    """List the suffixes of the formats that store the whole map.

    Returns
    -------
    suffixes : tuple of str
        In the order of `FORMATS`.
    """
    suffixes = [s for entry in FORMATS.values() for s in entry.suffixes]
    return tuple(s for s in suffixes if find_format(s).holds_whole_map)


def describe_formats() -> str:
    """Say which suffixes each format has.

    Returns
    -------
    text : str
        Such as ".npz (the whole map, as save_mapping writes it); .nii.gz or .nii
        (displacement fields in DIPY's format)".
    """
    return "; ".join(
        f"{' or '.join(entry.suffixes)} ({entry.description})"
        for entry in FORMATS.values()
    )


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
    wanted = f"a file of a map: {describe_formats()}"
    raise wrong_value("path", wanted, os.fspath(path))
