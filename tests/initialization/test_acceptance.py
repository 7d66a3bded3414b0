"""Acceptance of a field as the start of refinement."""

import numpy as np
import pytest
import torch

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization.acceptance import (
    improves_refinement,
    improves_similarity,
)
from dipy_dl_reg.metrics.local_correlation import CCMetric
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
