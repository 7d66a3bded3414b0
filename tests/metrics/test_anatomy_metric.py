"""Squared difference of anatomy maps beside the metric of the images."""

import pytest
import torch

from dipy_dl_reg.metrics.anatomy import AnatomyMetric
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.ssd import SSDMetric

SHAPE = (9, 8, 7)


def draw(channels, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, channels, *SHAPE, generator=generator)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("images", [SSDMetric(), CCMetric()])
def test_sum_of_both_parts(images, masked):
    """Against the metric of the images, and autograd for the maps."""
    static, warped = draw(4, 0), draw(4, 1)
    mask = (draw(1, 2) > 0.4).float() if masked else None
    bound = AnatomyMetric(images, 3, weight=0.7).bind(static, mask)
    value, gradient = bound(warped)
    first, slope = images.bind(static[:, :1].contiguous(), mask)(
        warped[:, :1].contiguous()
    )
    maps = warped[:, 1:].clone().requires_grad_()
    counted = torch.ones_like(maps[:, :1]) if mask is None else mask
    squares = ((maps - static[:, 1:]) * counted).square().sum() / counted.sum()
    (0.7 * squares).backward()
    assert float(value) == pytest.approx(
        float(first + 0.7 * squares.detach()), rel=1e-5
    )
    torch.testing.assert_close(gradient[:, :1], slope)
    torch.testing.assert_close(gradient[:, 1:], maps.grad, atol=1e-8, rtol=1e-5)


def test_options_are_those_of_the_images():
    images = CCMetric()
    metric = AnatomyMetric(images, 2)
    for name in ("sigma_field", "gradient_floor", "max_step_factor", "symmetric"):
        assert getattr(metric, name) == getattr(images, name)
    assert metric.bytes_per_voxel > images.bytes_per_voxel


def test_images_without_maps_are_refused():
    with pytest.raises(ValueError, match="2 maps, but there are 2 channels"):
        AnatomyMetric(CCMetric(), 2).bind(draw(2, 0))
