"""The metrics of images with several channels, and their combination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from dipy_dl_reg.initialization.metric_selection import (
    IntensityFunction,
    MetricChoice,
)
from dipy_dl_reg.metrics.base import Metric
from dipy_dl_reg.metrics.channels import ChannelsMetric
from dipy_dl_reg.metrics.local_correlation import CCMetric


class ChannelMetrics(NamedTuple):
    """The user's metrics of several channels, and their weights.

    Attributes
    ----------
    metrics : tuple of Metric or None
        One for each channel; None is chosen for the images.
    weights : tuple of float, or None
        One for each channel; None is estimated from the images.
    names : tuple of str, or None
        Names of the channels in messages; by default their numbers, from 1.
    """

    metrics: tuple[Metric | None, ...]
    weights: tuple[float, ...] | None = None
    names: tuple[str, ...] | None = None

    @property
    def given(self) -> bool:
        """Whether the user gave all metrics and the weights."""
        return self.weights is not None and None not in self.metrics

    @property
    def labels(self) -> list[str]:
        """What messages call the channels."""
        numbers = [f"Channel {k + 1}" for k in range(len(self.metrics))]
        return numbers if self.names is None else list(self.names)

    def combine(self) -> ChannelsMetric:
        """Combine the metrics, with local correlation for those still to be chosen.

        Returns
        -------
        metric : ChannelsMetric
            The weighted mean of the metrics.
        """
        return ChannelsMetric([m or CCMetric() for m in self.metrics], self.weights)


class ChannelMappings(NamedTuple):
    """Functions of intensity, one for each channel.

    Attributes
    ----------
    mappings : tuple of callable or None
        None leaves a channel unchanged.
    """

    mappings: tuple[IntensityFunction | None, ...]

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Apply the functions to the channels of an image.

        Parameters
        ----------
        image : Tensor, shape (1, C, *shape)
            Intensities from 0 to about 1.

        Returns
        -------
        mapped : Tensor
            Of the same shape.
        """
        channels = [
            channel if mapping is None else mapping(channel)
            for mapping, channel in zip(self.mappings, image.split(1, 1))
        ]
        return torch.cat(channels, 1)


def combine_choices(
    choices: Sequence[MetricChoice], weights: Sequence[float] | None = None
) -> MetricChoice:
    """Combine the choices for each channel to one for all.

    Parameters
    ----------
    choices : sequence of MetricChoice
        One for each channel.
    weights : sequence of float, optional
        One for each channel; by default all are equal.

    Returns
    -------
    choice : MetricChoice
        The smoothing of the field is the weighted mean.  The contrasts differ if they
        differ in all channels.
    """
    mappings = tuple(choice.intensity_mapping for choice in choices)
    metric = ChannelsMetric([choice.metric for choice in choices], weights)
    sigmas = [w * choice.sigma_field for w, choice in zip(metric.weights, choices)]
    return MetricChoice(
        metric,
        sum(sigmas),
        all(choice.contrasts_differ for choice in choices),
        ChannelMappings(mappings) if any(m is not None for m in mappings) else None,
        " ".join(choice.reason for choice in choices),
        tuple(choices),
    )


def metric_of_channel(metric: Metric | ChannelMetrics, index: int) -> Metric:
    """Return the metric of one channel.

    Parameters
    ----------
    metric : Metric or ChannelMetrics
        The metric of all channels.
    index : int
        Number of the channel, from 0.

    Returns
    -------
    metric : Metric
        That of the channel, local correlation if it is still to be chosen; the metric
        itself if it is for images of one channel.
    """
    if isinstance(metric, (ChannelMetrics, ChannelsMetric)):
        return metric.metrics[index] or CCMetric()
    return metric
