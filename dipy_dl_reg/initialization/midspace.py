"""Half-way between two images: where a symmetric network looks at both.

A network that is the same for both images by construction still favours the one on
whose grid it is asked.  Half of the prealign brings each to a world between them, and
a grid there belongs to neither.
"""

from itertools import product

import numpy as np
from scipy.linalg import polar, sqrtm
import torch
import torch.nn.functional as F

from dipy_dl_reg.geometry.fields import compose, exp, resize, warp
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.networks.base import SQUARINGS

#: A prealign that turns by more, degrees, is not halved: images half-way would lie
#: askew, as no network has seen them.
_LARGEST_TURN = 60
#: Voxels of a common grid beyond what both images cover.
_MARGIN = 8
#: Part of the range of an image above which there is something, and voxels kept around.
_SOMETHING, _AROUND = 0.02, 4
#: Smoothing of images on the way to larger voxels, see `coarsen`.
_SIGMA_FACTOR = 0.5


def half_of(prealign):
    """The affine that brings one world half of the way to another.

    Parameters
    ----------
    prealign : ndarray, shape (D + 1, D + 1)
        From one world to the other.

    Returns
    -------
    half : ndarray, shape (D + 1, D + 1), or None
        ``half @ half == prealign``; None where the prealign mirrors, or turns by more
        than 60 degrees.
    """
    dim = len(prealign) - 1
    turn, _ = polar(prealign[:dim, :dim])
    cosine = (np.trace(turn) - dim + 2) / 2
    if np.linalg.det(turn) < 0 or cosine < np.cos(np.deg2rad(_LARGEST_TURN)):
        return None
    return np.real(sqrtm(prealign))


def common_grid(static, moving, prealign, spacing=None):
    """The grid half-way between two images: the same, whichever is called static.

    Its axes are the mean of both images' own (`Grid.to_standard`), and it covers what
    both see and a little more: what one image shows beyond the other costs nothing.

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
    if half is None:
        return None
    # Of each image's world to the one between them.
    ways = half, half @ np.linalg.inv(prealign)
    grids = static, moving
    axes = [
        (way @ grid.to_standard(spacing).affine)[:dim, :dim]
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


def cropped(grid, images):
    """Images without the nothing around them.

    Parameters
    ----------
    grid : Grid
        Theirs.
    images : sequence of Tensor, shape (1, 1, *shape)
        On one grid.

    Returns
    -------
    grid : Grid
        What is left of it: where there is something in any of them, and a margin.
    images : list of Tensor
        On that.
    """
    something = torch.stack([image > _SOMETHING for image in images]).any(0)[0, 0]
    if not bool(something.any()):
        return grid, list(images)
    first, shape = [], []
    for axis, size in enumerate(grid.shape):
        others = [a for a in range(grid.dim) if a != axis]
        places = something.any(dim=others).nonzero() if others else something.nonzero()
        low = max(0, int(places.min()) - _AROUND)
        first.append(low)
        shape.append(min(size, int(places.max()) + 1 + _AROUND) - low)
    step = np.eye(grid.dim + 1)
    step[:-1, -1] = first
    inside = tuple(slice(i, i + n) for i, n in zip(first, shape))
    left = [image[(..., *inside)].contiguous() for image in images]
    return Grid(tuple(shape), grid.affine @ step), left


def ask_half_way(network, static, moving, looks):
    """A symmetric network's word, look by look from half-way: field and inverse.

    After every look half of the flow that it found brings moving nearer, and half of
    the inverse brings static; the next one is at what is left, and its flow goes
    between the two halves.  Fields are kept at half the resolution: the network's own
    say no more, and there they cost an eighth.

    Parameters
    ----------
    network : RegistrationNetwork
        One that is symmetric.
    static, moving : Tensor, shape (1, 1, *shape)
        Images on one grid.
    looks : sequence of float
        One number for each look: how many times larger than the grid's voxels are.

    Returns
    -------
    displacement, inverse : Tensor, shape (1, D, *shape)
        In voxels.
    """
    dtype = next(network.parameters()).dtype
    shape = static.shape[2:]
    few = [-(-n // 2) for n in shape]
    static_to_half = half_to_moving = half_to_static = moving_to_half = None
    for look, factor in enumerate(looks):
        seen = static, moving
        if look:
            seen = (
                warp(image, resize(u, shape))
                for image, u in ((static, half_to_static), (moving, half_to_moving))
            )
        seen = (_fewer(image, factor).to(dtype) for image in seen)
        velocity = resize(network.output_fields(*seen)[0].float(), few)
        if look == len(looks) - 1:
            break
        half, back = flow(velocity / 2)
        if not look:
            static_to_half = half_to_moving = half
            half_to_static = moving_to_half = back
            continue
        half_to_moving = compose(half, half_to_moving)
        static_to_half = compose(static_to_half, half)
        half_to_static = compose(back, half_to_static)
        moving_to_half = compose(moving_to_half, back)
    u, v = flow(velocity)
    if static_to_half is not None:
        u = compose(compose(static_to_half, u), half_to_moving)
        v = compose(compose(moving_to_half, v), half_to_static)
    return resize(u, shape), resize(v, shape)


def _fewer(image, factor):
    """An image with so many times fewer voxels along each axis, smoothed first."""
    if factor == 1:
        return image
    shape = [
        max(2, round((n - 1) / factor) + 1) if n > 1 else 1 for n in image.shape[2:]
    ]
    mode = {2: "bilinear", 3: "trilinear"}[len(shape)]
    smoothed = smooth(image, _SIGMA_FACTOR * (factor - 1))
    return F.interpolate(smoothed, size=shape, mode=mode, align_corners=True)


def flow(velocity):
    """Flow of a velocity, and its inverse.

    Parameters
    ----------
    velocity : Tensor, shape (B, D, *shape)
        Stationary, in voxels.

    Returns
    -------
    displacement, inverse : Tensor, shape (B, D, *shape)
        In voxels.
    """
    return tuple(exp(sign * velocity, steps=SQUARINGS) for sign in (1, -1))
