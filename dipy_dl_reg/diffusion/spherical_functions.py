r"""Spherical harmonics at other directions in each voxel.

A function of the sphere up to order L is a sum of the products
:math:`z^j (x + iy)^m, \; j + m \le L`.  Their factors are powers, so that sums over
directions are products of small matrices: harmonics at some hundred directions of each
of 10^5 voxels take seconds.
"""

from __future__ import annotations

import numpy as np

from dipy_dl_reg.diffusion.harmonics import HarmonicBasis
from dipy_dl_reg.geometry.sphere import spread_directions


def power_matrix(basis: HarmonicBasis) -> np.ndarray:
    """Harmonics as sums of powers.

    Parameters
    ----------
    basis : HarmonicBasis
        The basis.

    Returns
    -------
    matrix : ndarray of complex128, shape ((L + 1) ** 2, count)
        Column c is the function c: the real part of the sum of its entries times the
        powers :math:`(x + iy)^m z^j`, with row ``m (L + 1) + j``.
    """
    size = basis.order + 1
    m, j = np.divmod(np.arange(size * size), size)
    used = m + j <= basis.order
    if not basis.full:
        used &= (m + j) % 2 == basis.order % 2
    directions = spread_directions(4 * size * size)
    powers = (
        azimuthal_powers(directions, size)[:, m] * height_powers(directions, size)[:, j]
    )
    # The imaginary part of the power 0 is 0.
    with_sine = used & (m > 0)
    parts = np.hstack([powers[:, used].real, powers[:, with_sine].imag])
    solved = np.linalg.lstsq(parts, basis.evaluate(directions), rcond=None)[0]
    matrix = np.zeros((size * size, len(basis.degrees)), dtype=np.complex128)
    matrix[used] = solved[: used.sum()]
    # Re(-i s p) = s Im(p)
    matrix[with_sine] -= 1j * solved[used.sum() :]
    return matrix


def azimuthal_powers(directions: np.ndarray, size: int) -> np.ndarray:
    """Powers of x + iy.

    Parameters
    ----------
    directions : ndarray, shape (..., 3)
        Unit vectors.
    size : int
        Number of powers, from 0.

    Returns
    -------
    powers : ndarray of complex128, shape (..., size)
        The powers.
    """
    return _powers(directions[..., 0] + 1j * directions[..., 1], size)


def height_powers(directions: np.ndarray, size: int) -> np.ndarray:
    """Powers of z.

    Parameters
    ----------
    directions : ndarray, shape (..., 3)
        Unit vectors.
    size : int
        Number of powers, from 0.

    Returns
    -------
    powers : ndarray of float64, shape (..., size)
        The powers.
    """
    return _powers(directions[..., 2], size)


def _powers(base: np.ndarray, size: int) -> np.ndarray:
    """Powers 0, 1, ... of numbers, by multiplication."""
    powers = np.empty((*base.shape, size), dtype=base.dtype)
    powers[..., 0] = 1
    for k in range(1, size):
        np.multiply(powers[..., k - 1], base, out=powers[..., k])
    return powers


def sum_harmonics(
    matrix: np.ndarray, directions: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    r"""Weighted sums of harmonics over directions, in each voxel.

    .. math:: s_{vc} = \sum_k w_{vk} Y_c(d_{vk})

    Parameters
    ----------
    matrix : ndarray, shape ((L + 1) ** 2, count)
        What `power_matrix` returns.
    directions : ndarray, shape (V, K, 3)
        Unit vectors :math:`d`.
    weights : ndarray, shape (V, K)
        The weights :math:`w`.

    Returns
    -------
    sums : ndarray of float64, shape (V, count)
        The sums.
    """
    size = round(len(matrix) ** 0.5)
    azimuths = azimuthal_powers(directions, size) * weights[..., None]
    heights = height_powers(directions, size)
    moments = azimuths.swapaxes(-1, -2) @ heights.astype(azimuths.dtype)
    return (moments.reshape(len(moments), -1) @ matrix).real


def evaluate_harmonics(
    matrix: np.ndarray, directions: np.ndarray, coefficients: np.ndarray
) -> np.ndarray:
    r"""Values of functions at other directions in each voxel.

    .. math:: f_{vk} = \sum_c a_{vc} Y_c(d_{vk})

    Parameters
    ----------
    matrix : ndarray, shape ((L + 1) ** 2, count)
        What `power_matrix` returns.
    directions : ndarray, shape (V, K, 3)
        Unit vectors :math:`d`.
    coefficients : ndarray, shape (V, count)
        The coefficients :math:`a`.

    Returns
    -------
    values : ndarray of float64, shape (V, K)
        The values.
    """
    size = round(len(matrix) ** 0.5)
    factors = (coefficients @ matrix.T).reshape(-1, size, size)
    heights = height_powers(directions, size).astype(factors.dtype)
    sums = heights @ factors.swapaxes(-1, -2)
    return np.einsum("vkm,vkm->vk", azimuthal_powers(directions, size), sums).real
