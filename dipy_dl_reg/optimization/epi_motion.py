"""Rigid motion of the head between two echo-planar images of opposite encodings.

The parameters are the rotations and the translations across the encoded axis; a
translation along it cannot be distinguished from a constant shift (see `epi`).  A step
is applied after the motion: a point of the second image's world moves by
``rotation x (point - centre) + translation``.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import expm
import torch

from dipy_dl_reg.geometry.derivatives import derivative
from dipy_dl_reg.geometry.fields import identity, warp
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.optimization.epi_images import EpiPair, View, remove_distortion


def motion_step(
    pair: EpiPair, views: tuple[View, View], shift: torch.Tensor, motion: np.ndarray
) -> np.ndarray:
    """Compute the Gauss-Newton step of the motion.

    Parameters
    ----------
    pair : EpiPair
        The images.
    views : tuple of View
        How they are sampled, with the motion.
    shift : Tensor, shape (1, 1, *shape)
        In voxels along the encoded axis; treated as constant.
    motion : ndarray, shape (D + 1, D + 1)
        World of the first image to world of the second.

    Returns
    -------
    step : ndarray
        Rotations in radians (three, or one in 2D), then D components of a translation
        in mm.
    """
    first, second = views
    displacement = second.displacement(shift)
    stretch = second.along(shift).add_(1)
    residual = remove_distortion(first, shift) - remove_distortion(second, shift)
    dim, grid = pair.grid.dim, pair.grid
    slopes = torch.cat([derivative(pair.second, axis) for axis in range(dim)], 1)
    slopes = warp(slopes, displacement, frame_=second.frame).mul_(stretch)
    by_world = torch.as_tensor(np.linalg.inv(grid.affine[:dim, :dim])).to(slopes)
    slopes = torch.einsum("bi...,ij->bj...", slopes, by_world)
    points = _moved_points(grid, motion, slopes)
    moves = _moves_by_parameter(pair, points)
    columns = torch.stack([(slopes * move).sum(1) for move in moves]).flatten(1)
    normal = (columns @ columns.T).double().cpu().numpy()
    right = (columns @ residual.flatten()).double().cpu().numpy()
    step = np.linalg.lstsq(normal, right, rcond=1e-10)[0]
    turns = len(_rotations(dim))
    return np.concatenate([step[:turns], step[turns:] @ _translations(pair)])


def apply_step(grid: Grid, motion: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Apply a rigid step after a motion.

    Parameters
    ----------
    grid : Grid
        Its middle is the centre of the rotation.
    motion : ndarray, shape (D + 1, D + 1)
        The motion before.
    step : ndarray
        As `motion_step` returns it.

    Returns
    -------
    motion : ndarray, shape (D + 1, D + 1)
        The rigid motion after.
    """
    dim, rotations, centre = grid.dim, _rotations(grid.dim), _centre(grid)
    small = np.eye(dim + 1)
    turns = step[: len(rotations)]
    skew = np.sum([turn * matrix for turn, matrix in zip(turns, rotations)], axis=0)
    small[:dim, :dim] = expm(skew)
    small[:dim, dim] = centre - small[:dim, :dim] @ centre + step[len(rotations) :]
    return small @ motion


def _translations(pair: EpiPair) -> np.ndarray:
    """Unit vectors across the encoded axis in the world, (D - 1, D)."""
    encoded = pair.grid.affine[:-1, pair.axis]
    return np.linalg.svd(encoded[None] / np.linalg.norm(encoded))[2][1:]


def _rotations(dim: int) -> list[np.ndarray]:
    """Skew matrices that generate the rotations."""
    generators = []
    for a, b in [(0, 1)] if dim == 2 else [(1, 2), (2, 0), (0, 1)]:
        matrix = np.zeros((dim, dim))
        matrix[b, a], matrix[a, b] = 1, -1
        generators.append(matrix)
    return generators


def _moves_by_parameter(pair: EpiPair, points: torch.Tensor) -> list[torch.Tensor]:
    """Displacement of points in the second image's world by each parameter."""
    dim = pair.grid.dim
    moves = []
    for matrix in _rotations(dim):
        linear = torch.as_tensor(matrix).to(points)
        moves.append(torch.einsum("ij,bj...->bi...", linear, points))
    for direction in _translations(pair):
        moves.append(torch.as_tensor(direction).to(points).view(1, dim, *[1] * dim))
    return moves


def _moved_points(grid: Grid, motion: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """Voxel centres in the second image's world, relative to the centre."""
    matrix = motion @ grid.affine
    voxels = identity(grid.shape, dtype=like.dtype, device=like.device)
    linear = torch.as_tensor(matrix[:-1, :-1]).to(like)
    offset = torch.as_tensor(matrix[:-1, -1] - _centre(grid)).to(like)
    moved = torch.einsum("ij,bj...->bi...", linear, voxels)
    return moved + offset.view(1, -1, *[1] * grid.dim)


def _centre(grid: Grid) -> np.ndarray:
    """The middle of a grid in the world."""
    middle = (np.array(grid.shape) - 1) / 2
    return grid.affine[:-1, :-1] @ middle + grid.affine[:-1, -1]
