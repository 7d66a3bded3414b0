"""Multi-resolution refinement of a field on one pair of images.

At each level, coarse to fine, each iteration warps the moving image, takes the
objective's gradient, smooths it, turns it into a step and composes the step with
the field: ``u <- step + u(x + step)``.  The gradient by the step is
``dM/dwarped * grad(warped)``, the chain rule at a step of nothing, so that the
moving image's own gradient is never needed.

The inverse is carried along, ``v <- v - step(y + v)``, and as they go both fields
give up half of what going there and back misses (`inversion.reconcile`): detail that
the two sampled fields cannot both hold never builds up, and the similarity adapts
while there is time.  Doing so only at the end cost more overlap for the same
inversion error.
"""

import torch

from dipy_dl_reg.geometry.fields import compose, resize, slopes, warp
from dipy_dl_reg.geometry.inversion import guarded, reconcile
from dipy_dl_reg.geometry.kernels import dispatch
from dipy_dl_reg.geometry.kernels import functions as kernels
from dipy_dl_reg.geometry.pair import combined_mask, moved
from dipy_dl_reg.geometry.pyramid import coarsen, level_spacings
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.optimization.landmark_penalty import LandmarkPenalty

#: Convergence compares the means of the last so many iterations and of those before.
_WINDOW = 10
#: Gradients are measured against no less than this, of a mean over voxels of images
#: scaled to [0, 1]: the round-off of two equal images moves nothing.
_LEAST_GRADIENT = 1e-2
#: The fields are looked at for folds every so many iterations.
_GUARD = 10
#: Fields better than all before are copied, for a level that ends worse than it began:
#: at each of the first so many iterations, and then at most every so many.
_KEEP = 5
#: Memory of Adam's first and second moments.
_BETAS = (0.9, 0.99)


class _Adam:
    """Per-voxel Adam whose second moment is that of the vector, not of components.

    One moment per voxel keeps the direction of the gradient.  ``epsilon`` is relative
    to the largest root second moment so far, so that flat background, where the
    gradient is round-off, hardly moves, and nothing does once all is matched.
    """

    def __init__(self, like, *, epsilon):
        self.first = torch.zeros_like(like)
        self.second = torch.zeros_like(like[:, :1])
        self.betas, self.epsilon, self.count = _BETAS, epsilon, 0
        self.largest = like.new_tensor(_LEAST_GRADIENT / like[:, :1].numel())

    def direction(self, gradient, step):
        """Move of about `step` where the gradient is steady; takes its place."""
        b1, b2 = self.betas
        self.count += 1
        # The strongest gradient moves its voxel at full length, whatever epsilon is.
        rate = -step * (1 + self.epsilon) / (1 - b1**self.count)
        unbias = 1 / (1 - b2**self.count)
        if dispatch.suit(gradient):
            square = kernels.moments(gradient, self.first, self.second, betas=(b1, b2))
            self.largest = torch.maximum(self.largest, (square * unbias).sqrt())
            floor = float(self.epsilon * self.largest)
            moments = self.first, self.second
            factors = {"unbias": unbias, "floor": floor, "rate": rate}
            return kernels.direction(*moments, **factors, out=gradient)
        self.first.mul_(b1).add_(gradient, alpha=1 - b1)
        square = gradient.square_().sum(1, keepdim=True)
        self.second.mul_(b2).add_(square, alpha=1 - b2)
        root = (self.second * unbias).sqrt_()
        self.largest = torch.maximum(self.largest, root.amax())
        root += self.epsilon * self.largest
        return torch.div(self.first, root, out=gradient).mul_(rate)


def refine(
    pair,
    objective,
    *,
    level_iters,
    start=None,
    step=0.5,
    sigma_field=0.8,
    sigma_factor=0.8,
    tolerance=0.0,
    observer=None,
):
    """Find the field that brings the moving image onto the static one.

    Parameters
    ----------
    pair : Pair
        The images.
    objective : Objective
        What to minimise.
    level_iters : sequence of int
        Most iterations at each level, coarsest first; a level of 0 is passed over.
    start : tuple of Tensor, shape (1, D, *static_shape), optional
        Field to begin with and its inverse, in voxels; by default no displacement.
        Coarser levels then look for what it leaves, so that its detail is not lost on
        their grids, and what they find is dropped if the objective is none the better.
    step : float, optional
        Length of a step, in voxels of the level; the metric's `stride` of them is the
        longest.
    sigma_field : float, optional
        Standard deviation of the Gaussian that smooths the whole field after each
        iteration, in voxels of the level.
    sigma_factor : float, optional
        See `coarsen`.
    tolerance : float, optional
        A level ends when the objective's mean decrease per iteration, as a part of
        all that the level has gained, falls below this; 0 waits until it rises.
    observer : callable, optional
        ``observer(stage, level, energy)``: `stage` one of ``"level_start"``,
        ``"iteration_start"``, ``"iteration_end"``, ``"level_end"``; `level` counts
        from 0, the finest; `energy` is a float at ``"iteration_end"``, else None.
        ``"level_reverted"`` says, before the last of them, that a level ended with a
        higher energy than it began with, and that its fields of this `energy` are kept.

    Returns
    -------
    displacement, inverse : Tensor, shape (1, D, *static_shape)
        In voxels of the static grid; all but inverse to each other (`diffeomorphic`
        sees to the rest).
    """
    observer = observer or (lambda stage, level, energy: None)
    dim = pair.static_grid.dim
    spacings = level_spacings(pair.static_grid, len(level_iters))
    u = v = pair.static.new_zeros(1, dim, *[1] * dim)
    images = pair if start is None else moved(pair, *start)
    for index, (iterations, spacing) in enumerate(zip(level_iters, spacings)):
        level = len(level_iters) - 1 - index
        if start is not None and not level:
            u, v = _joined(pair, objective, start, (u, v))
            images = pair
        observer("level_start", level, None)
        if iterations:
            current = coarsen(images, spacing, sigma_factor=sigma_factor)
            u, v = (resize(f, current.static_grid.shape) for f in (u, v))
            u, v = _refine_level(
                current,
                objective,
                u,
                v,
                iterations=iterations,
                step=step,
                sigma_field=sigma_field,
                tolerance=tolerance,
                notify=lambda stage, value, level=level: observer(stage, level, value),
            )
        observer("level_end", level, None)
    return tuple(resize(f, pair.static_grid.shape) for f in (u, v))


def evaluate_energies(pair, objective, fields):
    """The objective of several fields on the same voxels.

    Parameters
    ----------
    pair : Pair
        The images.
    objective : Objective
        What would be minimised.
    fields : sequence of Tensor, shape (1, D, *static_shape)
        In voxels of the static grid; the first says which voxels count.

    Returns
    -------
    values : list of float
        One for each; lower is better.  Landmarks do not count.
    """
    frame = pair.frame()
    mask = combined_mask(pair, fields[0], frame)
    evaluate = objective.bind(pair.static, mask, moving=pair.moving)
    return [
        float(evaluate(warp(pair.moving, u, frame_=frame), u)[0].total) for u in fields
    ]


def _joined(pair, objective, start, rest):
    """A start and what coarser levels found on top of it; or the start, if better."""
    if max(rest[0].shape[2:]) == 1:
        return start
    u, v = (resize(f, pair.static_grid.shape) for f in rest)
    u, v = compose(u, start[0]), compose(start[1], v)
    before, after = evaluate_energies(pair, objective, (start[0], u))
    return (u, v) if after < before else start


def _refine_level(
    pair,
    objective,
    u,
    v,
    *,
    iterations,
    step,
    sigma_field,
    tolerance,
    notify,
):
    """Iterate at one resolution; return the best fields if the energy ends higher.

    With landmarks, if it does so with and without them: their pull is bounded, and may
    let them go a little where a large weight makes much of it.
    """
    frame = pair.frame()
    mask = combined_mask(pair, u, frame)
    if mask is not None and not bool(mask.any()):
        return u, v  # two thin masks that miss each other at this resolution
    evaluate = objective.bind(pair.static, mask, moving=pair.moving)
    guide = None
    if pair.landmarks is not None and objective.landmark_weight:
        guide = LandmarkPenalty(
            pair, objective.landmark_weight, objective.metric.sigma_diff
        )
    energies, of_images, best = [], [], _Best((u, v))
    u, v = (f.clone(memory_format=torch.contiguous_format) for f in (u, v))
    adam = _Adam(u, epsilon=objective.metric.weak_gradient)
    # Written to in turn: a fresh field at every step would cost more than the step.
    gradient, move = torch.empty_like(u), torch.empty_like(u)
    for index in range(iterations):
        notify("iteration_start", None)
        warped = warp(pair.moving, u, frame_=frame)
        terms, by_image, by_field = evaluate(warped, u)
        slopes(warped, by_image, out=gradient)
        if by_field is not None:
            gradient += by_field
        energy = terms.total
        if guide is not None:
            of_images.append(float(energy))
            energy = energy + guide.pull(u, gradient, strongest=adam.largest)
        energies.append(float(energy))
        best.look(index, energies[-1], (u, v))
        smooth(gradient, objective.metric.sigma_diff, out=move, scratch=gradient)
        adam.direction(move, step * objective.metric.stride)
        new = compose(v, move, scale=-1, out=gradient)
        smooth(new, sigma_field, out=v, scratch=new)
        new = compose(move, u, out=gradient)
        smooth(new, sigma_field, out=u, scratch=new)
        (u, v), (gradient, move) = reconcile(u, v, out=(gradient, move)), (u, v)
        if index % _GUARD == _GUARD - 1:
            u, v = guarded(u, v, out=(gradient, move))
        notify("iteration_end", energies[-1])
        records = [energies, of_images] if of_images else [energies]
        if all(_converged(record, tolerance) for record in records):
            break
    if all(record[-1] > record[0] for record in records):
        notify("level_reverted", best.energy)
        return best.fields
    return u, v


class _Best:
    """The fields of the lowest energy, of those that were looked at."""

    def __init__(self, fields):
        self.fields, self.energy = fields, float("inf")
        self.index, self.room = 0, None

    def look(self, index, energy, fields):
        """Copy an iteration's fields if they are the best and a copy is due."""
        due = index < _KEEP or index - self.index >= _KEEP
        if not (energy < self.energy and due):
            return
        self.energy, self.index = energy, index
        if index:  # the first are the start's
            room = (
                [torch.empty_like(f) for f in fields]
                if self.room is None
                else self.room
            )
            self.room = [own.copy_(f) for own, f in zip(room, fields)]
            self.fields = tuple(self.room)


def _converged(energies, tolerance):
    """Whether an iteration now gains too small a part of what the level has gained."""
    if len(energies) < 2 * _WINDOW:
        return False
    recent = sum(energies[-_WINDOW:]) / _WINDOW
    before = sum(energies[-2 * _WINDOW : -_WINDOW]) / _WINDOW
    gained = max(energies[0] - recent, 0)
    return (before - recent) / _WINDOW < tolerance * gained
