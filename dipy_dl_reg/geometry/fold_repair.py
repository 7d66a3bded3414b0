"""Measures of a pair of fields, and repair of a pair that is not diffeomorphic.

The result of a registration is a pair of fields, a map and its inverse.  Neither may
fold: the Jacobian determinant, by central differences, must exceed a limit at every
voxel.  The inverse consistency error must be below a limit, too.  `make_diffeomorphic`
checks both conditions, and smooths the fields where they are violated until they hold.
"""

from typing import NamedTuple

import torch

from dipy_dl_reg.geometry.derivatives import jacobian
from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.geometry.inversion import (
    enforce_inverse_consistency,
    invert,
    round_trip,
)
from dipy_dl_reg.geometry.kernels import dispatch
from dipy_dl_reg.geometry.kernels import functions as kernels
from dipy_dl_reg.geometry.smoothing import box_sum, smooth

#: Limits for every result: mean and maximum of the inverse consistency error, in voxels
#: of its grid, and smallest Jacobian determinant.
ROUND_TRIP_MEAN, ROUND_TRIP_MAX, LEAST_JACOBIAN = 0.05, 0.5, 0.01
#: Repairs use limits that are stricter by this factor, so that the result clearly
#: satisfies the limits.
_MARGIN = 0.9
#: Maximum number of calls of `enforce_inverse_consistency` for the final fields, where
#: they violate a limit; up to twice as many after a repair.
_ROUNDS = 3
#: Maximum number of rounds of local smoothing, after which the whole field is
#: multiplied by a factor below 1 instead; and maximum number of these further rounds.
_REPAIRS, _SHRINKS = 20, 10
#: In the k-th further round, the field that smoothing could not repair is multiplied by
#: this number to the power of k (k + 1) / 2; few rounds are sufficient for any field.
_SHRUNK = 0.8


class Quality(NamedTuple):
    """Measures of a pair of inverse fields.

    Attributes
    ----------
    minimum_jacobian, minimum_jacobian_inverse : float
        Smallest Jacobian determinant over all voxels of the field and of its inverse.
    round_trip_mean, round_trip_max : float
        Mean and maximum of the inverse consistency error, in voxels: the distance from
        each voxel centre to its position after one field and then the other, over the
        points that the first field does not move out of the grid; the larger value of
        the two orders.
    repairs : int
        Number of rounds of repair; above 20, the whole field was also multiplied by a
        factor below 1.
    folds_percent, folds_percent_inverse : float
        Voxels with a determinant of 0 or less in the field and in its inverse, in
        percent.

    Notes
    -----
    The definitions are those of `RegularityMeasures`, the measures of a finished map.
    """

    minimum_jacobian: float
    minimum_jacobian_inverse: float
    round_trip_mean: float
    round_trip_max: float
    repairs: int = 0
    folds_percent: float = 0.0
    folds_percent_inverse: float = 0.0

    @property
    def shrunk(self) -> bool:
        """Whether smoothing was not sufficient and the whole field was reduced."""
        return self.repairs > _REPAIRS


def _measure_inverse(
    u: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Measure determinants, inverse consistency errors, and the mean error."""
    if dispatch.supports(u, v):
        return kernels.measure_inverse(u, v)
    distance, inside = round_trip(u, v)
    return jacobian(u)[:, None], distance, float(_mean_inside(distance, inside))


def _mean_inside(distance: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Mean over voxels inside, in float64 on the CPU because MPS has no float64."""
    planes = distance.sum(tuple(range(3, distance.ndim))).cpu().double()
    return planes.sum() / max(int(inside.sum()), 1)


class _VoxelMeasures(NamedTuple):
    """Jacobian determinants and inverse consistency errors of a pair at each voxel."""

    jacobian: torch.Tensor
    jacobian_inverse: torch.Tensor
    there: torch.Tensor
    back: torch.Tensor
    mean: float

    @classmethod
    def of(cls, u: torch.Tensor, v: torch.Tensor) -> "_VoxelMeasures":
        """Measure a field and its inverse."""
        jacobian, there, mean = _measure_inverse(u, v)
        jacobian_inverse, back, other = _measure_inverse(v, u)
        return cls(jacobian, jacobian_inverse, there, back, max(mean, other))

    def quality(self, repairs: int = 0) -> Quality:
        """Summary over all voxels."""
        return Quality(
            float(self.jacobian.min()),
            float(self.jacobian_inverse.min()),
            self.mean,
            max(float(self.there.max()), float(self.back.max())),
            repairs,
            *(_percent_folded(det) for det in (self.jacobian, self.jacobian_inverse)),
        )

    def find_violations(
        self, u: torch.Tensor, v: torch.Tensor, margin: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Voxels of both fields, 0 or 1, where one of the limits is violated."""

        def violates(det: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
            # In this form, NaN counts as a violation.
            keeps = det >= LEAST_JACOBIAN / margin
            keeps = keeps & (distance <= ROUND_TRIP_MAX * margin)
            return (~keeps).to(u.dtype)

        here = violates(self.jacobian, self.there)
        beyond = violates(self.jacobian_inverse, self.back)
        if not bool(here.any() | beyond.any()):
            return here, beyond
        # A violation at one end of a displacement is repaired at both ends.
        return (
            torch.maximum(here, warp(beyond, u)),
            torch.maximum(beyond, warp(here, v)),
        )


def _percent_folded(jacobian: torch.Tensor) -> float:
    """Voxels with a determinant of 0 or less, in percent."""
    return 100 * int((jacobian <= 0).sum()) / jacobian.numel()


def measure_quality(u: torch.Tensor, v: torch.Tensor, *, repairs: int = 0) -> Quality:
    """Measure a pair of inverse fields.

    Parameters
    ----------
    u, v : Tensor, shape (1, D, *shape)
        A field and its inverse, in voxels of one grid.
    repairs : int, optional
        Number of rounds of repair so far; it is copied to the result.

    Returns
    -------
    quality : Quality
        Jacobian determinants and inverse consistency errors.
    """
    return _VoxelMeasures.of(u, v).quality(repairs)


def make_diffeomorphic(
    u: torch.Tensor, v: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, Quality]:
    """Repair a field and its inverse until they satisfy all limits.

    Where a limit is violated the field is smoothed locally, and more strongly in each
    round.  If a limit is still violated after 20 rounds, the field is multiplied by
    smaller and smaller factors; it is replaced by the identity after 30 rounds at the
    latest.

    Parameters
    ----------
    u : Tensor, shape (1, D, *shape)
        Field in voxels.
    v : Tensor, shape (1, D, *shape), optional
        Approximate inverse of `u`; by default it is computed.

    Returns
    -------
    u, v : Tensor, shape (1, D, *shape)
        Field and inverse.  The determinants of both are at least 0.01 at every voxel.
        The inverse consistency error is at most 0.05 voxel on average, and at most 0.5
        voxel at any point that the first field does not move out of the grid.
    quality : Quality
        Measures of the two fields.

    Raises
    ------
    ValueError
        If the field is not finite.
    """
    if not bool(torch.isfinite(u).all()):
        raise ValueError("displacement must be finite, got NaN or infinite values.")
    v = invert(u) if v is None else v
    repairs, margin, resists = 0, 1.0, None
    while repairs <= _REPAIRS + _SHRINKS:
        # Two fields that were smoothed separately need more rounds.
        rounds = _ROUNDS + min(repairs, _ROUNDS)
        u, v, measures = _correct_inverse(u, v, rounds, margin)
        quality = measures.quality(repairs)
        bad_u, bad_v = measures.find_violations(u, v, margin)
        local = bool(bad_u.any() | bad_v.any())
        if not local and quality.round_trip_mean <= ROUND_TRIP_MEAN:
            return u, v, quality
        repairs, margin = repairs + 1, _MARGIN
        if repairs > _REPAIRS:
            # Always reduce the same field, because `enforce_inverse_consistency` would
            # enlarge a reduced field again.
            resists, times = u if resists is None else resists, repairs - _REPAIRS
            u = resists * _SHRUNK ** (times * (times + 1) / 2)
            v = invert(u)
        elif local:
            u, v = _smooth_near(u, bad_u, repairs), _smooth_near(v, bad_v, repairs)
        else:
            u, v = smooth(u, 0.5), smooth(v, 0.5)
    nothing = torch.zeros_like(u)
    return nothing, nothing.clone(), measure_quality(nothing, nothing, repairs=repairs)


def _correct_inverse(
    u: torch.Tensor, v: torch.Tensor, rounds: int, margin: float
) -> tuple[torch.Tensor, torch.Tensor, _VoxelMeasures]:
    """Reduce the inverse consistency error where a limit is violated.

    Elsewhere the fields are not changed: a correction smooths them, which reduces the
    overlap of the images.
    """
    for _ in range(rounds):
        measures = _VoxelMeasures.of(u, v)
        bad_u, bad_v = measures.find_violations(u, v, margin)
        everywhere = measures.mean > ROUND_TRIP_MEAN * margin
        if not (everywhere or bool(bad_u.any() | bad_v.any())):
            return u, v, measures
        new_u, new_v = enforce_inverse_consistency(u, v)
        if everywhere:
            u, v = new_u, new_v
        else:
            u = torch.lerp(u, new_u, _weight_near(bad_u, 1))
            v = torch.lerp(v, new_v, _weight_near(bad_v, 1))
    return u, v, _VoxelMeasures.of(u, v)


def repair_folds(
    u: torch.Tensor,
    v: torch.Tensor,
    *,
    out: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth two fields where they begin to fold or violate inverse consistency.

    This is used between iterations, because early folds need little smoothing.

    Parameters
    ----------
    u, v : Tensor, shape (1, D, *shape)
        A field and its inverse, in voxels of one grid.
    out : tuple of Tensor, optional
        Buffers for two such fields; if given, `u` and `v` are overwritten.

    Returns
    -------
    u, v : Tensor, shape (1, D, *shape)
        `u` and `v` themselves if no limit is violated.
    """
    bad_u, bad_v = _VoxelMeasures.of(u, v).find_violations(u, v)
    if not bool(bad_u.any() | bad_v.any()):
        return u, v
    smoothed = _smooth_near(u, bad_u, 1, out[0]), _smooth_near(v, bad_v, 1, out[1])
    room = (None, None) if out[0] is None else (u, v)
    return enforce_inverse_consistency(*smoothed, out=room)


def _smooth_near(
    u: torch.Tensor, bad: torch.Tensor, attempt: int, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Smooth a field around bad voxels, over a larger distance at each attempt."""
    smoother = smooth(u, min(0.5 + 0.5 * attempt, 3.0), out=out)
    return torch.lerp(u, smoother, _weight_near(bad, attempt), out=smoother)


def _weight_near(bad: torch.Tensor, attempt: int) -> torch.Tensor:
    """Smooth weight of the voxels near bad ones, from 0 to 1."""
    return smooth(box_sum(bad, 1 + attempt).clamp_(0, 1), 1.0)
