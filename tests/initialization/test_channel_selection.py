"""Choice of metrics and weights for images with several channels."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from dipy_dl_reg.initialization.channel_metrics import ChannelMetrics
from dipy_dl_reg.initialization.channel_selection import (
    align_by_common_channel,
    estimate_weights,
    find_common_channel,
)
from dipy_dl_reg.initialization.metric_selection import (
    mean_local_correlation,
    select_metric,
)
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.registration.channels import make_pair, provisional_metric


def texture(seed):
    """Smooth noise from 0 to 1."""
    noise = np.random.default_rng(seed).standard_normal((40, 40, 24))
    smooth = gaussian_filter(noise, 2.5)
    return (smooth - smooth.min()) / np.ptp(smooth)


@pytest.fixture(scope="module")
def pair():
    """Three channels: unrelated, the same contrast, the opposite contrast."""
    first, second, third = texture(0), texture(1), texture(2)
    away = (2, -2, 1)
    static = np.stack([texture(3), second, third], -1)
    moving = [first, shift(second, away, mode="nearest"), 1 - shift(third, away)]
    affine = np.diag([3.0, 3, 3, 1])
    return make_pair(
        3,
        static=static,
        moving=np.stack(moving, -1),
        static_grid2world=affine,
        moving_grid2world=affine,
    )


def test_common_channel_has_the_same_contrast(pair):
    assert find_common_channel(pair) == 1


def test_all_channels_are_aligned_by_the_common_one(pair):
    moved = align_by_common_channel(pair)
    before, after = (mean_local_correlation(p.channel(2)) for p in (pair, moved))
    assert after < -0.8 < before  # of opposite contrasts


def test_weights_follow_the_correlation(pair):
    moved = align_by_common_channel(pair)
    choices = [select_metric(moved.channel(k)) for k in range(3)]
    assert choices[2].intensity_mapping is not None
    weights = estimate_weights(moved, choices)
    assert sum(weights) == pytest.approx(1)
    assert weights[0] == pytest.approx(0.06 * max(weights))
    assert min(weights[1:]) > 2 * weights[0]


def test_no_channel_in_common(pair):
    opposite = pair.channel(2)
    assert align_by_common_channel(opposite) is opposite


def test_metrics_to_be_chosen_are_local_correlation_at_first():
    metric = provisional_metric(ChannelMetrics((None, CCMetric(radius=2))))
    assert [m.radius for m in metric.metrics] == [None, 2]  # None: by voxel size
