"""The table of file formats of a map.

A new format is one module beside this one, with a function that reads and one that
writes, and one line in `FORMATS`.  A module is imported when its format is first used,
so that ``--help`` need not wait for it.

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

from dipy_dl_reg.validation import check_choice, wrong_value

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
            If the file is no map in this format, or does not contain a grid that is
            needed and is None.
        """
        self.check_files(inverse, affine)
        if self.kind == "map":
            return self._load().read(path, static, moving, prealign)
        from dipy_dl_reg.maps.formats import two_directions

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


#: Suffixes that several formats have.
NIFTI = (".nii.gz", ".nii")

#: By name.  If two formats have a suffix in common, the first is written by default; a
#: file is read in the first whose form it has.
FORMATS = {
    "npz": MapFormat(
        "the whole map, as save_mapping writes it",
        (".npz",),
        "npz",
        dimensions=(2, 3),
        holds_prealign=True,
        holds_moving_grid=True,
    ),
    "ants": MapFormat(
        "ANTs' affine, warp and inverse warp",
        ("1warp.nii.gz", "0warp.nii.gz"),
        "itk_triple",
        kind="pair",
        dimensions=(2, 3),
        holds_prealign=True,
    ),
    "dipy": MapFormat(
        "displacement fields in DIPY's format",
        (*NIFTI, ".img", ".hdr"),
        "dipy",
    ),
    "itk": MapFormat(
        "a displacement field of ITK, ANTs or SimpleITK",
        NIFTI,
        "itk",
        kind="dense",
        dimensions=(2, 3),
        holds_prealign=True,
    ),
    "spm": MapFormat(
        "a deformation field of SPM",
        NIFTI,
        "spm",
        kind="dense",
        holds_prealign=True,
    ),
    "fsl": MapFormat(
        "a relative warp of FSL",
        NIFTI,
        "fsl",
        kind="dense",
        needs_moving=True,
        holds_prealign=True,
    ),
    "freesurfer": MapFormat(
        "a warp of FreeSurfer",
        (*NIFTI, ".mgz", ".mgh"),
        "freesurfer_warp",
        kind="dense",
        holds_prealign=True,
    ),
    "m3z": MapFormat(
        "a morph of FreeSurfer",
        (".m3z", ".m3d"),
        "freesurfer_morph",
        kind="dense",
        holds_prealign=True,
        holds_moving_grid=True,
    ),
    "mrtrix": MapFormat(
        "a deformation field of MRtrix3",
        NIFTI,
        "mrtrix",
        kind="dense",
        holds_prealign=True,
    ),
    "itk_composite": MapFormat(
        "a composite transform of ITK and ANTs",
        (".h5",),
        "itk_composite",
        kind="pair",
        dimensions=(2, 3),
        holds_prealign=True,
    ),
    "x5": MapFormat(
        "a displacement field in the BIDS X5 format",
        (".x5",),
        "x5",
        kind="dense",
        holds_prealign=True,
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


def describe_names() -> str:
    """Say which format each name stands for.

    Returns
    -------
    text : str
        Such as "npz (the whole map, as save_mapping writes it), ants (...)".
    """
    return ", ".join(f"{name} ({e.description})" for name, e in FORMATS.items())


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


def recognise_format(path: str | os.PathLike) -> MapFormat:
    """Find the format of a file that exists, by its suffix and its header.

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
    FileNotFoundError
        If there is no such file.
    ValueError
        If no format has this suffix, or the file has the form of none.
    """
    first = find_format(path)
    name = os.fspath(path).lower()
    entries = [entry for entry in FORMATS.values() if name.endswith(entry.suffixes)]
    if first.suffixes[0] not in NIFTI or len(entries) == 1:
        return first
    from dipy_dl_reg.io.images import open_image

    image = open_image(path, name="path")
    for entry in entries:
        if entry.matches(image):
            return entry
    found = f"shape {tuple(image.shape)}"
    if "intent_code" in image.header:
        found += f" and NIfTI intent {int(image.header['intent_code'])}"
    kinds = ", ".join(entry.description for entry in entries)
    raise ValueError(
        f"path: {path} must be a map, one of: {kinds}; got an image of {found} "
        "(read_mapping(path, like=...) reads a file that does not declare its format)"
    )


def format_named(name: str) -> MapFormat:
    """Find a format by its name.

    Parameters
    ----------
    name : str
        A key of `FORMATS`.

    Returns
    -------
    format : MapFormat
        The entry.

    Raises
    ------
    ValueError
        If there is no such format.
    """
    return FORMATS[check_choice("like", name, FORMATS)]
