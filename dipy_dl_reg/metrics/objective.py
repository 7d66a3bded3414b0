"""The objective: dissimilarity of the images plus a penalty on the field."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.metrics.base import Metric, Regularizer
from dipy_dl_reg.validation import check_number


class Terms(NamedTuple):
    """The parts of the objective; ``_asdict()`` is a line of the log.

    Attributes
    ----------
    similarity : Tensor, shape ()
        Value of the metric; lower is better.
    regularity : Tensor, shape ()
        Value of the penalty, already weighted.
    total : Tensor, shape ()
        Their sum.
    """

    similarity: torch.Tensor
    regularity: torch.Tensor
    total: torch.Tensor


#: What `Objective.bind` returns.
BoundObjective = Callable[
    [torch.Tensor, torch.Tensor], tuple[Terms, torch.Tensor, torch.Tensor | None]
]


class Objective:
    """``metric(static, warped) + weight * regularizer(displacement)``.

    Parameters
    ----------
    metric : dipy_dl_reg.metrics.base.Metric
        Compares the images.
    regularizer : callable, optional
        One of `dipy_dl_reg.metrics.registry.REGULARIZERS`; by default none.
    weight : float, optional
        Weight of the penalty.
    landmark_weight : float, optional
        Weight of the mean squared distance, mm**2, of a pair's landmarks.  This class
        does not compute this term; `refine` adds it, because it has the landmarks.

    Raises
    ------
    ValueError
        If a weight is negative.
    """

    def __init__(
        self,
        metric: Metric,
        *,
        regularizer: Regularizer | None = None,
        weight: float = 0.0,
        landmark_weight: float = 0.0,
    ) -> None:
        weight = check_number("weight", weight)
        self.landmark_weight = check_number("landmark_weight", landmark_weight)
        self.metric = metric
        self.regularizer = regularizer
        self.weight = weight if regularizer is not None else 0.0

    def __call__(
        self,
        static: torch.Tensor,
        warped: torch.Tensor,
        displacement: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> Terms:
        """Evaluate the objective for training; autograd can differentiate the terms.

        Parameters
        ----------
        static : Tensor, shape (B, 1, *shape)
            The static image, which is treated as constant.
        warped : Tensor, shape (B, 1, *shape)
            Moving image on the static grid.
        displacement : Tensor, shape (B, D, *shape)
            Field in voxels.
        mask : Tensor, shape (B, 1, *shape), optional
            1 at voxels that are compared.

        Returns
        -------
        terms : Terms
            Scalars.
        """
        similarity = self.metric(static, warped, mask)
        roughness = similarity.new_zeros(())
        if self.regularizer is not None and self.weight:
            roughness = self.weight * self.regularizer(displacement)
        return Terms(similarity, roughness, similarity + roughness)

    def for_grid(self, grid: Grid) -> Objective:
        """Choose the options of the metric that depend on the voxels of a level.

        Parameters
        ----------
        grid : Grid
            Grid of the static image at the level.

        Returns
        -------
        objective : Objective
            With `Metric.for_grid`.
        """
        return Objective(
            self.metric.for_grid(grid),
            regularizer=self.regularizer,
            weight=self.weight,
            landmark_weight=self.landmark_weight,
        )

    def bind(
        self,
        static: torch.Tensor,
        mask: torch.Tensor | None = None,
        *,
        moving: torch.Tensor | None = None,
    ) -> BoundObjective:
        """Prepare for many evaluations against one static image.

        Parameters
        ----------
        static : Tensor, shape (B, 1, *shape)
            The static image, which is treated as constant.
        mask : Tensor, shape (B, 1, *shape), optional
            1 at voxels that are compared.
        moving : Tensor, optional
            The moving image before it is warped, for the range of its intensities.

        Returns
        -------
        evaluate : callable
            ``evaluate(warped, displacement) -> (terms, by_image, by_field)``: the
            derivatives by the warped image and by the displacement (None without a
            penalty).
        """
        bound = self.metric.bind(static, mask, moving=moving)

        def evaluate(
            warped: torch.Tensor, displacement: torch.Tensor
        ) -> tuple[Terms, torch.Tensor, torch.Tensor | None]:
            similarity, by_image = bound(warped)
            if self.regularizer is None or not self.weight:
                zero = similarity.new_zeros(())
                return Terms(similarity, zero, similarity), by_image, None
            value, slope = regularizer_gradient(self.regularizer, displacement)
            value, slope = value * self.weight, slope * self.weight
            return Terms(similarity, value, similarity + value), by_image, slope

        return evaluate


def regularizer_gradient(
    regularizer: Regularizer, displacement: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Value of a regularizer and its derivative by the field.

    Parameters
    ----------
    regularizer : callable
        One of `dipy_dl_reg.metrics.registry.REGULARIZERS`, or any function like it.
    displacement : Tensor, shape (B, D, *shape)
        Field in voxels.

    Returns
    -------
    value : Tensor, shape ()
        The penalty.
    slope : Tensor, shape (B, D, *shape)
        ``d value / d displacement``.
    """
    with torch.inference_mode(False), torch.enable_grad():
        u = displacement.clone() if displacement.is_inference() else displacement
        u = u.detach().requires_grad_()
        value = regularizer(u)
        return value.detach(), torch.autograd.grad(value, u)[0]
