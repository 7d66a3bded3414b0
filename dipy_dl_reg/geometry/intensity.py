"""Limits of intensities and scaling by them, the same in training and in use."""

from typing import TypeVar

import numpy as np
import torch

#: Quantiles that are scaled to 0 and 1: the outermost thousandths are noise, or one hot
#: voxel.
QUANTILES = (0.001, 0.999)
#: Values farther beyond the outermost thousandths than this many times the range
#: between them are extreme, and are clipped to `_MARGIN` times that range beyond them.
_EXTREME, _MARGIN = 5.0, 1.0
#: Least number of values that may be extreme on either side, however few voxels there
#: are.
_LEAST_EXTREME = 3

Image = TypeVar("Image", np.ndarray, torch.Tensor)


def scale_intensities(image: Image, low: float, high: float) -> Image:
    """Scale intensities linearly: ``(image - low) / (high - low)``.

    Parameters
    ----------
    image : ndarray or Tensor
        Intensities.
    low, high : float
        Intensities that become 0 and 1.

    Returns
    -------
    scaled : ndarray or Tensor
        Not clipped: values beyond the limits fall outside [0, 1].
    """
    return (image - low) / (high - low)


def quantile_limits(values: np.ndarray) -> tuple[float, float]:
    """Intensities that are scaled to 0 and 1.

    Parameters
    ----------
    values : ndarray
        At least one, all finite.

    Returns
    -------
    low, high : float
        Quantiles .001 and .999; least and greatest value where these two are equal, as
        in an image of one small bright spot.
    """
    low, high = np.quantile(values, QUANTILES)
    if not high > low:
        low, high = values.min(), values.max()
    return float(low), float(high)


def histogram_limits(
    values: torch.Tensor, *, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Range of a histogram's bins, without the outermost thousandths.

    One hot voxel would otherwise squeeze all others into a single bin.

    Parameters
    ----------
    values : Tensor, shape (N,)
        Intensities.
    most : int
        The quantiles are those of about this number of evenly spaced values.

    Returns
    -------
    low, high : Tensor, shape ()
        Quantiles .001 and .999; least and greatest value where these two are equal.
    """
    few = values[:: max(1, len(values) // most)]
    low, high = few.quantile(few.new_tensor(QUANTILES)).unbind()
    return (low, high) if high > low else (values.min(), values.max())


def extreme_limits(values: np.ndarray) -> tuple[float, float]:
    """Limits that extreme values are clipped to, if there are any.

    A few voxels of a ratio, of kurtosis or of T2* may lie many times outside the range
    of all others.  If an image is scaled by such a value, all its other voxels become
    nearly equal, and sums of its values or squares depend on that voxel alone.

    Parameters
    ----------
    values : ndarray
        At least one, all finite.

    Returns
    -------
    low, high : float
        With the range of the values without the outermost thousandths (three values at
        least): one such range below its lower end and one above its upper end, if a
        value lies more than five such ranges beyond that end; otherwise the least and
        the greatest value, so that clipping leaves an ordinary image as it is, bit for
        bit.
    """
    values = np.asarray(values).ravel()
    least, greatest = float(values.min()), float(values.max())
    low, high = _inner_range(values)
    margin = high - low
    if not 0 < margin < np.inf:
        return least, greatest
    if low - least > _EXTREME * margin:
        least = low - _MARGIN * margin
    if greatest - high > _EXTREME * margin:
        greatest = high + _MARGIN * margin
    return least, greatest


def _inner_range(values: np.ndarray) -> tuple[float, float]:
    """Least and greatest value without the outermost thousandths.

    If nearly all values are equal, as in an image of a small object on an empty
    background, those without the background's.
    """
    low, high = _without_outermost(values)
    if high > low:
        return low, high
    others = values[values != low]
    if not others.size:
        return low, high
    inner = _without_outermost(others)
    return min(low, inner[0]), max(high, inner[1])


def _without_outermost(values: np.ndarray) -> tuple[float, float]:
    """Least and greatest value without a thousandth of them on either side."""
    left_out = max(_LEAST_EXTREME, int(QUANTILES[0] * values.size))
    left_out = min(left_out, values.size // 8)
    last = values.size - 1 - left_out
    sides = np.partition(values, (left_out, last))
    return float(sides[left_out]), float(sides[last])
