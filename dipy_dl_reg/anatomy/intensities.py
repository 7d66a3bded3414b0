"""Preparation of an image's intensities for the network `anatomy`."""

from __future__ import annotations

import numpy as np
import torch

from dipy_dl_reg.geometry.intensity import extreme_limits

#: If the sum of an image's negative values exceeds this fraction of the sum of all
#: absolute values, intensities do not begin at 0: the lowest value is subtracted.
_NEGATIVE = 0.25
#: The background is constant if more than this fraction of the voxels on the faces of
#: the image have the same value.
_CONSTANT = 0.5
#: Fraction of the values below the one that is subtracted.
_LOWEST = 0.001
#: Intensities are divided by this quantile of those above a fraction of the maximum,
#: as in training.
_QUANTILE, _FOREGROUND = 0.99, 0.02


def prepare_intensities(
    image: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
    """Set the background to 0 and clip extreme values.

    Parameters
    ----------
    image : ndarray, 3D
        Intensities of any contrast; NaN is missing data.
    mask : ndarray, optional
        Of the same shape; voxels that are 0 become background.

    Returns
    -------
    prepared : ndarray of float32
        0 in the background, for missing data and outside the mask, never negative.  If
        many values are negative, as in an image of mean 0, the lowest one is
        subtracted from all that are no background.  An image whose remaining values
        are all equal becomes 0 everywhere.
    """
    with np.errstate(over="ignore"):  # values beyond float32 count as missing data
        image = np.asarray(image, dtype=np.float32)
    known = np.isfinite(image)
    if mask is not None:
        known &= np.asarray(mask) != 0
    background = _constant_background(image, np.isfinite(image))
    if background is not None:
        known &= image != background
    values = image[known]
    if not values.size:
        return np.zeros_like(image)
    low, high = extreme_limits(values)
    zero = 0.0 if background is None else background
    below = np.minimum(values - zero, 0).sum(dtype=np.float64)
    if -below > _NEGATIVE * np.abs(values - zero).sum(dtype=np.float64):
        zero = float(np.quantile(values, _LOWEST))
    if not high > low and background is None:
        return np.zeros_like(image)
    return np.where(known, np.clip(image, low, high) - zero, 0).clip(0, None)


def _constant_background(image: np.ndarray, known: np.ndarray) -> float | None:
    """The value that most voxels on the faces of an image have, if there is one."""
    faces = [
        image.take(end, axis)[known.take(end, axis)]
        for axis in range(image.ndim)
        for end in (0, -1)
    ]
    values = np.concatenate(faces)
    if not values.size:
        return None
    middle = np.partition(values, values.size // 2)[values.size // 2]
    return float(middle) if (values == middle).mean() > _CONSTANT else None


def scale_intensities(image: torch.Tensor) -> torch.Tensor:
    """Divide an image by a quantile of its foreground, as in training.

    Parameters
    ----------
    image : Tensor
        Background 0.

    Returns
    -------
    scaled : Tensor
        Its brightest tissue is about 1.
    """
    values = image.flatten().sort().values
    positive = (values > _FOREGROUND * values[-1]).sum().clamp_min(1)
    place = len(values) - 1 - ((1 - _QUANTILE) * positive).long()
    return image / values[place].clamp_min(torch.finfo(image.dtype).tiny)
