"""Properties of the pyramid for any weights: symmetry, scale, contrast."""

import numpy as np
import pytest
import torch

from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.networks import make_network
from dipy_dl_reg.networks.pyramid_network import (
    REACH,
    correlate_neighbours,
    swap_correlations,
    warp_half_way,
)

SHAPES = [(26, 33), (18, 21, 16)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


@pytest.fixture
def stirred():
    """An untrained network whose velocity is not 0."""

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
    torch.testing.assert_close(velocity, torch.zeros_like(velocity), atol=1e-5, rtol=0)


@every_shape
@torch.no_grad()
def test_correlations_of_neighbours(shape):
    """Cosines of the features, at every distance along every axis."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 1, 5, *shape, generator=generator).numpy()
    found = correlate_neighbours(torch.tensor(first), torch.tensor(second))[0].numpy()
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


@every_shape
@torch.no_grad()
def test_correlations_of_swapped_features(shape):
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 2, 5, *shape, generator=generator)
    torch.testing.assert_close(
        swap_correlations(correlate_neighbours(first, second)),
        correlate_neighbours(second, first),
    )


def test_half_precision_keeps_coordinates():
    """Features in half precision, as under autocast, are warped to the same points."""
    both = torch.linspace(0, 1, 97).expand(2, 1, 12, 12, 97).contiguous()
    velocity = torch.zeros(1, 3, 12, 12, 97)
    velocity[:, 2] = 0.3
    wanted = warp_half_way(both, velocity) - both
    half = torch.bfloat16
    found = warp_half_way(both.to(half), velocity.to(half)).float()
    # The displacement changes the image by .0016; near its dark end, rounding the image
    # costs .0003.
    assert abs(found - both - wanted)[..., 1:8].max() < 4e-4
    assert abs(wanted[..., 1:8]).min() > 1.5e-3


def test_a_shift_is_learned_and_its_inverse_with_it():
    """A network trained on one pair also registers the swapped pair."""
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


@every_shape
def test_inference_and_training_compute_the_same(stirred, shape):
    """Without gradients the channels are stored in another order on a CPU."""
    network = stirred(len(shape))
    static, moving = images(shape)
    trained = network(static, moving).velocity.detach()
    with torch.no_grad():
        inferred = network(static, moving).velocity
    torch.testing.assert_close(inferred, trained, atol=1e-5, rtol=0)
