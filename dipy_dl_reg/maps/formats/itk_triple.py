"""The three files of an ANTs registration: affine, warp and inverse warp.

``X0GenericAffine.mat`` holds ``P``; ``X1Warp.nii.gz`` holds ``b`` and
``X1InverseWarp.nii.gz`` holds ``f``, both on static's grid, so that nothing is composed
or interpolated.  ``antsApplyTransforms -t X1Warp.nii.gz -t X0GenericAffine.mat`` is
`transform`; ``-t [X0GenericAffine.mat,1] -t X1InverseWarp.nii.gz`` is
`transform_inverse`.

The number before ``Warp`` is that of the stage: ``1Warp`` follows the affine, and
``0Warp`` is the first stage of a registration without one.  The inverse warp and later
warps are no maps by themselves: the affine, or an earlier warp, is missing in them.
"""

from __future__ import annotations

import os
from pathlib import Path
import re

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io import affine_itk
from dipy_dl_reg.io.affine_files import read_affine
from dipy_dl_reg.maps.formats.itk import read_displacement, write_displacement
from dipy_dl_reg.maps.formats.map_parts import MapParts, join_parts, split_map
from dipy_dl_reg.validation import check_affine

_WARP = re.compile(r"(\d)Warp(\.nii(\.gz)?)$", re.IGNORECASE)
_INVERSE_WARP = re.compile(r"\dInverseWarp\.nii(\.gz)?$", re.IGNORECASE)
#: A number of more digits may be the end of a subject's name before that of the stage.
_FIRST_WARP = re.compile(r"(?<!\d)0Warp\.nii(\.gz)?$", re.IGNORECASE)
_STAGES = range(10)


def check_name(path: str | os.PathLike) -> None:
    """Check that a file is not named as a part of a map, in the manner of ANTs.

    Parameters
    ----------
    path : str or Path
        The file of the direction of `transform`.

    Raises
    ------
    ValueError
        If it is named as an inverse warp, or as the warp of a stage after the first
        warp.
    """
    name = Path(path).name
    alone = 'like="itk" reads this field alone'
    if _INVERSE_WARP.search(name):
        raise ValueError(
            f"path must be the warp of ANTs (1Warp), got {path}, its inverse warp, "
            f"which does not contain the affine: give it as inverse; {alone}"
        )
    found = _WARP.search(name)
    if found and found[1] not in "01":
        raise ValueError(
            f"path must be the first warp of a registration of ANTs (0Warp or 1Warp), "
            f"got {path}, which does not contain the stages before it: read ANTs' "
            f"composite (.h5), or join the maps by compose_mappings; {alone}"
        )


def name_files(
    path: str | os.PathLike,
    inverse: str | os.PathLike | None,
    affine: str | os.PathLike | None,
) -> list[Path]:
    """Name the files of a registration, as ANTs does.

    Parameters
    ----------
    path : str or Path
        The warp.
    inverse, affine : str, Path or None
        The inverse warp and the affine; by default beside it.

    Returns
    -------
    files : list of Path
        Warp, inverse warp, affine.

    Raises
    ------
    ValueError
        If `path` is named as another part of a registration.
    """
    check_name(path)
    path = Path(path)
    found = _WARP.search(path.name)
    start = path.name[: found.start()] if found else f"{path.name.split('.')[0]}_"
    number, suffix = (found[1], found[2]) if found else ("1", ".nii.gz")
    inverse = inverse or path.with_name(f"{start}{number}InverseWarp{suffix}")
    affine = affine or path.with_name(f"{start}0GenericAffine.mat")
    return [path, Path(inverse), Path(affine)]


def read(
    path: str | os.PathLike,
    inverse: str | os.PathLike | None,
    affine: str | os.PathLike | None,
    prealign: np.ndarray | None,
    moving: Grid | None,
) -> DiffeomorphicMap:
    """Read a map.

    Parameters
    ----------
    path : str or Path
        The warp.
    inverse : str, Path or None
        The inverse warp; by default the file beside it, if it is there.
    affine : str, Path or None
        The affine, a file of ITK; by default the file beside it.
    prealign : ndarray or None
        The affine as a matrix, static world to moving world, in place of a file.
    moving : Grid or None
        Moving's grid; by default static's.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or no affine.
    ValueError
        If a file is damaged, both `affine` and `prealign` are given, or `path` is
        named as another part of a registration.
    """
    if affine is not None and prealign is not None:
        raise ValueError("prealign must not be given beside affine, which holds it")
    files = name_files(path, inverse, affine)
    _check_stages(files[0])
    displacement, static = read_displacement(path)
    matrix = _read_prealign(files, affine, prealign, static.dim)
    parts = MapParts(matrix, displacement, None, static, moving)
    if inverse is not None or files[1].is_file():
        parts = parts.with_inverse(*read_displacement(files[1]))
    return join_parts(parts, path)


def _check_stages(path: Path) -> None:
    """Check that a registration has no other warp, which would be left out."""
    found = _WARP.search(path.name)
    if not found:
        return
    start = path.name[: found.start()]
    for stage in _STAGES:
        other = path.with_name(f"{start}{stage}Warp{found[2]}")
        if stage != int(found[1]) and other.is_file():
            raise ValueError(
                f"path: {path} is one of several warps of a registration, got {other}, "
                "too: read ANTs' composite (.h5), or rename the warp if it is a map"
            )


def _read_prealign(
    files: list[Path],
    affine: str | os.PathLike | None,
    prealign: np.ndarray | None,
    dim: int,
) -> np.ndarray:
    """The affine from a file or from the user; the identity before a first warp."""
    if prealign is not None:
        return check_affine(prealign, dim, "prealign")
    is_first = _FIRST_WARP.search(files[0].name) is not None
    if affine is None and is_first and not files[2].is_file():
        return np.eye(dim + 1)  # a registration without an affine stage
    if not files[2].is_file():
        raise FileNotFoundError(
            f"affine: no such file: {files[2]}; the warp of ANTs does not contain the "
            "affine: give its file as affine, or a matrix as prealign (the identity "
            "if there is none)"
        )
    return check_affine(read_affine(files[2], name="affine"), dim, f"{files[2]}")


def write(
    mapping: DiffeomorphicMap,
    path: str | os.PathLike,
    inverse: str | os.PathLike | None,
    affine: str | os.PathLike | None,
) -> None:
    """Write a map.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    path : str or Path
        The warp.
    inverse, affine : str, Path or None
        The inverse warp and the affine; by default beside it.

    Raises
    ------
    ValueError
        If static's grid is sheared, which ITK refuses.
    """
    parts = split_map(mapping)
    files = name_files(path, inverse, affine)
    write_displacement(parts.backward, parts.static, files[0])
    write_displacement(np.asarray(parts.forward), parts.static, files[1])
    affine_itk.write(parts.prealign, files[2], None, None)
