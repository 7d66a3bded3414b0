"""The table of file formats of a map.

A new format is one module beside this one, with a function that reads and one that
writes, and one line in `FORMATS`.  A module is imported when its format is first used,
so that ``--help`` need not wait for it.  `map_format` describes the functions.
"""

from __future__ import annotations

import os

from dipy_dl_reg.maps.formats.map_format import MapFormat
from dipy_dl_reg.validation import check_choice, wrong_value

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
        ("1warp.nii.gz", "0warp.nii.gz", "1warp.nii", "0warp.nii"),
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
        If no format has this suffix, the file has the form of none, or ANTs names it
        so and it is only a part of a map.
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
            if entry is FORMATS["itk"]:
                _check_name_of_ants(path)
            return entry
    found = f"shape {tuple(image.shape)}"
    if "intent_code" in image.header:
        found += f" and NIfTI intent {int(image.header['intent_code'])}"
    kinds = ", ".join(entry.description for entry in entries)
    raise ValueError(
        f"path: {path} must be a map, one of: {kinds}; got an image of {found} "
        "(read_mapping(path, like=...) reads a file that does not declare its format)"
    )


def _check_name_of_ants(path: str | os.PathLike) -> None:
    """Check that a field of ITK has no name of ANTs' that makes it part of a map."""
    from dipy_dl_reg.maps.formats.itk_triple import check_name

    check_name(path)


def get_format(name: str) -> MapFormat:
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
