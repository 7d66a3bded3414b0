"""Checksums of images in memory."""

from __future__ import annotations

import hashlib

import numpy as np


def compute_image_checksum(values: np.ndarray, grid2world: np.ndarray) -> str:
    """Compute the SHA-256 checksum of an image's values, shape and affine.

    Parameters
    ----------
    values : ndarray
        The values.
    grid2world : ndarray, shape (dim + 1, dim + 1)
        The affine.

    Returns
    -------
    checksum : str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(repr(values.shape).encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    digest.update(np.ascontiguousarray(grid2world, np.float64).tobytes())
    return digest.hexdigest()
