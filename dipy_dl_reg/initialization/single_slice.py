"""A network for 2D images on volumes of a single slice.

Files have three axes, also for one slice.  A network for volumes has nothing to see
there; one for 2D images sees the slice as it is.
"""

import numpy as np

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.grid import Grid

#: How far the planes of two slices may lie apart, in moving's voxels across it.
_APART = 0.5


def flatten_slices(pair):
    """Two volumes of a single slice as 2D images.

    Parameters
    ----------
    pair : Pair
        The images.

    Returns
    -------
    flat : Pair or None
        The same in the coordinates of static's plane, prealign included and landmarks
        left out; None where the images are not volumes of one slice each, or where
        static's slice does not lie in moving's.
    """
    shapes = pair.static_grid.shape, pair.moving_grid.shape
    if any(len(shape) != 3 or shape.count(1) != 1 for shape in shapes):
        return None
    (across, own), (moving_across, moving_own) = map(_axes, shapes)
    matrix = pair.static_grid.to(pair.moving_grid, pair.prealign)
    if _farthest(matrix[moving_across], own, shapes[0]) > _APART:
        return None
    linear = matrix[np.ix_([*moving_own, 3], [*own, 3])]
    affine = _plane_affine(pair.static_grid.affine, own)
    images = [(pair.static, pair.static_mask), (pair.moving, pair.moving_mask)]
    (static, static_mask), (moving, moving_mask) = (
        [None if x is None else x.squeeze(2 + axis) for x in both]
        for both, axis in zip(images, (across, moving_across))
    )
    return Pair(
        static,
        moving,
        Grid(tuple(static.shape[2:]), affine),
        Grid(tuple(moving.shape[2:]), affine @ np.linalg.inv(linear)),
        np.eye(3),
        static_mask,
        moving_mask,
    )


def _axes(shape):
    """The axis of one voxel, and the other two."""
    across = shape.index(1)
    return across, [axis for axis in range(3) if axis != across]


def _farthest(row, own, shape):
    """How far static's slice lies from moving's at its corners, in moving's voxels."""
    ends = ((0, shape[axis] - 1) for axis in own)
    corners = np.stack(np.meshgrid(*ends), -1)
    return np.abs(corners @ row[own] + row[3]).max()


def _plane_affine(affine, own):
    """Voxels of a plane to mm in it, along the world's axes as nearly as may be."""
    linear = affine[:3, own]
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


def embed_in_volume(u, shape):
    """A field in a plane as one of a volume of one slice.

    Parameters
    ----------
    u : Tensor, shape (1, 2, *plane)
        Displacements within the slice, in voxels.
    shape : tuple of int
        Of the volume, with one axis of one voxel.

    Returns
    -------
    field : Tensor, shape (1, 3, *shape)
        0 across the slice.
    """
    across, own = _axes(shape)
    field = u.new_zeros(1, 3, *u.shape[2:])
    field[:, own] = u
    return field.unsqueeze(2 + across)
