"""Local measures of two registered images and of repeated maps.

Means around a voxel are those of Gaussian windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

#: Standard deviation of the windows, mm, and the least one, voxels.
_WINDOW, _LEAST_WINDOW = 4.0, 1.0
#: Parts of the mean variance, and of the mean squared gradient, of the object that are
#: added to those of each window, so that no window is without variance or gradient.
_VARIANCE_FLOOR, _GRADIENT_FLOOR = 1e-2, 1e-2
#: Weight of voxels outside of the object in means over the object.
_OUTSIDE = 1e-4
#: Least part of the variance that stays unexplained.
_LEAST_UNEXPLAINED = 1e-3


class Window:
    """Means around each voxel of a grid.

    Parameters
    ----------
    spacing : ndarray, shape (dim,)
        Voxel size, mm.
    """

    def __init__(self, spacing: np.ndarray) -> None:
        self.spacing = np.asarray(spacing, dtype=float)
        self.sigma = np.maximum(_WINDOW / self.spacing, _LEAST_WINDOW)

    def mean(self, image: np.ndarray) -> np.ndarray:
        """Compute the mean of an image around each voxel.

        Parameters
        ----------
        image : ndarray, shape (*shape)
            The image.

        Returns
        -------
        mean : ndarray, shape (*shape)
            Of the image's type.
        """
        return gaussian_filter(image, self.sigma, mode="nearest")

    def mean_within(self, image: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """Compute the mean of an image over those voxels around each that are inside.

        Parameters
        ----------
        image : ndarray, shape (*shape)
            The image.
        inside : ndarray of bool, shape (*shape)
            Voxels that count; where none is near, all do.

        Returns
        -------
        mean : ndarray, shape (*shape)
            Of the image's type.
        """
        weights = np.where(inside, 1, _OUTSIDE).astype(np.float32)
        return self.mean(image * weights) / self.mean(weights)

    def gradient(self, image: np.ndarray) -> list[np.ndarray]:
        """Differentiate an image along the axes that have several voxels.

        Parameters
        ----------
        image : ndarray, shape (*shape)
            The image.

        Returns
        -------
        slopes : list of ndarray, shape (*shape)
            Per mm.
        """
        axes = [axis for axis, n in enumerate(image.shape) if n > 1]
        return [np.gradient(image, self.spacing[a], axis=a) for a in axes]


class Structure(NamedTuple):
    """Local structure of an image.

    Attributes
    ----------
    trace, inverse_trace : ndarray, shape (*shape)
        Traces of ``J`` and of its inverse, where ``J`` is the mean of the outer
        products of the gradient.
    """

    trace: np.ndarray
    inverse_trace: np.ndarray


def measure_precision(
    static: np.ndarray, warped: np.ndarray, inside: np.ndarray, window: Window
) -> np.ndarray:
    r"""Standard error of the displacement of two images that differ by noise.

    .. math:: p = \sqrt{v \, \mathrm{tr}(J^{-1})}

    with :math:`v` the part of static's variance that a linear function of the warped
    image does not explain, and :math:`J` the mean of the outer products of static's
    gradient.  :math:`J / v` is the curvature of the squared difference, divided by its
    minimum: the images determine the displacement well where it is large.

    Parameters
    ----------
    static, warped : ndarray of float32, shape (*shape)
        Static, and moving on its grid; finite.
    inside : ndarray of bool, shape (*shape)
        Voxels of the object.
    window : Window
        The neighbourhood.

    Returns
    -------
    precision : ndarray of float32, shape (*shape)
        In mm, up to a factor that depends on the number of independent voxels.
    """
    unexplained, _ = measure_unexplained(static, warped, inside, window)
    structure = measure_structure(static, inside, window)
    return np.sqrt(unexplained * structure.inverse_trace)


def measure_unexplained(
    static: np.ndarray, warped: np.ndarray, inside: np.ndarray, window: Window
) -> tuple[np.ndarray, np.ndarray]:
    """Variance of static that a linear function of the warped image does not explain.

    Parameters
    ----------
    static, warped, inside, window
        See `measure_precision`.

    Returns
    -------
    variance : ndarray, shape (*shape)
        The unexplained variance around each voxel.
    part : ndarray, shape (*shape)
        The same as a part of the variance: ``1 - r^2``, with ``r`` the correlation.
    """
    moments = [static, warped, static * static, warped * warped, static * warped]
    a, b, aa, bb, ab = (window.mean(moment) for moment in moments)
    first, second = (
        v + _VARIANCE_FLOOR * float(v[inside].mean()) + np.finfo(np.float32).tiny
        for v in (np.maximum(aa - a * a, 0), np.maximum(bb - b * b, 0))
    )
    part = np.clip(1 - np.square(ab - a * b) / (first * second), _LEAST_UNEXPLAINED, 1)
    return first * part, part


def measure_structure(
    image: np.ndarray, inside: np.ndarray, window: Window
) -> Structure:
    """Measure the gradients of an image around each voxel.

    Parameters
    ----------
    image, inside, window
        See `measure_precision`.

    Returns
    -------
    structure : Structure
        Positive and finite.
    """
    slopes = window.gradient(image)
    count = len(slopes)
    tensor = np.empty((*image.shape, count, count), np.float32)
    for i, first in enumerate(slopes):
        for j, second in enumerate(slopes[: i + 1]):
            tensor[..., i, j] = tensor[..., j, i] = window.mean(first * second)
    trace = np.trace(tensor, axis1=-2, axis2=-1)
    floor = _GRADIENT_FLOOR * float(trace[inside].mean())
    floor = max(floor, float(np.finfo(np.float32).tiny) ** 0.5)
    values = np.linalg.eigvalsh(tensor) + floor / count
    # Rounding errors may make an eigenvalue negative.
    values = np.maximum(values, floor / count / 2)
    return Structure(trace + floor, (1 / values).sum(-1))


def measure_disagreement(
    differences: Sequence[np.ndarray], inside: np.ndarray, window: Window
) -> np.ndarray:
    """Root mean square difference of repeated maps from the given one.

    Outside of the object nothing determines the maps, and they differ much: these
    voxels are not counted for voxels of the object.

    Parameters
    ----------
    differences : sequence of ndarray, shape (*shape, dim)
        Displacements of the repeated maps less those of the given map, mm.
    inside : ndarray of bool, shape (*shape)
        Voxels of the object.
    window : Window
        The neighbourhood.

    Returns
    -------
    disagreement : ndarray, shape (*shape)
        Of one component, mm.
    """
    squares = np.mean([np.square(d).mean(-1) for d in differences], axis=0)
    return np.sqrt(window.mean_within(squares.astype(np.float32), inside))
