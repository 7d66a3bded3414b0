r"""Fibre orientation distributions (FODs) transformed by a map.

The coefficients are interpolated; the FOD of each voxel is then taken apart into
apodized delta functions, which keep their shape and move each to its new direction
:footcite:p:`Raffelt2012`.

References
----------
.. footbibliography::
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.diffusion.harmonics import (
    FRAME_OF_BASIS,
    HarmonicBasis,
    make_basis,
)
from dipy_dl_reg.diffusion.resampling import find_known, plan_resampling
from dipy_dl_reg.diffusion.spherical_functions import power_matrix, sum_harmonics
from dipy_dl_reg.geometry.sphere import spread_directions
from dipy_dl_reg.io.images import ImageLike, read_image
from dipy_dl_reg.validation import check_choice

#: How the weights of the delta functions are found.
WEIGHTS = ("nonnegative", "least_squares")
#: Iterations of the non-negative weights. With 50, the error of the peak of one fibre
#: after a shear no longer decreases much; tools/experiments/reorientation_fods.py.
_ITERATIONS = 50
#: The delta functions are apodized by exp(-l (l + 1) / 72), a Gaussian of the sphere
#: whose standard deviation is 9.5 degrees, the same for all orders.
_APODIZATION = 72.0
#: FODs of which the non-negative weights leave more than this are narrower than the
#: apodized functions; functions without apodization are added for them.
_POOR = 0.1
#: Voxels that are computed at once, so that the arrays stay in the processor's cache.
_CHUNK = 256


def transform_fods(
    mapping: DiffeomorphicMap | AffineMap | np.ndarray,
    sh: ImageLike,
    *,
    basis: str | None = "descoteaux07",
    legacy: bool = True,
    full_basis: bool = False,
    frame: str | None = None,
    modulate: bool = False,
    weights: str = "nonnegative",
    mask: np.ndarray | None = None,
    image_grid2world: np.ndarray | None = None,
    out_shape: Sequence[int] | None = None,
    out_grid2world: np.ndarray | None = None,
    inverse: bool = False,
) -> np.ndarray:
    r"""Transform an image of fibre orientation distributions, with reorientation.

    The coefficients are interpolated linearly at the corresponding points of the input
    image. The FOD of each voxel is then written as a sum of apodized delta functions at
    directions :math:`n_k`, each of which takes its new direction
    :footcite:p:`Raffelt2012`:

    .. math::

        f(d) = \sum_k w_k\, \delta(d, n_k) \quad\to\quad
        f'(d) = \sum_k w_k\, \delta\!\left(d, \frac{F n_k}{|F n_k|}\right), \qquad
        F = J^{-1}

    where :math:`J` is the Jacobian matrix of the map from the output to the input
    space, prealign included. All of :math:`F` is used, not its rotation alone: fibres
    that cross are turned separately, and those of a sheared bundle with it.

    Parameters
    ----------
    mapping : DiffeomorphicMap, AffineMap or ndarray of shape (4, 4)
        The map, in 3D. A matrix, from static's world to moving's, requires
        `image_grid2world`, `out_shape` and `out_grid2world`.
    sh : ndarray, nibabel image, str or Path
        Coefficients of spherical harmonics on the last axis, in moving's world (in
        static's with `inverse`): 1, 6, 15, 28, 45 ... of even degrees up to order 0, 2,
        4, 6, 8 ..., up to 16.
    basis : {"descoteaux07", "tournier07", "mrtrix"} or None, optional
        The basis. DIPY's default (None) is "descoteaux07". "mrtrix" is MRtrix3's, the
        same as "tournier07" with ``legacy=False``.
    legacy : bool, optional
        DIPY's older definition of the basis, which is DIPY's default; without effect on
        "mrtrix".
    full_basis : bool, optional
        Whether odd degrees are included: 1, 4, 9, 16 ... coefficients.
    frame : {"voxel", "fsl", "world"}, optional
        Axes in which directions are given, in the input and in the result; see
        :ref:`frames`. By default "world" for "mrtrix" and "voxel" for DIPY's bases.
        FODs that DIPY fitted with FSL's b-vectors, unchanged, are in the frame "fsl",
        which differs from "voxel" if the determinant of the affine of the image or of
        the result is positive; a warning is logged if the frame is not given there.
    modulate : bool, optional
        Multiply each delta function by :math:`|F n_k| / \det F`, the inverse of the
        change of the bundle's cross-section: the amplitude summed over the
        cross-section of a bundle stays the same :footcite:p:`Raffelt2012b`. Without
        it, the sum of the weights in a voxel stays the same.
    weights : {"nonnegative", "least_squares"}, optional
        How the weights :math:`w_k` are found. "nonnegative": non-negative least
        squares (50 iterations of :footcite:p:`Beck2009`), and the part of the FOD that
        they do not represent, negative lobes for example, by least squares: peaks
        take their new directions closely, and the identity changes nothing.
        "least_squares": the smallest weights, which can be negative, that represent the
        FOD exactly; twice as fast and linear, with larger errors in the direction of
        peaks where the map shears.
    mask : ndarray, shape (X, Y, Z), optional
        Voxels of the input image where it is not 0 are used; others are missing.
    image_grid2world, out_shape, out_grid2world : optional
        As in `apply_mapping`.
    inverse : bool, optional
        Transform from static to moving.

    Returns
    -------
    warped : ndarray of float32, shape (*out_shape, count)
        FODs on the output grid, in the same basis and frame, along the axes of the
        output grid; 0 outside the image and where missing data have half of the weight
        of the interpolation or more.

    Raises
    ------
    ValueError
        If the map is not 3D, no order has this number of coefficients, the mask has
        another shape, all is missing, a name is unknown, or a shape does not fit its
        grid.

    See Also
    --------
    register_fods : registers two images of FODs.
    convert_harmonics : converts between the bases of DIPY and MRtrix3.
    transform_tensors, transform_peaks : the same for tensors and peaks.

    Notes
    -----
    Voxels that are not finite are missing: their neighbours are not affected. FODs of 0
    are valid: they are voxels without fibres.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import numpy as np
    >>> from dipy.align.imaffine import AffineMap
    >>> from dipy_dl_reg import transform_fods
    >>> fods = np.zeros((5, 5, 5, 15), dtype=np.float32)
    >>> fods[..., 0], fods[..., 3] = 0.28, 0.5  # a lobe along the third axis
    >>> quarter_turn = np.array(
    ...     [[1, 0, 0, 0], [0, 0, -1, 4], [0, 1, 0, 0], [0, 0, 0, 1]]
    ... )
    >>> grid = dict(domain_grid_shape=(5, 5, 5), codomain_grid_shape=(5, 5, 5))
    >>> warped = transform_fods(AffineMap(quarter_turn, **grid), fods)
    >>> warped.shape
    (5, 5, 5, 15)
    """
    check_choice("weights", weights, WEIGHTS)
    data, image_grid2world = read_image(sh, image_grid2world, name="sh")
    _check_coefficients(data)
    used = make_basis(basis, data.shape[3], legacy=legacy, full_basis=full_basis)
    resampling = plan_resampling(
        mapping,
        data.shape,
        image_grid2world=image_grid2world,
        out_shape=out_shape,
        out_grid2world=out_grid2world,
        frame=frame,
        default_frame=FRAME_OF_BASIS[used.name],
        inverse=inverse,
    )
    known = find_known(np.isfinite(data).all(-1), mask, "sh")
    values, inside = resampling.interpolate(data, known)
    not_zero = (values != 0).any(-1)
    inside[inside] = not_zero
    warped = np.zeros((*inside.shape, data.shape[3]), dtype=np.float32)
    warped[inside] = reorient_fods(
        values[not_zero],
        resampling.direction_matrices(inside),
        used,
        modulate=modulate,
        weights=weights,
    )
    return warped


def reorient_fods(
    sh: np.ndarray,
    matrices: np.ndarray,
    basis: HarmonicBasis,
    *,
    modulate: bool = False,
    weights: str = "nonnegative",
) -> np.ndarray:
    """Reorient FODs by matrices that deform directions.

    Parameters
    ----------
    sh : ndarray, shape (V, count)
        Coefficients.
    matrices : ndarray, shape (V, 3, 3)
        Matrices :math:`F` that deform directions, from the axes of the input to those
        of the result.
    basis : HarmonicBasis
        The basis of the coefficients.
    modulate, weights : optional
        As in `transform_fods`.

    Returns
    -------
    reoriented : ndarray of float64, shape (V, count)
        The coefficients of the result.

    Raises
    ------
    ValueError
        If `weights` is unknown.
    """
    check_choice("weights", weights, WEIGHTS)
    deltas = _make_deltas(basis)
    reoriented = np.empty(sh.shape)
    for start in range(0, len(sh), _CHUNK):
        part = np.s_[start : start + _CHUNK]
        moved = deltas.directions @ np.swapaxes(matrices[part], -1, -2)
        factors = np.linalg.norm(moved, axis=-1)
        moved /= factors[..., None]
        if modulate:
            factors /= np.abs(np.linalg.det(matrices[part]))[:, None]
        else:
            factors[:] = 1
        found = _find_weights(deltas, sh[part], weights == "nonnegative")
        new = sum_harmonics(deltas.powers, moved, factors * found.apodized)
        new *= deltas.shape
        rows = found.rows
        if len(rows):
            new[rows] += deltas.sharp_shape * sum_harmonics(
                deltas.powers, moved[rows], factors[rows] * found.sharp
            )
        reoriented[part] = new
    return reoriented


class _Deltas(NamedTuple):
    """Delta functions at evenly spread directions, apodized and sharp."""

    directions: np.ndarray  # (K, 3)
    powers: np.ndarray  # of `power_matrix`
    shape: np.ndarray  # (count,), factors of the values of harmonics
    matrix: np.ndarray  # (count, K), coefficients of the apodized functions
    inverse: np.ndarray  # (K, count), pseudo-inverse
    sharp_shape: np.ndarray  # (count,)
    both: np.ndarray  # (count, 2 K), coefficients of apodized and sharp functions


class _Weights(NamedTuple):
    """Weights of the delta functions whose sum is the FOD of each voxel."""

    apodized: np.ndarray  # (V, K)
    rows: np.ndarray  # voxels for which sharp functions are used, too
    sharp: np.ndarray  # (len(rows), K)


@lru_cache(maxsize=4)
def _make_deltas(basis: HarmonicBasis) -> _Deltas:
    """Make the delta functions of a basis.

    Even functions need directions on one half of the sphere.  There are four times as
    many as coefficients, and at least 300 on half the sphere: about 9 degrees apart.
    """
    count = max(600 if basis.full else 300, 4 * len(basis.degrees))
    directions = spread_directions(count, hemisphere=not basis.full)
    values = basis.evaluate(directions)
    sharp = 1 / basis.norms**2
    shape = np.exp(-basis.degrees * (basis.degrees + 1) / _APODIZATION) * sharp
    matrix = (values * shape).T
    return _Deltas(
        directions,
        power_matrix(basis),
        shape,
        matrix,
        np.linalg.pinv(matrix),
        sharp,
        np.hstack([matrix, (values * sharp).T]),
    )


def _find_weights(deltas: _Deltas, sh: np.ndarray, nonnegative: bool) -> _Weights:
    """Weights of the delta functions whose sum is the FOD, for each voxel."""
    count = len(deltas.directions)
    if not nonnegative:
        none = np.zeros(0, dtype=int)
        return _Weights(sh @ deltas.inverse.T, none, np.zeros((0, count)))
    weights = _solve_nonnegative(deltas.matrix, sh)
    remainder = sh - weights @ deltas.matrix.T
    sizes = np.linalg.norm(remainder, axis=1)
    rows = np.flatnonzero(sizes > _POOR * np.linalg.norm(sh, axis=1))
    both = _solve_nonnegative(deltas.both, sh[rows])
    weights[rows] = both[:, :count]
    remainder[rows] = sh[rows] - both @ deltas.both.T
    return _Weights(weights + remainder @ deltas.inverse.T, rows, both[:, count:])


def _solve_nonnegative(matrix: np.ndarray, sh: np.ndarray) -> np.ndarray:
    """Non-negative weights w with ``matrix @ w`` near the FOD, for each voxel.

    Projected gradient descent with the momentum of Beck and Teboulle (2009).
    """
    scales = np.linalg.norm(sh, axis=-1, keepdims=True)
    targets, matrix = (sh / scales).astype(np.float32), matrix.astype(np.float32)
    step = np.float32(1 / np.linalg.norm(matrix, 2) ** 2)
    pull = targets @ matrix * step
    weights = np.maximum(pull, 0)
    ahead, momentum = weights, 1.0
    for _ in range(_ITERATIONS):
        new = ahead - (ahead @ matrix.T) @ matrix * step
        new += pull
        np.maximum(new, 0, out=new)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + np.float32((momentum - 1) / following) * (new - weights)
        weights, momentum = new, following
    return weights * scales


def _check_coefficients(data: np.ndarray) -> None:
    """Check that an array may be an image of coefficients in 3D."""
    if data.ndim != 4 or 0 in data.shape:
        raise ValueError(
            "sh must have four axes, the coefficients on the last, got shape "
            f"{data.shape}"
        )
    if data.dtype.kind not in "iuf":
        raise ValueError(f"sh must hold real numbers, got {data.dtype}")
