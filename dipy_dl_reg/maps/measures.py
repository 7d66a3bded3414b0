"""Measures of a registration, from which the verdict is derived.

The images are compared on a coarse grid (voxels of 1/64 of static's longest side, 3 mm
for a head).  A failed registration is visible at that resolution, and the measures take
little time compared with the registration.
"""

from __future__ import annotations

from itertools import combinations
from math import isnan
from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.derivatives import jacobian
from dipy_dl_reg.geometry.fields import resize, warp
from dipy_dl_reg.geometry.pair import Pair, compared_voxels
from dipy_dl_reg.geometry.pyramid import coarsen
from dipy_dl_reg.geometry.smoothing import window_moments
from dipy_dl_reg.grid import Grid, rotation_angle
from dipy_dl_reg.maps.verdict import CLEAR_SIMILARITY
from dipy_dl_reg.optimization.masked_image import BACKGROUND

#: Voxels along the longest side, and the smoothing before resampling (see `coarsen`).
_SIZE, _SIGMA_FACTOR = 64, 0.5
#: Windows of local correlation are cubes ``2 _RADIUS + 1`` voxels wide.
_RADIUS = 2
#: A window contains structure if its variance, in images scaled to [0, 1], is above
#: this.  The value is also added to the variances, so that noise in a constant window
#: has no effect.
_STRUCTURE_VARIANCE = 1e-3
#: At least this many windows with structure are needed for a similarity, and this many
#: voxels for an object.
_MIN_COUNT = 30
#: Angle of the wrong poses with which a weak similarity is compared, degrees.
_WRONG_TURN = 40.0


class Measures(NamedTuple):
    """Measures of two images, before and after their registration.

    Attributes
    ----------
    similarity_before, similarity_affine, similarity : float
        Mean squared local correlation of the two images, from 0 to 1: by their affines
        alone, with the prealign, and with the whole map.  NaN if too few windows hold
        structure.
    similarity_wrong : float or None
        Largest similarity after the affine part if the image is turned by 40 degrees
        about an axis of the world, in both directions: what images of these contrasts
        have that are not aligned.  None if `similarity_affine` is clear (.19 or more).
    overlap_before, overlap_affine, overlap : float
        Dice coefficient of the two objects (all voxels that are not background), in the
        same three cases.
    visible : float
        Fraction of static's object that lies in the moving image's field of view.
    displacement : float
        Mean length of the displacement within the object, as a fraction of the longest
        side of the static image.
    displacement_95 : float
        Its 95th percentile.
    volume_ratio : float or None
        Factor by which the displacement enlarges the part of moving that is compared;
        None unless exactly one of the images has a mask.
    rotation : float
        Angle of the prealign's rotation, in degrees.
    smallest_scale, largest_scale : float
        Smallest and largest singular value of the prealign; a shear makes them differ.
    mirrors : bool
        Whether the prealign mirrors the image (its determinant is negative).
    has_prealign : bool
        Whether the prealign differs from the identity.
    anatomy_before, anatomy_affine, anatomy : float or None
        Overlap of the anatomy maps of both images, in the same three cases as the
        similarity.  None if it was not
        measured, or if an image shows no brain.
    """

    similarity_before: float
    similarity_affine: float
    similarity: float
    similarity_wrong: float | None
    overlap_before: float
    overlap_affine: float
    overlap: float
    visible: float
    displacement: float
    displacement_95: float
    volume_ratio: float | None
    rotation: float
    smallest_scale: float
    largest_scale: float
    mirrors: bool
    has_prealign: bool
    anatomy_before: float | None = None
    anatomy_affine: float | None = None
    anatomy: float | None = None


def measure_registration(
    pair: Pair, displacement: torch.Tensor | None = None
) -> Measures:
    """Measure two images before and after their registration.

    Parameters
    ----------
    pair : Pair
        The images, their prealign and their masks.
    displacement : Tensor, shape (1, D, *static_shape), optional
        Field in voxels of the static grid; by default there is only the affine part.

    Returns
    -------
    measures : Measures
        The measures.
    """
    longest = pair.static_grid.longest_side
    coarse = coarsen(pair, longest / _SIZE, sigma_factor=_SIGMA_FACTOR)
    dim, shape = coarse.static_grid.dim, coarse.static.shape[2:]
    zero = coarse.static.new_zeros(1, dim, *shape)
    u = zero if displacement is None else resize(displacement, shape)
    has_prealign = not np.array_equal(pair.prealign, np.eye(dim + 1))
    before = _compare(coarse._replace(prealign=np.eye(dim + 1)), zero)
    affine = _compare(coarse, zero) if has_prealign else before
    final = affine if displacement is None else _compare(coarse, u)
    inside = _find_object(coarse.static, coarse.static_mask)
    mean, percentile_95 = _measure_displacement(u, coarse.static_grid, inside, longest)
    rotation, smallest_scale, largest_scale, mirrors = _measure_affine(pair.prealign)
    return Measures(
        similarity_before=before.similarity,
        similarity_affine=affine.similarity,
        similarity=final.similarity,
        similarity_wrong=_measure_wrong_poses(coarse, affine.similarity, inside),
        overlap_before=before.overlap,
        overlap_affine=affine.overlap,
        overlap=final.overlap,
        visible=_fraction_of(inside, coarse.overlap()),
        displacement=mean,
        displacement_95=percentile_95,
        volume_ratio=_measure_volume_ratio(coarse, u),
        rotation=rotation,
        smallest_scale=smallest_scale,
        largest_scale=largest_scale,
        mirrors=mirrors,
        has_prealign=has_prealign,
    )


class _Comparison(NamedTuple):
    """Mean squared local correlation, and overlap of the objects."""

    similarity: float
    overlap: float


def _compare(pair: Pair, u: torch.Tensor) -> _Comparison:
    """Compare static with moving warped by a field."""
    frame = pair.frame()
    counts = compared_voxels(pair, u, frame)
    warped = warp(pair.moving, u, frame_=frame)
    static_object = (pair.static > BACKGROUND) & counts
    moving_object = (warped > BACKGROUND) & counts
    sizes = static_object.sum() + moving_object.sum()
    dice = float(2 * (static_object & moving_object).sum() / sizes.clamp_min(1))
    return _Comparison(_squared_correlation(pair.static, warped, counts), dice)


def _measure_wrong_poses(
    pair: Pair, similarity: float, inside: torch.Tensor
) -> float | None:
    """Largest similarity of the images in wrong poses, about the object's centre."""
    if similarity >= CLEAR_SIMILARITY:
        return None
    grid = pair.static_grid
    middle = inside[0, 0].nonzero().double().mean(0).cpu().numpy()
    centre = grid.affine[:-1, :-1] @ middle + grid.affine[:-1, -1]
    zero = pair.static.new_zeros(1, grid.dim, *grid.shape)
    values = [
        _compare(pair._replace(prealign=pair.prealign @ turn), zero).similarity
        for turn in _turns(centre)
    ]
    return max((value for value in values if not isnan(value)), default=0.0)


def _turns(centre: np.ndarray) -> list[np.ndarray]:
    """Rotations about a point in each plane of the world, in both directions."""
    dim = len(centre)
    turns = []
    for first, second in combinations(range(dim), 2):
        for angle in np.radians([_WRONG_TURN, -_WRONG_TURN]):
            turn = np.eye(dim + 1)
            turn[first, first] = turn[second, second] = np.cos(angle)
            turn[second, first] = np.sin(angle)
            turn[first, second] = -turn[second, first]
            turn[:dim, dim] = centre - turn[:dim, :dim] @ centre
            turns.append(turn)
    return turns


def _squared_correlation(
    static: torch.Tensor, warped: torch.Tensor, counts: torch.Tensor
) -> float:
    """Mean of the squared local correlation where either image holds structure.

    It is ``cov**2 / ((var_s + e) (var_w + e))`` in cubes of 5 voxels, over the voxels
    that count, with ``e`` the smallest variance that is taken as structure.
    """
    *variances, covariance = window_moments(static, warped, counts, _RADIUS)
    variances = [variance.clamp_min(0) for variance in variances]
    structured = counts & (torch.maximum(*variances) > _STRUCTURE_VARIANCE)
    if int(structured.sum()) < _MIN_COUNT:
        return float("nan")
    first, second = (variance + _STRUCTURE_VARIANCE for variance in variances)
    return float((covariance.square() / (first * second))[structured].mean())


def _find_object(image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The voxels that are not background; all voxels if there are hardly any."""
    inside = image > BACKGROUND
    if mask is not None:
        inside &= mask > 0.5
    return inside if int(inside.sum()) >= _MIN_COUNT else torch.ones_like(inside)


def _fraction_of(inside: torch.Tensor, part: torch.Tensor) -> float:
    """The fraction of an object that lies in a part of the image."""
    return float((part & inside).sum() / inside.sum())


def _measure_displacement(
    u: torch.Tensor, grid: Grid, inside: torch.Tensor, longest: float
) -> tuple[float, float]:
    """Mean and 95th percentile of the length."""
    spacing = torch.as_tensor(np.array(grid.spacing), dtype=u.dtype, device=u.device)
    mm = u * spacing.view(1, -1, *[1] * grid.dim)
    length = mm.square().sum(1, keepdim=True).sqrt()[inside] / longest
    high = length.sort().values[int(0.95 * (len(length) - 1))]
    return float(length.mean()), float(high)


def _measure_volume_ratio(pair: Pair, u: torch.Tensor) -> float | None:
    """Volume of the compared region on static over its volume on moving.

    A voxel of static corresponds to ``det(I + du)`` voxels of prealigned moving.
    """
    if (pair.static_mask is None) == (pair.moving_mask is None):
        return None
    counts = compared_voxels(pair, u, pair.frame())
    if not bool(counts.any()):
        return None
    return float(1 / jacobian(u)[:, None][counts].mean())


def _measure_affine(matrix: np.ndarray) -> tuple[float, float, float, bool]:
    """Rotation in degrees, smallest and largest scale, and whether it mirrors."""
    dim = len(matrix) - 1
    linear = matrix[:dim, :dim]
    scales = np.linalg.svd(linear)[1]
    mirrors = bool(np.linalg.det(linear) < 0)
    return rotation_angle(linear), float(scales.min()), float(scales.max()), mirrors
