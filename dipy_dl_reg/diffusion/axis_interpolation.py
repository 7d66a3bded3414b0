"""Interpolation of axes: vectors whose sign has no meaning, several in each voxel.

Axes cannot be averaged as vectors, since opposite signs would cancel, nor one list
with the next, since the first axis of a voxel may be the second of its neighbour.  The
axes of the nearest voxel are therefore matched with those of each neighbour, and the
dyads of those that match are averaged.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np

#: Voxels of the result that are computed at once.
_CHUNK = 100_000
#: Weight of an axis whose first scalar is not positive.
_LEAST_SCALAR = 1e-30


class Neighbours(NamedTuple):
    """Voxels of an image around points, and their weights.

    Attributes
    ----------
    indices : ndarray of int, shape (N, 8)
        Flat indices of the voxels at the corners of the cell that holds each point.
    weights : ndarray of float64, shape (N, 8)
        Weights of linear interpolation; 0 for voxels that are not used.
    """

    indices: np.ndarray
    weights: np.ndarray


def find_neighbours(points: np.ndarray, known: np.ndarray) -> Neighbours:
    """Find the known voxels around points.

    Parameters
    ----------
    points : ndarray, shape (N, 3)
        Voxel coordinates.
    known : ndarray of bool, shape (X, Y, Z)
        Voxels that may be used.

    Returns
    -------
    neighbours : Neighbours
        The voxels and their weights, whose sum is below 1 where some are not known.
    """
    base = np.floor(points).astype(np.int64)
    part = points - base
    indices = np.empty((len(points), 8), dtype=np.int64)
    weights = np.empty((len(points), 8))
    last = np.array(known.shape) - 1
    for k, corner in enumerate(product((0, 1), repeat=3)):
        voxels = base + corner
        inside = ((voxels >= 0) & (voxels <= last)).all(1)
        voxels = np.clip(voxels, 0, last)
        indices[:, k] = np.ravel_multi_index(tuple(voxels.T), known.shape)
        weight = np.where(corner, part, 1 - part).prod(1)
        weights[:, k] = weight * (inside & known.ravel()[indices[:, k]])
    return Neighbours(indices, weights)


def average_axes(
    axes: np.ndarray, scalars: np.ndarray, neighbours: Neighbours
) -> tuple[np.ndarray, np.ndarray]:
    r"""Average axes and their scalars over neighbours.

    For each axis of the neighbour of the largest weight, the direction is the first
    eigenvector of

    .. math:: \sum_n w_n\, s_n\, a_n a_n^\top

    over the axes :math:`a_n` that match it, one in each neighbour at most, with the
    weights :math:`w_n` of linear interpolation and :math:`s_n` the first scalar. Axes
    whose first scalar is 0 or negative count only where all that match are such axes.

    Parameters
    ----------
    axes : ndarray, shape (V, K, 3)
        Unit vectors of all V voxels; zero vectors where there is no axis.
    scalars : ndarray, shape (V, K, S)
        Finite values that belong to each axis; the first is such as its length.
    neighbours : Neighbours
        Voxels around N points.

    Returns
    -------
    directions : ndarray of float64, shape (N, K, 3)
        Unit vectors, or zero where there is no axis.
    means : ndarray of float64, shape (N, K, S)
        Means of the scalars, to which neighbours without a matching axis contribute 0.
    """
    count = len(neighbours.indices)
    directions = np.zeros((count, *axes.shape[1:]))
    means = np.zeros((count, *scalars.shape[1:]))
    for start in range(0, count, _CHUNK):
        part = np.s_[start : start + _CHUNK]
        chosen = Neighbours(*(array[part] for array in neighbours))
        directions[part], means[part] = _average_chunk(axes, scalars, chosen)
    return directions, means


def take_axes(
    axes: np.ndarray, scalars: np.ndarray, neighbours: Neighbours
) -> tuple[np.ndarray, np.ndarray]:
    """Take axes and their scalars of the neighbour of the largest weight.

    Parameters
    ----------
    axes : ndarray, shape (V, K, 3)
        Unit vectors of all voxels.
    scalars : ndarray, shape (V, K, S)
        Values that belong to each axis.
    neighbours : Neighbours
        Voxels around N points.

    Returns
    -------
    directions : ndarray, shape (N, K, 3)
        The axes.
    values : ndarray, shape (N, K, S)
        The scalars.
    """
    rows = np.arange(len(neighbours.indices))
    nearest = neighbours.indices[rows, neighbours.weights.argmax(1)]
    return axes[nearest], scalars[nearest]


def _average_chunk(
    axes: np.ndarray, scalars: np.ndarray, neighbours: Neighbours
) -> tuple[np.ndarray, np.ndarray]:
    """`average_axes` of some points."""
    seeds, _ = take_axes(axes, scalars, neighbours)
    dyads = np.zeros((*seeds.shape, 3))
    means = np.zeros((*seeds.shape[:-1], scalars.shape[-1]))
    weights = neighbours.weights / neighbours.weights.sum(1, keepdims=True)
    for k in range(neighbours.indices.shape[1]):
        there = axes[neighbours.indices[:, k]]
        match = _match(seeds, there)
        found = (match >= 0)[..., None]
        rows = np.arange(len(seeds))[:, None]
        matched = there[rows, match] * found
        weight = weights[:, k, None, None]
        values = scalars[neighbours.indices[:, k]][rows, match] * found
        means += weight * values
        lengths = weight * np.maximum(values[..., :1], _LEAST_SCALAR)
        dyads += lengths[..., None] * matched[..., :, None] * matched[..., None, :]
    directions = np.linalg.eigh(dyads)[1][..., -1]
    directions *= (seeds != 0).any(-1, keepdims=True)
    # The sign has no meaning; that of the nearest voxel is kept.
    signs = np.where((directions * seeds).sum(-1, keepdims=True) < 0, -1, 1)
    return directions * signs, means


def _match(seeds: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Index of the axis of each second list that matches each of the first; -1 if none.

    Two axes match if each is the nearest to the other.
    """
    cosines = np.abs(seeds @ others.swapaxes(-1, -2))
    cosines[~(seeds != 0).any(-1)] = -1
    cosines.swapaxes(-1, -2)[~(others != 0).any(-1)] = -1
    best, back = cosines.argmax(-1), cosines.argmax(-2)
    mutual = np.take_along_axis(back, best, -1) == np.arange(seeds.shape[-2])
    present = np.take_along_axis(cosines, best[..., None], -1)[..., 0] >= 0
    return np.where(mutual & present, best, -1)
