"""Two images at one resolution, sampled for affine registration.

Static is sampled once, at fixed points; moving is sampled at these points transformed
by a matrix.  The treatment of points outside the moving image's field of view depends
on the face of the image.  If a face shows only background, background is assumed beyond
it, and these points are compared.  If a face cuts through the object (as in a slab, or
at the neck), points beyond it are not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from dipy_dl_reg.geometry.fields import sample_at
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.optimization.masked_image import (
    BACKGROUND,
    Faces,
    MaskedImage,
    mask_images,
    open_faces,
)

#: Margin of background that is compared around the object, as a part of the field of
#: view.
_MARGIN = 0.08
_EXACT: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}


class Level(NamedTuple):
    """The samples of two images at one resolution.

    Attributes
    ----------
    points : Tensor, shape (N, D)
        Points in static's world, mm, relative to `centre`.
    centre : Tensor, shape (D,)
        Mean of the points in static's world, mm, float64.
    static : Tensor, shape (N,)
        Static's intensities at the points.
    volume : Tensor, shape (1, 1 or 2, *shape)
        Moving's intensities and, unless all weights are 1, the weight of each voxel.
        It has a margin of one voxel on every side of moving.
    world2volume : Tensor, shape (D + 1, D + 1)
        Moving's world to `sample_at` coordinates of `volume`, float64.
    most : float
        Number of points that are compared when the overlap is as large as possible.
    spacing : float
        Voxel size of the level, mm.
    shape : tuple of int or None
        Shape of the points, if they are a whole grid.
    counts : Tensor, shape (N,), or None
        1 where a point of a whole grid is compared, 0 elsewhere.
    moments : Tensor, shape (D + 1, D + 1)
        Mean of ``[x, 1] [x, 1]'`` over the points, float64.
    smaller : float
        Number of points at which both objects would be present if the smaller object
        were completely inside the other.
    """

    points: torch.Tensor
    centre: torch.Tensor
    static: torch.Tensor
    volume: torch.Tensor
    world2volume: torch.Tensor
    most: float
    spacing: float
    shape: tuple[int, ...] | None
    counts: torch.Tensor | None
    moments: torch.Tensor
    smaller: float

    @property
    def device(self) -> torch.device:
        """Device of the images."""
        return self.points.device


class _Sampling(NamedTuple):
    """How the points of a level are chosen, see `make_levels`."""

    most_points: int
    seed: int
    whole_grid: bool


def make_levels(
    pair: Pair,
    factors: Sequence[float],
    sigmas: Sequence[float],
    *,
    most_points: int,
    proportion: float | None = None,
    grids: bool = False,
    seed: int = 0,
) -> list[Level]:
    """Prepare two images for affine registration at a series of resolutions.

    Parameters
    ----------
    pair : Pair
        The two images; only the scale of the prealign is used.
    factors : sequence of float
        Voxel sizes over the smallest one of static, coarsest first.
    sigmas : sequence of float
        Standard deviations of the smoothing, in the smallest voxel size of static.
    most_points : int
        Number of points that are drawn at random if a level has more voxels.
    proportion : float, optional
        Fraction of a level's voxels to draw, instead of `most_points`.
    grids : bool, optional
        Take whole grids of points instead of drawing; coarser grids where
        `most_points` requires it.
    seed : int, optional
        Seed of the drawing.

    Returns
    -------
    levels : list of Level
        In the order of `factors`.
    """
    dim = pair.static_grid.dim
    axes = zip(pair.static_grid.spacing, pair.static_grid.shape)
    unit = min(float(s) for s, n in axes if n > 1)
    scale = abs(np.linalg.det(pair.prealign[:dim, :dim])) ** (1 / dim)
    static, moving = mask_images(pair)
    faces = open_faces(moving)
    levels: dict[int, Level] = {}
    for k in np.argsort(factors, kind="stable"):
        spacing, sigma = unit * factors[k], unit * sigmas[k]
        static = static.coarsen(spacing, sigma)
        moving = moving.coarsen(spacing * scale, sigma * scale)
        most = most_points
        if proportion is not None:
            most = int(np.ceil(proportion * np.prod(static.grid.shape)))
        sampling = _Sampling(most, seed, grids)
        levels[k] = _make_level(static, moving, faces, spacing, scale, sampling)
    return [levels[k] for k in range(len(factors))]


def _make_level(
    static: MaskedImage,
    moving: MaskedImage,
    faces: Faces,
    spacing: float,
    scale: float,
    sampling: _Sampling,
) -> Level:
    """Sample static, and prepare the volume from which moving is sampled."""
    dim = static.grid.dim
    chosen = _choose_points(static, sampling)
    affine = torch.as_tensor(static.grid.affine, **_EXACT)
    world = chosen.voxels @ affine[:dim, :dim].T + affine[:dim, dim]
    centre = world.mean(0)
    values, counts = _sample_static(static, chosen)
    volume, world2volume = _pad_volume(moving, faces)
    points = world - centre
    ones = torch.cat([points, torch.ones(len(points), 1, **_EXACT)], 1)
    # Number of static's cells that would fill moving's whole field of view.
    view = np.prod(np.array(moving.grid.shape) * moving.grid.spacing) / scale**dim
    cells = view / chosen.cell
    return Level(
        points.float().to(values.device),
        centre,
        values,
        volume,
        world2volume,
        _largest_overlap(len(points), cells, moving, faces),
        float(spacing),
        chosen.shape,
        counts,
        ones.T @ ones / len(ones),
        _smaller_object(values, counts, moving, cells),
    )


def _sample_static(
    static: MaskedImage, chosen: _Points
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Sample static; for a whole grid, also return which points are in the mask."""
    ends = torch.tensor([max(n - 1, 1) for n in static.grid.shape], **_EXACT)
    places = (chosen.voxels * (2 / ends) - 1).float().to(static.image.device)
    values = sample_at(static.image, places[None])[0, 0]
    if chosen.shape is None or static.mask is None:
        return values, None
    return values, sample_at(static.mask, places[None], "nearest")[0, 0]


def _largest_overlap(
    count: int, cells: float, moving: MaskedImage, faces: Faces
) -> float:
    """Number of points that are compared when the overlap is as large as possible."""
    most = min(count, cells) if any(map(any, faces)) else count
    if moving.mask is not None:
        most = min(most, cells * float(moving.mask.mean()))
    return float(max(most, 1.0))


def _smaller_object(
    static: torch.Tensor,
    counts: torch.Tensor | None,
    moving: MaskedImage,
    cells: float,
) -> float:
    """Number of points that the smaller of the two objects fills."""
    static_object = static > BACKGROUND
    if counts is not None:
        static_object = static_object & (counts > 0)
    moving_object = moving.image > BACKGROUND
    if moving.mask is not None:
        moving_object = moving_object & (moving.mask > 0)
    return float(
        min(float(static_object.sum()), cells * float(moving_object.float().mean()))
    )


def measure_overlap(level: Level, matrix: np.ndarray) -> float:
    """Compute the fraction of the smaller object that overlaps the other one.

    Parameters
    ----------
    level : Level
        The images; an object is what is not background.
    matrix : ndarray, shape (D + 1, D + 1)
        Static's world to moving's.

    Returns
    -------
    overlap : float
        0 if the objects do not overlap; 1 also if there is hardly any object.
    """
    if level.smaller < 1:
        return 1.0
    dim = level.points.shape[1]
    matrix = np.array(matrix, dtype=np.float64)
    whole = level.world2volume @ torch.from_numpy(matrix)
    world = level.points.cpu().double() + level.centre
    where = world @ whole[:dim, :dim].T + whole[:dim, dim]
    sampled = sample_at(level.volume, where.float().to(level.device)[None])[0]
    both = (level.static > BACKGROUND) & (sampled[0] > BACKGROUND)
    for known in (level.counts, sampled[1] if len(sampled) > 1 else None):
        if known is not None:
            both &= known > 0.5
    return min(float(both.sum()) / level.smaller, 1.0)


class _Points(NamedTuple):
    """Points in static's voxel coordinates."""

    voxels: torch.Tensor  # (N, D)
    cell: float  # volume that each point stands for, mm**D
    shape: tuple[int, ...] | None  # of a whole grid


def _choose_points(static: MaskedImage, sampling: _Sampling) -> _Points:
    """Points of static where the images are compared."""
    low, high = _object_box(static)
    if sampling.whole_grid:
        return _make_grid_points(static.grid, low, high, sampling.most_points)
    return _draw_points(static, low, high, sampling)


def _make_grid_points(
    grid: Grid, low: np.ndarray, high: np.ndarray, most_points: int
) -> _Points:
    """A regular grid of points between two voxels."""
    full = high - low + 1
    growth = max(1.0, (full.prod() / most_points) ** (1 / (full > 1).sum()))
    size = np.where(full > 1, np.maximum(full // growth, 2), 1).astype(int)
    axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, size)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, grid.dim)
    cell = float(np.prod(grid.spacing)) * float(full.prod() / size.prod())
    return _Points(torch.from_numpy(places), cell, tuple(int(n) for n in size))


def _draw_points(
    static: MaskedImage, low: np.ndarray, high: np.ndarray, sampling: _Sampling
) -> _Points:
    """Random points inside voxels of the mask, or of the whole image."""
    shape, size = np.array(static.grid.shape), high - low + 1
    cell = float(np.prod(static.grid.spacing))
    rng = np.random.default_rng(sampling.seed)
    if static.mask is None:
        chosen = np.arange(int(size.prod()))
    else:
        box = tuple(slice(a, b + 1) for a, b in zip(low, high))
        chosen = np.flatnonzero(static.mask[0, 0].cpu().numpy()[box])
    count = sampling.most_points
    if len(chosen) > count:
        # One voxel from each of `count` intervals: evenly distributed, but irregular.
        edges = np.linspace(0, len(chosen), count, endpoint=False)
        width = len(chosen) / count
        cell *= width
        chosen = chosen[(edges + rng.random(count) * width).astype(int)]
    places = np.stack(np.unravel_index(chosen, size), -1) + low
    # Points are not at voxel centres: there, linear interpolation blurs least, so that
    # poses in which the two grids coincide would have a better value.
    places = places + rng.uniform(-0.5, 0.5, places.shape) * (shape > 1)
    return _Points(torch.from_numpy(places.clip(0, shape - 1)), cell, None)


def _object_box(static: MaskedImage) -> tuple[np.ndarray, np.ndarray]:
    """First and last voxels of the mask, or of the object with a margin."""
    shape = np.array(static.grid.shape)
    if static.mask is not None:
        shown = static.mask[0, 0] > 0
        margin = 0 * shape
    else:
        shown = static.image[0, 0] > BACKGROUND
        margin = np.ceil(_MARGIN * shape).astype(int)
    low, high = [], []
    for axis, size in enumerate(shape):
        there = shown
        for other in reversed(range(len(shape))):
            there = there if other == axis else there.any(other)
        found = there.nonzero().flatten()
        low.append(int(found[0]) if len(found) else 0)
        high.append(int(found[-1]) if len(found) else size - 1)
    return (
        np.maximum(np.array(low) - margin, 0),
        np.minimum(np.array(high) + margin, shape - 1),
    )


def _pad_volume(moving: MaskedImage, faces: Faces) -> tuple[torch.Tensor, torch.Tensor]:
    """Moving with a border of one voxel, and the matrix to its coordinates."""
    dim = moving.grid.dim
    padding = (1, 1) * dim
    volume = F.pad(moving.image, padding, mode="replicate")
    if any(map(any, faces)):
        counts = torch.ones_like(moving.image) if moving.mask is None else moving.mask
        counts = F.pad(counts, padding, mode="replicate")
        for axis, pair in enumerate(faces):
            for side, is_open in zip((0, -1), pair):
                if is_open:
                    counts.select(axis + 2, side).zero_()
        volume = torch.cat([volume, counts], 1)
    # The order of axes in memory is reversed, as `sample_at` passes them to torch.
    order = (0, 1, *range(dim + 1, 1, -1))
    volume = volume.permute(order).contiguous().permute(order)
    matrix = torch.from_numpy(np.array(moving.grid.inverse, dtype=np.float64))
    sizes = torch.from_numpy(np.array(moving.grid.shape, dtype=np.float64)) + 2
    scale = 2 / (sizes - 1)
    matrix[:dim] *= scale[:, None]
    matrix[:dim, dim] += scale - 1
    return volume, matrix
