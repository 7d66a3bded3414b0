"""What the pyramid keeps to whatever its weights: symmetry, scale, contrast."""

import numpy as np
import pytest
import torch

from dipy_dl_reg.engine.fields import compose, exp, warp
from dipy_dl_reg.networks import make_network
from dipy_dl_reg.networks.base import Prediction
from dipy_dl_reg.networks.predict import _asked_half_way
from dipy_dl_reg.networks.pyramid import REACH, _compared

SHAPES = [(26, 33), (18, 21, 16)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


@pytest.fixture
def stirred():
    """A network with weights that nobody trained, and that says something."""

    def make(dim):
        network = make_network("pyramid", dim, seed=0).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for layer in network.flow:
                layer.weight += 0.05 * torch.randn(
                    layer.weight.shape, generator=generator
                )
        return network

    return make


def images(shape):
    generator = torch.Generator().manual_seed(2)
    return torch.rand(2, 1, 1, *shape, generator=generator)


@every_shape
@torch.no_grad()
def test_swapped_images_give_the_opposite_velocity(stirred, shape):
    network = stirred(len(shape))
    static, moving = images(shape)
    there = network(static, moving).velocity
    back = network(moving, static).velocity
    assert there.abs().max() > 0.1
    torch.testing.assert_close(there, -back, atol=1e-5, rtol=0)


@every_shape
@torch.no_grad()
def test_an_image_and_itself_stay(stirred, shape):
    image = images(shape)[0]
    velocity = stirred(len(shape))(image, image).velocity
    torch.testing.assert_close(velocity, torch.zeros_like(velocity), atol=1e-6, rtol=0)


@every_shape
@torch.no_grad()
def test_a_second_look_keeps_the_symmetry(stirred, shape):
    """Swapped images swap the field and its inverse, at both looks."""
    network, (static, moving) = stirred(len(shape)), images(shape)
    answers = zip(
        _asked_half_way(network, static, moving),
        _asked_half_way(network, moving, static),
    )
    for (u, v), (swapped_v, swapped_u) in answers:
        torch.testing.assert_close(u, swapped_u, atol=1e-4, rtol=0)
        torch.testing.assert_close(v, swapped_v, atol=1e-4, rtol=0)
        assert (u - v).abs().max() > 0.1


@torch.no_grad()
def test_a_second_look_is_from_half_way():
    """A network that always says the same: two looks are twice its flow."""

    class Says(torch.nn.Module):
        def __init__(self, velocity):
            super().__init__()
            self.velocity = torch.nn.Parameter(velocity)

        def forward(self, static, moving):
            return Prediction(None, self.velocity)

    x = torch.linspace(0, 2 * torch.pi, 40)
    velocity = torch.stack([x.sin().outer(x.sin()), 0.5 * x.sin().outer(x.cos())])[None]
    _, (u, v) = _asked_half_way(Says(velocity), *images((40, 40)))
    inner = (..., slice(4, -4), slice(4, -4))
    for field, sign in ((u, 2), (v, -2)):
        difference = (field - exp(sign * velocity))[inner].abs().max()
        assert difference < 0.01 < field.abs().max()
    assert compose(u, v)[inner].abs().max() < 0.02


@every_shape
@torch.no_grad()
def test_what_is_compared(shape):
    """Cosines of the features, at every distance along every axis."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 1, 5, *shape, generator=generator).numpy()
    found = _compared(torch.tensor(first), torch.tensor(second))[0].numpy()
    norm_1, norm_2 = (np.sqrt((x**2).sum(1))[0] for x in (first, second))
    steps = [(0, 0)] + [
        (axis, sign * k)
        for axis in range(len(shape))
        for k in REACH
        for sign in (-1, 1)
    ]
    assert len(found) == len(steps)
    middle = (slice(2, -2),) * len(shape)
    for value, (axis, step) in zip(found, steps):
        moved = np.roll(second, -step, axis + 2)
        length = np.roll(norm_2, -step, axis)
        wanted = (first * moved).sum(1)[0] / (norm_1 * length)
        np.testing.assert_allclose(value[middle], wanted[middle], atol=0.02)


def test_a_shift_is_learned_and_its_inverse_with_it():
    """From one pair; the other way round was never shown."""
    x, y = torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")
    static, moving = (
        torch.sigmoid(7 - ((x - c) ** 2 + (y - 16) ** 2).sqrt())[None, None]
        for c in (18, 14)
    )
    network = make_network("pyramid", 2, seed=0)
    adam = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(60):
        loss = (warp(moving, network(static, moving).displacement) - static).square()
        adam.zero_grad()
        loss.mean().backward()
        adam.step()
    with torch.no_grad():
        back = network(moving, static).displacement
    before = (static - moving).square().mean()
    assert (warp(static, back) - moving).square().mean() < 0.15 * before


def test_size_on_disk(tmp_path):
    from dipy_dl_reg.networks.checkpoint import save_network

    for dim, most in ((2, 2e6), (3, 5e6)):
        path = tmp_path / f"{dim}.npz"
        save_network(path, make_network("pyramid", dim))
        assert path.stat().st_size < most
