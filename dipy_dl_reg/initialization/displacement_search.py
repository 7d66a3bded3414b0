"""Search for large displacements: where descent would settle for what is near.

Every cell of a coarse grid tries all displacements of a wide window at once, and its
cost is how unlike the self-similarity descriptors (`mind`) of the two images are
there.  A smooth field out of all those costs comes from coupled convex optimisation
(Heinrich et al., 2014): in turn, each cell takes the displacement of least

    ``cost(x, d) + theta |d - s(x)|**2``

and ``s`` becomes the smoothed field of those choices, while ``theta`` rises.  It is
done both ways, static to moving and back, and the two are brought together until they
undo each other, as in ConvexAdam (Siebert et al., 2024).  Finer rounds look
at what the ones before left.

The reach is a quarter of the image's longest side (24 voxels of 96), whatever its
resolution; time and memory depend on the field of view's shape alone.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.fields import compose, frame, warp
from dipy_dl_reg.geometry.inversion import make_diffeomorphic
from dipy_dl_reg.geometry.pyramid import coarsen
from dipy_dl_reg.geometry.resampling import sample_on_grid
from dipy_dl_reg.geometry.smoothing import box_sum, smooth
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.metrics.mind import mind_ssc

#: The search works on voxels of this part of the longest side, or the image's own.
_LONGEST = 96
#: A round's cells, as a part of the longest side; the half-width of its window, cells.
_ROUNDS = ((1 / 16, 4), (1 / 24, 2), (1 / 32, 2), (1 / 48, 2))
#: Cells beyond each side of the static image that the search looks into.
_MARGIN = 1
#: The weights theta, per cell squared and in units of the costs' own spread.
_THETAS = (0.03, 0.1, 0.3, 1.0)
#: Descriptor: patch radius and distance of neighbours, in the shortest edges of the
#: working grid's voxels.
_RADIUS, _DILATION, _FLOOR = 1, 2, 1e-3
#: Rounds of bringing both directions together.
_CONSISTENT = 10
#: Smoothing of the images on the way to coarser voxels, see `coarsen`.
_SIGMA_FACTOR = 0.5
#: Smoothing of the field between choices, in cells; the least say that a cell has.
_SMOOTH, _LEAST_TRUST = 1.0, 1e-3


class _Work(NamedTuple):
    """Both images on the working grid, which is larger than static on all sides."""

    static: torch.Tensor
    moving: torch.Tensor
    static_weight: torch.Tensor
    moving_weight: torch.Tensor
    grid: Grid


def search_displacements(pair):
    """A field for large displacements, by search.

    Parameters
    ----------
    pair : Pair
        The images.

    Returns
    -------
    displacement, inverse : Tensor, shape (1, D, *static_shape)
        In voxels of the static grid: smooth, and nearly inverse to each other.

    Notes
    -----
    Displacements are told apart to about 1 / 48 of the image's longest side; the rest
    is for refinement to find.
    """
    work = _prepare(pair)
    steps = _steps(work.grid)
    static = _described(work.static, work.static_weight, steps)
    u = v = None
    for part, half_width in _ROUNDS:
        moving = work.moving, work.moving_weight
        if u is not None:
            moving = [warp(image, u) for image in moving]
        cell = _cell(pair.static_grid, work.grid, part)
        first, second = _search(static, _described(*moving, steps), cell, half_width)
        first, second = (_spread(f, cell, work.grid.shape) for f in (first, second))
        u = first if u is None else compose(first, u)
        v = second if v is None else compose(v, second)
    return tuple(_brought_back(f, work.grid, pair.static_grid) for f in (u, v))


def longest_extent(grid):
    """Distance between the first and the last voxel of a grid's longest axis.

    Parameters
    ----------
    grid : Grid
        Shape and affine.

    Returns
    -------
    extent : float
        Between the voxels' centres, mm.
    """
    return float(max((n - 1) * s for n, s in zip(grid.shape, grid.spacing)))


def _cell(grid, work, part):
    """A cell's edges, in voxels of the working grid."""
    edges = np.rint(part * longest_extent(grid) / work.spacing).astype(int)
    return tuple(int(n) for n in np.clip(edges, 1, work.shape))


def _prepare(pair):
    """Both images on one coarse grid, and where there is something to compare."""
    spacing = longest_extent(pair.static_grid) / _LONGEST
    coarse = coarsen(pair, spacing, sigma_factor=_SIGMA_FACTOR)
    grid = coarse.static_grid
    cell = np.array(_cell(pair.static_grid, grid, _ROUNDS[0][0]))
    margin = np.where(np.array(grid.shape) > 1, _MARGIN * cell, 0)
    shift = np.eye(grid.dim + 1)
    shift[:-1, -1] = -margin
    grid = Grid(tuple(int(n) for n in grid.shape + 2 * margin), grid.affine @ shift)
    static = coarse.static, coarse.static_mask, grid.to(coarse.static_grid)
    moving = (
        coarse.moving,
        coarse.moving_mask,
        grid.to(coarse.moving_grid, pair.prealign),
    )
    static, moving = (_seen(*image, grid.shape) for image in (static, moving))
    return _Work(static[0], moving[0], static[1], moving[1], grid)


def _seen(image, mask, matrix, shape):
    """An image on a grid whose voxels `matrix` takes to the image's, and its weight."""
    still = image.new_zeros(1, len(shape), *shape)
    into = frame(shape, image.shape[2:], affine=matrix, device=image.device)
    inside = torch.ones_like(image) if mask is None else mask
    # One voxel of nothing around it tells inside from outside.
    weight = torch.nn.functional.pad(inside, [1] * (2 * len(shape)))
    beyond = np.eye(len(shape) + 1)
    beyond[:-1, -1] = 1
    around = frame(shape, weight.shape[2:], affine=beyond @ matrix, device=image.device)
    return warp(image, still, frame_=into), warp(weight, still, frame_=around)


def _steps(grid):
    """How far neighbours are along each axis, in voxels: about the same mm."""
    edges = grid.spacing
    finest = edges[np.array(grid.shape) > 1].min(initial=np.inf)
    steps = np.rint(_DILATION * finest / edges)
    return [int(n) for n in np.clip(np.nan_to_num(steps, posinf=1), 1, _DILATION)]


def _described(image, weight, steps):
    """An image's descriptor and mask."""
    mask = (weight > 0.5).to(image.dtype)
    options = {"radius": _RADIUS, "dilation": steps, "floor": _FLOOR}
    if bool(mask.all()):
        return mind_ssc(image, **options), mask
    return mind_ssc(image, mask, **options).mul_(mask), mask


def _search(static, moving, cell, half_width):
    """One round: field and inverse, in cells."""
    static, moving = (_pooled(*image, cell) for image in (static, moving))
    there = _coupled(*_costs(static, moving, half_width))
    back = _coupled(*_costs(moving, static, half_width))
    u, v, _ = make_diffeomorphic(*_consistent(there, back))
    return u, v


def _pooled(descriptor, mask, cell):
    """Mean descriptor of every cell, and the part of the cell that it rests on."""
    weight = _means(mask, cell)
    return _means(descriptor, cell) / weight.clamp_min(1e-3), weight


def _means(image, cell):
    """Means over cells; those at the far ends may reach beyond."""
    pool = {2: torch.nn.functional.avg_pool2d, 3: torch.nn.functional.avg_pool3d}
    ends = [-n % c for n, c in zip(image.shape[2:], cell)]
    pads = [p for end in reversed(ends) for p in (0, end)]
    return pool[len(cell)](torch.nn.functional.pad(image, pads), cell)


def _costs(static, moving, half_width):
    """Costs (1, K, *cells) of K displacements (K, D), in cells.

    Where moving shows nothing, a displacement is as good as those seen are on average.
    """
    (fixed, weight), (other, other_weight) = static, moving
    shape = fixed.shape[2:]
    reach = [min(half_width, n - 1) for n in shape]
    pads = [r for r in reversed(reach) for _ in range(2)]
    other = torch.nn.functional.pad(other, pads)
    seen = torch.nn.functional.pad(other_weight, pads) > 0.5
    moves = list(product(*(range(-r, r + 1) for r in reach)))
    costs = fixed.new_empty(1, len(moves), *shape)
    known = torch.empty_like(costs, dtype=torch.bool)
    for k, move in enumerate(moves):
        place = (..., *(slice(r + d, r + d + n) for r, d, n in zip(reach, move, shape)))
        difference = (other[place] - fixed).square_()
        torch.sum(difference, 1, out=costs[:, k])
        known[:, k] = seen[:, 0][place]
    count = known.sum(1, keepdim=True).clamp_min(1)
    usual = costs.mul_(known).sum(1, keepdim=True) / count
    costs = torch.where(known, costs, usual).mul_(weight)
    costs = box_sum(costs, 1)
    return costs, torch.tensor(moves, dtype=fixed.dtype, device=fixed.device)


def _coupled(costs, moves):
    """The smooth field (1, D, *cells) of small costs, in cells."""
    shape, flat = costs.shape[2:], costs.flatten(2)[0]
    spread = flat.std(0)
    usual = spread.mean().clamp_min(torch.finfo(flat.dtype).tiny)
    flat = flat / usual
    # Cells that cost the same wherever they go, such as air, follow the others.
    trust = (spread / usual).clamp_min_(_LEAST_TRUST).view(1, 1, *shape)
    share = smooth(trust, _SMOOTH)
    lengths = moves.square().sum(1, keepdim=True)
    s = flat.new_zeros(len(moves.T), flat.shape[1])
    for theta in _THETAS:
        total = torch.addmm(flat + theta * lengths, moves, s, alpha=-2 * theta)
        choice = _lowest(total, moves).reshape(1, -1, *shape)
        smoothed = smooth(choice.mul_(trust), _SMOOTH).div_(share)
        s = smoothed.flatten(2)[0]
    return smoothed


def _lowest(total, moves):
    """Displacements (D, N) of least total cost (K, N), told to parts of a cell.

    Along each axis a parabola through the least and its two neighbours says where
    between them the least would be.
    """
    best = total.argmin(0)
    least = total.gather(0, best[None])[0]
    place = moves[best].T
    reach, stride = moves[-1], 1
    result = place.clone()
    for axis in reversed(range(len(place))):
        inner = place[axis].abs() < reach[axis]
        low, high = (
            total.gather(0, (best + sign * stride * inner)[None])[0] - least
            for sign in (-1, 1)
        )
        # Both are 0 or more, and both are 0 at the rim, which then stays.
        part = (low - high) / (2 * (low + high)).clamp_min(1e-12)
        result[axis] += part
        stride *= int(2 * reach[axis]) + 1
    return result


def _consistent(u, v):
    """Two fields made to undo each other: each gives up half of what is left."""
    for _ in range(_CONSISTENT):
        u, v = (u - warp(v, u)) / 2, (v - warp(u, v)) / 2
    return u, v


def _spread(u, cell, shape):
    """A field of cells on voxels, in voxels."""
    scale = np.diag([*(1 / c for c in cell), 1.0])
    # The middle of the first cell lies half a cell from the first voxel's edge.
    scale[:-1, -1] = [(1 / c - 1) / 2 for c in cell]
    fine = sample_on_grid(u, shape, scale)
    fine = smooth(fine, [c / 3 for c in cell])
    return fine * u.new_tensor(cell).view(1, -1, *(1,) * len(shape))


def _brought_back(u, grid, target):
    """A field in voxels of the working grid, on the static grid, in its voxels."""
    moved = sample_on_grid(u, target.shape, target.to(grid))
    scale = np.diag(grid.to(target))[:-1]  # the two have the same axes
    scale = np.where(np.array(target.shape) > 1, scale, 0.0)
    return moved * u.new_tensor(scale).view(1, -1, *(1,) * grid.dim)
