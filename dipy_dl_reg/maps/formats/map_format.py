"""A file format of a map: what its files hold, and calls of the module that has it.

There are three kinds of modules:

- ``"map"``: one file holds both directions; ``read(path, static, moving, prealign)``
  returns a map, and ``write(mapping, path)`` writes one.
- ``"dense"``: each direction is a file of positions (`dense_field`);
  ``read(path, input_grid)`` returns a `DenseField`, and ``write(field, path)`` writes
  one.
- ``"pair"``: the two directions, and perhaps the affine, are files of another form;
  ``read(path, inverse, affine, prealign, moving)``, with moving's grid or None, returns
  a map, ``write(mapping, path, inverse, affine)`` writes one, and
  ``name_files(path, inverse, affine)``, if the module has it, lists the files that are
  written.

A dense format that can store the affine part in another file has
``read_with_affine(path, affine, input_grid)``, which returns a `DenseField` and the
prealign, and ``write_with_affine(field, prealign, path, affine)``.  The module of
a format whose files have the suffix of others has ``matches(image)``, which tells from
the header of an opened file whether it is one.  If some files contain more than others,
the module has ``contents(path)`` (see `MapFormat.contents`).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        Ends of the names of its files, in lower case; the first is the usual one.
    module : str
        The module of this folder with the functions `read` and `write`.
    kind : {"map", "dense", "pair"}
        The form of these functions (see above).
    needs_moving : bool
        Whether a file can be read only with moving's grid.
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
    kind: str = "map"
    needs_moving: bool = False
    dimensions: tuple[int, ...] = (3,)
    holds_prealign: bool = False
    holds_static_grid: bool = True
    holds_moving_grid: bool = False

    @property
    def holds_whole_map(self) -> bool:
        """Whether a file alone is enough to read the map that was written."""
        grids = self.holds_static_grid and self.holds_moving_grid
        return self.kind == "map" and self.holds_prealign and grids

    def read(
        self,
        path: str | os.PathLike,
        static: Any = None,
        moving: Any = None,
        prealign: np.ndarray | None = None,
        *,
        inverse: str | os.PathLike | None = None,
        affine: str | os.PathLike | None = None,
    ) -> DiffeomorphicMap:
        """Read a map.

        Parameters
        ----------
        path : str or Path
            The file.
        static : str, Path, nibabel image or Grid, optional
            The static image, of which only the grid is used.  Needed if the file does
            not contain this grid.
        moving : str, Path, nibabel image or Grid, optional
            The moving image, of which only the grid is used.  Without it, if the file
            does not contain this grid, the map's moving grid is static's.
        prealign : ndarray, shape (dim + 1, dim + 1), optional
            Static world to moving world, if the file does not contain it; by default
            the identity.  If the file contains it composed with the displacement, it
            is separated; by default the affine that is nearest to the map.
        inverse : str or Path, optional
            The file of the other direction, in formats that store each in a file.
            Without it, the other direction is computed.
        affine : str or Path, optional
            The file of the affine part, in formats that may store it in a file.

        Returns
        -------
        mapping : DiffeomorphicMap
            The map, in the form that DIPY's registrations return.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is no map in this format, does not contain a grid that is
            needed and is None, or is not on static's grid.  The moving grid of a file
            that holds the whole map must be that of `moving`.
        """
        self.check_files(inverse, affine)
        from dipy_dl_reg.maps.formats import two_directions

        if self.kind == "map":
            mapping = self._load().read(path, static, moving, prealign)
            kept = moving if self.holds_moving_grid else None
            two_directions.check_grids(mapping, path, static, kept)
            return mapping
        read = two_directions.read_dense
        if self.kind == "pair":
            read = two_directions.read_pair
        files = two_directions.MapFiles(path, inverse, affine)
        return read(self, self._load(), files, static, moving, prealign)

    def write(
        self,
        mapping: DiffeomorphicMap,
        path: str | os.PathLike,
        inverse: str | os.PathLike | None = None,
        affine: str | os.PathLike | None = None,
    ) -> None:
        """Write a map.

        Parameters
        ----------
        mapping : DiffeomorphicMap
            The map.
        path : str or Path
            The file.
        inverse : str or Path, optional
            The file of the other direction, in formats that store each in a file;
            without it only the direction of `transform` is written.
        affine : str or Path, optional
            The file of the affine part, in formats that may store it in a file.

        Raises
        ------
        ValueError
            If the format cannot store the map.
        """
        self.check_files(inverse, affine)
        if self.kind == "map":
            self._load().write(mapping, path)
            return
        from dipy_dl_reg.maps.formats import two_directions

        write = two_directions.write_dense
        if self.kind == "pair":
            write = two_directions.write_pair
        files = two_directions.MapFiles(path, inverse, affine)
        write(self, self._load(), mapping, files)

    def name_files(
        self,
        path: str | os.PathLike,
        inverse: str | os.PathLike | None = None,
        affine: str | os.PathLike | None = None,
    ) -> list[Path]:
        """List the files that `write` writes.

        Parameters
        ----------
        path, inverse, affine : str or Path
            As in `write`.

        Returns
        -------
        files : list of Path
            The first is `path`.
        """
        self.check_files(inverse, affine)
        name_files = getattr(self._load(), "name_files", None)
        if name_files is not None:
            return name_files(path, inverse, affine)
        return [Path(file) for file in (path, inverse, affine) if file is not None]

    def contents(self, path: str | os.PathLike) -> set[str]:
        """Find out what a file contains besides the displacement.

        Parameters
        ----------
        path : str or Path
            The file.

        Returns
        -------
        contents : set of str
            Some of "prealign", "static" (static's grid) and "moving" (moving's grid).
        """
        contents = getattr(self._load(), "contents", None)
        found = set() if contents is None else contents(path)
        flags = {
            "prealign": self.holds_prealign,
            "static": self.holds_static_grid,
            "moving": self.holds_moving_grid,
        }
        return found | {name for name, holds in flags.items() if holds}

    def check_files(self, inverse: object, affine: object) -> None:
        """Check that no file is given that the format does not have.

        Parameters
        ----------
        inverse, affine : str, Path or None
            The files of the other direction and of the affine part.

        Raises
        ------
        ValueError
            If one is given, and the format has no such file.
        """
        if self.kind == "map" and inverse is not None:
            raise ValueError(
                f"inverse must not be given for {self.description}: one file holds "
                "both directions"
            )
        if affine is None or self.kind == "pair":
            return
        if self.kind == "map" or not hasattr(self._load(), "read_with_affine"):
            raise ValueError(
                f"affine must not be given for {self.description}, which stores no "
                "affine in a file of its own"
            )

    def matches(self, image: Any) -> bool:
        """Tell whether an image is a file of this format.

        Parameters
        ----------
        image : nibabel image
            An opened file; its values are not read.

        Returns
        -------
        matches : bool
            Whether its header says so; False if the format cannot be told so.
        """
        matches = getattr(self._load(), "matches", None)
        return matches is not None and matches(image)

    def _load(self) -> ModuleType:
        """Import the module of the format."""
        return import_module(f"dipy_dl_reg.maps.formats.{self.module}")
