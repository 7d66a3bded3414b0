"""Resampling of anatomy maps to other grids."""

from __future__ import annotations

import torch

from dipy_dl_reg.anatomy.prediction import AnatomyMaps
from dipy_dl_reg.geometry.fields import frame, warp
from dipy_dl_reg.geometry.pair import inside_mask
from dipy_dl_reg.geometry.resampling import sample_on_grid
from dipy_dl_reg.grid import Grid


def resample_maps(maps: AnatomyMaps, grid: Grid, *, order: int = 1) -> torch.Tensor:
    """Resample maps to another grid of the same world.

    Parameters
    ----------
    maps : AnatomyMaps
        The maps.
    grid : Grid
        The wanted grid.
    order : {0, 1}, optional
        0 takes the nearest voxel, 1 interpolates linearly.

    Returns
    -------
    probabilities : Tensor, shape (1, K, *grid.shape)
        Their sum is 1; outside of the maps' field of view there is air.
    """
    matrix, source = grid.to(maps.grid), maps.probabilities[None]
    inside = inside_mask(grid.shape, maps.grid.shape, matrix, device=source.device)
    if order == 0:
        still = source.new_zeros(1, 3, *grid.shape)
        into = frame(grid.shape, maps.grid.shape, affine=matrix, device=source.device)
        sampled = warp(source, still, frame_=into, mode="nearest")
    else:
        sampled = sample_on_grid(source, grid.shape, matrix)
    sampled = sampled * inside
    sampled[:, 0] += 1 - inside[:, 0].to(sampled.dtype)
    return sampled
