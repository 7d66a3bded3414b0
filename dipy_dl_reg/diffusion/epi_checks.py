"""Checks of echo-planar images, and of their correction."""

from __future__ import annotations

from collections.abc import Sequence

from dipy.utils.logging import logger
import numpy as np

#: Mean difference of two images, as a part of their mean intensity, below which they
#: are the same; part of it that a correction may leave without a warning.
_LEAST_DIFFERENCE, _LARGEST_REST = 1e-3, 0.5


def check_signal(image: np.ndarray, name: str) -> np.ndarray:
    """Check that an image can be an echo-planar image.

    Parameters
    ----------
    image : ndarray
        The user's value.
    name : str
        Its name in messages.

    Returns
    -------
    image : ndarray of float32
        0 where the image is NaN.

    Raises
    ------
    ValueError
        If it is not 2D or 3D, has infinities, or no signal above 0.
    """
    if image.ndim not in (2, 3):
        raise ValueError(f"{name} must be 2D or 3D, got shape {image.shape}.")
    image = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=np.inf)
    if np.isinf(image).any():
        raise ValueError(f"{name} must be finite, got infinities.")
    if not image.max() > max(image.min(), 0) or image.sum(dtype=np.float64) <= 0:
        raise ValueError(
            f"{name} must be an image with signal above 0, got values from "
            f"{image.min():g} to {image.max():g}."
        )
    return image


def log_difference(
    images: Sequence[np.ndarray], corrected: Sequence[np.ndarray], gain: float
) -> None:
    """Log how much two images differ, and warn if the correction fails.

    Parameters
    ----------
    images, corrected : sequence of ndarray
        Two images of opposite phase encodings, before and after the correction.
    gain : float
        Factor from the second image's intensities to those of the first.
    """
    before, after = (
        float(np.abs(first - gain * second).sum() / np.abs(first).sum())
        for first, second in (images, corrected)
    )
    text = f"Difference of the two images: {before:.1%} before, {after:.1%} after"
    if before < _LEAST_DIFFERENCE:
        logger.warning(f"{text}. They are the same image: no field can be estimated.")
    elif after > _LARGEST_REST * before:
        logger.warning(
            f"{text}. The correction hardly makes them equal: check phase_encoding, "
            "and that the second image has the opposite direction."
        )
    else:
        logger.info(f"{text}.")
