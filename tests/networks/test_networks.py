"""Properties of every network in 2D and 3D: shapes, gradients, saved weights."""

import importlib
import io
import json
import math

import pytest
import torch
import torch.nn.functional as F

from dipy_dl_reg.geometry.fields import exp, warp
from dipy_dl_reg.networks import NETWORKS, make_network, network_class
from dipy_dl_reg.networks.base import SQUARINGS, RegistrationNetwork
from dipy_dl_reg.networks.checkpoint import load_network, save_network

VARIANTS = {
    "dirnet": [{}, {"grid_spacing": 8, "bounded": True}, {"output": "velocity"}],
    "pyramid": [{}, {"features": (4, 8), "width": 8}],
    "selfsup-fcn": [{}, {"output": "velocity"}],
    "unet": [{}, {"features": (8, 16), "output": "velocity"}],
    "voxelmorph": [
        {},
        {"variant": "vm2", "output": "displacement"},
        {"half_resolution": True},
    ],
}
CASES = [
    pytest.param(name, arguments, id=" ".join([name, *map(str, arguments.values())]))
    for name in NETWORKS
    for arguments in VARIANTS.get(name, [{}])
]
SHAPES = {
    2: [(32, 32), (17, 33), (5, 5), (40, 3), (18, 1)],
    3: [(16, 16, 16), (9, 17, 12), (5, 5, 5), (18, 17, 3), (12, 1, 10)],
}
every_network = pytest.mark.parametrize("name, arguments", CASES)
every_dim = pytest.mark.parametrize("dim", [2, 3])


def pair(shape, *, batch=1, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, batch, 1, *shape, generator=generator, dtype=dtype)


def untrained(name, dim, arguments, seed=0):
    torch.manual_seed(seed)
    return make_network(name, dim, **arguments)


def stirred(name, dim, arguments):
    """A network whose every weight differs from 0, as if it had been trained."""
    network = untrained(name, dim, arguments).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in network.parameters():
            weights += 0.05 * torch.randn(weights.shape, generator=generator)
        for key, values in network.named_buffers():
            if key.endswith("running_var"):
                values += 0.1 * torch.rand(values.shape, generator=generator)
    return network


def fields(prediction):
    """All fields of a prediction: displacement, velocity if any, coarser fields."""
    found = (prediction.displacement, prediction.velocity, *prediction.coarse)
    return [field for field in found if field is not None]


@every_network
@every_dim
def test_a_field_on_the_grid_of_the_images(name, arguments, dim):
    network = stirred(name, dim, arguments)
    for shape in SHAPES[dim]:
        with torch.no_grad():
            prediction = network(*pair(shape))
        assert prediction.displacement.shape == (1, dim, *shape)
        assert (prediction.velocity is not None) == (network.output == "velocity")
        for field in fields(prediction):
            assert field.dtype == torch.float32
            assert field.isfinite().all()
        for level, coarse in enumerate(prediction.coarse, 1):
            assert coarse.shape[2:] == tuple(math.ceil(n / 2**level) for n in shape)
        assert len(network.level_weights) == 1 + len(prediction.coarse)


@every_network
@every_dim
def test_displacement_is_the_flow_of_the_velocity(name, arguments, dim):
    network = stirred(name, dim, arguments)
    prediction = network(*pair((20,) * dim))
    if network.output == "velocity":
        expected = exp(prediction.velocity, steps=SQUARINGS)
        torch.testing.assert_close(prediction.displacement, expected)
        assert (prediction.velocity - prediction.displacement).abs().max() > 0
    assert prediction.displacement.abs().max() > 1e-3


@every_network
@every_dim
def test_pairs_of_a_batch_do_not_meet(name, arguments, dim):
    network = stirred(name, dim, arguments).double()
    static, moving = pair((13,) * dim, batch=2, dtype=torch.float64)
    together = fields(network(static, moving))
    for index in range(2):
        one = slice(index, index + 1)
        for both, alone in zip(together, fields(network(static[one], moving[one]))):
            torch.testing.assert_close(both[one], alone)


@every_network
@every_dim
@pytest.mark.parametrize("training", [False, True])
def test_untrained_is_nearly_the_identity(name, arguments, dim, training):
    network = untrained(name, dim, arguments).train(training)
    static, moving = pair((20,) * dim, batch=2)
    displacement = network(static, moving).displacement
    assert displacement.abs().max() < 0.01
    torch.testing.assert_close(warp(moving, displacement), moving, atol=0.02, rtol=0)


@every_network
@every_dim
def test_gradient_by_every_weight(name, arguments, dim):
    """Against central differences, along one direction for each tensor of weights."""
    network = stirred(name, dim, arguments).double()
    images = pair((10,) * dim, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)

    def drawn(like):
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    wanted = [drawn(field) for field in fields(network(*images))]

    def loss():
        return sum((f * w).mean() for f, w in zip(fields(network(*images)), wanted))

    loss().backward()
    for key, weights in network.named_parameters():
        assert weights.grad is not None and weights.grad.any(), key
        direction = F.normalize(weights.grad.flatten(), dim=0).view_as(weights)
        direction += F.normalize(drawn(weights).flatten(), dim=0).view_as(weights)
        slope, step = (weights.grad * direction).sum().item(), 1e-7
        with torch.no_grad():
            values = []
            for length in (step, -2 * step):
                weights += length * direction
                values.append(loss().item())
            weights += step * direction
        found = (values[0] - values[1]) / (2 * step)
        assert found == pytest.approx(slope, rel=1e-3, abs=1e-8), key


@every_network
def test_one_pair_can_be_learned(name, arguments):
    """A disc is to become one 2 voxels away and larger."""
    x, y = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    static, moving = (
        torch.sigmoid(r - ((x - c) ** 2 + (y - 11) ** 2).sqrt())[None, None]
        for r, c in ((6, 12), (5, 10))
    )
    network = untrained(name, 2, arguments)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(80):
        warped = warp(moving, network(static, moving).displacement)
        losses.append((warped - static).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]


@every_network
@every_dim
def test_weights_through_torch(name, arguments, dim):
    network = stirred(name, dim, arguments)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = untrained(name, dim, arguments, seed=5).eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    images = pair((11,) * dim)
    for field, same in zip(fields(network(*images)), fields(other(*images))):
        assert torch.equal(field, same)


@every_network
@every_dim
def test_weights_through_a_checkpoint(name, arguments, dim, tmp_path):
    network = stirred(name, dim, arguments | {"spacing": 1.5})
    path = tmp_path / "network.npz"
    save_network(path, network)
    other = load_network(path)
    assert type(other) is type(network)
    assert other.arguments == network.arguments
    images = pair((11,) * dim)
    for field, same in zip(fields(network(*images)), fields(other(*images))):
        assert torch.equal(field, same)


@every_network
@every_dim
def test_made_anew_from_its_arguments(name, arguments, dim):
    network = untrained(name, dim, arguments | {"spacing": 2})
    stored = json.loads(json.dumps(network.arguments))
    other = network_class(name)(**stored)
    assert other.arguments == network.arguments
    assert other.spacing == 2.0
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert shapes == {key: value.shape for key, value in other.state_dict().items()}


@every_network
@every_dim
def test_repr_says_how_it_was_made(name, arguments, dim):
    network = untrained(name, dim, arguments)
    text = repr(network)
    assert text.startswith(f"{type(network).__name__}(")
    for key, value in network.arguments.items():
        assert f"{key}={value!r}" in text


@every_network
@every_dim
def test_images_that_fit_are_not_padded(name, arguments, dim):
    network = stirred(name, dim, arguments)
    seen = []
    first = next(m for m in network.modules() if hasattr(m, "kernel_size"))
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2:]))
    fits = (2 * network.multiple + network.remainder,) * dim
    network(*pair(fits))
    network(*pair([n - 1 for n in fits]))
    assert seen == [fits, fits]


@every_network
@every_dim
def test_padding_continues_the_images(name, arguments, dim):
    """One voxel short gives what the image with its last voxel repeated gives."""
    network = stirred(name, dim, arguments)
    short = network.multiple + network.remainder - 1
    static, moving = pair((short,) * dim)
    longer = [F.pad(x, (0, 1) * dim, mode="replicate") for x in (static, moving)]
    index = 1 if network.output == "velocity" else 0
    field, whole = network(static, moving)[index], network(*longer)[index]
    torch.testing.assert_close(field, whole[(..., *[slice(short)] * dim)])


@every_network
@every_dim
@pytest.mark.parametrize("training", [False, True])
def test_nothing_else_is_touched(name, arguments, dim, training):
    """Neither the images, nor the weights, nor Torch's generator."""
    network = stirred(name, dim, arguments).train(training)
    images = pair((9,) * dim, batch=2)
    before, generator = images.clone(), torch.get_rng_state()
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    network(*images)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), generator)
    for key, value in network.state_dict().items():
        if not training or "running" not in key and "tracked" not in key:
            assert torch.equal(value, weights[key]), key


@every_network
@every_dim
def test_made_twice_alike_and_apart(name, arguments, dim):
    first, second = (untrained(name, dim, arguments) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters()):
        assert torch.equal(a, b)
        assert a is not b


@every_network
def test_images_that_do_not_belong_together(name, arguments):
    network = untrained(name, 2, arguments)
    image, other = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 9)
    with pytest.raises(ValueError, match=r"\(1, 1, 8, 8\) and \(1, 1, 8, 9\)"):
        network(image, other)
    with pytest.raises(ValueError, match="2 axes"):
        network(image[..., None], image[..., None])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"dim": 4}, "dim must be 2 or 3, got 4"),
        ({"spacing": 0}, "spacing must be above 0 and finite, got 0"),
        ({"output": "field"}, "output must be one of .*, got 'field'"),
        ({"no_such_thing": 1}, "no_such_thing"),
    ],
)
def test_wrong_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_network(name, **({"dim": 2} | arguments))


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("dirnet", {"grid_spacing": 12}, "power of 2, got 12"),
        ("dirnet", {"grid_spacing": 1}, "grid_spacing must be a whole number from 2"),
        ("dirnet", {"features": 0}, "features must be a whole number from 1"),
        ("pyramid", {"features": ()}, "features must have at least one"),
        ("pyramid", {"width": 0}, "width must be a whole number from 1"),
        ("pyramid", {"repeats": 0}, "repeats must be a whole number from 1"),
        ("pyramid", {"output": "displacement"}, "output must be 'velocity'"),
        ("selfsup-fcn", {"features": (8, 8)}, "features must be 3 numbers"),
        ("unet", {"features": ()}, "features must have at least one"),
        ("unet", {"features": (8, 1.5)}, "whole number from 1, got 1.5"),
        ("voxelmorph", {"variant": "vm3"}, "variant must be one of .* got 'vm3'"),
        ("no-such-net", {}, "network must be one of .* got 'no-such-net'"),
    ],
)
def test_wrong_arguments_of_their_own(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_network(name, 2, **arguments)


def test_former_name_of_a_method():
    """Networks that were written for it define or call `said`."""
    images = torch.rand(2, 1, 1, 8, 8)
    with pytest.warns(DeprecationWarning, match="its name is output_fields"):

        class Constant(RegistrationNetwork):
            def said(self, static, moving):
                return [static.new_ones(1, 2, *static.shape[2:])]

    assert bool((Constant(2)(*images).displacement == 1).all())
    network = make_network("unet", 2)
    with pytest.warns(DeprecationWarning, match="its name is output_fields"):
        (field,) = network.said(*images)
    assert torch.equal(field, network(*images).displacement)


@pytest.mark.parametrize("name", NETWORKS)
def test_classes_are_imported_from_the_package(name):
    item = network_class(name)
    assert (
        getattr(importlib.import_module("dipy_dl_reg.networks"), item.__name__) is item
    )
