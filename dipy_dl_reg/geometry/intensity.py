"""Scaling of intensities and its limits, the same in training and in registration."""

from typing import TypeVar

import numpy as np
import torch

#: Quantiles that are scaled to 0 and 1.  The lowest and the highest thousandth of the
#: values can be noise or a single bright voxel.
QUANTILES = (0.001, 0.999)
#: Let the inner range be that between the two quantiles.  A value is extreme if its
#: distance from the inner range exceeds this many times the length of the range;
#: extreme values are clipped to `_MARGIN` times that length beyond the inner range.
_EXTREME, _MARGIN = 5.0, 1.0
#: Minimum number of values on either side that can be extreme, also in small images.
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
    """Find the intensities that are scaled to 0 and 1.

    Parameters
    ----------
    values : ndarray
        At least one, all finite.

    Returns
    -------
    low, high : float
        Quantiles .001 and .999; minimum and maximum if the two quantiles are equal, as
        in an image with one small bright region.
    """
    low, high = np.quantile(values, QUANTILES)
    if not high > low:
        low, high = values.min(), values.max()
    return float(low), float(high)


def histogram_limits(
    values: torch.Tensor, *, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the range of a histogram, without the lowest and highest thousandth.

    Otherwise, a single very bright voxel would put all other voxels into one bin.

    Parameters
    ----------
    values : Tensor, shape (N,)
        Intensities.
    most : int
        The quantiles are those of about this number of evenly spaced values.

    Returns
    -------
    low, high : Tensor, shape ()
        Quantiles .001 and .999; minimum and maximum if the two quantiles are equal.
    """
    few = values[:: max(1, len(values) // most)]
    low, high = few.quantile(few.new_tensor(QUANTILES)).unbind()
    return (low, high) if high > low else (values.min(), values.max())


def extreme_limits(values: np.ndarray) -> tuple[float, float]:
    """Find the limits to which extreme values are clipped, if there are any.

    In maps of ratios, kurtosis or T2*, a few voxels can have values far outside the
    range of all others.  If the image is scaled by such a value, all other voxels
    become nearly equal, and sums of values or of squares depend only on this voxel.

    Parameters
    ----------
    values : ndarray
        At least one, all finite.

    Returns
    -------
    low, high : float
        Let the inner range be the range of the values without the lowest and the
        highest thousandth (at least three values on each side).  If a value lies more
        than five lengths of the inner range beyond one of its ends, the limit on this
        side is one length beyond that end.  Otherwise the limit is the minimum or the
        maximum, so that clipping does not change an ordinary image at all.
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
    """Find the minimum and maximum without the lowest and highest thousandth.

    If nearly all values are equal, as in an image of a small object on a constant
    background, the background's value is excluded.
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
    """Find the minimum and maximum without a thousandth of the values on each side."""
    left_out = max(_LEAST_EXTREME, int(QUANTILES[0] * values.size))
    left_out = min(left_out, values.size // 8)
    last = values.size - 1 - left_out
    sides = np.partition(values, (left_out, last))
    return float(sides[left_out]), float(sides[last])
