"""The loss of a training: similarity, regularity, and overlap of labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.metrics.base import Metric
from dipy_dl_reg.metrics.registry import metric_by_name, regularizer_by_name
from dipy_dl_reg.networks.base import Prediction
from dipy_dl_reg.training.training_options import TrainingOptions
from dipy_dl_reg.training.training_set import Example
from dipy_dl_reg.validation import check_number

#: Number of values of warped labels that are in memory at the same time.
_CHUNK = 2**24


class LossTerms(NamedTuple):
    """Terms of the loss, each already weighted; ``_asdict()`` is a row of the log.

    Attributes
    ----------
    similarity : Tensor, shape ()
        Value of the metric.
    regularity : Tensor, shape ()
        Value of the penalty.
    overlap : Tensor, shape ()
        Value of `dice_loss`.
    total : Tensor, shape ()
        Their sum.
    """

    similarity: torch.Tensor
    regularity: torch.Tensor
    overlap: torch.Tensor
    total: torch.Tensor


class TrainingLoss:
    """Similarity of the images, plus regularity of the field, plus overlap of labels.

    ``sum_k w_k (metric(static_k, moving_k(x + u_k)) + weight * regularizer(u_k))
    + w_0 * dice_weight * dice_loss``, the mean over the batch.  ``k`` is the resolution
    of the network's prediction, 0 for the finest; images at the next coarser resolution
    are means over 3 voxels at every second voxel.  If a network predicts a velocity,
    the velocity is regularized at the finest resolution instead of the displacement.

    Parameters
    ----------
    metric : Metric or str, optional
        Metric of the images; "MSE" is another name of "SSD".  With None, only labels
        are compared.
    regularizer : callable or str, optional
        Penalty on the field; by default none.
    weight : float, optional
        Weight of the penalty.
    dice_weight : float, optional
        Weight of the overlap of labels.

    Raises
    ------
    ValueError
        If there is no such metric or regularizer, a weight is negative, or neither
        images nor labels are compared.
    """

    def __init__(
        self,
        metric: Any = "NCC",
        regularizer: Callable[..., Any] | str | None = None,
        *,
        weight: float = 0.0,
        dice_weight: float = 0.0,
    ) -> None:
        check_number("weight", weight)
        check_number("dice_weight", dice_weight)
        if metric is None and not dice_weight:
            raise ValueError("metric=None requires a dice_weight above 0.")
        if not (metric is None or isinstance(metric, Metric)):
            metric = metric_by_name(metric)
        self.metric = metric
        self.regularizer: Any = regularizer_by_name(regularizer)
        self.weight = float(weight) if self.regularizer is not None else 0.0
        self.dice_weight = float(dice_weight)

    @classmethod
    def from_options(cls, options: TrainingOptions) -> TrainingLoss:
        """Make the loss of a training.

        Parameters
        ----------
        options : TrainingOptions
            With the metric, the penalty and the weights.

        Returns
        -------
        loss : TrainingLoss
            A new object.
        """
        return cls(
            options.metric,
            options.regularizer,
            weight=options.weight,
            dice_weight=options.dice_weight,
        )

    def __call__(
        self,
        prediction: Prediction,
        batch: Example,
        level_weights: Sequence[float] = (1.0,),
    ) -> LossTerms:
        """Compute the loss of a batch; autograd differentiates it.

        Parameters
        ----------
        prediction : Prediction
            Prediction of the network for the batch.
        batch : Example
            Images, and label maps if there are any.
        level_weights : sequence of float, optional
            ``w_k``; resolutions without a weight are not used.

        Returns
        -------
        terms : LossTerms
            Scalars.

        Raises
        ------
        ValueError
            If `dice_weight` is above 0 and the batch has no labels.
        """
        zero = batch.static.new_zeros(())
        similarity, regularity, overlap = zero, zero, zero
        static, moving = batch.static, batch.moving
        fields = (prediction.displacement, *prediction.coarse)
        for level, (w, u) in enumerate(zip(level_weights, fields)):
            if level:
                static, moving = _halve(static), _halve(moving)
            if self.metric is not None:
                similarity = similarity + w * self.metric(static, warp(moving, u))
            if self.weight:
                velocity = None if level else prediction.velocity
                rough = self.regularizer(u if velocity is None else velocity)
                regularity = regularity + (w * self.weight) * rough
        if self.dice_weight:
            overlap = (
                level_weights[0] * self.dice_weight * _batch_dice(batch, fields[0])
            )
        return LossTerms(
            similarity, regularity, overlap, similarity + regularity + overlap
        )

    def __repr__(self) -> str:
        options = ", ".join(
            f"{key}={value!r}" for key, value in self.settings().items()
        )
        return f"TrainingLoss({options})"

    def settings(self) -> dict[str, Any]:
        """All options.

        Returns
        -------
        settings : dict
            All options that distinguish one loss from another.
        """
        return {
            "metric": self.metric,
            "regularizer": self.regularizer,
            "weight": self.weight,
            "dice_weight": self.dice_weight,
        }


def dice_loss(
    static_labels: torch.Tensor, moving_labels: torch.Tensor, displacement: torch.Tensor
) -> torch.Tensor:
    """One minus the soft Dice overlap, averaged over labels and batch.

    ``dice = 2 sum(s w) / (sum(s^2) + sum(w^2))`` for each label.  ``s`` is the fraction
    of each static voxel that has the label, and ``w`` the fraction in moving at
    ``x + u(x)``, by linear interpolation :footcite:p:`Milletari2016`.  The mean is over
    the labels that occur in either image; for a pair without labels the loss is 0.

    Parameters
    ----------
    static_labels, moving_labels : Tensor
        Label maps, whole numbers ``(B, 1, *shape)``, where 0 is the background, which
        is ignored; or fractions, ``(B, K, *shape)``, with one channel for each label.
    displacement : Tensor, shape (B, D, *shape)
        Field in voxels.

    Returns
    -------
    loss : Tensor, shape ()
        Between 0 and 1.

    References
    ----------
    .. footbibliography::
    """
    batch, voxels = displacement.shape[0], displacement[0, 0].numel()
    labels: Sequence[int] = range(static_labels.shape[1])
    shares: Callable[..., torch.Tensor] = _channels
    if not static_labels.is_floating_point():
        both = torch.stack([static_labels, moving_labels]).unique()
        labels, shares = [k for k in both.tolist() if k != 0], _one_hot
    step = max(1, _CHUNK // (batch * voxels))
    chunks = [labels[i : i + step] for i in range(0, len(labels), step)]
    total = present = displacement.new_zeros(batch)
    for chunk in chunks:
        arguments = shares, static_labels, moving_labels, displacement, chunk
        if len(chunks) > 1:
            # Recomputed for the gradient, to save memory with many labels.
            parts = checkpoint(
                _overlaps, *arguments, use_reentrant=False, preserve_rng_state=False
            )
        else:
            parts = _overlaps(*arguments)
        total, present = total + parts[0], present + parts[1]
    return (1 - total / present.clamp_min(1))[present > 0].sum() / batch


def _overlaps(
    shares: Callable[..., torch.Tensor],
    static_labels: torch.Tensor,
    moving_labels: torch.Tensor,
    displacement: torch.Tensor,
    labels: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the overlaps of some labels, and how many are present: (B,) each."""
    s = shares(static_labels, labels).to(displacement)
    m = shares(moving_labels, labels).to(displacement)
    present = s.flatten(2).any(2) | m.flatten(2).any(2)
    w = warp(m, displacement)
    axes = tuple(range(2, s.ndim))
    whole = (s.square() + w.square()).sum(axes)
    dice = 2 * (s * w).sum(axes) / whole.clamp_min(torch.finfo(s.dtype).tiny)
    return (dice * present).sum(1), present.sum(1)


def _one_hot(labels: torch.Tensor, chosen: Sequence[int]) -> torch.Tensor:
    """Shares (B, K, *shape) of a label map."""
    return torch.cat([labels == k for k in chosen], 1)


def _channels(shares: torch.Tensor, chosen: range) -> torch.Tensor:
    """Some of the channels of shares."""
    return shares[:, chosen.start : chosen.stop]


def _batch_dice(batch: Example, displacement: torch.Tensor) -> torch.Tensor:
    """`dice_loss` of a batch that must have labels."""
    if batch.static_labels is None or batch.moving_labels is None:
        raise ValueError("dice_weight is above 0, but the pairs have no labels.")
    return dice_loss(batch.static_labels, batch.moving_labels, displacement)


def _halve(image: torch.Tensor) -> torch.Tensor:
    """Means over 3 voxels at every second one: ``ceil(n / 2)`` voxels along each axis.

    Voxel ``i`` of the result is at the position of voxel ``2 i``.
    """
    pool = {2: F.avg_pool2d, 3: F.avg_pool3d}[image.ndim - 2]
    return pool(image, 3, stride=2, padding=1, count_include_pad=False)
