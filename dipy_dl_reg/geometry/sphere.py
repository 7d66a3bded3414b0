"""Directions on the sphere, as NumPy arrays."""

import numpy as np


def spread_directions(count: int, *, hemisphere: bool = False) -> np.ndarray:
    """Directions spread evenly over the sphere: points of a spiral.

    Parameters
    ----------
    count : int
        Number of directions.
    hemisphere : bool, optional
        Spread them over the half with z >= 0, so that with their opposites they cover
        the sphere.

    Returns
    -------
    directions : ndarray, shape (count, 3)
        Unit vectors.
    """
    steps = np.arange(count) + 0.5
    z = 1 - steps / count if hemisphere else 1 - 2 * steps / count
    golden_angle = np.pi * (3 - np.sqrt(5))
    angles = golden_angle * steps
    radii = np.sqrt(1 - z * z)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles), z], axis=-1)
