"""Minimise a function of few parameters for a whole batch of starts at once."""

from typing import NamedTuple

import torch

#: A step must gain this part of what the slope promises (Armijo).
_SUFFICIENT = 1e-4


class Found(NamedTuple):
    """Where a batch of minimisations ended.

    Attributes
    ----------
    place : Tensor, shape (B, P)
        Parameters.
    value : Tensor, shape (B,)
        Function there.
    evaluations : int
        How often the function was called, for all of the batch that still ran.
    """

    place: torch.Tensor
    value: torch.Tensor
    evaluations: int


def minimise(function, start, *, iterations, reach, tolerance):
    """Quasi-Newton descent (BFGS, :footcite:p:`Nocedal2006`) of a batch.

    The parameters should be scaled alike: a step of length 1 as good in one direction
    as in another.  Every call of the function is one trial for each entry of the batch:
    those that gain enough take the step, the others shorten theirs.

    Parameters
    ----------
    function : callable
        ``function(place, entries) -> (value, gradient)`` of shapes (b, P), (b,) and
        (b, P), for some of the entries of the batch, by their numbers.
    start : Tensor, shape (B, P)
        Float64, on the CPU.
    iterations : int
        Most calls of the function.
    reach : float
        Length of the first step, and a quarter of the longest.
    tolerance : float
        An entry is done when its step is shorter than this.

    Returns
    -------
    found : Found
        The best of each entry; never worse than its start.

    References
    ----------
    .. footbibliography::
    """
    batch, size = start.shape
    place = start.clone()
    entries = torch.arange(batch, device=start.device)
    value, slope = function(place, entries)
    eye = torch.eye(size, dtype=start.dtype, device=start.device)
    inverse = eye.repeat(batch, 1, 1)
    fresh = torch.ones(batch, dtype=torch.bool, device=start.device)
    step = _first_step(slope, reach)
    running = (step.norm(dim=1) > 0) & value.isfinite()
    calls = 1
    while calls < iterations and bool(running.any()):
        now = entries[running]
        trial = place[now] + step[now]
        new_value, new_slope = function(trial, now)
        calls += 1
        expected = (slope[now] * step[now]).sum(1)
        good = new_value <= value[now] + _SUFFICIENT * expected
        worse = now[~good]
        step[worse] *= _shorter(new_value[~good], value[worse], expected[~good])
        taken = now[good]
        change = new_slope[good] - slope[taken]
        _update(inverse, fresh, taken, step[taken], change, eye)
        place[taken], value[taken] = trial[good], new_value[good]
        slope[taken] = new_slope[good]
        moved = step[taken].norm(dim=1)
        step[taken] = _next_step(inverse[taken], slope[taken], 4 * reach)
        # Without a curvature yet, slopes tell the way but not how far.
        unknown = taken[fresh[taken]]
        step[unknown] = _first_step(slope[unknown], reach)
        small = step[now].norm(dim=1) < tolerance
        # A long way with the next step short is no end: the model may be poor yet.
        small[good] &= moved < 10 * tolerance
        running[now[small]] = False
    return Found(place, value, calls)


def _first_step(slope, reach):
    norm = slope.norm(dim=1, keepdim=True)
    return torch.where(norm > 0, -slope * (reach / norm), torch.zeros_like(slope))


def _shorter(value, old, expected):
    """Where a parabola through what is known has its minimum, within bounds."""
    curve = value - old - expected
    best = -expected / (2 * curve)
    best = torch.where(best.isfinite(), best, torch.full_like(best, 0.1))
    return best.clamp_(0.1, 0.5)[:, None]


def _update(inverse, fresh, taken, step, change, eye):
    """BFGS update of the inverse Hessians, where the curvature is positive."""
    product = (step * change).sum(1)
    sound = product > 1e-10 * step.norm(dim=1) * change.norm(dim=1)
    taken, step, change = taken[sound], step[sound], change[sound]
    product = product[sound][:, None, None]
    scale = product / (change * change).sum(1)[:, None, None]
    new = fresh[taken][:, None, None]
    old = torch.where(new, scale * eye, inverse[taken])
    fresh[taken] = False
    left = eye - step[:, :, None] * change[:, None, :] / product
    outer = step[:, :, None] * step[:, None, :] / product
    inverse[taken] = left @ old @ left.transpose(1, 2) + outer


def _next_step(inverse, slope, longest):
    step = -(inverse @ slope[:, :, None])[:, :, 0]
    norm = step.norm(dim=1, keepdim=True)
    return step * (longest / norm.clamp_min(longest))
