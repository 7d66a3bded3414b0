"""What is minimised: dissimilarity of the images plus roughness of the field."""

from typing import NamedTuple

import torch

from dipy_dl_reg.metrics import regularizers


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


class Objective:
    """``metric(static, warped) + weight * regularizer(displacement)``.

    Parameters
    ----------
    metric : dipy_dl_reg.metrics.metrics.Metric
        Compares the images.
    regularizer : callable, optional
        One of `dipy_dl_reg.metrics.regularizers`; by default none.
    weight : float, optional
        Of the penalty.
    landmark_weight : float, optional
        Of the mean squared distance, mm**2, of a pair's landmarks: a term that depends
        on the field alone and is added where a pair is at hand (`refine`).

    Raises
    ------
    ValueError
        If a weight is negative.
    """

    def __init__(self, metric, *, regularizer=None, weight=0.0, landmark_weight=0.0):
        for name, value in (("weight", weight), ("landmark_weight", landmark_weight)):
            if not value >= 0:
                raise ValueError(f"{name} must be 0 or more, got {value!r}.")
        self.landmark_weight = float(landmark_weight)
        self.metric = metric
        self.regularizer = regularizer
        self.weight = float(weight) if regularizer is not None else 0.0

    def __call__(self, static, warped, displacement, mask=None):
        """Terms that autograd differentiates, for training.

        Parameters
        ----------
        static : Tensor, shape (B, 1, *shape)
            Taken as constant.
        warped : Tensor, shape (B, 1, *shape)
            Moving image on the static grid.
        displacement : Tensor, shape (B, D, *shape)
            Field in voxels.
        mask : Tensor, shape (B, 1, *shape), optional
            1 where a voxel counts.

        Returns
        -------
        terms : Terms
            Scalars.
        """
        similarity = self.metric(static, warped, mask)
        roughness = similarity.new_zeros(())
        if self.weight:
            roughness = self.weight * self.regularizer(displacement)
        return Terms(similarity, roughness, similarity + roughness)

    def bind(self, static, mask=None, *, moving=None):
        """Prepare for many evaluations against one static image.

        Parameters
        ----------
        static : Tensor, shape (B, 1, *shape)
            Taken as constant.
        mask : Tensor, shape (B, 1, *shape), optional
            1 where a voxel counts.
        moving : Tensor, optional
            The unwarped moving image, for its range.

        Returns
        -------
        evaluate : callable
            ``evaluate(warped, displacement) -> (terms, by_image, by_field)``: the
            derivatives by the warped image and by the displacement (None without a
            penalty).
        """
        bound = self.metric.bind(static, mask, moving=moving)

        def evaluate(warped, displacement):
            similarity, by_image = bound(warped)
            if not self.weight:
                zero = similarity.new_zeros(())
                return Terms(similarity, zero, similarity), by_image, None
            value, slope = regularizers.gradient(self.regularizer, displacement)
            value, slope = value * self.weight, slope * self.weight
            return Terms(similarity, value, similarity + value), by_image, slope

        return evaluate
