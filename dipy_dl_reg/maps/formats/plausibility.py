"""Checks that the positions of a file can be those of a map between two images."""

from __future__ import annotations

import os

from nibabel.affines import apply_affine
import numpy as np

from dipy_dl_reg.grid import Grid, rotation_angle
from dipy_dl_reg.maps.formats.dense_field import (
    DenseField,
    grid_points,
    nearest_affine,
)

#: Smallest part of the positions that must lie within the input image.
_LEAST_INSIDE = 0.02
#: How much larger the part inside may be, if positions are read as voxels.
_MORE_INSIDE = 0.2
#: How much smaller it may be, if positions in mm scale the image and voxels do not.
_FEWER_INSIDE = 0.1
#: Positions are taken for those of LPS if they are turned from RAS by 180 degrees about
#: the axis from feet to head, to within this angle, in degrees.
_NEAR_LPS = 30.0
#: Number of voxels along an axis of which the positions are checked.
_MOST = 24
#: Smallest singular value of the matrix nearest to a field of positions.
_LEAST_SCALE = 0.2
#: Positions are indices of voxels if their steps are nearer to those of indices than to
#: the grid's by this factor.
_NEAR_INDICES = 0.2
#: Largest distance, in voxels, between the corners of two grids that are the same.
#: NIfTI stores affines in float32, which rounds far less.
_GRID_TOLERANCE = 0.01


def check_grid(
    grid: Grid, image: Grid | None, path: str | os.PathLike, name: str = "static"
) -> None:
    """Check that a field is on the grid of an image.

    Parameters
    ----------
    grid : Grid
        Grid of the field.
    image : Grid or None
        Grid of the image; None is not checked.
    path : str or Path
        The file, for messages.
    name : str, optional
        Name of the image in messages.

    Raises
    ------
    ValueError
        If the shapes or the affines differ.
    """
    if image is None:
        return
    if grid.shape != image.shape:
        raise ValueError(
            f"path: {path} is on a grid of {grid.shape} voxels, and {name} has "
            f"{image.shape}"
        )
    if distance_of_corners(grid, image) > _GRID_TOLERANCE:
        raise ValueError(
            f"path: {path} was made on another grid than {name}'s: the affines differ"
        )


def distance_of_corners(grid: Grid, other: Grid) -> float:
    """Measure the largest distance between the corners of two grids of one shape.

    Parameters
    ----------
    grid, other : Grid
        The grids.

    Returns
    -------
    distance : float
        In voxels of `grid`.
    """
    last = np.array(grid.shape) - 1
    corners = np.array(list(np.ndindex(*(2,) * grid.dim))) * last
    moved = apply_affine(other.to(grid), corners)
    return float(np.linalg.norm(moved - corners, axis=1).max())


def check_positions(field: DenseField, path: str | os.PathLike) -> None:
    """Check the units and the axes of positions.

    Parameters
    ----------
    field : DenseField
        The positions as they were read.
    path : str or Path
        The file, for messages.

    Raises
    ------
    ValueError
        If no position is finite; if the positions are mirrored or turned by half
        a turn, as those in LPS are; or, with a known grid of the input image, if they
        fit better as voxels, or hardly any lies in this image.
    """
    _check_axes(field, path)
    if field.input_grid is None:
        return
    in_mm = _part_inside(field, field.input_grid.inverse)
    as_voxels = _part_inside(field, np.eye(field.grid.dim + 1))
    more = -_FEWER_INSIDE if _is_nearer_as_voxels(field) else _MORE_INSIDE
    if as_voxels > in_mm + more:
        raise ValueError(
            f"path: {path} must hold positions in mm, got positions in voxels: "
            f"{as_voxels:.0%} of them are valid voxels of the image that is warped, "
            f"and {in_mm:.0%} are points in it"
        )
    if in_mm < _LEAST_INSIDE:
        raise ValueError(
            f"path: {path} must lead into the image that is warped, but only "
            f"{in_mm:.1%} of its positions lie in it: static or moving is another "
            "image, or the directions are exchanged"
        )


def _thin_out(field: DenseField) -> tuple[np.ndarray, np.ndarray]:
    """Points and positions at some voxels, at most about `_MOST` along each axis."""
    steps = (slice(None, None, max(1, n // _MOST)) for n in field.grid.shape)
    some = tuple(steps)
    return grid_points(field.grid)[some], field.positions[some]


def _part_inside(field: DenseField, to_voxels: np.ndarray) -> float:
    """Part of the positions that lie on the grid of the input image."""
    shape = field.input_grid.shape if field.input_grid else ()
    at = apply_affine(to_voxels, _thin_out(field)[1]).reshape(-1, len(shape))
    return float(Grid(shape, np.eye(len(shape) + 1)).contains(at, margin=0.5).mean())


def _is_nearer_as_voxels(field: DenseField) -> bool:
    """Tell whether positions scale the image clearly less if they are voxels."""
    if field.input_grid is None or min(field.grid.shape) < 2:
        return False
    dim = field.grid.dim
    linear = fit_linear(*_thin_out(field))
    as_voxels = field.input_grid.affine[:dim, :dim] @ linear
    return largest_scaling(as_voxels) < largest_scaling(linear) / 2


def _check_axes(field: DenseField, path: str | os.PathLike) -> None:
    """Check that the positions have the axes of RAS."""
    if not np.isfinite(field.positions).all(axis=-1).any():
        raise ValueError(f"path: {path} must hold finite positions, got none")
    if min(field.grid.shape) < 2:
        return
    linear = fit_linear(*_thin_out(field))
    _check_units(field, linear, path)
    if np.linalg.det(linear) < 0:
        raise ValueError(
            f"path: {path} must hold positions in mm in RAS, got a mirrored image: "
            "they are in voxels, or along other axes"
        )
    half_turn = np.diag([-1, -1, 1][: field.grid.dim])
    if rotation_angle(half_turn @ linear) < _NEAR_LPS:
        raise ValueError(
            f"path: {path} must hold positions in RAS, got positions that are turned "
            "by half a turn about the axis from feet to head, as those in LPS (ITK) are"
        )


def _check_units(
    field: DenseField, linear: np.ndarray, path: str | os.PathLike
) -> None:
    """Recognise displacements, and indices of voxels, in place of positions in mm."""
    dim = field.grid.dim
    if np.linalg.svd(linear, compute_uv=False)[-1] < _LEAST_SCALE:
        raise ValueError(
            f"path: {path} must hold positions, which change from voxel to voxel as "
            "the grid does, got values that do not: they seem to be displacements; "
            "name their format (like)"
        )
    # The change of position from voxel to voxel is the identity for indices.
    steps = linear @ field.grid.affine[:dim, :dim]
    from_indices = np.linalg.norm(steps - np.eye(dim))
    if from_indices < _NEAR_INDICES * np.linalg.norm(linear - np.eye(dim)):
        raise ValueError(
            f"path: {path} must hold positions in mm along the world axes, got "
            "positions in voxels: they change by 1 from voxel to voxel"
        )


def check_contained(
    field: DenseField, path: str | os.PathLike, prealign: np.ndarray
) -> None:
    """Check that a prealign is part of a field, so that it can be separated.

    Parameters
    ----------
    field : DenseField
        The field.
    path : str or Path
        The file, for messages.
    prealign : ndarray, shape (D + 1, D + 1)
        Static world to moving world.

    Raises
    ------
    ValueError
        If the field is nearer to the identity than to the prealign.
    """
    points, _ = _thin_out(field)
    affine = apply_affine(nearest_affine(field), points)
    beside = np.linalg.norm(affine - apply_affine(prealign, points), axis=-1).mean()
    alone = np.linalg.norm(affine - points, axis=-1).mean()
    if beside > alone + field.grid.spacing.max():
        raise ValueError(
            f"prealign must be part of the map in {path}, which is {alone:.3g} mm from "
            f"the identity, on average, and {beside:.3g} mm from the prealign: if the "
            "file holds a displacement alone, read it without prealign, and add the "
            "prealign by compose_mappings"
        )


def fit_linear(points: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Fit the linear part of an affine to points, by least squares.

    Parameters
    ----------
    points : ndarray, shape (*shape, D)
        Points, on a grid of at least two voxels along each axis.
    to : ndarray, shape (*shape, D)
        Where they are mapped to; points that are not finite are left out.

    Returns
    -------
    linear : ndarray, shape (D, D)
        ``to`` is nearly ``points @ linear.T`` and a translation.
    """
    dim = points.shape[-1]
    finite = np.isfinite(to).all(axis=-1)
    points, to = points[finite].reshape(-1, dim), to[finite].reshape(-1, dim)
    solution, *_ = np.linalg.lstsq(points - points.mean(0), to - to.mean(0), rcond=None)
    return solution.T


def largest_scaling(linear: np.ndarray) -> float:
    """Measure how far a matrix is from a rotation or reflection.

    Parameters
    ----------
    linear : ndarray, shape (D, D)
        The matrix.

    Returns
    -------
    scaling : float
        Largest absolute logarithm of its singular values.
    """
    sizes = np.linalg.svd(linear, compute_uv=False)
    return float(np.abs(np.log(np.maximum(sizes, 1e-6))).max())
