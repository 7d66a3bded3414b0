"""A metric of images with anatomy maps beside them, as further channels."""

from __future__ import annotations

from copy import copy

import torch

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.metrics.base import BoundMetric, Metric
from dipy_dl_reg.validation import check_number, check_whole_number

#: Memory of one map in a level of refinement, bytes per voxel, in both directions.
_MAP_BYTES = 32


class AnatomyMetric(Metric):
    r"""Metric of images plus the squared difference of maps, the last channels.

    With the metric :math:`M` of the images and the maps :math:`p_k` of static and
    :math:`q_k` of warped moving, at the N voxels that are compared,

    .. math:: M(s, m) + \frac{w}{N} \sum_x \sum_k (p_k(x) - q_k(x))^2

    Parameters
    ----------
    images : Metric
        The metric of the other channels.
    count : int
        Number of maps.
    weight : float, optional
        Weight of the maps.

    Attributes
    ----------
    sigma_diff, sigma_field, coarse_smoothing, gradient_floor, max_step_factor : float
        Those of the metric of the images.
    symmetric : bool
        Whether that metric is.

    Raises
    ------
    ValueError
        If `count` is below 1, or `weight` is negative.
    """

    def __init__(self, images: Metric, count: int, *, weight: float = 1.0) -> None:
        super().__init__(images.dim, sigma_diff=images.sigma_diff)
        self.images = images
        self.count = check_whole_number("count", count, low=1)
        self.weight = check_number("weight", weight)
        for name in (
            *("sigma_field", "coarse_smoothing", "gradient_floor", "max_step_factor"),
            *("symmetric",),
        ):
            setattr(self, name, getattr(images, name))
        self.name = f"{images.name} + anatomy maps"

    @property
    def bytes_per_voxel(self) -> int:  # type: ignore[override]
        """Memory of one level of refinement, in bytes per voxel."""
        return self.images.bytes_per_voxel + _MAP_BYTES * self.count

    def for_grid(self, grid: Grid) -> AnatomyMetric:
        """Choose the options of the metric of the images for a level.

        Parameters
        ----------
        grid : Grid
            Grid of the static image at the level.

        Returns
        -------
        metric : AnatomyMetric
            With the same maps and weight.
        """
        chosen = copy(self)
        chosen.images = self.images.for_grid(grid)
        return chosen

    def _bind(
        self,
        static: torch.Tensor,
        mask: torch.Tensor | None,
        moving: torch.Tensor | None,
    ) -> BoundMetric:
        first = static.shape[1] - self.count
        if first < 1:
            raise ValueError(
                f"the metric is for images and {self.count} maps, but there are "
                f"{static.shape[1]} channels."
            )
        own = None
        if mask is not None:
            own = mask[:, :first] if mask.shape[1] > 1 else mask
        images = self.images.bind(
            static[:, :first].contiguous(),
            own,
            moving=None if moving is None else moving[:, :first],
        )
        maps, common = static[:, first:], None if mask is None else mask[:, :1]
        voxels = maps[0, 0].numel() if common is None else float(common.sum())
        factor = 2 * self.weight / max(voxels, 1)

        def evaluate(warped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            value, by_images = images(warped[:, :first].contiguous())
            gradient = torch.empty_like(warped)
            gradient[:, :first] = by_images
            difference = torch.sub(warped[:, first:], maps, out=gradient[:, first:])
            if common is not None:
                difference *= common
            value = value + difference.square().sum() * (factor / 2)
            difference *= factor
            return value, gradient

        return evaluate
