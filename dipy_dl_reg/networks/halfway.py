"""Half-way between two images: where a symmetric network looks at both.

A network that is the same for both images by construction still favours the one on
whose grid it is asked.  Half of the prealign brings each to a world between them, and
a grid there belongs to neither.
"""

from itertools import product

import numpy as np
from scipy.linalg import polar, sqrtm

from dipy_dl_reg.space import Grid

#: A prealign that turns by more, degrees, is not halved: images half-way would lie
#: askew, as no network has seen them.
_LARGEST_TURN = 60
#: Voxels of a common grid beyond what both images cover.
_MARGIN = 8


def half_of(prealign):
    """The affine that brings one world half of the way to another.

    Parameters
    ----------
    prealign : ndarray, shape (D + 1, D + 1)
        From one world to the other.

    Returns
    -------
    half : ndarray, shape (D + 1, D + 1)
        ``half @ half == prealign``; the identity where the prealign mirrors, or turns
        by more than 60 degrees.
    """
    dim = len(prealign) - 1
    turn, _ = polar(prealign[:dim, :dim])
    cosine = (np.trace(turn) - dim + 2) / 2
    if np.linalg.det(turn) < 0 or cosine < np.cos(np.deg2rad(_LARGEST_TURN)):
        return np.eye(dim + 1)
    return np.real(sqrtm(prealign))


def common_grid(static, moving, prealign, spacing=None):
    """The grid half-way between two images: the same, whichever is called static.

    Its axes are the mean of both images' own (`Grid.standard`), and it covers what both
    see and a little more: what one image shows beyond the other costs nothing.

    Parameters
    ----------
    static, moving : Grid
        Of the two images.
    prealign : ndarray, shape (D + 1, D + 1)
        Static world to moving world.
    spacing : float, optional
        Voxel size half-way, mm; by default the smallest of both images'.

    Returns
    -------
    grid : Grid or None
        In static's world, where its voxels may be a little askew; None where the
        images do not meet, or are turned too far (`half_of`).
    """
    half, dim = half_of(prealign), static.dim
    # Of each image's world to the one between them.
    ways = half, half @ np.linalg.inv(prealign)
    grids = static, moving
    axes = [
        (way @ grid.standard(spacing).affine)[:dim, :dim]
        for way, grid in zip(ways, grids)
    ]
    turn = polar(sum(polar(a)[0] for a in axes))[0]
    if spacing is None:
        spacing = min(np.linalg.norm(a, axis=0).min() for a in axes)
    spans = [_span(way @ grid.affine, grid.shape, turn) for way, grid in
             zip(ways, grids)]  # fmt: skip
    lows, highs = np.array(spans).swapaxes(0, 1)
    low, high = lows.max(0), highs.min(0)
    if (low > high).any():
        return None
    margin = _MARGIN * spacing
    low, high = (
        np.maximum(low - margin, lows.min(0)),
        np.minimum(high + margin, highs.max(0)),
    )
    shape = np.rint((high - low) / spacing).astype(int) + 1
    affine = np.eye(dim + 1)
    affine[:dim, :dim] = turn * spacing
    affine[:dim, dim] = turn @ ((low + high) / 2 - spacing * (shape - 1) / 2)
    return Grid(tuple(int(n) for n in shape), np.linalg.inv(half) @ affine)


def _span(affine, shape, turn):
    """Least and largest coordinates of a grid's voxel centres along turned axes."""
    corners = np.array(list(product(*((0, n - 1) for n in shape))))
    dim = len(shape)
    along = (corners @ affine[:dim, :dim].T + affine[:dim, dim]) @ turn
    return along.min(0), along.max(0)
