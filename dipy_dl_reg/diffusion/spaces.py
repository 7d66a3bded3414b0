"""The spaces of a map's images, and checks that a tractogram lies in one of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.dipy_map import check_mapping

#: Share of the first chunk's points that must lie in the field of view of the image
#: in whose space the tractogram should be.
_LEAST_INSIDE = 0.5
#: Distance between corresponding corner voxels, in voxels, up to which two grids are
#: considered equal: headers store 32-bit numbers.
_SAME_GRID = 0.01
#: A field of view reaches half a voxel beyond the centres of its outermost voxels.
HALF_VOXEL = 0.5


class Spaces(NamedTuple):
    """The images of a map, as a tractogram is transformed from one to the other.

    Attributes
    ----------
    names : tuple of str
        "moving" and "static", in this direction.
    source, target : Grid
        Their grids.
    field : Grid
        Grid of the displacement field, in the tractogram's world before it is
        transformed.
    """

    names: tuple[str, str]
    source: Grid
    target: Grid
    field: Grid


def find_spaces(mapping: DiffeomorphicMap, inverse: bool) -> Spaces:
    """Find the grids of a map, in the direction in which points are transformed.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    inverse : bool
        Whether points are transformed from static to moving.

    Returns
    -------
    spaces : Spaces
        From moving to static, or with `inverse` from static to moving.

    Raises
    ------
    ValueError
        If the map is not 3D, or has no affines.
    """
    check_mapping(mapping)
    if mapping.dim != 3:
        raise ValueError(f"mapping must be 3D for a tractogram, got {mapping.dim}D")
    names, sides = ["moving", "static"], ["domain", "codomain"]
    if inverse:
        names.reverse()
    if bool(mapping.is_inverse) == inverse:
        sides.reverse()
    matrices = [getattr(mapping, f"{side}_grid2world") for side in sides]
    if any(matrix is None for matrix in [*matrices, mapping.disp_grid2world]):
        raise ValueError("mapping must have affines for a tractogram, got None")
    field = mapping.disp_grid2world
    if bool(mapping.is_inverse) != inverse and mapping.prealign is not None:
        # DIPY applies the prealign first in this direction.
        field = np.linalg.inv(mapping.prealign) @ field
    shapes = [getattr(mapping, f"{side}_shape") for side in sides]
    grids = map(make_grid, [*shapes, mapping.disp_shape], [*matrices, field])
    return Spaces((names[0], names[1]), *grids)


def make_grid(shape: Any, matrix: np.ndarray) -> Grid:
    """Make a grid.

    Parameters
    ----------
    shape : sequence of int
        Number of voxels along each axis.
    matrix : ndarray, shape (4, 4)
        Voxel to world.

    Returns
    -------
    grid : Grid
        The grid.
    """
    return Grid(tuple(int(n) for n in shape), np.asarray(matrix, dtype=np.float64))


def check_grid(grid: Grid | None, spaces: Spaces, name: str) -> None:
    """Check the grid that the header of a tractogram describes.

    A warning is logged if it is the grid of neither image: a tractogram may have been
    computed on another grid in the same world.

    Parameters
    ----------
    grid : Grid or None
        The grid; None if the header describes none.
    spaces : Spaces
        The tractogram should be in the first.
    name : str
        Name of the tractogram, for the messages.

    Raises
    ------
    ValueError
        If it is the grid of the other image.
    """
    own, other = spaces.names
    if grid is None or _equal(grid, spaces.source):
        return
    if _equal(grid, spaces.target):
        raise ValueError(
            f"{name} must be in the space of {own}, but its header describes the grid "
            f"of {other}: either it is in that space already, or the direction "
            "(inverse) is wrong"
        )
    logger.warning(
        f"{name} describes another grid than that of {own}; the result is right only "
        "if both have the same world coordinates"
    )


def check_first_points(points: np.ndarray, spaces: Spaces, name: str) -> None:
    """Check that the first points of a tractogram lie in the image of its space.

    Parameters
    ----------
    points : ndarray, shape (N, 3)
        World coordinates, mm.
    spaces : Spaces
        The tractogram should be in the first.
    name : str
        Name of the tractogram, for the message.

    Raises
    ------
    ValueError
        If most points lie outside the image's field of view.
    """
    inside = spaces.source.contains(points, margin=HALF_VOXEL)
    if len(inside) and inside.mean() < _LEAST_INSIDE:
        raise ValueError(
            f"{name} must be in the space of {spaces.names[0]}, but "
            f"{1 - inside.mean():.0%} of its first {len(inside)} points lie outside "
            "the field of view of this image"
        )


def _equal(first: Grid, second: Grid) -> bool:
    """Whether two grids are equal, but for rounding errors of the headers."""
    if first.shape != second.shape:
        return False
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(first.shape) - 1)
    corners = np.column_stack([corners, np.ones(len(corners))])
    difference = corners @ (first.affine - second.affine).T
    return bool(np.abs(difference).max() < _SAME_GRID * second.spacing.min())
