"""What the pyramid keeps to whatever its weights: symmetry, scale, contrast."""

import numpy as np
import pytest
import torch

from dipy_dl_reg.geometry.fields import compose, exp, resize, warp
from dipy_dl_reg.initialization.midspace import predict_in_midspace
from dipy_dl_reg.networks import make_network
from dipy_dl_reg.networks.pyramid_network import (
    REACH,
    correlate_neighbours,
    swap_correlations,
)

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
    torch.testing.assert_close(velocity, torch.zeros_like(velocity), atol=1e-5, rtol=0)


@every_shape
@pytest.mark.parametrize("looks", [(1,), (1, 1), (2, 1, 1)])
@torch.no_grad()
def test_every_look_keeps_the_symmetry(stirred, shape, looks):
    """Swapped images swap the field and its inverse."""
    network, (static, moving) = stirred(len(shape)), images(shape)
    u, v = predict_in_midspace(network, static, moving, looks)
    swapped_v, swapped_u = predict_in_midspace(network, moving, static, looks)
    torch.testing.assert_close(u, swapped_u, atol=1e-4, rtol=0)
    torch.testing.assert_close(v, swapped_v, atol=1e-4, rtol=0)
    assert (u - v).abs().max() > 0.1


class Says(torch.nn.Module):
    """Answers with one velocity after the other, and keeps what it was shown."""

    def __init__(self, *velocities):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.velocities, self.seen = list(velocities), []

    def output_fields(self, static, moving):
        self.seen.append((static, moving))
        return [self.velocities[len(self.seen) - 1]]


def waves(shape, seed, size):
    """A velocity that is as good as constant between neighbours."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(1, len(shape), *[3] * len(shape), generator=generator)
    return size * resize(few, shape) / resize(few, shape).abs().max()


@torch.no_grad()
def test_every_look_is_at_what_the_others_left():
    """The image that the whole brings is what the halves brought, and then the last."""
    shape = (65, 65)
    velocities = [waves(shape, k, 3.0) for k in range(3)]
    static, moving = (waves(shape, k, 1.0)[:, :1] for k in (5, 6))
    network = Says(*velocities)
    u, v = predict_in_midspace(network, static, moving, (1, 1, 1))
    inner = (..., slice(20, -20), slice(20, -20))
    # The last flow brings what it saw of moving onto what it saw of static's side;
    # static's side is undone by following the inverse of its own half.
    seen_static, seen_moving = network.seen[-1]
    halves = [exp(w / 2) for w in velocities[:2]]
    to_static = compose(halves[0], halves[1])
    wanted = warp(warp(seen_moving, exp(velocities[2])), to_static)
    # Interpolated once or thrice, linearly.
    torch.testing.assert_close(warp(moving, u)[inner], wanted[inner], atol=0.02, rtol=0)
    torch.testing.assert_close(
        warp(seen_static, to_static)[inner], static[inner], atol=0.02, rtol=0
    )
    assert compose(u, v)[inner].abs().max() < 0.1 < 0.1 * u.abs().max()


@torch.no_grad()
def test_looks_that_agree_add_up():
    """A network that always says the same: its flow as often as it was asked."""
    x = torch.linspace(0, 2 * torch.pi, 41)
    velocity = torch.stack([x.sin().outer(x.sin()), 0.5 * x.sin().outer(x.cos())])[None]
    u, v = predict_in_midspace(Says(*[velocity] * 3), *images((41, 41)), (1, 1, 1))
    inner = (..., slice(4, -4), slice(4, -4))
    for field, sign in ((u, 3), (v, -3)):
        difference = (field - exp(sign * velocity))[inner].abs().max()
        # At half the resolution, where the wave is 20 voxels long.
        assert difference < 0.05 * field.abs().max()


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
