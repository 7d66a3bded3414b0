"""Mean of squared differences."""

import torch

from dipy_dl_reg.metrics.base import BoundMetric, Metric


class SSDMetric(Metric):
    """Mean of squared differences.

    Parameters
    ----------
    dim : {2, 3}, optional
        Dimension of the images.
    smooth : float, optional
        Standard deviation, in voxels, of the Gaussian that smooths the update of
        the field; DIPY's name for it in this metric.

    Raises
    ------
    ValueError
        If an option is out of range.

    See Also
    --------
    DeepRegistration : takes the metric, or its name ``"SSD"``.
    CCMetric : for images whose intensities differ by a factor or a bias field.
    dipy.align.metrics.SSDMetric : the metric of DIPY, which is replaced by this one.

    Notes
    -----
    ``value = mean((static - warped)**2)`` over the mask.

    Examples
    --------
    >>> import torch
    >>> from dipy_dl_reg import SSDMetric
    >>> static = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> metric = SSDMetric(2)
    >>> round(float(metric(static, static + 0.5)), 3)
    0.25
    """

    name = "SSD"
    batched = True

    def __init__(self, dim: int | None = None, *, smooth: float = 1.0) -> None:
        super().__init__(dim, sigma_diff=smooth)

    def _bind(
        self,
        static: torch.Tensor,
        mask: torch.Tensor | None,
        moving: torch.Tensor | None,
    ) -> BoundMetric:
        weight = _voxel_weight(static, mask)

        def evaluate(warped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            difference = (warped - static).mul_(weight)
            value = (difference * (warped - static)).sum()
            return value, difference.mul_(2)

        return evaluate


def _voxel_weight(static: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Weight of each voxel in a mean over batch and mask."""
    if mask is None:
        return torch.full_like(static, 1.0 / static.numel())
    return mask / mask.sum().clamp_min(1)
