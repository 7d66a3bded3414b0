"""Search for large displacements, for which gradient descent would fail.

On a coarse grid of cells, the cost of every displacement within a wide window is
computed at once: the difference of the self-similarity descriptors (`mind`) of the two
images.  A smooth field is found from all these costs by coupled convex optimization
(Heinrich et al., 2014): alternately, each cell takes the displacement ``d`` that
minimizes

    ``cost(x, d) + theta |d - s(x)|**2``

and ``s`` is set to the smoothed field of these displacements, while ``theta`` is
increased.  This is done in both directions, from static to moving and from moving to
static, and both fields are then made inverse consistent, as in ConvexAdam (Siebert et
al., 2024).  Finer rounds search for the displacement that remains after the previous
rounds.

The window covers displacements of up to a quarter of the image's longest side (24
voxels of 96) at any resolution; time and memory depend only on the proportions of the
field of view.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.fields import compose, warp
from dipy_dl_reg.geometry.fold_repair import make_diffeomorphic
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.pyramid import coarsen
from dipy_dl_reg.geometry.resampling import sample_on_grid
from dipy_dl_reg.geometry.smoothing import box_sum, smooth
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.metrics.self_similarity import mind_ssc

#: Voxels of the working grid along the longest side, or fewer if the image has fewer.
_LONGEST = 96
#: For each round, the size of a cell as a part of the longest side, and the half-width
#: of the window in cells.
_ROUNDS = ((1 / 16, 4), (1 / 24, 2), (1 / 32, 2), (1 / 48, 2))
#: Margin of the working grid beyond each side of static, in cells of the first round.
_MARGIN = 1
#: The weights theta, per squared cell and relative to the standard deviation of costs.
_THETAS = (0.03, 0.1, 0.3, 1.0)
#: Descriptor: radius of patches and distance of neighbours, in the smallest voxel size
#: of the working grid, and the least variance.
_RADIUS, _DILATION, _FLOOR = 1, 2, 1e-3
#: Iterations that make both directions inverse consistent.
_CONSISTENCY_ITERS = 10
#: Smoothing of the images before they are sampled on larger voxels, see `coarsen`.
_SIGMA_FACTOR = 0.5
#: Smoothing of the field between choices, in cells, and the least weight of a cell.
_SMOOTHING, _LEAST_WEIGHT = 1.0, 1e-3
#: Smallest coverage by the mask for which the mean of a cell is divided by it.
_LEAST_COVERAGE = 1e-3

_POOLING = {2: torch.nn.functional.avg_pool2d, 3: torch.nn.functional.avg_pool3d}


class _Image(NamedTuple):
    """An image, and each voxel's coverage by mask and field of view, 0 to 1."""

    values: torch.Tensor
    coverage: torch.Tensor


class _Features(NamedTuple):
    """Descriptors (1, C, *shape), and the mask or coverage (1, 1, *shape) of each."""

    descriptors: torch.Tensor
    coverage: torch.Tensor


class _Costs(NamedTuple):
    """Costs (1, K, *cells) of K displacements, and these (K, D), in cells."""

    values: torch.Tensor
    displacements: torch.Tensor


def search_displacements(pair: Pair) -> tuple[torch.Tensor, torch.Tensor]:
    """Search for a smooth field of large displacements.

    Parameters
    ----------
    pair : Pair
        The images.

    Returns
    -------
    displacement, inverse : Tensor, shape (1, D, *static_shape)
        In voxels of the static grid; approximately inverse to each other.

    Notes
    -----
    The resolution of displacements is about 1/48 of the image's longest side; details
    are left to refinement.
    """
    grid, static_image, moving_image = _sample_on_working_grid(pair)
    dilation, target = _choose_dilation(grid), pair.static_grid
    static = _describe(static_image, dilation)
    rounds = [(_cell_shape(target, grid, part), width) for part, width in _ROUNDS]
    u, v = _search_round(static, moving_image, dilation, *rounds[0])
    for cell, half_width in rounds[1:]:
        warped = _Image(*(warp(image, u) for image in moving_image))
        first, second = _search_round(static, warped, dilation, cell, half_width)
        u, v = compose(first, u), compose(v, second)
    return _resample_to_static(u, grid, target), _resample_to_static(v, grid, target)


def longest_extent(grid: Grid) -> float:
    """Distance between the first and the last voxel of a grid's longest axis.

    Parameters
    ----------
    grid : Grid
        Shape and affine.

    Returns
    -------
    extent : float
        Between the centres of the voxels, mm.
    """
    return float(max((n - 1) * s for n, s in zip(grid.shape, grid.spacing)))


def _cell_shape(static_grid: Grid, grid: Grid, part: float) -> tuple[int, ...]:
    """Edges of a cell, in voxels of the working grid."""
    edges = np.rint(part * longest_extent(static_grid) / grid.spacing).astype(int)
    return tuple(int(n) for n in np.clip(edges, 1, grid.shape))


def _sample_on_working_grid(pair: Pair) -> tuple[Grid, _Image, _Image]:
    """The working grid, larger than static on all sides, and both images on it."""
    spacing = longest_extent(pair.static_grid) / _LONGEST
    coarse = coarsen(pair, spacing, sigma_factor=_SIGMA_FACTOR)
    own = coarse.static_grid
    cell = np.array(_cell_shape(pair.static_grid, own, _ROUNDS[0][0]))
    margin = np.where(np.array(own.shape) > 1, _MARGIN * cell, 0)
    shift = np.eye(own.dim + 1)
    shift[:-1, -1] = -margin
    grid = Grid(tuple(int(n) for n in own.shape + 2 * margin), own.affine @ shift)
    to_static, to_moving = grid.to(own), grid.to(coarse.moving_grid, pair.prealign)
    static = _sample(coarse.static, coarse.static_mask, to_static, grid.shape)
    moving = _sample(coarse.moving, coarse.moving_mask, to_moving, grid.shape)
    return grid, static, moving


def _sample(
    image: torch.Tensor,
    mask: torch.Tensor | None,
    matrix: np.ndarray,
    shape: tuple[int, ...],
) -> _Image:
    """An image on a grid whose voxels `matrix` maps to the image's."""
    inside = torch.ones_like(image) if mask is None else mask
    # One voxel of zeros around the mask makes the coverage 0 outside the image.
    inside = torch.nn.functional.pad(inside, [1] * (2 * len(shape)))
    shift = np.eye(len(shape) + 1)
    shift[:-1, -1] = 1
    coverage = sample_on_grid(inside, shape, shift @ matrix)
    return _Image(sample_on_grid(image, shape, matrix), coverage)


def _choose_dilation(grid: Grid) -> list[int]:
    """Distance of neighbours along each axis, in voxels: about the same in mm."""
    spacing = grid.spacing
    finest = spacing[np.array(grid.shape) > 1].min(initial=np.inf)
    steps = np.rint(_DILATION * finest / spacing)
    return [int(n) for n in np.clip(np.nan_to_num(steps, posinf=1), 1, _DILATION)]


def _describe(image: _Image, dilation: Sequence[int]) -> _Features:
    """Self-similarity descriptors of an image, 0 outside its mask, and the mask."""
    values = image.values
    mask = (image.coverage > 0.5).to(values.dtype)
    whole = bool(mask.all())
    found = mind_ssc(
        values,
        None if whole else mask,
        radius=_RADIUS,
        dilation=dilation,
        floor=_FLOOR,
    )
    return _Features(found if whole else found.mul_(mask), mask)


def _search_round(
    static: _Features,
    moving_image: _Image,
    dilation: Sequence[int],
    cell: tuple[int, ...],
    half_width: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Field and inverse of one round, in voxels of the working grid."""
    shape = static.coverage.shape[2:]
    # The descriptors of all voxels are large; those of moving are freed here.
    moving = _average_over_cells(_describe(moving_image, dilation), cell)
    static = _average_over_cells(static, cell)
    forward = _minimise_coupled(_compute_costs(static, moving, half_width))
    backward = _minimise_coupled(_compute_costs(moving, static, half_width))
    u, v, _ = make_diffeomorphic(*_make_consistent(forward, backward))
    return _to_voxels(u, cell, shape), _to_voxels(v, cell, shape)


def _average_over_cells(features: _Features, cell: tuple[int, ...]) -> _Features:
    """Mean descriptor of the masked voxels of each cell, and their part of the cell."""
    coverage = _cell_means(features.coverage, cell)
    means = _cell_means(features.descriptors, cell)
    return _Features(means / coverage.clamp_min(_LEAST_COVERAGE), coverage)


def _cell_means(image: torch.Tensor, cell: tuple[int, ...]) -> torch.Tensor:
    """Means over cells; the last ones may reach beyond the grid, where it is 0."""
    ends = [-n % c for n, c in zip(image.shape[2:], cell)]
    pads = [p for end in reversed(ends) for p in (0, end)]
    return _POOLING[len(cell)](torch.nn.functional.pad(image, pads), cell)


def _compute_costs(static: _Features, moving: _Features, half_width: int) -> _Costs:
    """Costs of all displacements of a window, summed over neighbouring cells.

    The cost of a displacement to a cell that moving does not cover is set to the mean
    cost of the displacements to covered cells.
    """
    fixed, shape = static.descriptors, static.descriptors.shape[2:]
    reach = [min(half_width, n - 1) for n in shape]
    pads = [r for r in reversed(reach) for _ in range(2)]
    other = torch.nn.functional.pad(moving.descriptors, pads)
    covered = torch.nn.functional.pad(moving.coverage, pads) > 0.5
    moves = list(product(*(range(-r, r + 1) for r in reach)))
    costs = fixed.new_empty(1, len(moves), *shape)
    known = torch.empty_like(costs, dtype=torch.bool)
    for k, move in enumerate(moves):
        window = [slice(r + d, r + d + n) for r, d, n in zip(reach, move, shape)]
        place = (slice(None), slice(None), *window)
        difference = (other[place] - fixed).square_()
        torch.sum(difference, 1, out=costs[:, k])
        known[:, k] = covered[place][:, 0]
    count = known.sum(1, keepdim=True).clamp_min(1)
    mean = costs.mul_(known).sum(1, keepdim=True) / count
    costs = torch.where(known, costs, mean).mul_(static.coverage)
    costs = box_sum(costs, 1)
    return _Costs(costs, torch.tensor(moves, dtype=fixed.dtype, device=fixed.device))


def _minimise_coupled(costs: _Costs) -> torch.Tensor:
    """The smooth field (1, D, *cells) of low costs, in cells."""
    shape, flat = costs.values.shape[2:], costs.values.flatten(2)[0]
    deviation = flat.std(0)
    mean = deviation.mean().clamp_min(torch.finfo(flat.dtype).tiny)
    flat = flat / mean
    # Cells where all displacements cost about the same, such as air, have a low weight.
    weight = (deviation / mean).clamp_min_(_LEAST_WEIGHT).view(1, 1, *shape)
    total_weight = smooth(weight, _SMOOTHING)
    moves = costs.displacements
    squared_lengths = moves.square().sum(1, keepdim=True)
    field = flat.new_zeros(1, moves.shape[1], *shape)
    for theta in _THETAS:
        costs_near_field = torch.addmm(
            flat + theta * squared_lengths,
            moves,
            field.flatten(2)[0],
            alpha=-2 * theta,
        )
        choice = _find_minima(costs_near_field, moves).reshape(1, -1, *shape)
        field = smooth(choice.mul_(weight), _SMOOTHING).div_(total_weight)
    return field


def _find_minima(costs: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """Displacements (D, N) of the lowest costs (K, N), to a fraction of a cell.

    The minimum along each axis is that of the parabola through the lowest cost and its
    two neighbours.
    """
    best = costs.argmin(0)
    lowest = costs.gather(0, best[None])[0]
    place = moves[best].T
    reach, stride = moves[-1], 1
    result = place.clone()
    for axis in reversed(range(len(place))):
        inner = place[axis].abs() < reach[axis]
        before, after = (
            costs.gather(0, (best + sign * stride * inner)[None])[0] - lowest
            for sign in (-1, 1)
        )
        # Both are 0 or more; at the edge of the window they are 0: no correction.
        result[axis] += (before - after) / (2 * (before + after)).clamp_min(1e-12)
        stride *= int(2 * reach[axis]) + 1
    return result


def _make_consistent(
    u: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring two fields closer to each other's inverse, by half of the difference."""
    for _ in range(_CONSISTENCY_ITERS):
        u, v = (u - warp(v, u)) / 2, (v - warp(u, v)) / 2
    return u, v


def _to_voxels(
    u: torch.Tensor, cell: tuple[int, ...], shape: tuple[int, ...]
) -> torch.Tensor:
    """A field of cells, in cells, as a field of voxels, in voxels."""
    matrix = np.diag([*(1 / c for c in cell), 1.0])
    # The centre of the first cell is half a cell from the edge of the first voxel.
    matrix[:-1, -1] = [(1 / c - 1) / 2 for c in cell]
    fine = smooth(sample_on_grid(u, shape, matrix), [c / 3 for c in cell])
    return fine * u.new_tensor(cell).view(1, -1, *(1,) * len(shape))


def _resample_to_static(u: torch.Tensor, grid: Grid, target: Grid) -> torch.Tensor:
    """A field of the working grid on the static grid, each in its own voxels.

    Both grids have the same axes, so that the components need a factor only.
    """
    sampled = sample_on_grid(u, target.shape, target.to(grid))
    scale = np.diag(grid.to(target))[:-1]
    scale = np.where(np.array(target.shape) > 1, scale, 0.0)
    return sampled * u.new_tensor(scale).view(1, -1, *(1,) * grid.dim)
