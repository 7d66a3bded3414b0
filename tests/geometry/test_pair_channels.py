"""Pairs of images with several channels."""

import numpy as np
import pytest
import torch

from dipy_dl_reg.geometry.derivatives import weighted_gradient
from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.geometry.pair import (
    Pair,
    compared_voxels,
    make_compared_mask,
    merge_channels,
    move_pair,
)
from dipy_dl_reg.geometry.pyramid import coarsen
from dipy_dl_reg.grid import Grid


def make_channel(seed, mask=None, shape=(9, 10, 11)):
    generator = torch.Generator().manual_seed(seed)
    static, moving = torch.rand(2, 1, 1, *shape, generator=generator)
    grid = Grid(shape, np.diag([2.0, 2, 2, 1]))
    return Pair(static, moving, grid, grid, np.eye(4), mask, None)


@pytest.mark.parametrize("shape", [(7, 8, 9), (8, 9)])
def test_gradient_is_summed_over_channels(shape):
    generator = torch.Generator().manual_seed(1)
    image, factor = torch.rand(2, 1, 3, *shape, generator=generator)
    each = [weighted_gradient(image[:, [k]], factor[:, [k]]) for k in range(3)]
    torch.testing.assert_close(weighted_gradient(image, factor), sum(each))


def test_channels_are_merged_and_selected():
    pairs = [make_channel(0), make_channel(1)]
    both = merge_channels(pairs)
    assert both.channels == 2 and both.static_mask is None
    for k, pair in enumerate(pairs):
        assert torch.equal(both.channel(k).static, pair.static)
        assert torch.equal(both.channel(k).moving, pair.moving)


def test_masks_of_channels():
    half = torch.ones(1, 1, 9, 10, 11)
    half[:, :, :4] = 0
    one = merge_channels([make_channel(0, half), make_channel(1)])
    assert one.static_mask.shape[1] == 2
    assert torch.equal(one.channel(0).static_mask, half)
    assert one.channel(1).static_mask.all()
    same = merge_channels([make_channel(0, half), make_channel(1, half)])
    assert torch.equal(same.static_mask, half)
    u = torch.zeros(1, 3, 9, 10, 11)
    mask = make_compared_mask(one, u, one.frame())
    assert torch.equal(mask[:, :1], half) and mask[:, 1].all()
    assert torch.equal(compared_voxels(one, u, one.frame()), mask > 0.5)


def test_each_mask_is_coarsened_by_itself():
    half = torch.ones(1, 1, 9, 10, 11)
    half[:, :, :4] = 0
    thin = torch.zeros(1, 1, 9, 10, 11)
    thin[:, :, 4] = 1
    pairs = [make_channel(0, half), make_channel(1, thin)]
    both = coarsen(merge_channels(pairs), 4.0, sigma_factor=0.8)
    for k, pair in enumerate(pairs):
        alone = coarsen(pair, 4.0, sigma_factor=0.8)
        assert torch.equal(both.channel(k).static_mask, alone.static_mask)
        assert torch.equal(both.channel(k).static, alone.static)


def test_moving_is_reoriented_after_the_warp():
    seen = []

    def turn(warped, u, grid, prealign):
        seen.append(grid.shape)
        return warped.flip(1)

    pair = merge_channels([make_channel(0), make_channel(1)])._replace(reorient=turn)
    u = 0.3 * torch.ones(1, 3, 9, 10, 11)
    plain = warp(pair.moving, u, frame_=pair.frame())
    assert torch.equal(pair.warp_moving(u, pair.frame()), plain.flip(1))
    moved = move_pair(pair, u, -u)
    assert torch.equal(moved.moving, plain.flip(1)) and moved.reorient is turn
    coarse = coarsen(pair, 4.0, sigma_factor=0.8)
    coarse.warp_moving(torch.zeros(1, 3, *coarse.static.shape[2:]), coarse.frame())
    assert seen == [(9, 10, 11)] * 2 + [coarse.static_grid.shape]
    assert pair.channel(0).reorient is None
