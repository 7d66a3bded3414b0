"""Search for large displacements."""

import numpy as np
import pytest
import torch

from dipy_dl_reg.geometry.derivatives import jacobian
from dipy_dl_reg.geometry.fields import exp, warp
from dipy_dl_reg.geometry.inversion import round_trip
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization import displacement_search as searching
from dipy_dl_reg.initialization.displacement_search import search_displacements


def picture(shape, margin, seed=0):
    """Blobs, with nothing around them."""
    generator = torch.Generator().manual_seed(seed)
    noise = smooth(torch.randn(1, 1, *shape, generator=generator), 1.5)
    inside = torch.zeros_like(noise)
    inside[(..., *(slice(m, n - m) for m, n in zip([margin] * 3, shape)))] = 1
    return smooth(inside, 1.5) * (0.5 + 0.2 * noise / noise.std()), inside > 0


def pair_of(static, moving, affine=None):
    grid = [
        Grid(tuple(x.shape[2:]), np.eye(x.ndim - 1) if affine is None else affine)
        for x in (static, moving)
    ]
    return Pair(static, moving, *grid, np.eye(static.ndim - 1))


def error(u, true, inside):
    squares = (u - true).square().sum(1, keepdim=True)[inside]
    return float(squares.mean().sqrt())


@pytest.mark.parametrize(
    ("shape", "shift"), [((96, 80), (14, -9)), ((36, 34, 32), (6, -4, 4))]
)
def test_a_shift_is_found(shape, shift):
    moving, inside = picture(shape, 16 if len(shape) == 2 else 8)
    static = moving.roll([-s for s in shift], list(range(2, 2 + len(shape))))
    inside = inside.roll([-s for s in shift], list(range(2, 2 + len(shape))))
    true = torch.tensor(shift, dtype=torch.float32).view(1, -1, *[1] * len(shape))
    u, v = search_displacements(pair_of(static, moving))
    assert error(u, true.expand_as(u), inside) < 0.25 * np.linalg.norm(shift)


def test_a_smooth_field_is_found_with_its_inverse():
    moving, _ = picture((96, 96), 22)
    generator = torch.Generator().manual_seed(3)
    velocity = smooth(torch.randn(1, 2, 96, 96, generator=generator), 16)
    velocity *= 12 / velocity.square().sum(1).sqrt().max()
    true = exp(velocity)
    static = warp(moving, true)
    inside = static > 0.3
    u, v = search_displacements(pair_of(static, moving))
    assert error(u, true, inside) < 0.4 * error(0 * u, true, inside)
    assert jacobian(u).min() > 0 and jacobian(v).min() > 0
    distance, there = round_trip(u, v)
    assert distance[there].mean() < 0.1


def test_equal_images_give_no_displacement():
    image, _ = picture((64, 64), 8)
    u, v = search_displacements(pair_of(image, image))
    assert u.abs().max() < 0.2 and v.abs().max() < 0.2


def test_units_of_length_do_not_matter():
    """Reach and steps are relative to the image's size."""
    moving, _ = picture((64, 64), 12)
    static = moving.roll(9, 2)
    fields = [
        search_displacements(pair_of(static, moving, np.diag([s, s, 1.0])))[0]
        for s in (1.0, 0.01)
    ]
    torch.testing.assert_close(*fields, atol=1e-3, rtol=0)


def test_search_grid_is_bounded(monkeypatch):
    """The search works on a coarser copy of a large image."""
    shapes, describe = [], searching._describe

    def record_shape(image, dilation):
        shapes.append(image.values.shape[2:])
        return describe(image, dilation)

    monkeypatch.setattr(searching, "_describe", record_shape)
    image, _ = picture((384, 300), 40)
    moving = image.roll(40, 2)
    u, _ = search_displacements(pair_of(image, moving))
    assert u.shape[2:] == (384, 300)
    assert max(max(shape) for shape in shapes) < 120


def test_minimum_is_found_between_displacements():
    """Of a parabola, wherever its minimum lies."""
    axis = torch.arange(-3.0, 4.0)
    moves = torch.cartesian_prod(axis, axis)
    bottoms = torch.tensor([[0.3, -1.2], [2.4, 0.0], [-3.0, 1.5]]).T
    total = (moves[:, :, None] - bottoms).square().sum(1)
    torch.testing.assert_close(searching._find_minima(total, moves), bottoms)
