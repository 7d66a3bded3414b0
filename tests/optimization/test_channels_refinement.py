"""Refinement of a field on images with several channels."""

import numpy as np
import torch

from dipy_dl_reg.geometry.pair import Pair, merge_channels
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.metrics.channels import ChannelsMetric
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.metrics.ssd import SSDMetric
from dipy_dl_reg.optimization.deformable import refine

SHAPE = (40, 44)
#: Displacement of the moving image, voxels.
SHIFT = (1.5, -2.0)


def stripes(axis):
    """Stripes along one axis, which show displacements across them only."""
    axes = torch.meshgrid(*[torch.arange(n) * 1.0 for n in SHAPE], indexing="ij")
    static, moving = (
        0.5 + 0.5 * torch.sin((axes[axis] - shift) / 2.5)[None, None]
        for shift in (0, SHIFT[axis])
    )
    grid = Grid(SHAPE, np.eye(3))
    return Pair(static, moving, grid, grid, np.eye(3))


def error(pair, metric):
    """Mean distance from the true displacement in the middle."""
    u, _ = refine(pair, Objective(metric), level_iters=[30, 40])
    left = u - torch.tensor(SHIFT).view(1, 2, 1, 1)
    return float(left.square().sum(1).sqrt()[:, 10:-10, 10:-10].mean())


def test_channels_complement_each_other():
    pairs = [stripes(0), stripes(1)]
    alone = [error(pair, CCMetric()) for pair in pairs]
    both = error(merge_channels(pairs), ChannelsMetric([CCMetric(), CCMetric()]))
    assert min(alone) > 1.3  # each shows one component only
    assert both < 0.3


def test_different_metrics():
    pair = merge_channels([stripes(0), stripes(1)])
    assert error(pair, ChannelsMetric([CCMetric(), SSDMetric()], [1, 5])) < 0.5


def test_two_equal_channels_give_the_field_of_one():
    pair = stripes(0)
    one = refine(pair, Objective(CCMetric()), level_iters=[8, 8])
    metric = ChannelsMetric([CCMetric(), CCMetric()])
    both = refine(merge_channels([pair, pair]), Objective(metric), level_iters=[8, 8])
    for first, second in zip(one, both):
        assert torch.equal(first, second)
