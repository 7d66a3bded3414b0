"""The metric of several channels: a weighted mean of one metric for each."""

import pytest
import torch

from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.metrics.channels import ChannelsMetric
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.mutual_information import MIMetric
from dipy_dl_reg.metrics.ssd import SSDMetric

SHAPE = (11, 12, 13)


@pytest.fixture
def images():
    """Static and warped images of two channels."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(2, 2, *SHAPE, generator=generator)
    return smooth(noise, 1.0).split(1)


def test_value_and_gradient_are_weighted_means(images):
    static, warped = images
    metrics = CCMetric(3), SSDMetric(3)
    value, gradient = ChannelsMetric(metrics, [1, 3]).bind(static)(warped)
    parts = [
        metric.bind(static[:, [k]])(warped[:, [k]]) for k, metric in enumerate(metrics)
    ]
    torch.testing.assert_close(value, 0.25 * parts[0][0] + 0.75 * parts[1][0])
    wanted = torch.cat([0.25 * parts[0][1], 0.75 * parts[1][1]], 1)
    torch.testing.assert_close(gradient, wanted)


def test_each_channel_has_its_mask(images):
    static, warped = images
    mask = torch.zeros(1, 2, *SHAPE)
    mask[:, 0, :6], mask[:, 1, 4:] = 1, 1
    _, gradient = ChannelsMetric([SSDMetric(3)] * 2).bind(static, mask)(warped)
    assert not gradient[:, 0, 6:].any() and not gradient[:, 1, :4].any()
    assert gradient[:, 0, :6].all() and gradient[:, 1, 4:].all()


def test_one_mask_holds_for_all_channels(images):
    static, warped = images
    mask = torch.zeros(1, 1, *SHAPE)
    mask[..., :5] = 1
    metric = ChannelsMetric([CCMetric(3)] * 2)
    one, both = (
        metric.bind(static, m)(warped)[1].clone()
        for m in (mask, mask.repeat(1, 2, 1, 1, 1))
    )
    assert torch.equal(one, both)


def test_autograd_gives_the_same_gradient(images):
    static, warped = images
    metric = ChannelsMetric([CCMetric(3), MIMetric(3)], [2, 1])
    leaf = warped.clone().requires_grad_()
    metric(static, leaf).backward()
    bound = metric.bind(static, moving=warped)
    torch.testing.assert_close(leaf.grad, bound(warped)[1])


def test_channel_of_weight_0_has_no_influence(images):
    static, warped = images
    bound = ChannelsMetric([CCMetric(3)] * 2, [1, 0]).bind(static)
    value, gradient = bound(warped)
    assert not gradient[:, 1].any()
    other = warped.clone()
    other[:, 1] = 0.5
    assert bound(other)[0] == value


def test_options_are_weighted_means():
    metric = ChannelsMetric([CCMetric(3, sigma_diff=2), MIMetric(3)], [3, 1])
    assert metric.sigma_diff == pytest.approx(0.75 * 2 + 0.25)
    assert metric.gradient_floor == pytest.approx(0.75 * 0.3 + 0.25 * 0.4)
    assert metric.name == "CC + MI" and metric.dim == 3
    assert metric.bytes_per_voxel > CCMetric().bytes_per_voxel


def test_wrong_number_of_channels(images):
    static, _ = images
    with pytest.raises(ValueError, match="3 channels, but the images have 2"):
        ChannelsMetric([CCMetric(3)] * 3).bind(static)


@pytest.mark.parametrize(
    "metrics, weights, words",
    [
        ([], None, "at least one metric"),
        ([CCMetric(2), CCMetric(3)], None, r"\[2, 3\]"),
        ([CCMetric(3)] * 2, [1], "each of the 2 channels, got 1"),
        ([CCMetric(3)] * 2, [1, -1], r"channel_weights\[1\]"),
        ([CCMetric(3)] * 2, [0, 0], "not all be 0"),
    ],
)
def test_bad_arguments(metrics, weights, words):
    with pytest.raises(ValueError, match=words):
        ChannelsMetric(metrics, weights)
