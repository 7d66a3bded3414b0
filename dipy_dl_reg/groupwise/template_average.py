"""The average of warped images: mean or median, sharpening, and measures of it."""

from __future__ import annotations

from typing import NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np
from scipy.ndimage import gaussian_filter

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.groupwise.template_subjects import TemplateSubject, find_foreground
from dipy_dl_reg.maps.apply import transform_array

#: Standard deviation of the smoothing of `sharpen`, in voxels.
_SIGMA = 1.0
#: A voxel belongs to the template if at least this part of the subjects shows it.
_LEAST_SEEN = 0.5


class Average(NamedTuple):
    """An average of warped subjects.

    Attributes
    ----------
    values : ndarray of float32, shape (*shape, K)
        The sharpened average; 0 where no subject has a value.
    seen : ndarray of bool, shape (*shape,)
        Where at least half of the subjects have a value.
    sharpness : float
        Of the average before sharpening: root mean square of the gradient magnitude,
        divided by that of the intensity, 1/mm.  An edge that is blurred to k times its
        width adds 1/k as much to the mean square.
    spread : float
        Standard deviation over the subjects, over the foreground, divided by the mean
        intensity there: 0 if all warped subjects are equal.
    """

    values: np.ndarray
    seen: np.ndarray
    sharpness: float
    spread: float


def warp_subject(subject: TemplateSubject, mapping: DiffeomorphicMap) -> np.ndarray:
    """Warp all channels of a subject to the template, with one interpolation.

    Parameters
    ----------
    subject : TemplateSubject
        The subject.
    mapping : DiffeomorphicMap
        From the template to the subject.

    Returns
    -------
    warped : ndarray of float32, shape (*template_shape, K)
        NaN where there are no data.
    """
    warped = transform_array(mapping, subject.values).astype(np.float32)
    if not subject.complete:
        ones = np.ones(subject.grid.shape, np.float32)
        warped[transform_array(mapping, ones) < 0.5] = np.nan
    return warped


def average_images(
    warped: np.ndarray, grid: Grid, *, average: str = "mean", sharpening: float = 0.0
) -> Average:
    """Average images in the template's space.

    Parameters
    ----------
    warped : ndarray, shape (N, *shape, K)
        The warped subjects; NaN is missing data.
    grid : Grid
        Grid of the template.
    average : {"mean", "median"}, optional
        How intensities are combined.
    sharpening : float, optional
        See `sharpen`.

    Returns
    -------
    average : Average
        The average and its measures.
    """
    known = np.isfinite(warped[..., 0])
    counts = known.sum(0)
    function = np.nanmedian if average == "median" else np.nanmean
    empty = ~np.isfinite(warped).any(0)
    if empty.any():
        warped = np.where(empty, np.float32(0), warped)
    combined = function(warped, axis=0).astype(np.float32)
    seen = counts >= _LEAST_SEEN * len(warped)
    spread = np.nanstd(warped[..., 0], axis=0)
    first = combined[..., 0]
    inside = find_foreground(first) & seen
    level = float(first[inside].mean())
    gradient = gradient_magnitude(first, grid.spacing)
    sharpness = float(np.linalg.norm(gradient) / np.linalg.norm(first))
    values = np.stack(
        [sharpen(combined[..., k], sharpening) for k in range(combined.shape[-1])], -1
    )
    return Average(values, seen, sharpness, float(spread[inside].mean()) / level)


def sharpen(image: np.ndarray, amount: float) -> np.ndarray:
    r"""Sharpen an image by its difference from a smoothed copy.

    .. math:: s = m + a (m - G_1 * m)

    with the Gaussian :math:`G_1` of one voxel; values are kept within the range of
    :math:`m`.

    Parameters
    ----------
    image : ndarray
        The image :math:`m`, without NaN.
    amount : float
        :math:`a`; 0 returns the image.

    Returns
    -------
    sharpened : ndarray
        :math:`s`, of the image's type.
    """
    if not amount:
        return image
    difference = image - gaussian_filter(image, _SIGMA)
    return np.clip(image + np.float32(amount) * difference, image.min(), image.max())


def gradient_magnitude(image: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Compute the magnitude of the gradient, by central differences.

    Parameters
    ----------
    image : ndarray
        The image.
    spacing : ndarray
        Voxel size along each axis, mm.

    Returns
    -------
    magnitude : ndarray
        Change of the intensity per mm.
    """
    axes = [axis for axis in range(image.ndim) if image.shape[axis] > 1]
    total = np.zeros(image.shape)
    for axis in axes:
        total += np.square(np.gradient(image.astype(float), spacing[axis], axis=axis))
    return np.sqrt(total)
