"""A map as its affine and its two displacements, for formats that store them apart."""

from __future__ import annotations

import os
from typing import NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.dipy_map import make_mapping
from dipy_dl_reg.maps.formats.dense_field import (
    DenseField,
    forward_field,
    grid_points,
    inverse_field,
    map_grids,
    mapping_from_fields,
    user_prealign,
)
from dipy_dl_reg.maps.formats.plausibility import distance_of_corners


class MapParts(NamedTuple):
    """The parts of a map: ``y = P (x + b(x))`` and ``x = z + f(z)``, ``z = inv(P) y``.

    Attributes
    ----------
    prealign : ndarray, shape (D + 1, D + 1)
        ``P``: static world to moving world.
    backward : ndarray, shape (*shape, D)
        ``b``, in mm, RAS, on static's grid.
    forward : ndarray or None, shape (*shape, D)
        ``f``, likewise; None if it is unknown.
    static : Grid
        Static's grid.
    moving : Grid or None
        Moving's grid, if it is known.
    inverse : DenseField or None
        ``x(y)``, if ``f`` is on another grid than static's.
    """

    prealign: np.ndarray
    backward: np.ndarray
    forward: np.ndarray | None
    static: Grid
    moving: Grid | None
    inverse: DenseField | None = None

    def with_inverse(
        self, displacement: np.ndarray, grid: Grid, matrix: np.ndarray | None = None
    ) -> MapParts:
        """Add the inverse displacement, on any grid in static's world.

        Parameters
        ----------
        displacement : ndarray, shape (*shape, D)
            ``f``, in mm, RAS.
        grid : Grid
            Its grid.
        matrix : ndarray, shape (D + 1, D + 1), optional
            Moving world to static world, as the file of the inverse holds it.

        Returns
        -------
        parts : MapParts
            The parts with ``f`` if it is on static's grid, else with ``x(y)``.

        Raises
        ------
        ValueError
            If the matrix is not the inverse of the prealign.
        """
        if matrix is not None and not _is_inverse(matrix, self.prealign, self.static):
            raise ValueError(
                "inverse must hold the inverse of the affine of the other file, got "
                "another affine"
            )
        same = grid.shape == self.static.shape
        if same and distance_of_corners(grid, self.static) < 1e-3:
            return self._replace(forward=displacement)
        # As positions in static's world of points that the prealign has mapped there.
        in_moving = Grid(grid.shape, self.prealign @ grid.affine)
        positions = grid_points(grid) + displacement
        return self._replace(inverse=DenseField(positions, in_moving, self.static))


def _is_inverse(matrix: np.ndarray, prealign: np.ndarray, static: Grid) -> bool:
    """Whether two matrices cancel, to a hundredth of a voxel on static's grid."""
    back = Grid(static.shape, matrix @ prealign @ static.affine)
    return distance_of_corners(static, back) < 0.01


def split_map(mapping: DiffeomorphicMap) -> MapParts:
    """Split a map into its parts.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map, of any form.

    Returns
    -------
    parts : MapParts
        Its parts, on static's grid.

    Raises
    ------
    ValueError
        If it is no map, or has no affines.
    """
    static, moving = map_grids(mapping)
    prealign = user_prealign(mapping)
    shape = tuple(int(n) for n in mapping.disp_shape)
    field_grid = Grid(shape, np.asarray(mapping.disp_grid2world, dtype=float))
    same = shape == static.shape and distance_of_corners(static, field_grid) < 1e-6
    if not (mapping.is_inverse and same):
        mapping = mapping_from_fields(
            forward_field(mapping), inverse_field(mapping), prealign=prealign
        )
    return MapParts(
        prealign,
        np.asarray(mapping.backward, dtype=np.float64),
        np.asarray(mapping.forward, dtype=np.float64),
        static,
        moving,
    )


def join_parts(parts: MapParts, path: str | os.PathLike) -> DiffeomorphicMap:
    """Make a map of its parts.

    Parameters
    ----------
    parts : MapParts
        The parts.  The inverse is computed where it is None.
    path : str or Path
        The file, for messages.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map, in the form that registrations return.

    Raises
    ------
    ValueError
        If a displacement is not finite, or the two directions are not inverses.
    """
    static, dim = parts.static, parts.static.dim
    if parts.forward is None or not np.isfinite(parts.backward).all():
        at = grid_points(static) + parts.backward
        positions = at @ parts.prealign[:dim, :dim].T + parts.prealign[:dim, dim]
        field = DenseField(positions, static, parts.moving)
        return mapping_from_fields(field, parts.inverse, prealign=parts.prealign)
    if not np.isfinite(parts.forward).all():
        raise ValueError(f"inverse: the displacement that inverts {path} is not finite")
    moving = parts.moving or static
    return make_mapping(
        parts.forward,
        parts.backward,
        static.shape,
        static.affine,
        moving.shape,
        moving.affine,
        parts.prealign,
    )
