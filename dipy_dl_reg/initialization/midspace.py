"""Applies a symmetric network repeatedly in mid-space, half-way between two images.

The result of a network that is symmetric by construction still depends on the image
whose grid is used.  Therefore both images are mapped by half of the prealign to a
mid-space, and the network is applied on a grid of this space; the result is then the
same (inverted) if static and moving are swapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.linalg import polar, sqrtm
import torch

from dipy_dl_reg.geometry.fields import compose, exp, resize, warp
from dipy_dl_reg.geometry.resampling import resize_image
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.networks.base import SQUARINGS, RegistrationNetwork

#: Largest rotation of a prealign, degrees, for which mid-space is used.  With a larger
#: rotation the images would be oblique in mid-space, unlike the training images.
_LARGEST_ROTATION = 60
#: Voxels of the mid-space grid beyond the region that both images cover.
_MARGIN = 8
#: Intensities up to this part of an image's range are background, and the number of
#: background voxels that are kept around the foreground.
_BACKGROUND, _BORDER = 0.02, 4
#: Smoothing of the images before they are sampled on larger voxels, see `coarsen`.
_SIGMA_FACTOR = 0.5


def halve_prealign(prealign: np.ndarray) -> np.ndarray | None:
    """Compute the affine that maps half of the way from one world to another.

    Parameters
    ----------
    prealign : ndarray, shape (D + 1, D + 1)
        From one world to the other.

    Returns
    -------
    half : ndarray, shape (D + 1, D + 1), or None
        ``half @ half == prealign``; None if the prealign reflects, or rotates by more
        than 60 degrees.
    """
    dim = len(prealign) - 1
    rotation, _ = polar(prealign[:dim, :dim])
    cosine = (np.trace(rotation) - dim + 2) / 2
    too_far = cosine < np.cos(np.deg2rad(_LARGEST_ROTATION))
    if np.linalg.det(rotation) < 0 or too_far:
        return None
    return np.real(sqrtm(prealign))


def make_midspace_grid(
    static: Grid, moving: Grid, prealign: np.ndarray, spacing: float | None = None
) -> Grid | None:
    """Make a grid half-way between two images, the same if the images are swapped.

    Its axes are the mean of the axes of both standard grids (`Grid.to_standard`).  It
    covers the region that both images cover, and a margin where one of them does.

    Parameters
    ----------
    static, moving : Grid
        Grids of the two images.
    prealign : ndarray, shape (D + 1, D + 1)
        Static world to moving world.
    spacing : float, optional
        Voxel size in mid-space, mm; by default the smallest of both standard grids.

    Returns
    -------
    grid : Grid or None
        The grid in static's world, where its axes may be slightly oblique; None if the
        images do not overlap, or `halve_prealign` returns None.
    """
    half, dim = halve_prealign(prealign), static.dim
    if half is None:
        return None
    # From the world of each image to mid-space.
    affines = half, half @ np.linalg.inv(prealign)
    axes = [
        (affine @ grid.to_standard(spacing).affine)[:dim, :dim]
        for affine, grid in zip(affines, (static, moving))
    ]
    rotation = polar(sum(polar(a)[0] for a in axes))[0]
    if spacing is None:
        spacing = min(np.linalg.norm(a, axis=0).min() for a in axes)
    extents = [
        _measure_extent(affine @ grid.affine, grid.shape, rotation)
        for affine, grid in zip(affines, (static, moving))
    ]
    bounds = _intersect_with_margin(np.array(extents), _MARGIN * spacing)
    if bounds is None:
        return None
    grid = _fill_with_voxels(*bounds, rotation, spacing)
    return Grid(grid.shape, np.linalg.inv(half) @ grid.affine)


def _measure_extent(
    affine: np.ndarray, shape: Sequence[int], rotation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest coordinates of a grid's voxel centres along rotated axes."""
    corners = np.array(list(product(*((0, n - 1) for n in shape))))
    dim = len(shape)
    along = (corners @ affine[:dim, :dim].T + affine[:dim, dim]) @ rotation
    return along.min(0), along.max(0)


def _intersect_with_margin(
    extents: np.ndarray, margin: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Bounds common to extents (2, 2, D), with a margin within their union; or None."""
    lows, highs = extents.swapaxes(0, 1)
    low, high = lows.max(0), highs.min(0)
    if (low > high).any():
        return None
    low = np.maximum(low - margin, lows.min(0))
    return low, np.minimum(high + margin, highs.max(0))


def _fill_with_voxels(
    low: np.ndarray, high: np.ndarray, rotation: np.ndarray, spacing: float
) -> Grid:
    """The grid of a voxel size between bounds along rotated axes."""
    dim = len(rotation)
    shape = np.rint((high - low) / spacing).astype(int) + 1
    affine = np.eye(dim + 1)
    affine[:dim, :dim] = rotation * spacing
    affine[:dim, dim] = rotation @ ((low + high) / 2 - spacing * (shape - 1) / 2)
    return Grid(tuple(int(n) for n in shape), affine)


def crop_background(
    grid: Grid, images: Sequence[torch.Tensor]
) -> tuple[Grid, list[torch.Tensor]]:
    """Cut off the background around images.

    Parameters
    ----------
    grid : Grid
        Grid of the images.
    images : sequence of Tensor, shape (1, 1, *shape)
        Images on one grid.

    Returns
    -------
    grid : Grid
        The part of the grid with the foreground of any image, and a border.
    images : list of Tensor
        The images on that part.
    """
    foreground = torch.stack([image > _BACKGROUND for image in images]).any(0)[0, 0]
    if not bool(foreground.any()):
        return grid, list(images)
    first, shape = [], []
    for axis, size in enumerate(grid.shape):
        others = [a for a in range(grid.dim) if a != axis]
        profile = foreground.any(dim=others) if others else foreground
        places = profile.nonzero()
        low = max(0, int(places.min()) - _BORDER)
        first.append(low)
        shape.append(min(size, int(places.max()) + 1 + _BORDER) - low)
    shift = np.eye(grid.dim + 1)
    shift[:-1, -1] = first
    inside = [slice(i, i + n) for i, n in zip(first, shape)]
    index = (slice(None), slice(None), *inside)
    parts = [image[index].contiguous() for image in images]
    return Grid(tuple(shape), grid.affine @ shift), parts


class _Halves(NamedTuple):
    """Displacements (1, D, *shape), in voxels, between both images and mid-space."""

    static_to_mid: torch.Tensor
    mid_to_moving: torch.Tensor
    mid_to_static: torch.Tensor
    moving_to_mid: torch.Tensor


def predict_in_midspace(
    network: RegistrationNetwork,
    static: torch.Tensor,
    moving: torch.Tensor,
    factors: Sequence[float],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply a symmetric network several times, each time to the warped images.

    After each pass but the last, half of the predicted flow is composed with the field
    that warps the moving image, and half of its inverse with the field that warps the
    static image; the input of the next pass is both warped images.  The flow of the
    last pass is inserted between the two fields.  Fields have half the resolution of
    the images, because the network's fields have no more detail; this needs an eighth
    of the time and memory.

    Parameters
    ----------
    network : RegistrationNetwork
        A symmetric network.
    static, moving : Tensor, shape (1, 1, *shape)
        Images on one grid.
    factors : sequence of float
        One number for each pass: voxel size of the pass over that of the grid.

    Returns
    -------
    displacement, inverse : Tensor, shape (1, D, *shape)
        In voxels.
    """
    shape = static.shape[2:]
    halves = None
    for factor in factors[:-1]:
        velocity = _predict_velocity(network, static, moving, halves, factor)
        half, inverse = integrate_velocity(velocity / 2)
        halves = _add_half_flow(halves, half, inverse)
    velocity = _predict_velocity(network, static, moving, halves, factors[-1])
    u, v = integrate_velocity(velocity)
    if halves is not None:
        u = compose(compose(halves.static_to_mid, u), halves.mid_to_moving)
        v = compose(compose(halves.moving_to_mid, v), halves.mid_to_static)
    return resize(u, shape), resize(v, shape)


def _predict_velocity(
    network: RegistrationNetwork,
    static: torch.Tensor,
    moving: torch.Tensor,
    halves: _Halves | None,
    factor: float,
) -> torch.Tensor:
    """The velocity between both warped images, at half their resolution, in voxels."""
    dtype = next(network.parameters()).dtype
    to_static = None if halves is None else halves.mid_to_static
    to_moving = None if halves is None else halves.mid_to_moving
    seen = [
        _downsample(_warp_by_coarse_field(image, u), factor).to(dtype)
        for image, u in ((static, to_static), (moving, to_moving))
    ]
    half_shape = [-(-n // 2) for n in static.shape[2:]]
    return resize(network.output_fields(*seen)[0].float(), half_shape)


def _warp_by_coarse_field(image: torch.Tensor, u: torch.Tensor | None) -> torch.Tensor:
    """The image warped by a field of lower resolution, if there is one."""
    return image if u is None else warp(image, resize(u, image.shape[2:]))


def _add_half_flow(
    halves: _Halves | None, half: torch.Tensor, inverse: torch.Tensor
) -> _Halves:
    """Extend the fields between the images and mid-space by half a flow."""
    if halves is None:
        return _Halves(half, half, inverse, inverse)
    return _Halves(
        compose(halves.static_to_mid, half),
        compose(half, halves.mid_to_moving),
        compose(inverse, halves.mid_to_static),
        compose(halves.moving_to_mid, inverse),
    )


def _downsample(image: torch.Tensor, factor: float) -> torch.Tensor:
    """An image with voxels that are larger by a factor, smoothed first."""
    if factor == 1:
        return image
    shape = [
        max(2, round((n - 1) / factor) + 1) if n > 1 else 1 for n in image.shape[2:]
    ]
    return resize_image(smooth(image, _SIGMA_FACTOR * (factor - 1)), shape)


def integrate_velocity(velocity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Integrate a stationary velocity over unit time, forwards and backwards.

    Parameters
    ----------
    velocity : Tensor, shape (B, D, *shape)
        In voxels.

    Returns
    -------
    displacement, inverse : Tensor, shape (B, D, *shape)
        In voxels.
    """
    return exp(velocity, steps=SQUARINGS), exp(-1 * velocity, steps=SQUARINGS)
