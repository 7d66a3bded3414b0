"""Reads an image and its mask from a file, a NIfTI image or an array."""

from __future__ import annotations

from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from dipy_dl_reg.io.images import read_image
from dipy_dl_reg.io.masks import fill_masked, read_mask


class InputImage(NamedTuple):
    """The values, grid-to-world matrix and mask of an image.

    Attributes
    ----------
    values : ndarray
        Intensities; NaN is missing data.
    grid2world : ndarray, shape (dim + 1, dim + 1), or None
        Voxels to world (mm); None for an array without a matrix.
    mask : ndarray or None
        Only voxels other than 0 are compared; of the shape of `values`.
    """

    values: np.ndarray
    grid2world: np.ndarray | None
    mask: np.ndarray | None = None


def read_input_image(
    image: str | PathLike[str] | Any,
    grid2world: np.ndarray | None = None,
    mask: str | PathLike[str] | Any | None = None,
    *,
    name: str,
) -> InputImage:
    """Read an image and its mask.

    Parameters
    ----------
    image : str, Path, nibabel image or array
        The image; values masked in a `numpy.ma.MaskedArray` become NaN.
    grid2world : array, optional
        Voxels to world; by default the affine in the file.
    mask : str, Path, nibabel image or array, optional
        See `read_mask`: a mask on another grid is resampled to the image's grid.
    name : str
        Name of the image in error messages; the name of the mask is ``{name}_mask``.

    Returns
    -------
    image : InputImage
        Values, matrix and mask.

    Raises
    ------
    ValueError
        If the file is not an image, or the mask does not cover the image.
    FileNotFoundError
        If a file is missing.
    """
    values, affine = read_image(image, grid2world, name=name)
    values = fill_masked(values)
    read = read_mask(mask, image, np.shape(values), affine, name=f"{name}_mask")
    return InputImage(values, affine, read)
