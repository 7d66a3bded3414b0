"""One metric for each channel of images with several channels."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.metrics.base import BoundMetric, Metric
from dipy_dl_reg.validation import check_number

#: Memory of a level of refinement, in bytes per voxel, that does not depend on the
#: number of channels: the two fields, their buffers and the moments of the optimizer.
_FIELD_BYTES = 160


class ChannelsMetric(Metric):
    r"""Weighted mean of one metric for each channel.

    With the weights :math:`w_k` and the metrics :math:`M_k` of the channels,

    .. math:: M(s, m) = \frac{\sum_k w_k M_k(s_k, m_k)}{\sum_k w_k}

    Only the ratios of the weights matter.  The values of different metrics, such as
    local correlation and mutual information, are not on one scale: with equal weights
    one of them may have much more influence.

    Parameters
    ----------
    metrics : sequence of Metric
        One metric for each channel.
    weights : sequence of float, optional
        One weight for each channel, 0 or more; by default all are equal.

    Attributes
    ----------
    metrics : tuple of Metric
        The metrics.
    weights : tuple of float
        The weights; their sum is 1.
    sigma_diff, sigma_field, coarse_smoothing, gradient_floor, max_step_factor : float
        Means of those of the metrics, weighted in the same way.
    symmetric : bool
        Whether all metrics are.

    Raises
    ------
    ValueError
        If there is no metric, the numbers of metrics and weights differ, a weight is
        negative, all are 0, or the metrics are for images of different dimensions.

    See Also
    --------
    DeepRegistration : a sequence of metrics and `channel_weights` give the same.
    CCMetric, MIMetric : metrics of one channel.

    Examples
    --------
    >>> from dipy_dl_reg import CCMetric, ChannelsMetric, MIMetric
    >>> metric = ChannelsMetric([MIMetric(3), CCMetric(3)], weights=[1, 3])
    >>> metric.weights
    (0.25, 0.75)
    """

    def __init__(
        self, metrics: Sequence[Metric], weights: Sequence[float] | None = None
    ) -> None:
        self.metrics = tuple(metrics)
        if not self.metrics:
            raise ValueError("metric must have at least one metric, one per channel.")
        self.weights = normalise_weights(weights, len(self.metrics))
        dims = sorted({metric.dim for metric in self.metrics if metric.dim is not None})
        if len(dims) > 1:
            raise ValueError(
                f"metric: the metrics of all channels must have one dimension, got "
                f"{dims}."
            )
        sigma_diff = self._mean("sigma_diff")
        super().__init__(dims[0] if dims else None, sigma_diff=sigma_diff)
        self.sigma_field = self._mean("sigma_field")
        self.coarse_smoothing = self._mean("coarse_smoothing")
        self.gradient_floor = self._mean("gradient_floor")
        self.max_step_factor = self._mean("max_step_factor")
        self.name = " + ".join(str(metric.name) for metric in self.metrics)
        self.batched = all(metric.batched for metric in self.metrics)
        self.symmetric = all(metric.symmetric for metric in self.metrics)

    @property
    def bytes_per_voxel(self) -> int:  # type: ignore[override]
        """Memory of one level of refinement, in bytes per voxel."""
        each = [metric.bytes_per_voxel for metric in self.metrics]
        return max(each) + sum(max(0, n - _FIELD_BYTES) for n in sorted(each)[:-1])

    def for_grid(self, grid: Grid) -> ChannelsMetric:
        """Choose the options of each metric that depend on the voxels of a level.

        Parameters
        ----------
        grid : Grid
            Grid of the static image at the level.

        Returns
        -------
        metric : ChannelsMetric
            With the metrics for this grid and the same weights.
        """
        chosen = copy(self)
        chosen.metrics = tuple(metric.for_grid(grid) for metric in self.metrics)
        return chosen

    def _mean(self, option: str) -> float:
        """Weighted mean of an option over the metrics."""
        values = [getattr(metric, option) for metric in self.metrics]
        if len(set(values)) == 1:  # exact: the mean would be rounded
            return values[0]
        return sum(w * value for w, value in zip(self.weights, values))

    def _bind(
        self,
        static: torch.Tensor,
        mask: torch.Tensor | None,
        moving: torch.Tensor | None,
    ) -> BoundMetric:
        count = len(self.metrics)
        if static.shape[1] != count:
            raise ValueError(
                f"the metric is for {count} channels, but the images have "
                f"{static.shape[1]}."
            )
        bound = [
            metric.bind(
                _channel(static, k),
                _mask_of_channel(mask, k),
                moving=None if moving is None else _channel(moving, k),
            )
            for k, metric in enumerate(self.metrics)
        ]
        return _BoundChannels(bound, self.weights)


class _BoundChannels:
    """The metrics of all channels, each bound to its channel of static.

    The gradient of an evaluation is overwritten by the next one.
    """

    def __init__(self, bound: Sequence[BoundMetric], factors: Sequence[float]) -> None:
        self.terms = list(zip(bound, factors))
        self.gradient: torch.Tensor | None = None

    def __call__(self, warped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Value of the weighted mean, and its derivative by each channel."""
        if self.gradient is None or self.gradient.shape != warped.shape:
            self.gradient = torch.zeros_like(warped)
        total = warped.new_zeros(())
        for k, (evaluate, factor) in enumerate(self.terms):
            if not factor:
                continue
            value, slope = evaluate(_channel(warped, k))
            total = total + factor * value
            torch.mul(slope, factor, out=_channel(self.gradient, k))
        return total, self.gradient


def normalise_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Check the weights of the channels, and scale them to a sum of 1.

    Parameters
    ----------
    weights : sequence of float or None
        One for each channel, 0 or more; None stands for equal weights.
    count : int
        Number of channels.

    Returns
    -------
    weights : tuple of float
        Weights of sum 1.

    Raises
    ------
    ValueError
        If their number is wrong, one is negative or not finite, or all are 0.
    """
    if weights is None:
        return (1 / count,) * count
    given = [check_number(f"channel_weights[{k}]", w) for k, w in enumerate(weights)]
    if len(given) != count:
        raise ValueError(
            f"channel_weights must have one weight for each of the {count} channels, "
            f"got {len(given)} weights."
        )
    if not any(given):
        raise ValueError("channel_weights must not all be 0.")
    return tuple(weight / sum(given) for weight in given)


def _channel(image: torch.Tensor, index: int) -> torch.Tensor:
    """One channel of images (B, C, *shape), as a view."""
    return image[:, index : index + 1]


def _mask_of_channel(mask: torch.Tensor | None, index: int) -> torch.Tensor | None:
    """The mask of a channel, from one mask for all channels or one for each."""
    return mask if mask is None or mask.shape[1] == 1 else _channel(mask, index)
