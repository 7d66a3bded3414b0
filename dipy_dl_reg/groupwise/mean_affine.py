"""The mean of affine maps, by the matrix logarithm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import expm, logm

from dipy_dl_reg.validation import check_affine

#: The iteration ends when the mean logarithm is below this, or after so many rounds.
_TOLERANCE, _ROUNDS = 1e-10, 100


def remove_mean_affine(affines: Sequence[np.ndarray]) -> list[np.ndarray]:
    r"""Change the space from which affine maps lead, to the mean of all.

    Finds the matrix :math:`X` for which

    .. math:: \sum_i \log(A_i X) = 0

    by the iteration :math:`X \leftarrow X \exp(-\frac{1}{N} \sum_i \log(A_i X))`
    :footcite:p:`Arsigny2009`. The result does not depend on the space in which
    :math:`A_i` were found: :math:`A_i B` gives the same maps as :math:`A_i`.

    Parameters
    ----------
    affines : sequence of ndarray, shape (D + 1, D + 1)
        From a common space to each image, in world coordinates.

    Returns
    -------
    centred : list of ndarray, shape (D + 1, D + 1)
        :math:`A_i X`: from the mean space to each image.

    Raises
    ------
    ValueError
        If a matrix is not an invertible affine matrix, or there is no mean because the
        poses are too different (such as rotations by 180 degrees).

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg.groupwise.mean_affine import remove_mean_affine
    >>> grown, same = remove_mean_affine([np.diag([4.0, 1, 1, 1]), np.eye(4)])
    >>> np.diag(grown).round(6), np.diag(same).round(6)
    (array([2., 1., 1., 1.]), array([0.5, 1. , 1. , 1. ]))
    """
    dim = np.shape(affines[0])[0] - 1
    matrices = [
        check_affine(matrix, dim, f"affines[{k}]") for k, matrix in enumerate(affines)
    ]
    centre = _first_guess(matrices)
    for _ in range(_ROUNDS):
        mean = np.mean([_logarithm(matrix @ centre) for matrix in matrices], axis=0)
        centre = centre @ expm(-mean)
        if np.abs(mean).max() < _TOLERANCE:
            break
    return [_as_affine(matrix @ centre) for matrix in matrices]


def _first_guess(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """The inverse of the mean rotation and translation, so that logarithms exist."""
    dim = len(matrices[0]) - 1
    left, _, right = np.linalg.svd(np.mean([m[:dim, :dim] for m in matrices], axis=0))
    signs = np.ones(dim)
    signs[-1] = np.sign(np.linalg.det(left @ right))
    rotation = left @ np.diag(signs) @ right
    guess = np.eye(dim + 1)
    guess[:dim, :dim] = rotation.T
    shifts = [m[:dim, dim] for m in matrices]
    guess[:dim, dim] = -rotation.T @ np.mean(shifts, axis=0)
    return guess


def _logarithm(matrix: np.ndarray) -> np.ndarray:
    """The real logarithm of an affine matrix."""
    logarithm = logm(matrix)
    if np.iscomplexobj(logarithm):
        if np.abs(logarithm.imag).max() > 1e-6:
            raise ValueError(
                "the poses of the images are too different for a mean: images are "
                "mirrored or turned by about 180 degrees against the others. Check "
                "the affines in their headers."
            )
        logarithm = logarithm.real
    return logarithm


def _as_affine(matrix: np.ndarray) -> np.ndarray:
    """A matrix whose last row is exactly that of an affine."""
    matrix = np.array(matrix, dtype=np.float64)
    matrix[-1] = 0
    matrix[-1, -1] = 1
    return matrix
