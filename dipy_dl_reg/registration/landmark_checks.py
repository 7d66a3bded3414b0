"""Checks landmarks, and describes those at which a map has a large error.

Landmarks are points in world coordinates (mm), shape (N, dim): row i of the static
points and row i of the moving points are the same anatomical point.
"""

from __future__ import annotations

from itertools import product

from dipy.utils.logging import logger
import numpy as np
from scipy.spatial import cKDTree

from dipy_dl_reg.geometry import thin_plate
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.registration import dipy_adapter
from dipy_dl_reg.validation import check_points

#: Two points count as equal if their distance is below this fraction of the extent of
#: all points.
_SAME = 1e-7
#: Number of rows that are compared with all others at a time, which limits memory.
_CHUNK = 1000


def check_landmarks(
    static_points: object, moving_points: object, *, exact: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Check that a spline through the landmarks exists, and remove repeated pairs.

    Parameters
    ----------
    static_points, moving_points : array, shape (N, dim)
        World coordinates, mm.
    exact : bool, optional
        Whether the spline must pass through every landmark.  If so, a static landmark
        with two different moving landmarks is an error; otherwise both pairs are used.

    Returns
    -------
    static_points, moving_points : ndarray, shape (M, dim)
        The landmarks as float64.  A repeated pair is used once, and a warning is
        logged.

    Raises
    ------
    ValueError
        If the two arrays differ in shape, do not have 2 or 3 columns of finite numbers,
        or have too few rows; if the points lie on one line or plane; or if landmarks
        contradict each other.
    """
    static_points = check_points(static_points, "static_points")
    moving_points = check_points(moving_points, "moving_points")
    if static_points.shape != moving_points.shape:
        raise ValueError(
            "static_points and moving_points must have the same shape, got "
            f"{static_points.shape} and {moving_points.shape}."
        )
    static_points, moving_points = _remove_copies(static_points, moving_points, exact)
    _check_not_flat(static_points, "static_points")
    _check_not_flat(moving_points, "moving_points")
    return static_points, moving_points


def _check_not_flat(points: np.ndarray, name: str) -> None:
    """Raise if points lie on one line (2D) or plane (3D)."""
    dim = points.shape[1]
    if thin_plate.is_flat(dipy_adapter.exact_tensor(points, "cpu")):
        raise ValueError(
            f"{name} must be at least {dim + 1} different points that do not lie "
            f"on one {'line' if dim == 2 else 'plane'}, got {len(points)}"
            + (" that do." if len(points) > dim else ".")
        )


def _remove_copies(
    static_points: np.ndarray, moving_points: np.ndarray, exact: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Remove repeated pairs of landmarks."""
    if not len(static_points):
        return static_points, moving_points
    extents = [np.ptp(p, axis=0).max() for p in (static_points, moving_points)]
    close = cKDTree(static_points).query_pairs(
        _SAME * extents[0], output_type="ndarray"
    )
    distances = np.linalg.norm(
        moving_points[close[:, 0]] - moving_points[close[:, 1]], axis=1
    )
    apart = distances > _SAME * extents[1]
    if exact and apart.any():
        i, j = close[apart][0]
        raise ValueError(
            f"static_points: rows {i} and {j} are the same point, {static_points[i]}, "
            f"but moving_points has {moving_points[i]} and {moving_points[j]} for it; "
            "remove one of the rows, or give a regularization above 0."
        )
    copies = np.unique(close[~apart, 1])
    if not len(copies):
        return static_points, moving_points
    logger.warning(f"{len(copies)} landmarks repeat others and are not used.")
    keep = np.setdiff1d(np.arange(len(static_points)), copies)
    return static_points[keep], moving_points[keep]


def find_swapped_rows(
    static_points: np.ndarray, moving_points: np.ndarray
) -> tuple[int, int] | None:
    """Find the two landmarks that were most probably swapped.

    Parameters
    ----------
    static_points, moving_points : ndarray, shape (N, dim)
        World coordinates, mm.

    Returns
    -------
    rows : tuple of int, or None
        The two rows of `moving_points` whose exchange gives the best least-squares fit
        of an affine map; None if no exchange improves the fit.

    Notes
    -----
    Let ``r`` be the residuals of the least-squares affine map from the landmarks ``p``
    to ``q``, and ``R`` the matrix with ``r = R q``.  If rows i and j are exchanged, the
    residual sum of squares of the least-squares map changes by
    ``|q_i - q_j|**2 (R_ii + R_jj - 2 R_ij) - 2 (q_i - q_j) . (r_i - r_j)``.
    """
    q = moving_points - moving_points.mean(0)
    basis = np.column_stack([np.ones(len(q)), static_points - static_points.mean(0)])
    basis = np.linalg.qr(basis)[0]
    r = q - basis @ (basis.T @ q)
    squares, products = (q * q).sum(1), (q * r).sum(1)
    diagonal = 1 - (basis * basis).sum(1)
    rows, least = None, -1e-9 * squares.sum()
    for first in range(0, len(q), _CHUNK):
        part = slice(first, first + _CHUNK)
        distance = squares[part, None] + squares - 2 * q[part] @ q.T
        weight = diagonal[part, None] + diagonal + 2 * basis[part] @ basis.T
        gain = products[part, None] + products - q[part] @ r.T - r[part] @ q.T
        change = distance * weight - 2 * gain
        i, j = (int(k) for k in np.unravel_index(change.argmin(), change.shape))
        if change[i, j] < least:
            rows = (min(first + i, j), max(first + i, j))
            least = change[i, j]
    return rows


def check_landmarks_in_view(
    landmarks: tuple[np.ndarray, np.ndarray] | None, pair: Pair
) -> None:
    """Check that landmarks lie in their images; log a warning if some lie outside.

    Parameters
    ----------
    landmarks : tuple of ndarray, shape (N, dim), or None
        Points in static's world and in moving's, mm.
    pair : Pair
        The images.

    Raises
    ------
    ValueError
        If all landmarks of an image lie outside its field of view.
    """
    if landmarks is None:
        return
    views = [
        (landmarks[0], "static", pair.static_grid),
        (landmarks[1], "moving", pair.moving_grid),
    ]
    for points, role, grid in views:
        # Up to the faces of the outermost voxels; otherwise a slice has no thickness.
        if not grid.contains(points, margin=0.5).any():
            ends = np.array(list(product(*((0, n - 1) for n in grid.shape))))
            ends = ends @ grid.affine[:-1, :-1].T + grid.affine[:-1, -1]
            raise ValueError(
                "landmarks must lie in the images, in world coordinates (mm, not "
                f"voxels): {role} extends from {ends.min(0).round(1)} to "
                f"{ends.max(0).round(1)}, but all of its {len(points)} landmarks lie "
                f"outside; the first is {points[0].round(1)}."
            )
    for points, role, grid in views:
        find_landmarks_in_view(points, grid, role)


def find_landmarks_in_view(
    points: np.ndarray, grid: Grid, role: str = "static"
) -> np.ndarray:
    """Find the landmarks within a field of view; log a warning if some are outside.

    Parameters
    ----------
    points : ndarray, shape (N, dim)
        World coordinates, mm.
    grid : Grid
        Grid of the image.
    role : {"static", "moving"}, optional
        Name of the image in the warning.

    Returns
    -------
    inside : ndarray of bool, shape (N,)
        True for points between the centres of the outermost voxels.
    """
    inside = grid.contains(points)
    if not inside.all():
        beyond = ", where the map is only its affine part" if role == "static" else ""
        logger.warning(
            f"{np.count_nonzero(~inside)} of {len(inside)} {role} landmarks lie "
            f"outside {role}'s field of view{beyond}."
        )
    return inside


def describe_worst_landmark(
    distances: np.ndarray, static_points: np.ndarray, moving_points: np.ndarray
) -> str:
    """Describe the landmark with the largest error.

    Parameters
    ----------
    distances : ndarray, shape (N,)
        Distance between each mapped static landmark and its moving landmark, mm.
    static_points, moving_points : ndarray, shape (N, dim)
        The landmarks.

    Returns
    -------
    sentence : str
        The landmark's coordinates and its error.
    """
    worst = int(distances.argmax())
    return (
        f"The largest error, {distances[worst]:.3g} mm, is at the landmark static "
        f"{static_points[worst].round(2)}, moving {moving_points[worst].round(2)}."
    )


def describe_swapped_rows(static_points: np.ndarray, moving_points: np.ndarray) -> str:
    """Describe the two landmarks that were most probably swapped.

    Parameters
    ----------
    static_points, moving_points : ndarray, shape (N, dim)
        Landmarks whose spline folds.

    Returns
    -------
    sentence : str
        A sentence with their rows and coordinates, which begins with a space; empty if
        there are no such landmarks, see `find_swapped_rows`.
    """
    rows = find_swapped_rows(static_points, moving_points)
    if rows is None:
        return ""
    places = (
        f"row {row} is static {static_points[row].round(2)}, moving "
        f"{moving_points[row].round(2)}"
        for row in rows
    )
    return (
        f" Rows {rows[0]} and {rows[1]} (counted from 0, without repeated landmarks) "
        f"may have been swapped: {'; '.join(places)}."
    )
