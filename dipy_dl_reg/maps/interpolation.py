"""Choice of the interpolation of an image, and interpolation by a map.

NaN and infinities are missing data: they do not spread to their neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dipy_dl_reg.io.image_kinds import declares_labels, looks_like_labels

INTERPOLATIONS = ("auto", "linear", "nearest")


def choose_interpolation(interpolation: str, image: Any) -> str:
    """Choose the interpolation of an image.

    Parameters
    ----------
    interpolation : {"auto", "linear", "nearest"}
        As the user gave it.
    image : ndarray or nibabel image
        The image.

    Returns
    -------
    chosen : {"linear", "nearest"}
        "auto" is "nearest" if the image's header declares labels, else "linear".
    """
    if interpolation == "auto":
        return "nearest" if declares_labels(image) else "linear"
    return interpolation


def should_warn_of_labels(
    interpolation: str, chosen: str, data: np.ndarray, dim: int
) -> bool:
    """Whether "auto" chose linear interpolation for an image that looks like labels.

    Parameters
    ----------
    interpolation : {"auto", "linear", "nearest"}
        As the user gave it.
    chosen : {"linear", "nearest"}
        The choice of `choose_interpolation`.
    data : ndarray
        Values of the image; of a series, the first image is examined.
    dim : {2, 3}
        Dimension of the map.

    Returns
    -------
    warn : bool
        True if the user should be warned.
    """
    if interpolation != "auto" or chosen != "linear":
        return False
    return looks_like_labels(data[..., 0] if data.ndim > dim else data)


def interpolate_linearly(
    transform: Callable[..., np.ndarray], volume: np.ndarray, **grids: Any
) -> np.ndarray:
    """Interpolate one volume linearly between its known voxels.

    Parameters
    ----------
    transform : callable
        Method of a map that interpolates a float32 volume.
    volume : ndarray
        The image; NaN and infinities are missing data.
    **grids : dict
        Passed to `transform`.

    Returns
    -------
    warped : ndarray
        The mean of the known neighbours, weighted as in linear interpolation; NaN
        where the known neighbours have less than half of the weight.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # invalid: signalling NaN
        volume = np.require(volume, np.float32, ["C", "W"])
    known = np.isfinite(volume)
    if known.all():
        return transform(volume, **grids)
    warped = transform(np.where(known, volume, np.float32(0)), **grids)
    missing = transform((~known).astype(np.float32), **grids)
    # Outside the image the value is 0, which counts as valid, not as missing.
    few = missing > 0.5 + 1e-6
    warped /= np.where(few, np.float32(1), 1 - missing)
    warped[few] = np.nan
    return warped


def interpolate_nearest(
    transform: Callable[..., np.ndarray], image: np.ndarray, dim: int, **grids: Any
) -> np.ndarray:
    """Interpolate an image of any type by the value of the nearest voxel.

    The indices of the voxels are transformed instead of their values.

    Parameters
    ----------
    transform : callable
        Method of a map that transforms an int32 volume.
    image : ndarray
        An image, or a series along the last axis.
    dim : {2, 3}
        Dimension of the map.
    **grids : dict
        Passed to `transform`.

    Returns
    -------
    warped : ndarray
        Of the image's type; 0 outside the image.

    Raises
    ------
    ValueError
        If the image has more voxels than DIPY's integers can number.
    """
    shape = image.shape[:dim]
    count = int(np.prod(shape, dtype=np.int64))
    if count > np.iinfo(np.int32).max:
        raise ValueError(
            f'image must have fewer than 2**31 voxels for interpolation="nearest", got '
            f"{count} of shape {shape}."
        )
    numbers = np.arange(1, count + 1, dtype=np.int32).reshape(shape)
    numbers = transform(numbers, interpolation="nearest", **grids)
    voxels = np.unravel_index(np.maximum(numbers - 1, 0), shape)
    warped = image[voxels]
    warped[numbers == 0] = 0
    return warped
