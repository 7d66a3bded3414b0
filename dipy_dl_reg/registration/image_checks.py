"""Checks of the images and masks before a registration."""

from __future__ import annotations

from collections.abc import Mapping

from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.io.masks import fill_masked
from dipy_dl_reg.validation import check_affine

#: Minimum number of voxels along the longest axis of an image.
_LEAST_SIZE = 4
#: Numbers of channels of a colour image: RGB, RGBA.
_COLOURS = (3, 4)
#: Minimum length of a colour image's sides, in pixels; a smaller array may be a volume.
_LEAST_PICTURE = 16


def refuse_colour_pair(images: Mapping[str, np.ndarray]) -> None:
    """Raise if both images are colour pictures; warn if they may be.

    Parameters
    ----------
    images : dict of ndarray
        "static" and "moving".

    Raises
    ------
    ValueError
        If both are arrays of unsigned bytes with 3 or 4 values along the last axis.
    """
    for image in images.values():
        sides, colours = image.shape[:2], image.shape[2:]
        if colours not in ((n,) for n in _COLOURS) or min(sides) < _LEAST_PICTURE:
            return
    shapes = " and ".join(str(image.shape) for image in images.values())
    if all(image.dtype == np.uint8 for image in images.values()):
        raise ValueError(
            f"static and moving, unsigned bytes of the shapes {shapes}, seem to be "
            "colour images: give one channel or the mean of the channels, in 2D. "
            "(Volumes of 3 or 4 slices can be given as floating-point numbers.)"
        )
    logger.warning(
        f"static and moving, of the shapes {shapes}, are registered as volumes of few "
        "slices. If they are colour images, give one channel or the mean of the "
        "channels, in 2D."
    )


def check_image(image: np.ndarray, role: str) -> np.ndarray:
    """Check that an array is an image that can be registered.

    Parameters
    ----------
    image : array
        The user's value; masked values of a masked array become NaN.
    role : str
        "static" or "moving", for error messages.

    Returns
    -------
    image : ndarray, 2D or 3D
        The image, of real numbers; NaN is missing data.

    Raises
    ------
    ValueError
        If the array is not 2D or 3D, is too small, is not of real numbers, contains an
        infinite value, or contains only NaN.
    """
    image = np.asarray(fill_masked(image))
    if image.dtype.names:
        raise ValueError(
            f"{role} must hold real numbers, not colours or other records, got dtype "
            f"{image.dtype}: give one channel or the mean of the channels."
        )
    if image.ndim not in (2, 3):
        raise ValueError(
            f"{role} must be a 2D or 3D image, got shape {image.shape}"
            + (
                "; give one of its volumes, or, if they are channels of one image, a "
                "metric for each as a list."
                if image.ndim == 4
                else "."
            )
            + (" (deep_registration reads files.)" if image.ndim == 0 else "")
        )
    if image.size == 0 or max(image.shape) < _LEAST_SIZE:
        raise ValueError(
            f"{role} is too small: at least one axis must have {_LEAST_SIZE} voxels, "
            f"got shape {image.shape}."
        )
    if image.dtype.kind not in "buif":
        raise ValueError(f"{role} must hold real numbers, got dtype {image.dtype}.")
    if image.dtype.kind == "f" and np.isinf(image).any():
        raise ValueError(
            f"{role} holds infinite values; replace them, or set them to NaN if they "
            "are missing data."
        )
    if np.isnan(image).all():
        raise ValueError(f"{role} is NaN everywhere.")
    return image


def check_affine_or_none(matrix: np.ndarray | None, name: str, dim: int) -> np.ndarray:
    """Check an affine matrix that may be None.

    Parameters
    ----------
    matrix : array, shape (dim + 1, dim + 1), or None
        The user's value.
    name : str
        Name of the parameter, for error messages.
    dim : int
        2 or 3.

    Returns
    -------
    matrix : ndarray of float64, shape (dim + 1, dim + 1)
        The identity for None.

    Raises
    ------
    ValueError
        If `matrix` is not an invertible affine matrix.
    """
    return np.eye(dim + 1) if matrix is None else check_affine(matrix, dim, name)


def check_mask(
    mask: np.ndarray | None, image: np.ndarray, role: str
) -> np.ndarray | None:
    """Check a mask against its image.

    Parameters
    ----------
    mask : array or None
        The user's value.
    image : ndarray
        The image; NaN is missing data.
    role : str
        "static" or "moving", for error messages.

    Returns
    -------
    mask : ndarray of bool, or None
        True at voxels that are compared.

    Raises
    ------
    ValueError
        If the shapes of mask and image differ, or no voxel is left to compare.
    """
    if mask is None:
        return None
    mask = np.ma.filled(mask, 0) if np.ma.isMaskedArray(mask) else np.asarray(mask)
    if mask.shape != image.shape:
        raise ValueError(
            f"{role}_mask must have the shape of {role}, {image.shape}, got "
            f"{mask.shape}."
        )
    mask = np.nan_to_num(mask) != 0
    if not (mask & ~np.isnan(image)).any():
        raise ValueError(f"{role}_mask is empty: it contains no valid voxel of {role}.")
    return mask


def log_clipped_values(
    values: np.ndarray, limits: tuple[float, float], role: str
) -> None:
    """Log the number of values that lie outside a range and are clipped to it.

    Parameters
    ----------
    values : ndarray
        Values of an image.
    limits : tuple of float
        Lower and upper limit of the range.
    role : str
        "static" or "moving".
    """
    beyond = int(((values < limits[0]) | (values > limits[1])).sum())
    if beyond:
        logger.info(
            f"{role}: {beyond} voxels of extreme value, from {values.min():.3g} to "
            f"{values.max():.3g}, are clipped to the range from {limits[0]:.3g} to "
            f"{limits[1]:.3g} during the registration."
        )
