"""Multi-resolution refinement of a displacement field on one pair of images.

From the coarsest level to the finest, each iteration warps the moving image, computes
the gradient of the objective, smooths it, converts it to a displacement (`Adam`) and
composes this with the field: ``u <- step + u(x + step)``.  The gradient by the step is
``dM/dwarped * grad(warped)``, by the chain rule at a step of zero, summed over the
channels; the gradient of the unwarped moving image is not needed.  If the channels are
reoriented (`Pair.reorient`), the derivative of the rotation is neglected.

The inverse is updated in the same iteration, ``v <- v - step(y + v)``.  With a
`symmetric` metric the same is done with the images exchanged: the static image is
warped by the inverse, compared with the moving image, and its displacement composed
with the inverse (`optimization.directions`).  Both fields are then corrected by half of
their inverse consistency error (`enforce_inverse_consistency`).  This prevents details
that the two sampled fields cannot both represent.  If the correction is done only at
the end, the overlap is lower at the same inverse consistency error.

A given start has more detail than a coarse level can represent.  The level refines the
whole field, resampled to its voxels, and only the change that it makes is composed with
the field of full resolution.  If instead the images were warped by the start and a
level estimated what remains, no level would smooth the errors of the start, and coarse
levels would fit the residual noise of images that are already similar.  Before the
finest level, the start and the result of the coarser levels are compared, because a
coarse level is less accurate than an accurate start (`_select_fields`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch

from dipy_dl_reg.geometry.fields import compose, resize
from dipy_dl_reg.geometry.fold_repair import repair_folds
from dipy_dl_reg.geometry.inversion import enforce_inverse_consistency
from dipy_dl_reg.geometry.pair import Pair, make_compared_mask
from dipy_dl_reg.geometry.pyramid import coarsen, level_spacings
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.optimization.directions import (
    Direction,
    Fields,
    make_directions,
    mean_energy,
)
from dipy_dl_reg.optimization.energy_history import Energy, EnergyHistory
from dipy_dl_reg.optimization.phase_encoding import AxisConstraint

#: Number of iterations between repairs of folds.
_REPAIR_INTERVAL = 10
#: The fields with the lowest energy are copied in each of this number of first
#: iterations, and afterwards at most once in this number of iterations.
_COPY_INTERVAL = 5

#: A start is compared with the result of coarser levels after both are smoothed by the
#: Gaussian of this number of iterations.
_COMPARED_AFTER = 4
#: A coarser level with fewer iterations than this takes steps that are longer by this
#: factor, if the metric is symmetric: its two directions converge more slowly.
_FEW_ITERATIONS, _LONGER_STEP = 50, 1.5

#: Called with a stage, a level and an energy, see `refine`.
Observer = Callable[[str, int, float | None], None]


class IterationOptions(NamedTuple):
    """Options of the iterations of a level, as in `refine`.

    Attributes
    ----------
    step : float
        Length of a step, in voxels.
    sigma_field : float
        Smoothing of the field, in voxels.
    tolerance : float
        Bound of convergence.
    constraint : AxisConstraint or None
        The line on which displacements lie.
    """

    step: float
    sigma_field: float
    tolerance: float
    constraint: AxisConstraint | None = None


class LevelState(NamedTuple):
    """Both fields of a level, and buffers of the same shape.

    An iteration writes its results to the buffers; its input fields become the buffers
    of the next iteration.  The allocation of a field takes longer than its computation.

    Attributes
    ----------
    u, v : Tensor, shape (1, D, *shape)
        Field and inverse, in voxels of the level.
    buffer : Tensor, shape (1, D, *shape)
        A buffer.
    move : Tensor, shape (1, D, *shape)
        Displacement of an iteration, by which the field is composed.
    inverse_move : Tensor, shape (1, D, *shape), or None
        The displacement by which the inverse is composed, if the similarity is measured
        in both directions.
    """

    u: torch.Tensor
    v: torch.Tensor
    buffer: torch.Tensor
    move: torch.Tensor
    inverse_move: torch.Tensor | None = None


def refine(
    pair: Pair,
    objective: Objective,
    *,
    level_iters: Sequence[int],
    start: Fields | None = None,
    step: float = 0.5,
    sigma_field: float = 0.7,
    sigma_factor: float = 0.8,
    tolerance: float = 0.0,
    constraint: AxisConstraint | None = None,
    observer: Observer | None = None,
) -> Fields:
    """Find the displacement field that aligns the moving image with the static one.

    Parameters
    ----------
    pair : Pair
        The images.
    objective : Objective
        The function to minimize.
    level_iters : sequence of int
        Maximum number of iterations of each level, coarsest first; 0 skips a level.
    start : tuple of Tensor, shape (1, D, *static_shape), optional
        Field to begin with and its inverse, in voxels; by default no displacement.
        Each level refines the whole field, resampled to its voxels; details of the
        start that are finer than these voxels are kept for the next levels.  The finest
        level begins from the start itself if this is better than the result of the
        coarser levels.
    step : float, optional
        Length of a step, in voxels of the level; the longest displacement of an
        iteration is this times the `max_step_factor` of the metric.  With a symmetric
        metric, coarser levels of fewer than 50 iterations take steps of 1.5 times this
        length.
    sigma_field : float, optional
        Standard deviation of the Gaussian that smooths the whole field after each
        iteration at the finest level, in voxels; at coarser levels it is this times
        the `coarse_smoothing` of the metric, in voxels of the level.
    sigma_factor : float, optional
        Smoothing of the images before they are sampled on larger voxels, see `coarsen`.
    tolerance : float, optional
        A level ends when the mean decrease of the energy per iteration, divided by the
        decrease since the level's first iteration, is below this; with 0, when the mean
        energy increases.
    constraint : AxisConstraint, optional
        The line on which displacements lie; the `start` must lie on it, too.
    observer : callable, optional
        ``observer(stage, level, energy)``: `stage` is one of ``"level_start"``,
        ``"iteration_start"``, ``"iteration_end"``, ``"level_end"``; `level` counts from
        0, the finest; `energy` is a float at ``"iteration_end"``, else None.
        ``"level_reverted"`` comes before ``"level_end"`` if a level ended with a higher
        energy than it began with; the fields with the given `energy` are then used.

    Returns
    -------
    displacement, inverse : Tensor, shape (1, D, *static_shape)
        In voxels of the static grid; inverse to each other up to a small error, which
        `make_diffeomorphic` brings within its bounds.
    """
    finest = IterationOptions(step, sigma_field, tolerance, constraint)
    coarse = finest._replace(
        sigma_field=sigma_field * objective.metric.coarse_smoothing
    )
    observer = observer or _ignore
    grid, dim = pair.static_grid, pair.static_grid.dim
    zero = pair.static.new_zeros(1, dim, *[1] * dim)
    fields: Fields = (zero, zero) if start is None else start
    spacings = level_spacings(grid, len(level_iters))
    for index, (iterations, spacing) in enumerate(zip(level_iters, spacings)):
        level = len(level_iters) - 1 - index
        if start is not None and not level:
            fields = _select_fields(pair, objective, start, fields, sigma_field)
        observer("level_start", level, None)
        if iterations:
            current = coarsen(pair, spacing, sigma_factor=sigma_factor)
            given = _resize_both(fields, current.static_grid.shape)
            notify = partial(_notify, observer, level)
            options = coarse if level else finest
            if level and objective.metric.symmetric and iterations < _FEW_ITERATIONS:
                options = options._replace(step=step * _LONGER_STEP)
            found = _refine_level(
                current, objective, given, options, iterations, notify
            )
            fields = found if start is None else _apply_change(fields, given, found)
        observer("level_end", level, None)
    return _resize_both(fields, grid.shape)


def evaluate_energies(
    pair: Pair, objective: Objective, fields: Sequence[torch.Tensor]
) -> list[float]:
    """Evaluate the objective for several fields on the same voxels.

    Parameters
    ----------
    pair : Pair
        The images.
    objective : Objective
        The function that refinement minimizes; with a symmetric metric, only the
        comparison on static's grid is evaluated.
    fields : sequence of Tensor, shape (1, D, *static_shape)
        In voxels of the static grid; the moving mask is warped by the first one, for
        all of them.

    Returns
    -------
    energies : list of float
        One for each field, lower is better, without the penalty on landmarks.
    """
    frame = pair.frame()
    mask = make_compared_mask(pair, fields[0], frame)
    objective = objective.for_grid(pair.static_grid)
    evaluate = objective.bind(pair.static, mask, moving=pair.moving)
    return [float(evaluate(pair.warp_moving(u, frame), u)[0].total) for u in fields]


def _ignore(stage: str, level: int, energy: float | None) -> None:
    """The observer if none is given."""


def _notify(observer: Observer, level: int, stage: str, energy: float | None) -> None:
    """Pass an event of a level to the observer."""
    observer(stage, level, energy)


def _resize_both(fields: Fields, shape: Sequence[int]) -> Fields:
    """A field and its inverse on a grid of another shape, in its voxels."""
    u, v = fields
    return resize(u, shape), resize(v, shape)


def _apply_change(fields: Fields, given: Fields, found: Fields) -> Fields:
    """Compose fields with the change that a level made to their resampled copies.

    With ``F`` the map of the given field and ``G`` that of the field found, the change
    is ``G`` followed by the inverse of ``F``, at the voxels of the level.
    """
    shape = fields[0].shape[2:]
    if given[0].shape[2:] == shape:
        return found
    change = compose(found[0], given[1]), compose(given[0], found[1])
    u, v = _resize_both(change, shape)
    return compose(u, fields[0]), compose(fields[1], v)


def _select_fields(
    pair: Pair, objective: Objective, start: Fields, refined: Fields, sigma: float
) -> Fields:
    """Return the start, or what coarser levels made of it: the one of lower energy.

    The energies are those of the smoothed fields.  A rough field can have a low energy
    because it fits the noise of the images, which the next iterations would smooth.
    """
    if refined is start:  # no coarser level had iterations
        return start
    sigma *= _COMPARED_AFTER**0.5
    fields = [smooth(u, sigma) for u in (start[0], refined[0])]
    before, after = evaluate_energies(pair, objective, fields)
    return refined if after < before else start


def _refine_level(
    pair: Pair,
    objective: Objective,
    fields: Fields,
    options: IterationOptions,
    iterations: int,
    notify: Callable[[str, float | None], None],
) -> Fields:
    """Iterate at one resolution; return the best fields if the energy ends higher."""
    length = options.step * objective.metric.max_step_factor
    directions = make_directions(pair, objective, fields, length, options.constraint)
    if not directions:
        return fields  # the masks have no common voxel at this resolution
    history, best = EnergyHistory(), _BestFields(fields)
    state = _copy_fields(fields, inverse_moves=len(directions) > 1)
    for index in range(iterations):
        notify("iteration_start", None)
        energy = _find_moves(state, directions)
        history.append(energy)
        best.update(index, energy.total, state)
        state = _apply_moves(state, options.sigma_field)
        if (index + 1) % _REPAIR_INTERVAL == 0:
            state = _repair_fields(state)
        notify("iteration_end", energy.total)
        if history.has_converged(options.tolerance):
            break
    if history.has_increased():
        notify("level_reverted", best.energy)
        return best.fields
    return state.u, state.v


def _copy_fields(fields: Fields, *, inverse_moves: bool) -> LevelState:
    """The state that a level begins with; the given fields are not changed later."""
    u, v = (f.clone(memory_format=torch.contiguous_format) for f in fields)
    buffers = [torch.empty_like(u) for _ in range(3 if inverse_moves else 2)]
    return LevelState(u, v, *buffers)


def _find_moves(state: LevelState, directions: Sequence[Direction]) -> Energy:
    """Write the displacements of an iteration to their buffers; return the energy."""
    fields, moves = (state.u, state.v), (state.move, state.inverse_move)
    energies = [
        direction.find_move(field, out=move, scratch=state.buffer)
        for direction, field, move in zip(directions, fields, moves)
        if move is not None
    ]
    return mean_energy(energies)


def _apply_moves(state: LevelState, sigma_field: float) -> LevelState:
    """Compose both fields with the displacements, smooth them and correct the inverse.

    The old fields are overwritten and become the buffers.
    """
    u, v, buffer, move, back = state
    new, free = compose(v, move, scale=-1, out=buffer), v
    if back is not None:
        new, free = compose(back, new, out=free), new
    v, buffer = smooth(new, sigma_field, out=free, scratch=new), new
    new, free = compose(move, u, out=buffer), u
    if back is not None:
        new, free = compose(new, back, scale=-1, out=free), new
    u, buffer = smooth(new, sigma_field, out=free, scratch=new), new
    new_u, new_v = enforce_inverse_consistency(u, v, out=(buffer, move))
    return LevelState(new_u, new_v, u, v, back)


def _repair_fields(state: LevelState) -> LevelState:
    """Smooth both fields where they fold or are not inverse to each other."""
    u, v, buffer, move, back = state
    u, v = repair_folds(u, v, out=(buffer, move))
    return LevelState(u, v, buffer, move, back)


class _BestFields:
    """The fields with the lowest energy so far."""

    def __init__(self, fields: Fields) -> None:
        self.fields, self.energy, self.index = fields, float("inf"), 0
        self._copies: Fields | None = None

    def update(self, index: int, energy: float, state: LevelState) -> None:
        """Copy the fields of an iteration if they are the best and a copy is due."""
        due = index < _COPY_INTERVAL or index - self.index >= _COPY_INTERVAL
        if not (energy < self.energy and due):
            return
        self.energy, self.index = energy, index
        if index == 0:  # the first iteration has the initial fields
            return
        if self._copies is None:
            self._copies = torch.empty_like(state.u), torch.empty_like(state.v)
        for copy, field in zip(self._copies, (state.u, state.v)):
            copy.copy_(field)
        self.fields = self._copies
