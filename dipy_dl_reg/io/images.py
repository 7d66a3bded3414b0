"""Reads and checks images from files and arguments; makes NIfTI images of arrays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import SpatialImage
import numpy as np

from dipy_dl_reg.io.image_kinds import (
    check_no_colour,
    replace_signalling_nan,
    slice_affine,
)
from dipy_dl_reg.validation import check_affine

#: Types of an image argument.
ImageLike: TypeAlias = np.ndarray | SpatialImage | str | os.PathLike

#: Formats that nibabel reads and that users are likely to have.
READABLE = "NIfTI (.nii, .nii.gz), MGH (.mgz), MINC (.mnc) or Analyze (.hdr)"


def read_image(
    image: ImageLike,
    grid2world: np.ndarray | None = None,
    *,
    name: str = "image",
    dtype: Any = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read the values and the grid-to-world matrix of an image.

    Parameters
    ----------
    image : ndarray, nibabel image, str or Path
        The image.
    grid2world : ndarray, optional
        Its grid-to-world matrix; by default that of the file.
    name : str, optional
        Name of the image in error messages.
    dtype : dtype, optional
        Type in which a file's values are read; by default the type that is stored.

    Returns
    -------
    data : ndarray
        The values.
    grid2world : ndarray or None
        The matrix; None for an array without one.  If the image is 2D, a 4x4 matrix,
        as files have, is reduced to the slice's plane (see `slice_affine`).

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is empty, damaged, not an image, or a colour image.
    """
    opened: Any = image
    if isinstance(image, (str, os.PathLike)):
        opened = open_image(image, name=name)
    if not hasattr(opened, "dataobj"):
        data = np.asanyarray(opened)
        check_no_colour(data.dtype, name)
        return data, slice_affine(grid2world, data.ndim)
    where = opened.get_filename() or "the image in memory"
    check_no_colour(opened.get_data_dtype(), f"{name}: {where}")
    try:
        # Some FA maps contain signalling NaN, whose conversion gives a warning.
        with np.errstate(invalid="ignore"):
            if dtype is None:
                data = replace_signalling_nan(np.asanyarray(opened.dataobj))
            else:
                data = opened.get_fdata(dtype=dtype, caching="unchanged")
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise errors of any type
        raise ValueError(f"{name}: {where} is damaged: {error}") from error
    grid2world = opened.affine if grid2world is None else grid2world
    return data, slice_affine(grid2world, data.ndim)


def open_image(path: str | os.PathLike, *, name: str = "image") -> Any:
    """Open an image file without reading its values.

    Parameters
    ----------
    path : str or Path
        A file that nibabel reads.
    name : str, optional
        Name of the image in error messages.

    Returns
    -------
    image : nibabel image
        The image; its values are still on the disk.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is empty, or not an image.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{name}: no such file: {path}")
    if not path.is_file():
        raise ValueError(f"{name}: {path} is not a file")
    if path.stat().st_size == 0:
        raise ValueError(f"{name}: {path} is empty")
    try:
        image = nib.load(path)
    except Exception as error:  # a damaged header can raise errors of any type
        what = "" if isinstance(error, ImageFileError) else f" ({error})"
        raise ValueError(
            f"{name}: {path} is not an image file that can be read: {READABLE}{what}"
        ) from error
    if not hasattr(image, "dataobj"):
        raise ValueError(f"{name}: {path} holds no image")
    return image


def open_volume(path: str | os.PathLike, name: str, *, slices: bool = False) -> Any:
    """Open a file of one 3D image, and check its header.

    Parameters
    ----------
    path : str or Path
        The file.
    name : str
        Name of the image in error messages.
    slices : bool, optional
        Accept a file of shape (X, Y), too.

    Returns
    -------
    image : nibabel image
        The image, 3D (further axes of length 1 are dropped) or (X, Y); its values are
        still on the disk.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is not an image, is not 3D, does not have real numbers, or has a singular
        affine.
    """
    image = open_image(path, name=name)
    if len(image.shape) > 3 and set(image.shape[3:]) == {1}:
        data, affine = read_image(image, name=name)
        image = type(image)(data.reshape(image.shape[:3]), affine, image.header)
        image.set_filename(path)
    if len(image.shape) not in ((2, 3) if slices else (3,)) or 0 in image.shape:
        wanted = "one 3D volume" + " or one slice" * slices
        raise ValueError(f"{name}: {path} must be {wanted}, got shape {image.shape}")
    check_no_colour(image.get_data_dtype(), f"{name}: {path}")
    if image.get_data_dtype().kind not in "biuf":
        raise ValueError(f"{name}: {path} must hold real numbers")
    check_affine(image.affine, 3, f"{name}: the affine of {path}")
    return image


def make_nifti(
    reference: Any, data: np.ndarray, *, series: Any = None
) -> nib.Nifti1Image:
    """Make a NIfTI image on the grid of another image.

    Parameters
    ----------
    reference : nibabel image
        Image with the affine, its meaning (scanner, template ...) and the unit of
        length.
    data : ndarray
        Values on that grid: an image, or a series of images along the last axis.
    series : nibabel image, optional
        Image with the step and the unit of the last axis of a series.

    Returns
    -------
    image : nibabel.Nifti1Image
        The image, of the type of `data`; in mm if the reference has no unit.
    """
    image = nib.Nifti1Image(data, reference.affine, dtype=data.dtype)
    units, code = ["mm", "unknown"], 2
    if isinstance(reference.header, nib.Nifti1Header):
        length = reference.header.get_xyzt_units()[0]
        units[0] = "mm" if length == "unknown" else length
        codes = [int(reference.header[f"{k}form_code"]) for k in "sq"]
        code = codes[0] or codes[1] or code
    if data.ndim == 4 and series is not None and len(series.shape) == 4:
        zooms = (*image.header.get_zooms()[:3], *series.header.get_zooms()[3:4])
        image.header.set_zooms(zooms)
        if isinstance(series.header, nib.Nifti1Header):
            units[1] = series.header.get_xyzt_units()[1]
    image.header.set_xyzt_units(*units)
    image.set_sform(reference.affine, code)
    image.set_qform(reference.affine, code)
    return image
