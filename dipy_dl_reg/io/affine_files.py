"""Affine matrices in the files of this and of other programs.

All functions take and return the matrix from static world to moving world, RAS, in mm:
what affine registrations return, and what `prealign` is.
"""

from __future__ import annotations

from importlib import import_module
import os
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from dipy_dl_reg.io.atomic_files import write_atomically
from dipy_dl_reg.io.image_grids import read_grid
from dipy_dl_reg.validation import check_affine, check_choice, wrong_value


class AffineFormat(NamedTuple):
    """A file format of an affine.

    Attributes
    ----------
    description : str
        The format in a few words.
    suffixes : tuple of str
        Ends of the names of its files, in lower case.
    module : str
        Module of this folder with `matches`, `read` and `write`.
    dimensions : tuple of int
        Dimensions of the matrices that it can store.
    """

    description: str
    suffixes: tuple[str, ...]
    module: str
    dimensions: tuple[int, ...] = (3,)

    def load(self) -> ModuleType:
        """Import the module of the format.

        Returns
        -------
        module : module
            With the functions `matches`, `read` and `write`.
        """
        return import_module(f"dipy_dl_reg.io.{self.module}")


#: By name.  A file is written in the first that has its suffix, and read in the first
#: that it matches.
AFFINE_FORMATS = {
    "fsl": AffineFormat("FSL's FLIRT", (".fsl.mat",), "affine_flirt"),
    "itk": AffineFormat("ITK and ANTs", (".mat", ".tfm"), "affine_itk", (2, 3)),
    "freesurfer": AffineFormat("FreeSurfer", (".lta",), "affine_lta"),
    "text": AffineFormat("text", (".txt",), "affine_text", (2, 3)),
}
#: In the order in which a file is recognized; any file is taken for text at last.
_READ_ORDER = ("itk", "freesurfer", "fsl", "text")


def describe_affine_formats() -> str:
    """Say which suffixes each format has.

    Returns
    -------
    text : str
        Such as ".lta (FreeSurfer); .txt (text)".
    """
    return "; ".join(
        f"{' or '.join(entry.suffixes)} ({entry.description})"
        for entry in AFFINE_FORMATS.values()
    )


def read_affine(
    path: str | os.PathLike,
    *,
    static: Any = None,
    moving: Any = None,
    like: str | None = None,
    dim: int | None = None,
    name: str = "path",
) -> np.ndarray:
    """Read the matrix of an affine registration, from the file of any program.

    Parameters
    ----------
    path : str or Path
        The file: text; ``.mat`` and ``.tfm`` of ITK and ANTs; ``.mat`` of FSL, in text;
        ``.lta`` of FreeSurfer.
    static, moving : str, Path, nibabel image or Grid, optional
        The images that were registered, of which only the grids are used.  Needed for
        FSL's matrices, which depend on them.
    like : {"text", "itk", "fsl", "freesurfer"}, optional
        The format; by default it is found from the file.  Text in a file that ends in
        ``.mat`` is taken for FSL's.
    dim : int, optional
        The dimension that the matrix must have; by default 2 or 3.
    name : str, optional
        Name of the argument in error messages.

    Returns
    -------
    matrix : ndarray, shape (dim + 1, dim + 1)
        Static world to moving world, RAS, in mm: the prealign.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds no invertible affine, or a grid is needed and is None.

    See Also
    --------
    write_affine : the opposite.
    read_mapping : maps with a displacement.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import numpy as np
    >>> from dipy_dl_reg import read_affine, write_affine
    >>> path = f"{mkdtemp()}/sub-01_0GenericAffine.mat"
    >>> write_affine(np.diag([2.0, 1, 1, 1]), path)
    >>> read_affine(path)[0]
    array([2., 0., 0., 0.])
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no such file: {path}")
    with path.open("rb") as file:
        start = file.read(512)
    if not start.strip():
        raise ValueError(f"{name}: {path} must hold a matrix, got an empty file")
    if like is not None:
        entry = AFFINE_FORMATS[check_choice("like", like, AFFINE_FORMATS)]
    else:
        entries = (AFFINE_FORMATS[key] for key in _READ_ORDER)
        entry = next(e for e in entries if e.load().matches(start, path))
    grids = read_grid(static, "static"), read_grid(moving, "moving")
    try:
        matrix = entry.load().read(path, *grids)
    except Exception as error:  # a damaged file can raise errors of any type
        raise ValueError(
            f"{name}: {path} holds no matrix in the format of {entry.description}: "
            f"{error}"
        ) from error
    found = 2 if np.shape(matrix) == (3, 3) else 3
    return check_affine(matrix, dim or found, f"{name}: {path}")


def write_affine(
    matrix: np.ndarray,
    path: str | os.PathLike,
    *,
    static: Any = None,
    moving: Any = None,
    like: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write the matrix of an affine registration, for any program.

    Parameters
    ----------
    matrix : ndarray, shape (dim + 1, dim + 1)
        Static world to moving world, RAS, in mm: what affine registrations return.
    path : str or Path
        The file.  Its suffix decides on the format: ``.mat`` or ``.tfm`` (ITK and
        ANTs), ``.fsl.mat`` (FSL), ``.lta`` (FreeSurfer), ``.txt`` (text).
    static, moving : str, Path, nibabel image or Grid, optional
        The images that were registered, of which only the grids are used.  Needed for
        FSL's and FreeSurfer's files.
    like : {"text", "itk", "fsl", "freesurfer"}, optional
        The format, for any suffix.
    overwrite : bool, optional
        Replace the file if it exists.

    Raises
    ------
    ValueError
        If the matrix is not affine and invertible, no format has the suffix, the format
        cannot store the matrix, or a grid is needed and is None.
    FileExistsError
        If the file exists and `overwrite` is False.

    See Also
    --------
    read_affine : the opposite.
    write_mapping : maps with a displacement.

    Notes
    -----
    ITK's file leads from static to moving, in LPS, as ``antsApplyTransforms -t`` takes
    it to warp moving; FSL's and FreeSurfer's lead from moving to static.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import numpy as np
    >>> from dipy_dl_reg import write_affine
    >>> write_affine(np.eye(4), f"{mkdtemp()}/sub-01_0GenericAffine.mat")

    FreeSurfer's file holds the grids of the images, too:

    >>> write_affine(np.eye(4), "moving_to_static.lta")
    Traceback (most recent call last):
        ...
    ValueError: static must be given for a .lta file, ...
    """
    dim = 2 if np.shape(matrix) == (3, 3) else 3
    matrix = check_affine(matrix, dim, "matrix")
    like = affine_format_name(path) if like is None else like
    entry = AFFINE_FORMATS[check_choice("like", like, AFFINE_FORMATS)]
    if dim not in entry.dimensions:
        raise ValueError(f"matrix must be 3D for {entry.description}, got {dim}D")
    grids = read_grid(static, "static"), read_grid(moving, "moving")
    with write_atomically(path, overwrite=overwrite) as temporary:
        entry.load().write(matrix, temporary, *grids)


def affine_format_name(path: str | os.PathLike, default: str | None = None) -> str:
    """Find the format of an affine by the suffix of its file.

    Parameters
    ----------
    path : str or Path
        The file.
    default : str, optional
        The format for other suffixes.

    Returns
    -------
    name : str
        A key of `AFFINE_FORMATS`.

    Raises
    ------
    ValueError
        If no format has this suffix, and there is no default.
    """
    for name, entry in AFFINE_FORMATS.items():
        if os.fspath(path).lower().endswith(entry.suffixes):
            return name
    if default is not None:
        return default
    raise wrong_value("path", f"a file in {describe_affine_formats()}", os.fspath(path))
