"""The two directions of a registration at one level, and the step that each one takes.

The similarity is measured in both images: the moving image, warped by the field, is
compared with the static image, and the static image, warped by the inverse, with the
moving image.  An iteration takes a step for each of them.  With the first one alone,
the field fits the static image better than its inverse fits the moving image; with
both, it is smoother at the same overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from dipy_dl_reg.geometry.derivatives import weighted_gradient
from dipy_dl_reg.geometry.pair import Pair, make_compared_mask, reverse_pair
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.optimization.adam import Adam
from dipy_dl_reg.optimization.energy_history import Energy
from dipy_dl_reg.optimization.landmark_penalty import LandmarkPenalty
from dipy_dl_reg.optimization.phase_encoding import (
    AxisConstraint,
    line_determinant,
    modulated_gradient,
)

#: A displacement and its inverse, each of shape (1, D, *shape), in voxels.
Fields = tuple[torch.Tensor, torch.Tensor]


class StepOptions(NamedTuple):
    """How a direction moves.

    Attributes
    ----------
    length : float
        Length of the longest step, in voxels.
    constraint : AxisConstraint or None
        The line on which displacements lie.
    """

    length: float
    constraint: AxisConstraint | None = None


class Direction:
    """One direction of the similarity at one level.

    Parameters
    ----------
    pair : Pair
        The images at this level; for the inverse direction, of `reverse_pair`.
    objective : Objective
        The function to minimize.
    mask : Tensor or None
        1 at voxels that are compared; None if all are.
    options : StepOptions
        How it moves.
    """

    def __init__(
        self,
        pair: Pair,
        objective: Objective,
        mask: torch.Tensor | None,
        options: StepOptions,
    ) -> None:
        self.pair, self.frame, self.options = pair, pair.frame(), options
        constraint, metric = options.constraint, objective.metric
        self.modulates = constraint is not None and constraint.modulates
        bound = objective.for_grid(pair.static_grid)
        self.evaluate = bound.bind(pair.static, mask, moving=pair.moving)
        self.sigma = metric.sigma_diff
        weight, self.penalty = objective.landmark_weight, None
        if pair.landmarks is not None and weight:
            self.penalty = LandmarkPenalty(pair, weight, metric.sigma_diff)
        dim, shape = pair.static_grid.dim, pair.static.shape[2:]
        like = pair.static.new_empty(1).expand(1, dim, *shape)
        self.adam = Adam(like, epsilon=metric.gradient_floor)

    def find_move(
        self, u: torch.Tensor, *, out: torch.Tensor, scratch: torch.Tensor
    ) -> Energy:
        """Compute the displacement that lowers the energy, for ``u <- u(x + move)``.

        Parameters
        ----------
        u : Tensor, shape (1, D, *shape)
            The field, in voxels of the level.
        out : Tensor, shape (1, D, *shape)
            Receives the displacement, in voxels.
        scratch : Tensor, shape (1, D, *shape)
            A buffer, which is overwritten.

        Returns
        -------
        energy : Energy
            Of the field `u`.
        """
        energy = self._differentiate(u, scratch)
        if self.options.constraint is not None:
            self.options.constraint.project(scratch, self.pair.static_grid)
        smooth(scratch, self.sigma, out=out, scratch=scratch)
        self.adam.direction(out, self.options.length)
        return energy

    def _differentiate(self, u: torch.Tensor, gradient: torch.Tensor) -> Energy:
        """Energy of a field; its gradient is written to the given tensor."""
        warped = self.pair.warp_moving(u, self.frame)
        if self.modulates:
            warped *= line_determinant(u)
        terms, by_image, by_field = self.evaluate(warped, u)
        differentiate = modulated_gradient if self.modulates else weighted_gradient
        differentiate(warped, by_image, out=gradient)
        if by_field is not None:
            gradient += by_field
        images = float(terms.total)
        if self.penalty is None:
            return Energy(images, images)
        largest = self.adam.largest_gradient
        penalty = self.penalty.add_gradient(u, gradient, largest=largest)
        return Energy(float(terms.total + penalty), images)


def make_directions(
    pair: Pair,
    objective: Objective,
    fields: Fields,
    length: float,
    constraint: AxisConstraint | None,
) -> list[Direction]:
    """Prepare the directions of a level.

    Parameters
    ----------
    pair : Pair
        The images at this level.
    objective : Objective
        The function to minimize.
    fields : tuple of Tensor, shape (1, D, *shape)
        The field and its inverse with which the level begins; they warp the masks.
    length : float
        Length of the longest displacement of an iteration, in voxels of the level; the
        steps of two directions are half as long.
    constraint : AxisConstraint or None
        The line on which displacements lie.  The density of the signal changes with
        the first direction only, so that there is no second one.

    Returns
    -------
    directions : list of Direction
        From static to moving, and, if the metric is `symmetric`, from moving to static.
        Empty if the masks have no common voxel at this resolution.
    """
    pairs = [pair]
    if objective.metric.symmetric and constraint is None:
        pairs.append(reverse_pair(pair))
    options = StepOptions(length / len(pairs), constraint)
    masks = [make_compared_mask(p, u, p.frame()) for p, u in zip(pairs, fields)]
    if any(mask is not None and not bool(mask.any()) for mask in masks):
        return []
    return [Direction(p, objective, mask, options) for p, mask in zip(pairs, masks)]


def mean_energy(energies: list[Energy]) -> Energy:
    """Average the energies of the directions.

    Parameters
    ----------
    energies : list of Energy
        One or two.

    Returns
    -------
    energy : Energy
        Their mean.
    """
    return Energy(*(sum(each) / len(energies) for each in zip(*energies)))
