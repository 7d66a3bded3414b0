"""Measures of a pair of fields, and repair of a pair that is not diffeomorphic.

A result is a pair of fields, a map and its inverse.  Neither may fold (the Jacobian
determinant, by central differences, exceeds a limit at every voxel), and the map
followed by its inverse must return to the start.  `make_diffeomorphic` checks that, and
smooths the fields where it does not hold until it does.
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

#: Limits that every result keeps: mean and largest error of the round trip, in voxels
#: of its grid, and least Jacobian determinant.
ROUND_TRIP_MEAN, ROUND_TRIP_MAX, LEAST_JACOBIAN = 0.05, 0.5, 0.01
#: Repairs use limits stricter by this factor, so that the result keeps a distance from
#: the limits proper.
_MARGIN = 0.9
#: Calls of `enforce_inverse_consistency` on a finished pair of fields; up to twice as
#: many once it was repaired.
_ROUNDS = 3
#: Rounds of local smoothing before the whole field is shrunk instead, and most rounds
#: of shrinking.
_REPAIRS, _SHRINKS = 20, 10
#: The k-th shrinking multiplies the field that smoothing could not repair by this
#: factor to the power of k (k + 1) / 2: few rounds are enough for any field.
_SHRUNK = 0.8


class Quality(NamedTuple):
    """Measures of a pair of inverse fields.

    Attributes
    ----------
    minimum_jacobian, minimum_jacobian_inverse : float
        Least Jacobian determinant over all voxels of the field and of its inverse.
    round_trip_mean, round_trip_max : float
        Distance, in voxels, from each voxel centre to its position after one field and
        then the other; the worse of the two orders; over the points that the first
        field leaves inside the grid.
    repairs : int
        Rounds of repair that were needed; above 20 the whole field was shrunk, too.
    """

    minimum_jacobian: float
    minimum_jacobian_inverse: float
    round_trip_mean: float
    round_trip_max: float
    repairs: int = 0

    @property
    def shrunk(self) -> bool:
        """Whether smoothing was not enough and the whole field was shrunk."""
        return self.repairs > _REPAIRS


def _measure_inverse(
    u: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Determinants of a field, distances of its round trips, and their mean."""
    if dispatch.supports(u, v):
        return kernels.measure_inverse(u, v)
    distance, inside = round_trip(u, v)
    return jacobian(u)[:, None], distance, float(_mean_inside(distance, inside))


def _mean_inside(distance: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Mean over the voxels inside, in float64 on the CPU, since MPS has no float64."""
    planes = distance.sum(tuple(range(3, distance.ndim))).cpu().double()
    return planes.sum() / max(int(inside.sum()), 1)


class _VoxelMeasures(NamedTuple):
    """Measures of a pair of fields at each voxel: determinants and round trips."""

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
        )

    def find_violations(
        self, u: torch.Tensor, v: torch.Tensor, margin: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Voxels of both fields, 0 or 1, where one of the limits is violated."""

        def violates(det: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
            # Written so that NaN is a violation.
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


def measure_quality(u: torch.Tensor, v: torch.Tensor, *, repairs: int = 0) -> Quality:
    """Measure a pair of inverse fields.

    Parameters
    ----------
    u, v : Tensor, shape (1, D, *shape)
        A field and its inverse, in voxels of one grid.
    repairs : int, optional
        Rounds of repair until then, for the result.

    Returns
    -------
    quality : Quality
        Determinants and round trips.
    """
    return _VoxelMeasures.of(u, v).quality(repairs)


def make_diffeomorphic(
    u: torch.Tensor, v: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, Quality]:
    """Repair a field and its inverse until they keep all limits.

    Where a limit is violated the field is smoothed, locally and more strongly in each
    round.  A field that still violates a limit after 20 rounds is multiplied by ever
    smaller factors, and is replaced by the identity after 30 rounds at the latest.

    Parameters
    ----------
    u : Tensor, shape (1, D, *shape)
        Field in voxels.
    v : Tensor, shape (1, D, *shape), optional
        Its approximate inverse; by default computed.

    Returns
    -------
    u, v : Tensor, shape (1, D, *shape)
        Field and inverse: determinants of at least 0.01 at every voxel of both,
        error of the round trip at most 0.05 voxel on average and 0.5 at any point that
        the first field leaves inside the grid.
    quality : Quality
        Their measures.

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
        # Two fields that were smoothed separately need more rounds.
        for _ in range(_ROUNDS + min(repairs, _ROUNDS)):
            u, v = enforce_inverse_consistency(u, v)
        measures = _VoxelMeasures.of(u, v)
        quality = measures.quality(repairs)
        bad_u, bad_v = measures.find_violations(u, v, margin)
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
            u, v = _smooth_near(u, bad_u, repairs), _smooth_near(v, bad_v, repairs)
        else:
            u, v = smooth(u, 0.5), smooth(v, 0.5)
    nothing = torch.zeros_like(u)
    return nothing, nothing.clone(), measure_quality(nothing, nothing, repairs=repairs)


def repair_folds(
    u: torch.Tensor,
    v: torch.Tensor,
    *,
    out: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth two fields where they begin to fold or stop being each other's inverse.

    For use between iterations: folds found early need little smoothing.

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
    weight = smooth(box_sum(bad, 1 + attempt).clamp_(0, 1), 1.0)
    smoother = smooth(u, min(0.5 + 0.5 * attempt, 3.0), out=out)
    return torch.lerp(u, smoother, weight, out=smoother)
