"""Fit affine maps: of a family, from one start or from many at once."""

import numpy as np
import torch

from dipy_dl_reg.optimization.affine_objective import AffineObjective
from dipy_dl_reg.optimization.bfgs import Found, minimise

#: Parameters that move nothing, such as out of the plane of a single slice.
_LEAST_MOTION = 1e-8
#: Smallest determinant, over the start's: a map must not turn into its mirror image.
_LEAST_VOLUME = 0.05
#: A fit ends when steps are shorter than this part of a voxel of the level.
_TOLERANCE = 0.01
_EXACT = {"dtype": torch.float64, "device": "cpu"}


def fit(objective, family, start, theta, *, iterations, tolerance=_TOLERANCE):
    """Fit parameters at one resolution, for a batch of starts.

    The matrix is ``T(c) M(theta) T(-c) start``, ``c`` the centre of what is compared,
    for families with a translation, else ``M(theta) start``.  Steps are measured by how
    far they move the points, in mm, root of the mean square: rotations, scales and
    shifts of any family become alike.

    Parameters
    ----------
    objective : AffineObjective
        The images.
    family : AffineTransform
        The maps.
    start : Tensor, shape (B, D + 1, D + 1)
        Float64.
    theta : Tensor, shape (B, P)
        First parameters, about the world's origin.
    iterations : int
        Most evaluations.
    tolerance : float, optional
        In voxels of the level: shorter steps end the fit.

    Returns
    -------
    found : Found
        With parameters about the world's origin again.
    """
    level = objective.level
    dim = family.dim
    centre = start[:, :dim, :dim] @ level.centre + start[:, :dim, dim]
    back = torch.eye(dim + 1, **_EXACT).repeat(len(start), 1, 1)
    if family.has_translation:
        back[:, :dim, dim] = centre
    moved = torch.linalg.inv(back) @ start
    local = family.change_centre(theta, back[:, :dim, dim])
    base, spread = _whitening(family, local, moved, level)
    volume = torch.linalg.det(start[:, :dim, :dim])

    def matrices(place, entries):
        chart = local[entries] + (spread[entries] @ place[:, :, None])[:, :, 0]
        return chart, back[entries] @ family.matrix(chart) @ moved[entries]

    def function(place, entries):
        chart, whole = matrices(place, entries)
        value, slope = objective(whole)
        growth = torch.linalg.det(whole[:, :dim, :dim]) / volume[entries]
        value[~(growth > _LEAST_VOLUME)] = torch.inf
        turned = back[entries][:, :dim, :dim].transpose(1, 2) @ slope
        inner = turned @ moved[entries].transpose(1, 2)
        by_theta = (family.jacobian(chart) * inner[:, None]).sum((2, 3))
        return value, (by_theta[:, None] @ spread[entries])[:, 0]

    found = minimise(
        function,
        base,
        iterations=iterations,
        reach=0.5 * level.spacing,
        tolerance=tolerance * level.spacing,
    )
    chart, _ = matrices(found.place, torch.arange(len(start), device="cpu"))
    theta = family.change_centre(chart, -back[:, :dim, dim])
    return Found(theta, found.value, found.evaluations)


def _whitening(family, theta, moved, level):
    """Zeros (B, P), and what turns steps in mm into steps of parameters (B, P, P)."""
    shift = torch.eye(family.dim + 1, **_EXACT)
    shift[:-1, -1] = level.centre
    places = moved @ shift
    second = places @ level.moments @ places.transpose(1, 2)
    jacobian = family.jacobian(theta)
    gram = torch.einsum("bpde,bef,bqdf->bpq", jacobian, second, jacobian)
    power, axes = torch.linalg.eigh(gram)
    free = power > _LEAST_MOTION * power.amax(1, keepdim=True)
    scale = torch.where(free, power.clamp_min(1e-300).rsqrt(), torch.zeros_like(power))
    return torch.zeros_like(theta), axes * scale[:, None, :]


def fit_levels(levels, family, start, theta, *, level_iters, metric=None):
    """Fit from coarse to fine, from one start.

    Parameters
    ----------
    levels : list of Level
        Coarsest first.
    family : AffineTransform
        The maps.
    start : ndarray, shape (D + 1, D + 1)
        Static's world to moving's, before.
    theta : ndarray, shape (P,) or None
        First parameters; None for the identity.
    level_iters : sequence of int
        Most evaluations at each level.
    metric : Metric, optional
        See `AffineObjective`.

    Returns
    -------
    theta : ndarray, shape (P,)
        ``M(theta) start`` is the whole.
    value : float
        Of the metric at the last level.
    """
    start = torch.as_tensor(np.array(start), **_EXACT)[None]
    if theta is None:
        theta = family.identity()
    else:
        theta = torch.as_tensor(np.array(theta), **_EXACT)[None]
    value = float("nan")
    for level, iterations in zip(levels, level_iters):
        objective = AffineObjective(level, metric)
        found = fit(objective, family, start, theta, iterations=max(1, iterations))
        theta, value = found.place, float(found.value[0])
    return theta[0].numpy(), value
