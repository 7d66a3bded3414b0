"""Measures of a finished registration from which its success can be judged.

The images are compared on a coarse grid (1/64 of the longest side of static, 3 mm for a
head): a registration that failed is visibly wrong at that resolution already, and the
measures take a small part of the registration's time.
"""

from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.fields import jacobian, resize, warp
from dipy_dl_reg.geometry.pair import compared_voxels
from dipy_dl_reg.geometry.pyramid import coarsen
from dipy_dl_reg.geometry.smoothing import window_moments
from dipy_dl_reg.grid import rotation_angle
from dipy_dl_reg.optimization.masked_image import BACKGROUND

#: Voxels along the longest side, and the smoothing on the way there (see `coarsen`).
_SIZE, _SIGMA_FACTOR = 64, 0.5
#: Windows of local correlation are cubes ``2 _RADIUS + 1`` voxels wide.
_RADIUS = 2
#: Variance of a window, of images scaled to [0, 1], above which it holds structure; it
#: is added to the variances, so that noise in a flat window does not count.
_STRUCTURE = 1e-3
#: Fewer windows with structure than this are no evidence.
_ENOUGH = 30


class Measures(NamedTuple):
    """What a registration did to two images.

    Attributes
    ----------
    similarity_before, similarity_affine, similarity : float
        Mean squared local correlation of the two images, from 0 to 1: as they lie in
        their worlds, through the prealign, and through the whole map.  NaN where too
        few windows hold any structure.
    overlap_before, overlap_affine, overlap : float
        Dice coefficient of the two objects (what is not background), likewise.
    visible : float
        Part of static's object that lies in the moving image's field of view.
    displacement : float
        Mean length of the displacement within the object, as a part of the longest
        side of the static image.
    displacement_95 : float
        Its 95th percentile.
    sd_log_jacobian : float
        Standard deviation of the logarithm of the Jacobian determinant in the object.
    rotation : float
        Angle of the prealign's rotation, degrees.
    smallest_scale, largest_scale : float
        Its least and greatest singular value; a shear makes them differ.
    mirrors : bool
        Whether it turns left into right (its determinant is negative).
    has_prealign : bool
        Whether there is a prealign other than the identity.
    """

    similarity_before: float
    similarity_affine: float
    similarity: float
    overlap_before: float
    overlap_affine: float
    overlap: float
    visible: float
    displacement: float
    displacement_95: float
    sd_log_jacobian: float
    rotation: float
    smallest_scale: float
    largest_scale: float
    mirrors: bool
    has_prealign: bool


def measure_registration(pair, displacement=None):
    """Measure what a registration did.

    Parameters
    ----------
    pair : Pair
        The images, their prealign and their masks.
    displacement : Tensor, shape (1, D, *static_shape), optional
        Field in voxels of the static grid; by default the affine part is all.

    Returns
    -------
    measures : Measures
        The measures.
    """
    longest = pair.static_grid.longest_side
    coarse = coarsen(pair, longest / _SIZE, sigma_factor=_SIGMA_FACTOR)
    dim = coarse.static_grid.dim
    still = coarse.static.new_zeros(1, dim, *coarse.static.shape[2:])
    u = still
    if displacement is not None:
        u = resize(displacement, coarse.static.shape[2:])
    unaligned = coarse._replace(prealign=np.eye(dim + 1))
    before = _compare(unaligned, still)
    has_prealign = not np.array_equal(pair.prealign, np.eye(dim + 1))
    affine = _compare(coarse, still) if has_prealign else before
    final = affine if displacement is None else _compare(coarse, u)
    similarities, overlaps = zip(before, affine, final)
    inside = _object(coarse.static, coarse.static_mask)
    return Measures(
        *similarities,
        *overlaps,
        _share(coarse.overlap(), inside),
        *_displacements(u, coarse.static_grid, inside, longest),
        *_affine_parts(pair.prealign),
        has_prealign,
    )


def _compare(pair, u):
    """Mean squared local correlation and overlap of the objects through a field."""
    frame = pair.frame()
    counts = compared_voxels(pair, u, frame)
    warped = warp(pair.moving, u, frame_=frame)
    objects = (pair.static > BACKGROUND) & counts, (warped > BACKGROUND) & counts
    sizes = objects[0].sum() + objects[1].sum()
    dice = float(2 * (objects[0] & objects[1]).sum() / sizes.clamp_min(1))
    return _squared_correlation(pair.static, warped, counts), dice


def _squared_correlation(static, warped, counts):
    """Mean of the squared local correlation where either image holds structure.

    ``cov**2 / ((var_s + e) (var_w + e))`` in cubes of 5 voxels, over the voxels that
    count, with ``e`` the least variance that counts as structure.
    """
    *variances, covariance = window_moments(static, warped, counts, _RADIUS)
    variances = [variance.clamp_min(0) for variance in variances]
    structured = counts & (torch.maximum(*variances) > _STRUCTURE)
    if int(structured.sum()) < _ENOUGH:
        return float("nan")
    floors = (variances[0] + _STRUCTURE) * (variances[1] + _STRUCTURE)
    return float((covariance.square() / floors)[structured].mean())


def _object(image, mask):
    """Voxels that are not background, or all where there is hardly any."""
    inside = image > BACKGROUND
    if mask is not None:
        inside &= mask > 0.5
    return inside if int(inside.sum()) >= _ENOUGH else torch.ones_like(inside)


def _share(part, whole):
    return float((part & whole).sum() / whole.sum())


def _displacements(u, grid, inside, longest):
    """Mean and 95th percentile of the length; spread of the log Jacobian."""
    spacing = torch.as_tensor(np.array(grid.spacing), dtype=u.dtype, device=u.device)
    mm = u * spacing.view(1, -1, *[1] * grid.dim)
    length = mm.square().sum(1, keepdim=True).sqrt()[inside] / longest
    rate = jacobian(u)[:, None].clamp_min(1e-3).log()[inside]
    high = length.sort().values[int(0.95 * (len(length) - 1))]
    return float(length.mean()), float(high), float(rate.std())


def _affine_parts(matrix):
    """Rotation in degrees, least and greatest scale, and whether it mirrors."""
    dim = len(matrix) - 1
    linear = matrix[:dim, :dim]
    scales = np.linalg.svd(linear)[1]
    mirrors = bool(np.linalg.det(linear) < 0)
    return rotation_angle(linear), float(scales.min()), float(scales.max()), mirrors
