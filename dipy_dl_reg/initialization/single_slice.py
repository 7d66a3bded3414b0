"""Volumes of a single slice as 2D images, for networks trained on 2D images.

Image files have three axes, also for a single slice.  A network for volumes cannot be
applied to a single slice, because there is no structure across it; the slice is
therefore converted to a 2D image for a 2D network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.grid import Grid

#: Largest distance between the planes of two slices, in moving's voxels across it.
_LARGEST_DISTANCE = 0.5


def flatten_slices(pair: Pair) -> Pair | None:
    """Convert two volumes of a single slice to 2D images.

    Parameters
    ----------
    pair : Pair
        The images.

    Returns
    -------
    flat : Pair or None
        The images in the coordinates of static's plane, with the prealign included in
        moving's grid and without landmarks.  None if an image is not a volume of one
        slice, or the slices do not lie in one plane.
    """
    shapes = pair.static_grid.shape, pair.moving_grid.shape
    if any(len(shape) != 3 or shape.count(1) != 1 for shape in shapes):
        return None
    (across, within), (moving_across, moving_within) = map(_split_axes, shapes)
    matrix = pair.static_grid.to(pair.moving_grid, pair.prealign)
    if _measure_distance(matrix[moving_across], within, shapes[0]) > _LARGEST_DISTANCE:
        return None
    linear = matrix[np.ix_([*moving_within, 3], [*within, 3])]
    affine = _make_plane_affine(pair.static_grid.affine, within)
    static = pair.static.squeeze(2 + across)
    moving = pair.moving.squeeze(2 + moving_across)
    return Pair(
        static,
        moving,
        Grid(tuple(static.shape[2:]), affine),
        Grid(tuple(moving.shape[2:]), affine @ np.linalg.inv(linear)),
        np.eye(3),
        _squeeze_mask(pair.static_mask, across),
        _squeeze_mask(pair.moving_mask, moving_across),
    )


def embed_in_volume(u: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Convert a displacement field within a plane to one of a volume of one slice.

    Parameters
    ----------
    u : Tensor, shape (1, 2, *plane)
        Displacements within the slice, in voxels.
    shape : tuple of int
        Shape of the volume, with one axis of one voxel.

    Returns
    -------
    field : Tensor, shape (1, 3, *shape)
        In voxels; 0 across the slice.
    """
    across, within = _split_axes(shape)
    field = u.new_zeros(1, 3, *u.shape[2:])
    field[:, within] = u
    return field.unsqueeze(2 + across)


def _squeeze_mask(mask: torch.Tensor | None, across: int) -> torch.Tensor | None:
    """A mask without the axis across the slice."""
    return None if mask is None else mask.squeeze(2 + across)


def _split_axes(shape: tuple[int, ...]) -> tuple[int, list[int]]:
    """The axis of one voxel, and the other two."""
    across = shape.index(1)
    return across, [axis for axis in range(3) if axis != across]


def _measure_distance(
    row: np.ndarray, within: Sequence[int], shape: Sequence[int]
) -> float:
    """Largest distance of static's corners from moving's slice, in moving's voxels."""
    ends = ((0, shape[axis] - 1) for axis in within)
    corners = np.stack(np.meshgrid(*ends), -1)
    return float(np.abs(corners @ row[within] + row[3]).max())


def _make_plane_affine(affine: np.ndarray, within: Sequence[int]) -> np.ndarray:
    """Voxels of a plane to mm within it, along the nearest axes of the world."""
    linear = affine[:3, within]
    normal = np.cross(*linear.T)
    normal /= np.linalg.norm(normal)
    world = np.delete(np.eye(3), np.abs(normal).argmax(), axis=1)
    u, _, v = np.linalg.svd(
        world - np.outer(normal, normal @ world), full_matrices=False
    )
    base = u @ v
    flat = np.eye(3)
    flat[:2, :2], flat[:2, 2] = base.T @ linear, base.T @ affine[:3, 3]
    return flat
