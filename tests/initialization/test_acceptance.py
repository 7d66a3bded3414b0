"""Acceptance of a field as the start of refinement."""

import numpy as np
import pytest
import torch

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization.acceptance import (
    explain_omission,
    improves_refinement,
    improves_similarity,
)
from dipy_dl_reg.initialization.channel_metrics import ChannelMetrics
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.mind import MINDMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.metrics.ssd import SSDMetric

SHIFT = 14


@pytest.fixture(scope="module")
def shifted():
    """A textured square, the same moved by `SHIFT` voxels, and the field between."""
    generator = torch.Generator().manual_seed(0)
    noise = smooth(torch.randn(1, 1, 96, 96, generator=generator), 1.5)
    inside = torch.zeros_like(noise)
    inside[..., 22:-22, 22:-22] = 1
    moving = smooth(inside, 1.5) * (0.5 + 0.2 * noise / noise.std())
    grid = Grid((96, 96), np.eye(3))
    pair = Pair(moving.roll(SHIFT, 2), moving, grid, grid, np.eye(3))
    u = torch.zeros(1, 2, 96, 96)
    u[:, 0] = -SHIFT
    return pair, u


@pytest.mark.parametrize("spacing", [None, 2.0])
def test_a_field_that_aligns_the_images_improves_similarity(shifted, spacing):
    pair, u = shifted
    objective = Objective(SSDMetric())
    assert improves_similarity(pair, u, objective, spacing=spacing)
    assert not improves_similarity(pair, -u, objective, spacing=spacing)
    assert not improves_similarity(pair, 0 * u, objective, spacing=spacing)


def test_a_field_beyond_the_reach_of_descent_improves_refinement(shifted):
    pair, u = shifted
    objective = Objective(CCMetric())
    assert improves_refinement(pair, objective, u, -u)
    assert not improves_refinement(pair, objective, -u, u)


def test_worth_is_the_factor_of_the_decrease(shifted):
    """From a field of zeros both refinements reach about the same energy."""
    pair, u = shifted
    objective = Objective(SSDMetric())
    assert not improves_refinement(pair, objective, 0 * u, 0 * u, worth=2.0)
    assert improves_refinement(pair, objective, 0 * u, 0 * u, worth=0.5)


@pytest.fixture(scope="module")
def volume():
    """A textured ball, and the same with a small displacement."""
    generator = torch.Generator().manual_seed(1)
    noise = smooth(torch.randn(1, 1, 24, 24, 24, generator=generator), 1.5)
    away = torch.linalg.vector_norm(
        torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 24)] * 3, indexing="ij")),
        dim=0,
    )
    image = torch.where(away < 0.8, 0.5 + 0.15 * noise / noise.std(), 0.0)
    grid = Grid((24, 24, 24), np.diag([3.0, 3.0, 3.0, 1.0]))
    return Pair(image, (image + image.roll(1, 2)) / 2, grid, grid, np.eye(4))


@pytest.mark.parametrize(
    "metric", [None, CCMetric(), ChannelMetrics((CCMetric(), None), None)]
)
def test_no_network_for_similar_volumes(volume, metric):
    assert "correlation" in explain_omission(volume, metric, [20, 10])


def test_network_where_it_pays(volume):
    """Single levels, other metrics, other contrasts, distant images and 2D images."""
    assert not explain_omission(volume, None, [10])
    assert not explain_omission(volume, None, [0, 10])
    assert not explain_omission(volume, MINDMetric(), [20, 10])
    inverted = volume._replace(moving=torch.where(volume.moving > 0.1, 1.1, 0.0))
    inverted = inverted._replace(moving=inverted.moving - volume.moving)
    assert not explain_omission(inverted, None, [20, 10])
    distant = volume._replace(moving=volume.moving.roll(5, 3))
    assert not explain_omission(distant, None, [20, 10])


def test_network_for_slices(shifted):
    pair, _ = shifted
    same = pair._replace(moving=pair.static)
    assert not explain_omission(same, None, [20, 10])
