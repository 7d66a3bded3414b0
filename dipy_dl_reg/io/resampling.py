"""Resampling of images through a matrix, with NumPy and SciPy only."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import affine_transform


def resample_array(
    image: np.ndarray,
    matrix: np.ndarray,
    shape: tuple[int, ...],
    *,
    order: int = 1,
    mode: str = "nearest",
) -> np.ndarray:
    """Resample an image on another grid.

    .. math:: out[i] = image[M i]

    Parameters
    ----------
    image : ndarray
        The image, of D axes.
    matrix : ndarray, shape (D + 1, D + 1)
        :math:`M`: voxel indices of the result to those of the image, such as
        ``grid.to(image_grid)``.
    shape : tuple of int
        Shape of the result.
    order : int, optional
        Order of the spline: 0 takes the nearest voxel, 1 interpolates linearly.
    mode : str, optional
        Values beyond the image, as :func:`scipy.ndimage.affine_transform` names them:
        "nearest" repeats those at its edge, "grid-constant" is 0.

    Returns
    -------
    resampled : ndarray, shape `shape`
        Of the image's type.
    """
    dim = len(shape)
    return affine_transform(
        image,
        matrix[:dim, :dim],
        matrix[:dim, dim],
        output_shape=tuple(shape),
        order=order,
        mode=mode,
    )
