"""Find a rigid start from any pose: many at once, ever fewer at finer levels.

Brains look nearly alike from left and right, and not unlike from front and back, so
several candidates go on until the resolution tells them apart.
"""

from itertools import product
import math
from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.affine_transforms.registry import make_transform
from dipy_dl_reg.geometry.fields import identity
from dipy_dl_reg.geometry.pyramid import coarsen
from dipy_dl_reg.metrics.histogram import choose_bin_count
from dipy_dl_reg.metrics.mutual_information import MIMetric
from dipy_dl_reg.optimization.affine import fit
from dipy_dl_reg.optimization.affine_objective import AffineObjective
from dipy_dl_reg.optimization.affine_sampling import (
    BACKGROUND,
    Picture,
    levels,
    open_faces,
)


class _Round(NamedTuple):
    """What is done at one level of the search."""

    factor: int  # voxels of the level, over those of the last
    points: int
    evaluations: int
    kept: int  # candidates that go on


_ROUNDS = (
    _Round(3, 1_500, 14, 12),
    _Round(2, 4_000, 14, 4),
    _Round(1, 12_000, 20, 4),
)
#: Voxels along static's longest axis at the last of them.
_SIZE = 44
#: More starts than this are cut down by what they are worth as they are.
_MOST_STARTS = 180
#: Two candidates are one if they put the points closer than this, in voxels.
_SAME = 1.0
#: Tolerance of the fits, in voxels: they only have to be told apart.
_TOLERANCE = 0.1
#: Evaluations of the fits to mirror images: small differences count there.
_MIRROR_EVALUATIONS = 60
#: Where the least spread of either object is below this part of the largest, one is
#: laid upon the other by their axes too: a thin plate must be nearly level to be seen.
_THIN = 0.6
#: Where the middle of an object may be that a face cuts through: parts of the other
#: image's length.
_OFFSETS = (0.15, -0.15, 0.3, -0.3)


class Candidate(NamedTuple):
    """A rigid map and how well it does.

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
    """What a search over poses found.

    Attributes
    ----------
    best, usual : Candidate
        The best of all, and the one that the given start leads to.
    all : list of Candidate
        Those that took part in the last round, best first.
    mirror_gain : float
        How much better than the best the best of its mirror images fits, as a part of
        the mutual information; negative where it fits worse, minus infinity in 2D.
    """

    best: Candidate
    usual: Candidate
    all: list
    mirror_gain: float


def rotations(dim):
    """Rotations that leave none farther than 45 degrees (3D) or 15 degrees (2D).

    In 3D the 60 that turn an icosahedron into itself.

    Parameters
    ----------
    dim : {2, 3}
        Of space.

    Returns
    -------
    rotations : ndarray, shape (K, dim, dim)
        The identity first.
    """
    if dim == 2:
        angles = np.arange(12) * np.pi / 6
        turns = [[[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]] for a in angles]
        return np.array(turns)
    return np.array([_from_quaternion(q) for q in _icosians()])


def _icosians():
    """One of each pair of opposite unit icosians; the identity's first."""
    golden = (1 + 5**0.5) / 2
    found = [np.eye(4)[k] for k in range(4)]
    found += [np.array([1, *s]) / 2 for s in product((1, -1), repeat=3)]
    even = ((0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2), (1, 0, 3, 2))
    even += ((1, 2, 0, 3), (1, 3, 2, 0), (2, 0, 1, 3), (2, 1, 3, 0))
    even += ((2, 3, 0, 1), (3, 0, 2, 1), (3, 1, 0, 2), (3, 2, 1, 0))
    for order in even:
        for signs in product((1, -1), repeat=2):
            values = np.array([golden, signs[0], signs[1] / golden, 0]) / 2
            found.append(values[list(order)])
    return found


def _from_quaternion(q):
    """Rotation matrix of a unit quaternion, its real part first."""
    w, v = q[0], np.asarray(q[1:])
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return (w * w - v @ v) * np.eye(3) + 2 * np.outer(v, v) + 2 * w * cross


def search(pair, start):
    """Rigid maps from any pose, and the one that `start` leads to.

    Parameters
    ----------
    pair : Pair
        The images.
    start : ndarray, shape (D + 1, D + 1)
        Static's world to moving's; rotations are tried after its linear part.

    Returns
    -------
    poses : Poses
        The best, the usual one, and those that came near.
    """
    longest = pair.static_grid.longest_side
    pair = coarsen(pair._replace(prealign=start), longest / _SIZE, sigma_factor=0.5)
    kept, values = _starts(pair, start), None
    family = make_transform("rigid", pair.static_grid.dim)
    usual = 0  # which of those kept came from `start`
    for turn in _ROUNDS:
        sigma = 0.5 * (turn.factor - 1)
        (level,) = levels(pair, [turn.factor], [sigma], most_points=turn.points)
        nbins = choose_bin_count(len(level.points), per_bin=10, fewest=10)
        metric = MIMetric(nbins=nbins)
        objective = AffineObjective(level, metric)
        if len(kept) > _MOST_STARTS:
            worth = objective(kept)[0].argsort()[:_MOST_STARTS]
            kept = torch.cat([kept[:1], kept[worth[worth != 0]]])
        theta = family.identity().repeat(len(kept), 1)
        options = {"iterations": turn.evaluations, "tolerance": _TOLERANCE}
        found = fit(objective, family, kept, theta, **options)
        matrices = family.matrix(found.place) @ kept
        chosen = _distinct(matrices, found.value, level, turn.kept)
        chosen = [usual, *(k for k in chosen if k != usual)]
        kept, values, usual = matrices[chosen], found.value[chosen], 0
    found = [Candidate(m.numpy(), float(v)) for m, v in zip(kept, values)]
    order = sorted(found, key=lambda candidate: candidate.value)
    # A slice of one person may well resemble the mirror image of another's.
    solid = family.dim == 3
    gain = _mirror_gain(order[0].matrix, objective, family) if solid else -math.inf
    return Poses(order[0], found[usual], order, gain)


def _mirror_gain(matrix, objective, family):
    """How much better the best mirror image of a map fits than the map itself.

    The map is reflected along each world axis and fitted.  The best of these is
    reflected back and fitted too, and competes with the map itself: a better pose that
    only these further fits found does not count as a mirror image.
    """
    dim = family.dim
    axes = torch.eye(dim + 1, dtype=torch.float64, device="cpu").repeat(dim, 1, 1)
    for axis in range(dim):
        axes[axis, axis, axis] = -1
        axes[axis, axis, dim] = 2 * objective.level.centre[axis]

    def fitted(start):
        theta = family.identity().repeat(len(start), 1)
        options = {"iterations": _MIRROR_EVALUATIONS, "tolerance": _TOLERANCE / 5}
        found = fit(objective, family, start, theta, **options)
        best = int(found.value.argmin())
        return float(found.value[best]), (family.matrix(found.place) @ start)[best]

    start = torch.from_numpy(matrix)
    mirrored, image = fitted(start @ axes)
    own, _ = fitted(torch.cat([start[None], image @ axes]))
    return (own - mirrored) / max(abs(own), 1e-12)


def _starts(pair, start):
    """`start`, and every rotation about the centres of mass, with every offset."""
    dim = pair.static_grid.dim
    start = np.asarray(start, dtype=np.float64)
    static = Picture(pair.static, pair.static_mask, pair.static_grid)
    moving = Picture(pair.moving, pair.moving_mask, pair.moving_grid)
    (source, spread), (target, other) = _moments(static), _moments(moving)
    nowhere = np.zeros(dim)
    offsets = [(nowhere, nowhere)]
    offsets += [(away, nowhere) for away in _offsets(static, moving)]
    offsets += [(nowhere, away) for away in _offsets(moving, static)]
    found = [start, np.eye(dim + 1)]
    turns = [turn @ start[:dim, :dim] for turn in rotations(dim)]
    if dim == 3:
        turns += _level(start[:dim, :dim], spread, other)
    for turn in turns:
        for by_static, by_moving in offsets:
            matrix = np.eye(dim + 1)
            matrix[:dim, :dim] = turn
            pivot = matrix[:dim, :dim] @ (source + by_static)
            matrix[:dim, dim] = target + by_moving - pivot
            found.append(matrix)
    return torch.from_numpy(np.stack(found))


def _moments(picture):
    """Centre of mass and covariance in the world, of what is not background."""
    image = picture.image if picture.mask is None else picture.image * picture.mask
    mass = (image - BACKGROUND).clamp_min(0).cpu().double().flatten()
    mass = mass if float(mass.sum()) > 0 else torch.ones_like(mass)
    mass = mass / mass.sum()
    places = identity(picture.grid.shape, dtype=torch.float64).flatten(2)[0]
    middle = places @ mass
    apart = places - middle[:, None]
    linear = picture.grid.affine[:-1, :-1]
    covariance = linear @ ((apart * mass) @ apart.T).numpy() @ linear.T
    return picture.grid.affine[:-1] @ [*middle.numpy(), 1], covariance


def _level(linear, spread, other):
    """Turns that bring static's axes upon moving's, and any way about the thinnest."""
    spread = linear @ spread @ linear.T
    (size, own), (other_size, axes) = np.linalg.eigh(spread), np.linalg.eigh(other)
    if min(s[0] / s[-1] for s in (size, other_size)) > _THIN**2:
        return []
    axes = axes * [1, 1, np.sign(np.linalg.det(own) * np.linalg.det(axes))]
    turns = []
    for angle in np.arange(12) * np.pi / 6:
        cos, sin = np.cos(angle), np.sin(angle)
        about = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        for over in (np.diag([1, 1, 1]), np.diag([-1, 1, -1])):
            turns.append(axes @ about @ over @ own.T @ linear)
    return turns


def _offsets(picture, other):
    """Where the middle of a whole object may be that the image shows a part of."""
    if picture.mask is not None:
        return []
    cut = np.array([any(faces) for faces in open_faces(picture)])
    if not cut.any():
        return []
    extent = np.array(picture.grid.shape) * picture.grid.spacing
    axis = np.where(cut, extent, np.inf).argmin()
    direction = picture.grid.affine[:-1, axis] / picture.grid.spacing[axis]
    length = other.grid.longest_side
    return [part * length * direction for part in _OFFSETS]


def _distinct(matrices, values, level, most):
    """Indices of the best, leaving out those that are nearly the same."""
    chosen = []
    dim = matrices.shape[-1] - 1
    shift = torch.eye(dim + 1, dtype=torch.float64, device="cpu")
    shift[:dim, dim] = level.centre
    for k in values.argsort().tolist():
        gap = (matrices[k] - matrices[chosen])[:, :dim] @ shift
        apart = torch.einsum("bde,ef,bdf->b", gap, level.moments, gap).clamp_min(0)
        if bool((apart.sqrt() > _SAME * level.spacing).all()):
            chosen.append(k)
        if len(chosen) == most:
            break
    return chosen
