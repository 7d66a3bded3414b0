"""Search for an initial rigid transform among all rotations.

Many starting poses are optimized at once, and fewer at finer levels.  A brain and its
left-right mirror image are very similar, and so are front and back.  Therefore several
candidates are used until they can be distinguished at a finer resolution.
"""

from __future__ import annotations

from itertools import product
import math
from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.affine_transforms.base import AffineTransform
from dipy_dl_reg.geometry.affine_transforms.registry import make_transform
from dipy_dl_reg.geometry.fields import identity
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.pyramid import coarsen
from dipy_dl_reg.metrics.histogram import choose_bin_count
from dipy_dl_reg.metrics.mutual_information import MIMetric
from dipy_dl_reg.optimization.affine import optimize_parameters
from dipy_dl_reg.optimization.affine_objective import AffineObjective
from dipy_dl_reg.optimization.affine_sampling import Level, make_levels
from dipy_dl_reg.optimization.masked_image import (
    BACKGROUND,
    MaskedImage,
    mask_images,
    open_faces,
)


class _Round(NamedTuple):
    """Options of one level of the search."""

    factor: int  # voxel size of the level, over that of the last level
    points: int
    evaluations: int
    candidates: int  # number that goes on to the next level


_ROUNDS = (
    _Round(3, 1_500, 14, 12),
    _Round(2, 4_000, 14, 4),
    _Round(1, 12_000, 20, 4),
)
#: Voxels along static's longest axis at the last level.
_SIZE = 44
#: Maximum number of starts; those with the lowest values before optimization are used.
_MOST_STARTS = 180
#: Candidates whose maps differ by less than this (voxels, root mean square) are one.
_SAME = 1.0
#: Tolerance of the optimization, in voxels: enough to rank the candidates.
_TOLERANCE = 0.1
#: Evaluations for mirror images, where small differences matter.
_MIRROR_EVALUATIONS = 60
#: Principal axes are used if the smallest standard deviation of an object is below this
#: fraction of its largest: two thin plates overlap only if they are nearly parallel.
_THIN = 0.6
#: If a face cuts through an object: possible positions of the object's centre, in
#: lengths of the other image.
_OFFSETS = (0.15, -0.15, 0.3, -0.3)


class Candidate(NamedTuple):
    """A rigid map and its value.

    Attributes
    ----------
    matrix : ndarray, shape (D + 1, D + 1)
        Static's world to moving's.
    value : float
        Minus the mutual information at the last level.
    """

    matrix: np.ndarray
    value: float


class Poses(NamedTuple):
    """Result of a search over poses.

    Attributes
    ----------
    best : Candidate
        The candidate with the lowest value.
    usual : Candidate
        The candidate that optimization finds from the given start.
    all : list of Candidate
        Candidates of the last level, best first.
    mirror_gain : float
        How much higher the mutual information of the best mirror image is, as a part of
        the best candidate's; negative where it is lower, minus infinity in 2D.
    """

    best: Candidate
    usual: Candidate
    all: list[Candidate]
    mirror_gain: float


def make_rotations(dim: int) -> np.ndarray:
    """Rotations from which every other one is at most 45 (3D) or 15 degrees (2D) away.

    In 3D the 60 rotations that map an icosahedron onto itself.

    Parameters
    ----------
    dim : {2, 3}
        Dimension.

    Returns
    -------
    rotations : ndarray, shape (K, dim, dim)
        The identity first.
    """
    if dim == 2:
        angles = np.arange(12) * np.pi / 6
        turns = [[[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]] for a in angles]
        return np.array(turns)
    return np.array([_quaternion_to_matrix(q) for q in _make_icosians()])


def _make_icosians() -> list[np.ndarray]:
    """One of each pair of opposite unit icosians (quaternions), the identity first."""
    golden = (1 + 5**0.5) / 2
    found = [np.eye(4)[k] for k in range(4)]
    found += [np.array([1, *s]) / 2 for s in product((1, -1), repeat=3)]
    even: tuple[tuple[int, ...], ...]
    even = ((0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2), (1, 0, 3, 2))
    even += ((1, 2, 0, 3), (1, 3, 2, 0), (2, 0, 1, 3), (2, 1, 3, 0))
    even += ((2, 3, 0, 1), (3, 0, 2, 1), (3, 1, 0, 2), (3, 2, 1, 0))
    for order in even:
        for signs in product((1, -1), repeat=2):
            values = np.array([golden, signs[0], signs[1] / golden, 0]) / 2
            found.append(values[list(order)])
    return found


def _quaternion_to_matrix(q: np.ndarray) -> np.ndarray:
    """Rotation matrix of a unit quaternion, its real part first."""
    w, v = q[0], np.asarray(q[1:])
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return (w * w - v @ v) * np.eye(3) + 2 * np.outer(v, v) + 2 * w * cross


def search_rotations(pair: Pair, start: np.ndarray) -> Poses:
    """Search for rigid maps from any pose.

    Parameters
    ----------
    pair : Pair
        The images.
    start : ndarray, shape (D + 1, D + 1)
        Static's world to moving's; rotations are tried after its linear part.

    Returns
    -------
    poses : Poses
        The best map, the map that optimization finds from `start`, and the other
        candidates.
    """
    longest = pair.static_grid.longest_side
    pair = coarsen(pair._replace(prealign=start), longest / _SIZE, sigma_factor=0.5)
    matrices = _make_starts(pair, start)
    transform = make_transform("rigid", pair.static_grid.dim)
    usual = 0  # row of the candidate that began at `start`
    for options in _ROUNDS:
        objective = _make_objective(pair, options)
        matrices = _drop_poor_starts(objective, matrices)
        matrices, values = _optimize_batch(
            objective, transform, matrices, options.evaluations, _TOLERANCE
        )
        level, count = objective.level, options.candidates
        chosen = _select_distinct(matrices, values, level, count)
        chosen = [usual, *(k for k in chosen if k != usual)]
        matrices, values, usual = matrices[chosen], values[chosen], 0
    found = [Candidate(m.numpy(), float(v)) for m, v in zip(matrices, values)]
    order = sorted(found, key=lambda candidate: candidate.value)
    # In 2D, a slice of one person may be similar to the mirror image of another's.
    solid = transform.dim == 3
    gain = _mirror_gain(order[0].matrix, objective, transform) if solid else -math.inf
    return Poses(order[0], found[usual], order, gain)


def _make_objective(pair: Pair, options: _Round) -> AffineObjective:
    """Mutual information of the images at one level of the search."""
    sigma = 0.5 * (options.factor - 1)
    (level,) = make_levels(pair, [options.factor], [sigma], most_points=options.points)
    nbins = choose_bin_count(len(level.points), per_bin=10, fewest=10)
    return AffineObjective(level, MIMetric(nbins=nbins))


def _drop_poor_starts(
    objective: AffineObjective, matrices: torch.Tensor
) -> torch.Tensor:
    """Select the first start and those of the others with the lowest values."""
    if len(matrices) <= _MOST_STARTS:
        return matrices
    order = objective(matrices)[0].argsort()[:_MOST_STARTS]
    return torch.cat([matrices[:1], matrices[order[order != 0]]])


def _optimize_batch(
    objective: AffineObjective,
    transform: AffineTransform,
    start: torch.Tensor,
    evaluations: int,
    tolerance: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices (B, D + 1, D + 1) and values (B,) that optimization finds."""
    theta = transform.identity().repeat(len(start), 1)
    minimum = optimize_parameters(
        objective, transform, start, theta, iterations=evaluations, tolerance=tolerance
    )
    return transform.matrix(minimum.parameters) @ start, minimum.value


def _mirror_gain(
    matrix: np.ndarray, objective: AffineObjective, transform: AffineTransform
) -> float:
    """Compute how much better the best reflected map is than the map itself.

    The map is reflected along each world axis and optimized.  The best of these maps is
    reflected back and optimized, too; if this gives a better value than the original
    map, it is used for the comparison.  In this way, an improvement that results only
    from the additional optimization is not attributed to the reflection.
    """
    dim = transform.dim
    reflections = torch.eye(dim + 1, dtype=torch.float64, device="cpu")
    reflections = reflections.repeat(dim, 1, 1)
    for axis in range(dim):
        reflections[axis, axis, axis] = -1
        reflections[axis, axis, dim] = 2 * objective.level.centre[axis]

    def find_best(starts: torch.Tensor) -> tuple[float, torch.Tensor]:
        options = _MIRROR_EVALUATIONS, _TOLERANCE / 5
        matrices, values = _optimize_batch(objective, transform, starts, *options)
        best = int(values.argmin())
        return float(values[best]), matrices[best]

    start = torch.from_numpy(matrix)
    mirrored, image = find_best(start @ reflections)
    own, _ = find_best(torch.cat([start[None], image @ reflections]))
    return (own - mirrored) / max(abs(own), 1e-12)


def _make_starts(pair: Pair, start: np.ndarray) -> torch.Tensor:
    """`start`, and all rotations about the centres of mass, with all offsets."""
    dim = pair.static_grid.dim
    start = np.asarray(start, dtype=np.float64)
    linear = start[:dim, :dim]
    static, moving = mask_images(pair)
    source, static_covariance = _moments(static)
    target, moving_covariance = _moments(moving)
    none = np.zeros(dim)
    offsets = [(none, none)]
    offsets += [(offset, none) for offset in _centre_offsets(static, moving)]
    offsets += [(none, offset) for offset in _centre_offsets(moving, static)]
    found = [start, np.eye(dim + 1)]
    turns = [turn @ linear for turn in make_rotations(dim)]
    if dim == 3:
        turns += _align_axes(linear, static_covariance, moving_covariance)
    for turn in turns:
        for by_static, by_moving in offsets:
            matrix = np.eye(dim + 1)
            matrix[:dim, :dim] = turn
            pivot = matrix[:dim, :dim] @ (source + by_static)
            matrix[:dim, dim] = target + by_moving - pivot
            found.append(matrix)
    return torch.from_numpy(np.stack(found))


def _moments(image: MaskedImage) -> tuple[np.ndarray, np.ndarray]:
    """Compute the foreground's centre of mass and covariance in the world."""
    values = image.image if image.mask is None else image.image * image.mask
    mass = (values - BACKGROUND).clamp_min(0).cpu().double().flatten()
    mass = mass if float(mass.sum()) > 0 else torch.ones_like(mass)
    mass = mass / mass.sum()
    places = identity(image.grid.shape, dtype=torch.float64).flatten(2)[0]
    middle = places @ mass
    apart = places - middle[:, None]
    linear = image.grid.affine[:-1, :-1]
    covariance = linear @ ((apart * mass) @ apart.T).numpy() @ linear.T
    return image.grid.affine[:-1] @ [*middle.numpy(), 1], covariance


def _align_axes(
    linear: np.ndarray, static_covariance: np.ndarray, moving_covariance: np.ndarray
) -> list[np.ndarray]:
    """Rotations that align principal axes, by any angle about the thinnest.

    An empty list unless one of the objects is thin.
    """
    turned = linear @ static_covariance @ linear.T
    static_sizes, static_axes = np.linalg.eigh(turned)
    moving_sizes, axes = np.linalg.eigh(moving_covariance)
    if min(s[0] / s[-1] for s in (static_sizes, moving_sizes)) > _THIN**2:
        return []
    axes = axes * [1, 1, np.sign(np.linalg.det(static_axes) * np.linalg.det(axes))]
    turns = []
    for angle in np.arange(12) * np.pi / 6:
        cos, sin = np.cos(angle), np.sin(angle)
        about = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        for flip in (np.diag([1, 1, 1]), np.diag([-1, 1, -1])):
            turns.append(axes @ about @ flip @ static_axes.T @ linear)
    return turns


def _centre_offsets(image: MaskedImage, other: MaskedImage) -> list[np.ndarray]:
    """Possible offsets of the whole object's centre if the image shows a part of it.

    Offsets are in mm, relative to the centre of the visible part.
    """
    if image.mask is not None:
        return []
    cut = np.array([any(faces) for faces in open_faces(image)])
    if not cut.any():
        return []
    extent = np.array(image.grid.shape) * image.grid.spacing
    axis = np.where(cut, extent, np.inf).argmin()
    direction = image.grid.affine[:-1, axis] / image.grid.spacing[axis]
    length = other.grid.longest_side
    return [part * length * direction for part in _OFFSETS]


def _select_distinct(
    matrices: torch.Tensor, values: torch.Tensor, level: Level, count: int
) -> list[int]:
    """Indices of the best maps, without those that are nearly the same."""
    chosen: list[int] = []
    dim = matrices.shape[-1] - 1
    shift = torch.eye(dim + 1, dtype=torch.float64, device="cpu")
    shift[:dim, dim] = level.centre
    for k in values.argsort().tolist():
        gap = (matrices[k] - matrices[chosen])[:, :dim] @ shift
        squares = torch.einsum("bde,ef,bdf->b", gap, level.moments, gap).clamp_min(0)
        if bool((squares.sqrt() > _SAME * level.spacing).all()):
            chosen.append(k)
        if len(chosen) == count:
            break
    return chosen
