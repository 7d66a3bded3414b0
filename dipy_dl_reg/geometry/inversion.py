"""Inverse of a field, and the promise that a result is a diffeomorphism.

A pair of fields is fit to be given away when neither folds (Jacobian determinants
above a margin at every voxel, central differences) and when going there and back
through the two returns to the start.  `make_diffeomorphic` checks that, and smooths the
field where it fails until it holds.
"""

from typing import NamedTuple

import torch

from dipy_dl_reg.geometry.fields import derivative, identity, jacobian, sample, warp
from dipy_dl_reg.geometry.kernels import dispatch
from dipy_dl_reg.geometry.kernels import functions as kernels
from dipy_dl_reg.geometry.smoothing import box_sum, smooth

#: What every result keeps: round trip in voxels of its grid, least determinant.
ROUND_TRIP_MEAN, ROUND_TRIP_MAX, LEAST_JACOBIAN = 0.05, 0.5, 0.01
#: Repairs aim a little further, lest they stop at the very edge.
_MARGIN = 0.9
#: Calls of `enforce_inverse_consistency` on a finished pair of fields; up to twice as
#: many once it was repaired.
_ROUNDS = 3
#: Longest correction by one call of `enforce_inverse_consistency`, in voxels.
_LONGEST = 0.5
#: Rounds of local smoothing before the whole field is shrunk instead, and how often.
_REPAIRS, _SHRINKS = 20, 10
#: The k-th shrinking multiplies the field that smoothing could not repair by this to
#: the power of k (k + 1) / 2: few rounds are enough for any field.
_SHRUNK = 0.8


class Quality(NamedTuple):
    """What was measured on a pair of inverse fields.

    Attributes
    ----------
    minimum_jacobian, minimum_jacobian_inverse : float
        Least determinant over all voxels of the field and of its inverse.
    round_trip_mean, round_trip_max : float
        Distance in voxels from each voxel centre to where it ends after one field
        and then the other; the worse of the two orders; over the points whose image
        stays inside the grid.
    repairs : int
        Rounds of local smoothing that it took to get there; above 20 the whole field
        was shrunk, too.
    """

    minimum_jacobian: float
    minimum_jacobian_inverse: float
    round_trip_mean: float
    round_trip_max: float
    repairs: int = 0

    @property
    def shrunk(self):
        """Whether smoothing did not suffice and the whole field was shrunk."""
        return self.repairs > _REPAIRS


def invert(displacement, *, start=None, tolerance=1e-3, sweeps=6, newton=20):
    """Inverse of a map: ``v(y) = -u(y + v(y))`` at every voxel.

    A few fixed-point sweeps over the whole grid bring most voxels there, also far
    from small displacements; the rest, where the map stretches or squeezes by much,
    is finished point by point with damped Newton steps on the Jacobian matrix.

    Parameters
    ----------
    displacement : Tensor, shape (1, D, *shape)
        Field in voxels.
    start : Tensor, shape (1, D, *shape), optional
        First guess; by default ``-u``.
    tolerance : float, optional
        Residual ``|v + u(y + v)|``, in voxels, at which a point is done; where the
        steps do not suffice it stays as near as they came.
    sweeps : int, optional
        Fixed-point sweeps.
    newton : int, optional
        Most Newton steps for the points left.

    Returns
    -------
    v : Tensor, shape (1, D, *shape)
        Field of the inverse, in voxels.
    """
    u = displacement
    v = -u if start is None else start
    for _ in range(sweeps):
        new = warp(u, v).neg_()
        residual = (new - v).square_().sum(1).sqrt_().flatten()
        v = new
        if float(residual.max()) <= tolerance:
            return v
    # The residual of the last sweep is that of the guess before it: the points over
    # the tolerance are the ones to go on with, and their true residual comes first.
    left = (residual > tolerance).nonzero()[:, 0]
    v = v.clone()
    flat = v.flatten(2)[0]
    grid = identity(u.shape[2:], dtype=u.dtype, device=u.device).flatten(2)[0]
    flat[:, left] = _newton(u, grid[:, left], flat[:, left], tolerance, newton)
    return v


def _newton(u, y, v, tolerance, steps):
    """Solve ``v + u(y + v) = 0`` at points, halving steps that make it worse."""
    dim = len(y)
    slopes = torch.cat([derivative(u, axis) for axis in range(dim)], 1)
    eye = torch.eye(dim, dtype=u.dtype, device=u.device)

    def residual(v):
        r = v + sample(u, y + v)
        return r, r.square().sum(0).sqrt()

    r, size = residual(v)
    damping = torch.ones_like(size)
    for _ in range(steps):
        if not bool((size > tolerance).any()):
            break
        # slopes are ordered (derivative axis, component); the matrix wants
        # d component / d axis.
        matrix = sample(slopes, y + v).reshape(dim, dim, -1).permute(2, 1, 0) + eye
        move = torch.linalg.solve_ex(matrix, r.T[..., None])[0][..., 0].T
        move = move.nan_to_num(0, 0, 0).clamp(-5, 5)
        trial = v - damping * move
        new_r, new_size = residual(trial)
        better = new_size < size
        v = torch.where(better, trial, v)
        r, size = torch.where(better, new_r, r), torch.where(better, new_size, size)
        damping = torch.where(better, (2 * damping).clamp(max=1), damping / 2)
    return v


def round_trip(first, second):
    """How far each voxel ends from where it began, after one map and the other.

    Parameters
    ----------
    first, second : Tensor, shape (1, D, *shape)
        Fields in voxels of one grid.

    Returns
    -------
    distance : Tensor, shape (1, 1, *shape)
        ``|first(x) + second(x + first(x))|`` in voxels; 0 where not inside.
    inside : Tensor of bool, shape (1, 1, *shape)
        Where ``x + first(x)`` lies on the grid; beyond, the second field says nothing.
    """
    error = warp(second, first).add_(first).square_().sum(1, keepdim=True).sqrt_()
    inside = _stays(first)
    return error.masked_fill_(~inside, 0), inside


def _stays(u):
    """Where ``x + u(x)`` lies on the grid: bool, shape (1, 1, *shape)."""
    inside = torch.ones_like(u[:, :1], dtype=torch.bool)
    for axis, size in enumerate(u.shape[2:]):
        line = torch.arange(size, dtype=u.dtype, device=u.device)
        place = u[:, axis : axis + 1] + line.view(-1, *(1,) * (u.ndim - 3 - axis))
        inside &= (place >= 0) & (place <= size - 1)
    return inside


def _mean(distance, inside):
    """Mean over the voxels inside; added up in float64 on the CPU: MPS has none."""
    planes = distance.sum(tuple(range(3, distance.ndim))).cpu().double()
    return planes.sum() / max(int(inside.sum()), 1)


def enforce_inverse_consistency(u, v, *, out=(None, None)):
    """Bring two fields closer to being each other's inverse.

    Each gives up half of a Newton step on what the round trip that begins with it
    misses, ``e(x) = u(x) + v(x + u(x))``: the step is ``(1 + Du(x)) e(x)``, for
    ``1 + Dv`` at ``x + u(x)`` is the inverse of ``1 + Du`` at ``x``, and so for
    ``v``.  (Giving up ``e / 2`` alone diverges where a map stretches fourfold.)
    Where ``x + u(x)`` leaves the grid `v` says nothing, and `u` stays as it is.

    A sampled inverse is exact at its voxels only; between them interpolation cuts
    its bends, and errors of the two directions go down together where recomputing
    one from the other would only push them to and fro.

    Parameters
    ----------
    u, v : Tensor, shape (1, D, *shape)
        Fields in voxels of one grid, nearly inverse to each other.
    out : tuple of Tensor, optional
        Where the results go; neither of the two.

    Returns
    -------
    u, v : Tensor, shape (1, D, *shape)
        New fields.
    """
    return _corrected(u, v, out[0]), _corrected(v, u, out[1])


def _corrected(u, v, out=None):
    """`u` less half a Newton step towards the inverse of `v`, half a voxel at most."""
    if dispatch.supports(u, v, out):
        return kernels.half_newton_step(u, v, longest=_LONGEST, out=out)
    error = warp(v, u).add_(u)
    step, slope = error.clone(), torch.empty_like(u)
    for axis in range(u.shape[1]):
        derivative(u, axis, out=slope)
        step.addcmul_(slope, error[:, axis : axis + 1])
    length = step.square().sum(1, keepdim=True).sqrt_()
    step *= _LONGEST / length.clamp_min_(2 * _LONGEST)
    step.masked_fill_(~_stays(u), 0)
    return torch.sub(u, step, out=out)


def _measured(u, v):
    """Determinants of a field, its round trips through another, and their mean."""
    if dispatch.supports(u, v):
        return kernels.measure_inverse(u, v)
    distance, inside = round_trip(u, v)
    return jacobian(u)[:, None], distance, float(_mean(distance, inside))


class _Checked(NamedTuple):
    """Figures of a pair of fields, voxel by voxel."""

    jacobian: torch.Tensor
    jacobian_inverse: torch.Tensor
    there: torch.Tensor
    back: torch.Tensor
    mean: float

    @classmethod
    def of(cls, u, v):
        """Measure a field and its inverse."""
        jacobian, there, mean = _measured(u, v)
        jacobian_inverse, back, other = _measured(v, u)
        return cls(jacobian, jacobian_inverse, there, back, max(mean, other))

    def quality(self, repairs=0):
        """Summary of the four images."""
        return Quality(
            float(self.jacobian.min()),
            float(self.jacobian_inverse.min()),
            self.mean,
            max(float(self.there.max()), float(self.back.max())),
            repairs,
        )

    def unsound(self, u, v, margin=1.0):
        """Voxels of both fields, 0 or 1, where one of the limits is passed."""

        def passed(det, distance):
            # Written so that NaN counts as bad.
            sound = (det >= LEAST_JACOBIAN / margin) & (
                distance <= ROUND_TRIP_MAX * margin
            )
            return (~sound).to(u.dtype)

        here = passed(self.jacobian, self.there)
        beyond = passed(self.jacobian_inverse, self.back)
        if not bool(here.any() | beyond.any()):
            return here, beyond
        # What is wrong at one end of a displacement is to be mended at both.
        return (
            torch.maximum(here, warp(beyond, u)),
            torch.maximum(beyond, warp(here, v)),
        )


def measure_quality(u, v, *, repairs=0):
    """Quality of a pair of inverse fields.

    Parameters
    ----------
    u, v : Tensor, shape (1, D, *shape)
        A field and its inverse, in voxels of one grid.
    repairs : int, optional
        Passed on.

    Returns
    -------
    quality : Quality
        The figures.
    """
    return _Checked.of(u, v).quality(repairs)


def make_diffeomorphic(u, v=None):
    """Fields that keep the promise, as near to the given one as repairs allow.

    Where a limit is passed the field is smoothed, locally and more strongly from
    round to round; a field that still passes a limit after 20 rounds is multiplied by
    ever smaller factors, and is replaced by the identity after 30 rounds at the latest.

    Parameters
    ----------
    u : Tensor, shape (1, D, *shape)
        Field in voxels.
    v : Tensor, shape (1, D, *shape), optional
        Its inverse as far as known; by default computed.

    Returns
    -------
    u, v : Tensor, shape (1, D, *shape)
        Field and inverse: determinants of at least 0.01 at every voxel of both,
        round trip of at most 0.05 voxel on average and 0.5 anywhere, over the points
        whose image stays inside the grid.
    quality : Quality
        Their figures.

    Raises
    ------
    ValueError
        If the field is not finite.
    """
    if not bool(torch.isfinite(u).all()):
        raise ValueError("displacement must be finite, it holds NaN or infinity.")
    v = invert(u) if v is None else v
    repairs, margin, resists = 0, 1.0, None
    while repairs <= _REPAIRS + _SHRINKS:
        # Two fields that were smoothed each for itself need more to meet again.
        for _ in range(_ROUNDS + min(repairs, _ROUNDS)):
            u, v = enforce_inverse_consistency(u, v)
        checked = _Checked.of(u, v)
        quality = checked.quality(repairs)
        bad_u, bad_v = checked.unsound(u, v, margin)
        local = bool(bad_u.any() | bad_v.any())
        if not local and quality.round_trip_mean <= ROUND_TRIP_MEAN:
            return u, v, quality
        repairs, margin = repairs + 1, _MARGIN
        if repairs > _REPAIRS:
            # Always shrink the same field: `enforce_inverse_consistency` lets a
            # shrunk one grow again.
            resists, times = u if resists is None else resists, repairs - _REPAIRS
            u = resists * _SHRUNK ** (times * (times + 1) / 2)
            v = invert(u)
        elif local:
            u, v = (_mended(f, bad, repairs) for f, bad in ((u, bad_u), (v, bad_v)))
        else:
            u, v = smooth(u, 0.5), smooth(v, 0.5)
    nothing = torch.zeros_like(u)
    return nothing, nothing.clone(), measure_quality(nothing, nothing, repairs=repairs)


def repair_folds(u, v, *, out=(None, None)):
    """The fields, smoothed where they have begun to fold or to part.

    For use between iterations: what is caught early needs little mending.

    Parameters
    ----------
    u, v : Tensor, shape (1, D, *shape)
        A field and its inverse, in voxels of one grid.
    out : tuple of Tensor, optional
        Room for two such fields; with it the two themselves are overwritten.

    Returns
    -------
    u, v : Tensor, shape (1, D, *shape)
        The same where nothing was wrong.
    """
    bad_u, bad_v = _Checked.of(u, v).unsound(u, v)
    if not bool(bad_u.any() | bad_v.any()):
        return u, v
    mended = _mended(u, bad_u, 1, out[0]), _mended(v, bad_v, 1, out[1])
    room = (None, None) if out[0] is None else (u, v)
    return enforce_inverse_consistency(*mended, out=room)


def _mended(u, bad, attempt, out=None):
    """Smooth a field around bad voxels, more widely from attempt to attempt."""
    weight = smooth(box_sum(bad, 1 + attempt).clamp_(0, 1), 1.0)
    smoother = smooth(u, min(0.5 + 0.5 * attempt, 3.0), out=out)
    return torch.lerp(u, smoother, weight, out=smoother)
