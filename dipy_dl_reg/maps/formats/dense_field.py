"""Fields of positions, from which formats of other programs are made.

A dense format holds one direction of a map: for each voxel of an output image, the
point of the input image at which it is sampled.  With `P` the prealign that a user
passes (static world to moving world), and `b` and `f` the map's fields `backward` and
`forward`, all in RAS and mm:

- static to moving, on static's grid: ``y(x) = P (x + b(x))``, for `transform`;
- moving to static, on moving's grid: ``x(y) = z + f(z)``, ``z = inv(P) y``, for
  `transform_inverse`.  Outside static's grid, `f` is 0.
"""

from __future__ import annotations

from typing import NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.dipy_map import check_mapping, make_mapping
from dipy_dl_reg.maps.field_fit import fit_inverse
from dipy_dl_reg.validation import check_affine

#: Median distance, in voxels of static, between a point and its position after both
#: directions, above which two files are not taken for inverses of each other.
_LARGEST_ROUND_TRIP = 1.0
#: Largest distance, in mm, from an affine on static's border for which the displacement
#: is considered to vanish there.
_BORDER_DISTANCE = 1e-2
#: Smallest ratio of the singular values of an affine that is fitted to a field.
_LEAST_RATIO = 1e-2


class DenseField(NamedTuple):
    """One direction of a map, as positions.

    Attributes
    ----------
    positions : ndarray of float64, shape (*shape, D)
        For each voxel of the output image, the point of the input image at which it is
        sampled: RAS, mm, in the world of the input image.  NaN where it is unknown.
    grid : Grid
        Grid of the output image.
    input_grid : Grid or None
        Grid of the input image, where it is known.
    """

    positions: np.ndarray
    grid: Grid
    input_grid: Grid | None = None


def grid_points(grid: Grid) -> np.ndarray:
    """Compute the world coordinates of all voxels.

    Parameters
    ----------
    grid : Grid
        The grid.

    Returns
    -------
    points : ndarray of float64, shape (*shape, D)
        In mm.
    """
    voxels = np.moveaxis(np.indices(grid.shape, dtype=np.float64), 0, -1)
    dim = grid.dim
    return voxels @ grid.affine[:dim, :dim].T + grid.affine[:dim, dim]


def map_grids(mapping: DiffeomorphicMap) -> tuple[Grid, Grid]:
    """Find the grids of both images of a map.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map, of any form.

    Returns
    -------
    static, moving : Grid
        The grids of the results of `transform` and of `transform_inverse`.

    Raises
    ------
    ValueError
        If it is no map, or has no affines.
    """
    check_mapping(mapping)
    grids = []
    for side in ("codomain", "domain"):
        shape = getattr(mapping, f"{side}_shape")
        affine = getattr(mapping, f"{side}_grid2world")
        if affine is None or shape is None:
            raise ValueError(
                "mapping must have the affines of both images, because other programs' "
                "files are in mm; use save_mapping"
            )
        grids.append(Grid(tuple(int(n) for n in shape), np.array(affine, dtype=float)))
    static, moving = grids if mapping.is_inverse else grids[::-1]
    return static, moving


def forward_field(mapping: DiffeomorphicMap) -> DenseField:
    """Evaluate a map from static to moving, on static's grid.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map, of any form.

    Returns
    -------
    field : DenseField
        ``y(x)``, prealign included.

    Raises
    ------
    ValueError
        If it is no map, or has no affines.
    """
    static, moving = map_grids(mapping)
    points = grid_points(static)
    moved = mapping.transform_points(points.reshape(-1, static.dim))
    return DenseField(moved.reshape(points.shape), static, moving)


def inverse_field(mapping: DiffeomorphicMap) -> DenseField:
    """Evaluate a map from moving to static, on moving's grid.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map, of any form.

    Returns
    -------
    field : DenseField
        ``x(y)``, prealign included.

    Raises
    ------
    ValueError
        If it is no map, or has no affines.
    """
    static, moving = map_grids(mapping)
    points = grid_points(moving)
    moved = mapping.transform_points_inverse(points.reshape(-1, static.dim))
    return DenseField(moved.reshape(points.shape), moving, static)


def user_prealign(mapping: DiffeomorphicMap) -> np.ndarray:
    """Find the prealign that a user would pass for a map.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map, of any form.

    Returns
    -------
    prealign : ndarray, shape (D + 1, D + 1)
        Static world to moving world.
    """
    matrix = mapping.prealign_inv if mapping.is_inverse else mapping.prealign
    return np.eye(mapping.dim + 1) if matrix is None else np.array(matrix)


def mapping_from_fields(
    forward: DenseField,
    inverse: DenseField | None = None,
    *,
    prealign: np.ndarray | None = None,
    start: np.ndarray | None = None,
) -> DiffeomorphicMap:
    """Make a map from the positions of one or of both directions.

    Parameters
    ----------
    forward : DenseField
        ``y(x)`` on static's grid.  Moving's grid is its `input_grid`, else that of
        `inverse`, else static's.
    inverse : DenseField, optional
        ``x(y)`` on moving's grid, or on another grid in moving's world.  Without it the
        inverse is computed, and the log says so.
    prealign : ndarray, shape (D + 1, D + 1), optional
        Static world to moving world.  By default the affine that is nearest to ``y(x)``
        (`nearest_affine`), so that the displacement is small.
    start : ndarray, shape (*static_shape, D), optional
        An approximation of the displacement that inverts the map, in mm on static's
        grid, if it is known; by default it is computed.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map, in the form that registrations return.

    Raises
    ------
    ValueError
        If no position is finite, or the two directions are not inverses of each other.
    """
    static, dim = forward.grid, forward.grid.dim
    if prealign is None:
        prealign = nearest_affine(forward)
    prealign = check_affine(prealign, dim, "prealign")
    backward = _to_displacement(forward, prealign)
    computed = _invert(backward, static) if start is None else start
    if inverse is None:
        logger.info("The inverse direction is not in the file: it was computed.")
    else:
        _check_inverse(forward, inverse)
        back = Grid(inverse.grid.shape, np.linalg.inv(prealign) @ inverse.grid.affine)
        points = grid_points(back)
        computed = fit_inverse(computed, static, inverse.positions, points)
    moving = forward.input_grid or (static if inverse is None else inverse.grid)
    return make_mapping(
        computed,
        backward,
        static.shape,
        static.affine,
        moving.shape,
        moving.affine,
        prealign,
    )


def nearest_affine(field: DenseField) -> np.ndarray:
    """Fit an affine to positions, by least squares.

    If the positions on the border of the grid are those of one affine, as in maps whose
    displacement vanishes there, it is this one, which also continues the map beyond the
    grid; otherwise all positions are fitted.

    Parameters
    ----------
    field : DenseField
        The positions; those that are not finite are left out.

    Returns
    -------
    affine : ndarray, shape (D + 1, D + 1)
        World of the output image to that of the input image; a translation if the
        fitted affine is close to a singular one, or mirrors.

    Raises
    ------
    ValueError
        If no position is finite.
    """
    points, to = grid_points(field.grid), field.positions
    finite = np.isfinite(to).all(axis=-1)
    if not finite.any():
        raise ValueError("path: the file must hold finite positions, got none")
    border = finite.copy()
    border[(slice(1, -1),) * field.grid.dim] = False
    if min(field.grid.shape) > 1 and border.sum() > 2**field.grid.dim:
        affine = _fit_affine(points[border], to[border])
        fitted = points[border] @ affine[:-1, :-1].T + affine[:-1, -1]
        if np.abs(fitted - to[border]).max() < _BORDER_DISTANCE:
            return affine
    return _fit_affine(points[finite], to[finite])


def _fit_affine(points: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Fit an affine to points by least squares.

    It is fitted to the displacement, so that it is the identity along axes of one
    voxel, and centred, because worlds may be far from their origins.
    """
    dim = points.shape[-1]
    centre, to_centre = points.mean(axis=0), to.mean(axis=0)
    centred = points - centre
    moves = (to - to_centre) - centred
    linear = np.eye(dim) + (np.linalg.pinv(centred.T @ centred) @ centred.T @ moves).T
    sizes = np.linalg.svd(linear, compute_uv=False)
    if sizes[-1] < _LEAST_RATIO * sizes[0] or np.linalg.det(linear) <= 0:
        linear = np.eye(dim)
    affine = np.eye(dim + 1)
    affine[:dim, :dim] = linear
    affine[:dim, dim] = to_centre - linear @ centre
    return affine


def _to_displacement(forward: DenseField, prealign: np.ndarray) -> np.ndarray:
    """``b(x) = inv(P) y(x) - x``; 0 where ``y(x)`` is unknown."""
    dim = forward.grid.dim
    back = np.linalg.inv(prealign)
    at = forward.positions @ back[:dim, :dim].T + back[:dim, dim]
    displacement = at - grid_points(forward.grid)
    unknown = ~np.isfinite(displacement).all(axis=-1)
    if unknown.any():
        logger.warning(
            f"{int(unknown.sum())} of {unknown.size} voxels hold no position: there "
            "the map is affine."
        )
        displacement[unknown] = 0
    return displacement


def _invert(backward: np.ndarray, static: Grid) -> np.ndarray:
    """Compute ``f`` from ``b``."""
    from dipy_dl_reg.geometry.array_inversion import invert_array  # imports torch

    return invert_array(backward, static)


def _check_inverse(forward: DenseField, inverse: DenseField) -> None:
    """Check that two directions are inverses of each other, roughly."""
    from scipy.ndimage import map_coordinates

    dim = forward.grid.dim
    step = tuple(slice(None, None, max(1, n // 24)) for n in forward.grid.shape)
    points = grid_points(forward.grid)[step].reshape(-1, dim)
    to_voxels = inverse.grid.inverse
    at = forward.positions[step].reshape(-1, dim) @ to_voxels[:dim, :dim].T
    at += to_voxels[:dim, dim]
    last = np.array(inverse.grid.shape) - 1
    inside = ((at >= 0) & (at <= last)).all(axis=1)
    back = np.stack(
        [
            map_coordinates(inverse.positions[..., d], at[inside].T, order=1)
            for d in range(dim)
        ],
        axis=-1,
    )
    distance = np.linalg.norm(back - points[inside], axis=-1)
    distance = distance[np.isfinite(distance)]
    limit = _LARGEST_ROUND_TRIP * forward.grid.spacing.max()
    if not distance.size or np.median(distance) > limit:
        found = f"{np.median(distance):.3g} mm" if distance.size else "no common point"
        raise ValueError(
            "inverse must hold the other direction of the same map: a point that is "
            f"mapped by both must come back within {limit:.3g} mm, got a median of "
            f"{found}; give static and moving if the files do not hold their grids"
        )
