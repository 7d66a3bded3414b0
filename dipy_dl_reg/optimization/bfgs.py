"""Minimizes a function of few parameters from a batch of starts at once (BFGS)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

#: Part of the decrease predicted by the gradient that a step must reach (Armijo).
_SUFFICIENT_DECREASE = 1e-4

#: ``function(parameters, entries) -> (values, gradients)``, see `minimize_batch`.
BatchFunction = Callable[
    [torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]
]


class Minimum(NamedTuple):
    """Result of a batch of minimizations.

    Attributes
    ----------
    parameters : Tensor, shape (B, P)
        Parameters with the lowest values.
    value : Tensor, shape (B,)
        Value of the function there.
    evaluations : int
        Number of calls of the function; each evaluates all entries of the batch that
        have not converged.
    """

    parameters: torch.Tensor
    value: torch.Tensor
    evaluations: int


def minimize_batch(
    function: BatchFunction,
    start: torch.Tensor,
    *,
    iterations: int,
    first_step: float,
    tolerance: float,
) -> Minimum:
    """Minimize by a quasi-Newton method (BFGS, :footcite:p:`Nocedal2006`).

    The parameters should be scaled so that steps of length 1 have similar effects in
    all
    directions.  Every call of the function tries one step for each entry of the batch:
    if the value decreases enough, the step is accepted; otherwise it is shortened.

    Parameters
    ----------
    function : callable
        ``function(parameters, entries) -> (values, gradients)`` of shapes (b, P), (b,)
        and (b, P), for those entries of the batch whose numbers are given.
    start : Tensor, shape (B, P)
        Float64, on the CPU.
    iterations : int
        Maximum number of calls of the function.
    first_step : float
        Length of the first step; the longest is four times as long.
    tolerance : float
        An entry has converged when its step is shorter than this.

    Returns
    -------
    minimum : Minimum
        The best of each entry; never worse than its start.

    References
    ----------
    .. footbibliography::
    """
    state = _make_state(function, start, first_step)
    evaluations = 1
    while evaluations < iterations and bool(state.running.any()):
        _take_steps(function, state, first_step, tolerance)
        evaluations += 1
    return Minimum(state.parameters, state.value, evaluations)


class _State(NamedTuple):
    """State of all entries; `_take_steps` changes the tensors in place."""

    parameters: torch.Tensor  # (B, P)
    value: torch.Tensor  # (B,)
    gradient: torch.Tensor  # (B, P)
    inverse_hessian: torch.Tensor  # (B, P, P)
    has_no_curvature: torch.Tensor  # (B,), True until the first update
    step: torch.Tensor  # (B, P), the next to try
    running: torch.Tensor  # (B,), False for entries that have converged


def _make_state(
    function: BatchFunction, start: torch.Tensor, first_step: float
) -> _State:
    """The state at the start of all entries."""
    batch, size = start.shape
    device = start.device
    parameters = start.clone()
    value, gradient = function(parameters, torch.arange(batch, device=device))
    step = _gradient_step(gradient, first_step)
    return _State(
        parameters,
        value,
        gradient,
        torch.eye(size, dtype=start.dtype, device=device).repeat(batch, 1, 1),
        torch.ones(batch, dtype=torch.bool, device=device),
        step,
        (step.norm(dim=1) > 0) & value.isfinite(),
    )


def _take_steps(
    function: BatchFunction, state: _State, first_step: float, tolerance: float
) -> None:
    """Try one step of each running entry: take it, or shorten it."""
    entries = torch.arange(len(state.value), device=state.value.device)[state.running]
    trial = state.parameters[entries] + state.step[entries]
    value, gradient = function(trial, entries)
    predicted = (state.gradient[entries] * state.step[entries]).sum(1)
    good = value <= state.value[entries] + _SUFFICIENT_DECREASE * predicted
    worse, taken = entries[~good], entries[good]
    factor = _shortening_factor(value[~good], state.value[worse], predicted[~good])
    state.step[worse] *= factor
    _update_inverse_hessian(state, taken, gradient[good] - state.gradient[taken])
    state.parameters[taken], state.value[taken] = trial[good], value[good]
    state.gradient[taken] = gradient[good]
    length = state.step[taken].norm(dim=1)
    _set_next_steps(state, taken, first_step)
    short = state.step[entries].norm(dim=1) < tolerance
    # A short step after a long one may result from a poor quadratic model: continue.
    short[good] &= length < 10 * tolerance
    state.running[entries[short]] = False


def _gradient_step(gradient: torch.Tensor, length: float) -> torch.Tensor:
    """Steps of a given length against the gradient; 0 where that is 0."""
    norm = gradient.norm(dim=1, keepdim=True)
    zero = torch.zeros_like(gradient)
    return torch.where(norm > 0, -gradient * (length / norm), zero)


def _shortening_factor(
    value: torch.Tensor, old: torch.Tensor, predicted: torch.Tensor
) -> torch.Tensor:
    """Minimum of the parabola through the known values, between 0.1 and 0.5."""
    curvature = value - old - predicted
    best = -predicted / (2 * curvature)
    best = torch.where(best.isfinite(), best, torch.full_like(best, 0.1))
    return best.clamp_(0.1, 0.5)[:, None]


def _update_inverse_hessian(
    state: _State, taken: torch.Tensor, change: torch.Tensor
) -> None:
    """BFGS update of the inverse Hessians, where the curvature is positive."""
    step = state.step[taken]
    product = (step * change).sum(1)
    positive = product > 1e-10 * step.norm(dim=1) * change.norm(dim=1)
    taken, step, change = taken[positive], step[positive], change[positive]
    product = product[positive][:, None, None]
    eye = torch.eye(step.shape[1], dtype=step.dtype, device=step.device)
    scale = product / (change * change).sum(1)[:, None, None]
    first = state.has_no_curvature[taken][:, None, None]
    old = torch.where(first, scale * eye, state.inverse_hessian[taken])
    state.has_no_curvature[taken] = False
    left = eye - step[:, :, None] * change[:, None, :] / product
    outer = step[:, :, None] * step[:, None, :] / product
    state.inverse_hessian[taken] = left @ old @ left.transpose(1, 2) + outer


def _set_next_steps(state: _State, taken: torch.Tensor, first_step: float) -> None:
    """Newton steps of limited length for the entries that took their last one."""
    gradient, longest = state.gradient[taken], 4 * first_step
    step = -(state.inverse_hessian[taken] @ gradient[:, :, None])[:, :, 0]
    norm = step.norm(dim=1, keepdim=True)
    state.step[taken] = step * (longest / norm.clamp_min(longest))
    # Without a curvature the gradient gives the direction, but not the length.
    unknown = taken[state.has_no_curvature[taken]]
    state.step[unknown] = _gradient_step(state.gradient[unknown], first_step)
