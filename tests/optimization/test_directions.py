"""The similarity in both directions, and options that depend on the voxel size."""

import numpy as np
import pytest
from scipy import ndimage
import torch

from dipy_dl_reg.geometry.fields import compose, warp
from dipy_dl_reg.geometry.pair import reverse_pair
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.metrics.channels import ChannelsMetric
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.metrics.ssd import SSDMetric
from dipy_dl_reg.optimization.deformable import refine
from dipy_dl_reg.optimization.directions import Direction, StepOptions, make_directions
from dipy_dl_reg.registration.dipy_adapter import make_pair


def textures(shape, count=2):
    """Smooth textures that differ by local displacements, and by noise."""
    rng = np.random.default_rng(0)
    base = ndimage.gaussian_filter(rng.standard_normal(shape), 2)
    images = []
    for _ in range(count):
        move = [ndimage.gaussian_filter(rng.standard_normal(shape), 5) for _ in shape]
        move = [2 * m / np.abs(m).max() for m in move]
        image = ndimage.map_coordinates(base, np.indices(shape) + move, mode="nearest")
        images.append(image / np.abs(base).max() + 0.02 * rng.standard_normal(shape))
    return images


class OneDirection(CCMetric):
    """Local correlation, compared on the static image only."""

    symmetric = False


def disagreement(metric):
    """Mean distance, in voxels, of the two fields if the images are exchanged."""
    first, second = textures((24, 22, 20))
    level_iters = {"level_iters": [10, 10]}
    u, _ = refine(make_pair(first, second), Objective(metric), **level_iters)
    other, _ = refine(make_pair(second, first), Objective(metric), **level_iters)
    inner = (..., *(slice(4, -4),) * 3)
    return float(compose(u, other)[inner].square().sum(1).sqrt().mean())


def test_the_inverse_is_found_if_the_images_are_exchanged():
    assert disagreement(CCMetric()) < 0.7 * disagreement(OneDirection())


def test_the_reversed_pair_has_the_inverse_field():
    first, second = textures((20, 18, 16))
    moving_grid2world = np.diag([1.0, 1, 1, 1])
    moving_grid2world[:3, 3] = 1, 0, 2
    mask = np.ones(first.shape)
    mask[:4] = 0
    pair = make_pair(
        first, second, moving_grid2world=moving_grid2world, static_mask=mask
    )
    back = reverse_pair(pair)
    zero = torch.zeros(1, 3, *first.shape)
    assert torch.equal(back.static, pair.warp_moving(zero, pair.frame()))
    assert torch.equal(back.moving, pair.static)
    assert torch.equal(back.moving_mask, pair.static_mask)
    # The moving image begins one voxel later, and two voxels later on the last axis.
    inside = back.static_mask[0, 0].numpy()
    assert not inside[:1].any() and not inside[..., :2].any()
    assert inside[1:, :, 2:].all()
    field = torch.full((1, 3, *first.shape), 0.5)
    warped = back.warp_moving(field, back.frame())
    assert torch.allclose(warped, warp(pair.static, field), atol=1e-6)


def test_the_move_of_a_direction_lowers_its_energy():
    first, second = textures((20, 18, 16))
    pair = reverse_pair(make_pair(first, second))
    direction = Direction(pair, Objective(CCMetric()), None, StepOptions(0.5))
    u = torch.zeros(1, 3, *first.shape)
    move, scratch = torch.empty_like(u), torch.empty_like(u)
    energies = []
    for _ in range(6):
        energies.append(direction.find_move(u, out=move, scratch=scratch).total)
        assert float(move.square().sum(1).sqrt().max()) < 0.51
        u = compose(move, u)
    assert energies[-1] < 0.8 * energies[0]


def test_number_of_directions_and_length_of_their_steps():
    pair = make_pair(*textures((20, 18, 16)))
    zero = torch.zeros(1, 3, 20, 18, 16)

    def lengths(metric):
        made = make_directions(pair, Objective(metric), (zero, zero), 1.0, None)
        return [direction.options.length for direction in made]

    assert lengths(CCMetric()) == [0.5, 0.5]
    assert lengths(SSDMetric()) == [1.0]
    assert lengths(ChannelsMetric([CCMetric()])) == [0.5, 0.5]


def test_masks_without_a_common_voxel_have_no_directions():
    shape = (20, 18, 16)
    pair = make_pair(*textures(shape))
    mask = torch.zeros(1, 1, *shape)
    mask[:, :, :10] = 1
    zero = torch.zeros(1, 3, *shape)
    pair = pair._replace(static_mask=mask, moving_mask=1 - mask)
    objective = Objective(CCMetric())
    assert make_directions(pair, objective, (zero, zero), 1.0, None) == []


@pytest.mark.parametrize(
    ("shape", "spacing", "radius"),
    [
        ((160, 200, 160), 1, 3),
        ((160, 200, 160), 1.25, 2),
        ((80, 100, 80), 2, 1),
        ((40, 50, 40), 4, 1),
        ((300, 350, 300), 0.7, 4),
        ((28, 28), 1, 1),
        ((200, 200, 1), 1, 3),
    ],
)
def test_windows_of_local_correlation_are_about_seven_mm_wide(shape, spacing, radius):
    dim = len(shape)
    grid = Grid(shape, np.diag([*[float(spacing)] * dim, 1]))
    assert CCMetric().for_grid(grid).radius == radius
    assert CCMetric(radius=2).for_grid(grid).radius == 2
    channels = ChannelsMetric([CCMetric(), SSDMetric()]).for_grid(grid)
    assert channels.metrics[0].radius == radius
    assert Objective(CCMetric()).for_grid(grid).metric.radius == radius
