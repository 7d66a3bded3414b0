"""Landmarks: checked, read from files, and told of where they are missed."""

from itertools import product
import os
from pathlib import Path

from dipy.utils.logging import logger
import numpy as np
from scipy.spatial import cKDTree

from dipy_dl_reg.geometry import thin_plate
from dipy_dl_reg.registration import dipy_adapter

#: Points nearer to each other than this part of the whole extent are one point.
_SAME = 1e-7
#: Rows of landmarks that are compared with all others at a time.
_AT_ONCE = 1000


def check_landmarks(static_points, moving_points, *, exact=True):
    """Landmarks as arrays, each pair once, if a spline can be made of them.

    Parameters
    ----------
    static_points, moving_points : array, shape (N, dim)
        World coordinates, mm.
    exact : bool, optional
        Whether each is to be met, and one static landmark with two moving ones is an
        error; otherwise both are kept.

    Returns
    -------
    static_points, moving_points : ndarray, shape (M, dim)
        float64; pairs that were there twice are there once, which a warning says.

    Raises
    ------
    ValueError
        If the two differ in shape, hold anything but finite numbers in 2 or 3
        columns, are too few or lie on one line or plane, or contradict each other.
    """
    static_points = check_points(static_points, "static_points")
    moving_points = check_points(moving_points, "moving_points")
    if static_points.shape != moving_points.shape:
        raise ValueError(
            "static_points and moving_points must be pairs, of one shape, got "
            f"{static_points.shape} and {moving_points.shape}."
        )
    static_points, moving_points = _without_copies(static_points, moving_points, exact)
    dim = static_points.shape[1]
    for points, name in (
        (static_points, "static_points"),
        (moving_points, "moving_points"),
    ):
        if thin_plate.is_flat(dipy_adapter.exact_tensor(points, "cpu")):
            raise ValueError(
                f"{name} must be at least {dim + 1} different points that do not lie "
                f"on one {'line' if dim == 2 else 'plane'}, got {len(points)}"
                + (" that do." if len(points) > dim else ".")
            )
    return static_points, moving_points


def swapped_rows(static_points, moving_points):
    """The two landmarks that most seem to have changed places.

    Parameters
    ----------
    static_points, moving_points : ndarray, shape (N, dim)
        World coordinates, mm.

    Returns
    -------
    rows : tuple of int, or None
        The pair whose exchange in `moving_points` would bring the landmarks nearest to
        an affine map; None where no exchange brings them nearer.

    Notes
    -----
    With residuals ``r`` of the affine map nearest to the landmarks ``p`` and ``q``, and
    ``R`` the matrix that makes ``r`` of ``q``, exchanging i and j changes the sum of
    squares of the then nearest map by ``|q_i - q_j|**2 (R_ii + R_jj - 2 R_ij)
    - 2 (q_i - q_j) . (r_i - r_j)``.
    """
    q = moving_points - moving_points.mean(0)
    basis = np.column_stack([np.ones(len(q)), static_points - static_points.mean(0)])
    basis = np.linalg.qr(basis)[0]
    r = q - basis @ (basis.T @ q)
    size, along = (q * q).sum(1), (q * r).sum(1)
    free = 1 - (basis * basis).sum(1)
    found, least = None, -1e-9 * size.sum()
    for first in range(0, len(q), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        apart = size[some, None] + size - 2 * q[some] @ q.T
        weight = free[some, None] + free + 2 * basis[some] @ basis.T
        gain = along[some, None] + along - q[some] @ r.T - r[some] @ q.T
        change = apart * weight - 2 * gain
        i, j = np.unravel_index(change.argmin(), change.shape)
        if change[i, j] < least:
            found, least = tuple(sorted((first + int(i), int(j)))), change[i, j]
    return found


def check_points(points, name):
    """Points as an array of float64, or one clear error.

    Parameters
    ----------
    points : array, shape (N, 2) or (N, 3)
        What the user gave.
    name : str
        What errors call it.

    Returns
    -------
    points : ndarray
        Of the same shape.

    Raises
    ------
    ValueError
        If they are anything but finite real numbers in 2 or 3 columns.
    """
    wanted = f"{name} must be an array of points of shape (N, 2) or (N, 3)"
    try:
        points = np.asarray(points)
    except ValueError as error:
        raise ValueError(f"{wanted}: {error}") from None
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise ValueError(f"{wanted}, got shape {points.shape}.")
    if points.dtype.kind not in "iuf":
        raise ValueError(f"{wanted} of real numbers, got dtype {points.dtype}.")
    points = points.astype(np.float64)
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(1))[0])
        raise ValueError(f"{name} must be finite, and row {row} is {points[row]}.")
    return points


def check_in_view(landmarks, pair):
    """Landmarks against the images that they belong to.

    A warning tells of those that lie outside.

    Parameters
    ----------
    landmarks : tuple of ndarray, shape (N, dim), or None
        Points in static's world and in moving's, mm.
    pair : Pair
        The images.

    Raises
    ------
    ValueError
        If all of an image's landmarks lie outside its field of view.
    """
    grids = {"static": pair.static_grid, "moving": pair.moving_grid}
    seen = list(zip(landmarks or (), grids.items()))
    for points, (role, grid) in seen:
        # To the faces of the outermost voxels: a slice has nothing else.
        if not grid.contains(points, margin=0.5).any():
            ends = np.array(list(product(*((0, n - 1) for n in grid.shape))))
            ends = ends @ grid.affine[:-1, :-1].T + grid.affine[:-1, -1]
            raise ValueError(
                f"landmarks must lie in the images, in mm of their worlds (not voxels):"
                f" {role} reaches from {ends.min(0).round(1)} to "
                f"{ends.max(0).round(1)}, and none of its {len(points)} landmarks lies "
                f"there; the first is {points[0].round(1)}."
            )
    for points, (role, grid) in seen:
        tell_outside(points, grid, role)


def tell_outside(points, grid, role="static"):
    """Find the landmarks within a field of view, and warn of the others.

    Parameters
    ----------
    points : ndarray, shape (N, dim)
        World coordinates, mm.
    grid : Grid
        Of the image.
    role : {"static", "moving"}, optional
        What the warning calls it.

    Returns
    -------
    inside : ndarray of bool, shape (N,)
        Which lie within, between the centres of the outermost voxels.
    """
    inside = grid.contains(points)
    if not inside.all():
        beyond = ", where the map is its affine part alone" if role == "static" else ""
        logger.warning(
            f"{np.count_nonzero(~inside)} of {len(inside)} {role} landmarks lie "
            f"outside {role}'s field of view{beyond}."
        )
    return inside


def worst_missed(missed, static_points, moving_points):
    """The landmark that a map misses by most, in words.

    Parameters
    ----------
    missed : ndarray, shape (N,)
        By how much, mm.
    static_points, moving_points : ndarray, shape (N, dim)
        The landmarks.

    Returns
    -------
    sentence : str
        Where it is and by how much it is missed.
    """
    worst = int(missed.argmax())
    return (
        f"The worst is missed by {missed[worst]:.3g} mm: static "
        f"{static_points[worst].round(2)}, moving {moving_points[worst].round(2)}."
    )


def describe_swapped_rows(static_points, moving_points):
    """The two landmarks that contradict each other most, in words.

    Parameters
    ----------
    static_points, moving_points : ndarray, shape (N, dim)
        The landmarks, whose spline folds.

    Returns
    -------
    sentence : str
        A sentence, after a space, with their rows and places; empty if there are none.
    """
    rows = swapped_rows(static_points, moving_points)
    if rows is None:
        return ""
    places = (
        f"row {row} is static {static_points[row].round(2)}, moving "
        f"{moving_points[row].round(2)}"
        for row in rows
    )
    return (
        f" Rows {rows[0]} and {rows[1]} (from 0, copies left out) contradict each "
        f"other most, as if swapped: {'; '.join(places)}."
    )


def _without_copies(static_points, moving_points, exact):
    """Pairs of landmarks without those that say the same again."""
    if not len(static_points):
        return static_points, moving_points
    extents = [np.ptp(p, axis=0).max() for p in (static_points, moving_points)]
    close = cKDTree(static_points).query_pairs(
        _SAME * extents[0], output_type="ndarray"
    )
    away = np.linalg.norm(
        moving_points[close[:, 0]] - moving_points[close[:, 1]], axis=1
    )
    apart = away > _SAME * extents[1]
    if exact and apart.any():
        i, j = close[apart][0]
        raise ValueError(
            f"static_points: rows {i} and {j} are one point, {static_points[i]}, which "
            f"cannot be at both {moving_points[i]} and {moving_points[j]} of "
            "moving_points; drop one, or give a regularization above 0."
        )
    copies = np.unique(close[~apart, 1])
    if not len(copies):
        return static_points, moving_points
    logger.warning(f"{len(copies)} landmarks are there twice, and are counted once.")
    keep = np.setdiff1d(np.arange(len(static_points)), copies)
    return static_points[keep], moving_points[keep]


def read_landmarks(path, *, name="landmarks"):
    """Read points from a text file.

    Parameters
    ----------
    path : str or Path
        One point a line, its world coordinates (mm) separated by commas, semicolons,
        tabs or spaces.  Lines that begin with ``#`` and empty ones are passed over, as
        is a first line of titles.
    name : str, optional
        What errors call it.

    Returns
    -------
    points : ndarray, shape (N, 2) or (N, 3)
        float64.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds anything else.
    """
    path = Path(os.fspath(path))
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no such file: {path}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{name}: {path} is not a text file") from None
    rows, titles = [], True
    for number, line in enumerate(lines, start=1):
        words = line.split("#")[0].replace(",", " ").replace(";", " ").split()
        numbers = _numbers(words)
        if words and (numbers is not None or not titles):
            rows.append((number, numbers))
        titles = titles and not words
    if not rows:
        raise ValueError(f"{name}: {path} holds no points")
    dim = len(rows[0][1] or ())
    for number, numbers in rows:
        if numbers is None or len(numbers) not in (2, 3) or len(numbers) != dim:
            raise ValueError(
                f"{name}: {path}, line {number} must hold 2 or 3 numbers, as many as "
                f"the other lines, got {lines[number - 1].strip()!r}"
            )
    numbers = np.array([numbers for _, numbers in rows])
    return check_points(numbers.reshape(len(rows), dim), f"{name}: {path}")


def read_landmark_pair(static, moving):
    """Read landmarks in both images from two text files.

    Parameters
    ----------
    static, moving : str, Path or None
        The files, see `read_landmarks`: the same places, line by line.

    Returns
    -------
    static_points, moving_points : ndarray, shape (N, 3) or (N, 2)
        World coordinates, mm; two of them for slices.

    Raises
    ------
    FileNotFoundError
        If one is not there.
    ValueError
        If one was not given, or they are not pairs of points.
    """
    paths = {"static_landmarks": static, "moving_landmarks": moving}
    for name, path in paths.items():
        if path is None:
            raise ValueError(
                f"static_landmarks and moving_landmarks: {name} is missing"
            )
    pair = [read_landmarks(path, name=name) for name, path in paths.items()]
    if pair[0].shape != pair[1].shape:
        raise ValueError(
            "static_landmarks and moving_landmarks must hold as many points of as many "
            f"coordinates, got {pair[0].shape} and {pair[1].shape}"
        )
    return tuple(pair)


def _numbers(words):
    """Words as numbers, or None."""
    try:
        return [float(word) for word in words]
    except ValueError:
        return None
