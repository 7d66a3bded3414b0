"""The inverse field of a map, on static's grid, from positions on moving's grid.

A map holds both fields on static's grid, and other programs' files hold the inverse
direction on moving's.  An interpolation onto static's grid, and back when the map is
applied, would change it twice.  The field is therefore fitted, such that its
interpolation gives the positions of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dipy_dl_reg.grid import Grid

if TYPE_CHECKING:
    from scipy.sparse import csr_array

#: Largest number of iterations of the fit.
_ITERATIONS = 120
#: Largest residual of the fit, in mm, below which it ends.
_TOLERANCE = 5e-6


def fit_inverse(
    start: np.ndarray, static: Grid, positions: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Fit ``f`` such that ``z + f(z)`` is the given position at each point `z`.

    The sum of squared differences is minimized by conjugate gradients.  Where the
    points do not determine the field, it stays close to `start`.

    Parameters
    ----------
    start : ndarray, shape (*static_shape, D)
        First guess of ``f``, in mm.
    static : Grid
        Grid of ``f``.
    positions : ndarray, shape (*shape, D)
        Points of static, RAS, mm.  Those that are not finite are left out.
    points : ndarray, shape (*shape, D)
        `z`, in static's world: ``inv(P) y`` for points `y` of moving.  Those outside
        static's grid are left out.

    Returns
    -------
    field : ndarray of float64, shape (*static_shape, D)
        ``f``, in mm.
    """
    dim = static.dim
    points = points.reshape(-1, dim)
    moves = positions.reshape(-1, dim) - points
    used = np.isfinite(moves).all(axis=1) & static.contains(points)
    to_voxels = static.inverse
    at = points[used] @ to_voxels[:dim, :dim].T + to_voxels[:dim, dim]
    weights = interpolation_matrix(at, static.shape)
    field = _solve(weights, moves[used], start.reshape(-1, dim))
    return field.reshape(start.shape)


def interpolation_matrix(points: np.ndarray, shape: tuple[int, ...]) -> csr_array:
    """Make the matrix of linear interpolation.

    Parameters
    ----------
    points : ndarray, shape (N, D)
        Voxel coordinates on a grid; beyond its edge the value there is taken.
    shape : tuple of int
        Shape of the grid.

    Returns
    -------
    weights : csr_array, shape (N, prod(shape))
        Its product with the values of all voxels, in C order, are those at the points.
    """
    from scipy.sparse import csr_array

    last = np.array(shape) - 1
    points = np.clip(points, 0, last)
    first = np.minimum(np.floor(points), np.maximum(last - 1, 0)).astype(np.intp)
    part = points - first
    columns, values = [], []
    for corner in np.ndindex(*(2,) * len(shape)):
        side = np.array(corner)
        at = np.minimum(first + side, last)
        columns.append(np.ravel_multi_index(tuple(at.T), shape).astype(np.int32))
        values.append(np.where(side, part, 1 - part).prod(axis=1))
    rows = np.arange(0, len(points) * len(columns) + 1, len(columns))
    return csr_array(
        (np.stack(values, 1).ravel(), np.stack(columns, 1).ravel(), rows),
        shape=(len(points), int(np.prod(shape))),
    )


def _solve(weights: csr_array, values: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Least squares ``weights @ field = values``, by conjugate gradients (CGLS)."""
    field = start.astype(np.float64)
    residual = values - weights @ field
    gradient = weights.T @ residual
    direction, size = gradient, np.square(gradient).sum(axis=0)
    for _ in range(_ITERATIONS):
        if not residual.size or np.abs(residual).max() <= _TOLERANCE:
            break
        image = weights @ direction
        step = size / np.maximum(np.square(image).sum(axis=0), 1e-300)
        field += step * direction
        residual -= step * image
        gradient = weights.T @ residual
        new_size = np.square(gradient).sum(axis=0)
        direction = gradient + new_size / np.maximum(size, 1e-300) * direction
        size = new_size
    return field
