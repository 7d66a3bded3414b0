"""Comparison of images of tensors or fibre orientation distributions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dipy_dl_reg.metrics.base import BoundMetric, Metric
from dipy_dl_reg.metrics.local_correlation import CCMetric, LocalCorrelation
from dipy_dl_reg.validation import check_number

#: Bytes per voxel of a channel: static, moving, warped, gradient, and two temporaries.
_CHANNEL_BYTES = 24


class OrientationMetric(Metric):
    r"""Squared difference of direction-dependent channels, and a local correlation.

    The first channel does not depend on directions, such as FA; the others are the
    components of a tensor or the coefficients of spherical harmonics.

    Parameters
    ----------
    weights : sequence of float
        Weights :math:`w_c` of the channels after the first: with (1, 2, 1, 2, 2, 1) for
        a tensor in DIPY's order, their weighted sum of squares is the squared Frobenius
        norm, and with 1 for orthonormal harmonics, the integral of the squared function
        over the sphere.  Neither depends on the axes.
    scalar_weight : float, optional
        Weight :math:`k` of the local correlation of the first channel.

    Raises
    ------
    ValueError
        If a weight is negative.

    Notes
    -----
    With the images :math:`s` and :math:`m`, and the local correlation of `CCMetric`,

    .. math:: \mathrm{mean}\Big(\sum_{c > 0} w_c\,(s_c - m_c)^2\Big)
        + k\,\big(1 - \mathrm{cc}(s_0, m_0)\big)

    The first term, with deviatoric tensors, is the tensor distance of
    :footcite:t:`Zhang2006`.

    References
    ----------
    .. footbibliography::
    """

    name = "orientation"
    gradient_floor = CCMetric.gradient_floor
    max_step_factor = CCMetric.max_step_factor
    sigma_field = 0.8

    def __init__(self, weights: Sequence[float], *, scalar_weight: float = 0.1) -> None:
        super().__init__(3)
        self.weights = [
            check_number(f"weights[{k}]", weight) for k, weight in enumerate(weights)
        ]
        self.scalar_weight = check_number("scalar_weight", scalar_weight)

    @property
    def bytes_per_voxel(self) -> int:  # type: ignore[override]
        """Memory of one level of refinement, in bytes per voxel."""
        return Metric.bytes_per_voxel + _CHANNEL_BYTES * len(self.weights)

    def _bind(
        self,
        static: torch.Tensor,
        mask: torch.Tensor | None,
        moving: torch.Tensor | None,
    ) -> BoundMetric:
        defaults = CCMetric()
        options = defaults.radius or 1, defaults.variance_floor
        correlate = LocalCorrelation(static[:, :1].contiguous(), mask, *options)
        total = static[0, 0].numel() if mask is None else mask.sum().clamp_min(1)
        weights = static.new_tensor(self.weights).view(1, -1, 1, 1, 1) / total
        weights = weights if mask is None else weights * mask
        gradient, components = torch.empty_like(static), static[:, 1:]

        def evaluate(warped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            difference = warped[:, 1:] - components
            by_components = torch.mul(difference, weights, out=gradient[:, 1:])
            distance = torch.dot(difference.flatten(), by_components.flatten())
            by_components *= 2
            value, slope = correlate(warped[:, :1].contiguous())
            torch.mul(slope, self.scalar_weight, out=gradient[:, :1])
            return distance + self.scalar_weight * value, gradient

        return evaluate
