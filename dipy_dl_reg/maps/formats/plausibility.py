"""Checks that the positions of a file can be those of a map between two images."""

from __future__ import annotations

import os

from nibabel.affines import apply_affine
import numpy as np

from dipy_dl_reg.grid import Grid, rotation_angle
from dipy_dl_reg.maps.formats.dense_field import DenseField, grid_points

#: Smallest part of the positions that must lie within the input image.
_LEAST_INSIDE = 0.02
#: How much larger the part inside may be, if positions are read as voxels.
_MORE_INSIDE = 0.2
#: Positions are taken for those of LPS if they are turned from RAS by 180 degrees about
#: the axis from feet to head, to within this angle, in degrees.
_NEAR_LPS = 30.0


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
    as_voxels = _part_inside(field, np.eye(4))
    if as_voxels > in_mm + _MORE_INSIDE:
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


def _part_inside(field: DenseField, to_voxels: np.ndarray) -> float:
    """Part of the positions that lie on the grid of the input image."""
    assert field.input_grid is not None
    shape = field.input_grid.shape
    at = apply_affine(to_voxels, field.positions).reshape(-1, len(shape))
    return float(Grid(shape, np.eye(4)).contains(at, margin=0.5).mean())


def _check_axes(field: DenseField, path: str | os.PathLike) -> None:
    """Check that the positions have the axes of RAS."""
    if not np.isfinite(field.positions).all(axis=-1).any():
        raise ValueError(f"path: {path} must hold finite positions, got none")
    linear = fit_linear(grid_points(field.grid), field.positions)
    if np.linalg.det(linear) < 0:
        raise ValueError(
            f"path: {path} must hold positions in mm in RAS, got a mirrored image: "
            "they are in voxels, or along other axes"
        )
    if rotation_angle(np.diag([-1, -1, 1]) @ linear) < _NEAR_LPS:
        raise ValueError(
            f"path: {path} must hold positions in RAS, got positions that are turned "
            "by half a turn about the axis from feet to head, as those in LPS (ITK) are"
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
