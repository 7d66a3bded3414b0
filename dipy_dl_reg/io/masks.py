"""Reads masks from files, NIfTI images and arrays; resamples them to image grids."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np

from dipy_dl_reg.io.image_kinds import slice_affine
from dipy_dl_reg.io.images import ImageLike, open_image, read_image
from dipy_dl_reg.io.resampling import resample_array
from dipy_dl_reg.validation import check_affine


def fill_masked(image: Any) -> Any:
    """Replace the masked elements of a masked array by NaN.

    Parameters
    ----------
    image : array_like
        The image.

    Returns
    -------
    image : array_like
        A plain array of floating-point numbers for a `numpy.ma.MaskedArray` of real
        numbers; the same object for all others.
    """
    if not np.ma.isMaskedArray(image) or image.dtype.kind not in "buif":
        return image
    kind = image.dtype if image.dtype.kind == "f" else np.float64
    return np.ma.filled(image.astype(kind), np.nan)


def read_mask(
    mask: ImageLike | None,
    image: ImageLike,
    shape: tuple[int, ...],
    grid2world: np.ndarray | None,
    *,
    name: str,
) -> np.ndarray | None:
    """Read a mask, and resample it to the grid of its image if the grids differ.

    Parameters
    ----------
    mask : None, str, Path, nibabel image or array
        The mask.  A mask in a file or nibabel image is resampled through both affines
        if its grid differs from the image's grid: each voxel of the image takes the
        value of the nearest voxel of the mask.  An array has the image's grid.
    image : str, Path, nibabel image or array
        The image as the user gave it.
    shape : tuple of int
        Shape of the image.
    grid2world : array or None
        Voxels of the image to world, which may differ from the affine in its file.
        If it is None, the mask is not resampled.
    name : str
        Name of the mask in error messages.

    Returns
    -------
    mask : ndarray or None
        The mask, of the image's shape if it was resampled; None if there is none.

    Raises
    ------
    FileNotFoundError
        If the mask's file does not exist.
    ValueError
        If the file is not an image, its affine is singular, or no voxel of the image
        lies in the mask.
    """
    if mask is None:
        return None
    values, own = read_image(mask, name=name)
    dim = len(shape)
    while values.ndim > dim and values.shape[-1] == 1:
        values = values[..., 0]
    if own is None or grid2world is None or values.ndim != dim:
        return values
    own, grid2world = slice_affine(own, dim), np.asarray(grid2world)
    for other in (grid2world, _stored_affine(image, dim)):
        if values.shape == tuple(shape) and _are_close(own, other):
            return values
    if grid2world.shape != own.shape:
        return values  # the check of the image raises a clear error for this case
    return _resample_mask(values, own, shape, grid2world, name)


def _stored_affine(image: Any, dim: int) -> np.ndarray | None:
    """The affine in an image's file or header; None for an array."""
    if isinstance(image, (str, PathLike)):
        image = open_image(image)
    if not hasattr(image, "dataobj"):
        return None
    return slice_affine(image.affine, dim)


def _are_close(matrix: np.ndarray, other: np.ndarray | None) -> bool:
    """Whether two matrices are equal, up to the rounding in a file's header."""
    if other is None or np.shape(matrix) != np.shape(other):
        return False
    return np.allclose(matrix, other, rtol=1e-5, atol=1e-3)


def _resample_mask(
    mask: np.ndarray,
    mask_grid2world: np.ndarray,
    shape: tuple[int, ...],
    grid2world: np.ndarray,
    name: str,
) -> np.ndarray:
    """The mask on another grid as bool, by nearest neighbour."""
    affine = check_affine(mask_grid2world, len(shape), f"{name}: its affine")
    inside = np.nan_to_num(np.ma.filled(mask, 0)) != 0
    resampled = resample_array(
        inside.astype(np.uint8),
        np.linalg.inv(affine) @ grid2world,
        shape,
        order=0,
        mode="grid-constant",
    ).astype(bool)
    if inside.any() and not resampled.any():
        raise ValueError(
            f"{name} does not cover the image: according to both affines, no voxel of "
            "the image lies in the mask."
        )
    return resampled
