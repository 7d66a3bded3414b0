"""Self-similarity descriptors against their definition, and their invariances."""

from itertools import combinations

import numpy as np
import pytest
import torch

from dipy_dl_reg import DeepRegistration
from dipy_dl_reg.metrics import self_similarity
from dipy_dl_reg.metrics.mind import MINDMetric
from dipy_dl_reg.metrics.self_similarity import mind_ssc


def image(shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 1, *shape, generator=generator, dtype=dtype)


def neighbours(dim, steps):
    """Pairs of neighbours that do not face each other, as steps from the voxel."""
    ends = [
        sign * steps[a] * np.eye(dim, dtype=int)[a]
        for a in range(dim)
        for sign in (1, -1)
    ]
    return [(a, b) for a, b in combinations(ends, 2) if not (a == -b).all()]


def described(x, radius, steps, floor):
    """The definition, voxel by voxel; channels in order of size."""
    dim = x.ndim
    pairs = neighbours(dim, steps)
    patch = np.stack(np.meshgrid(*[range(-radius, radius + 1)] * dim), -1)
    patch = patch.reshape(-1, dim)

    def at(points):
        return x[tuple(np.clip(points, 0, np.array(x.shape) - 1).T)]

    result = np.empty((len(pairs), *x.shape))
    for index in np.ndindex(*x.shape):
        d = np.array(
            [
                np.mean((at(index + a + patch) - at(index + b + patch)) ** 2)
                for a, b in pairs
            ]
        )
        m = np.exp(-(d - d.min()) / (d.mean() - d.min() + floor))
        result[(slice(None), *index)] = np.sort(m)
    return result


@pytest.mark.parametrize(
    ("shape", "radius", "steps"),
    [((7, 6), 1, 1), ((6, 5, 7), 1, 1), ((6, 7), 0, 2), ((5, 6, 7), 1, (1, 2, 3))],
)
def test_descriptor_is_its_definition(shape, radius, steps):
    x = image(shape)
    found = mind_ssc(x, radius=radius, dilation=steps, floor=1e-2)
    dim = len(shape)
    assert found.shape == (1, {2: 4, 3: 12}[dim], *shape)
    steps = [steps] * dim if np.ndim(steps) == 0 else steps
    wanted = described(x[0, 0].numpy(), radius, steps, 1e-2)
    np.testing.assert_allclose(np.sort(found[0].numpy(), 0), wanted, rtol=1e-9)


@pytest.mark.parametrize("masked", [False, True])
def test_slabs_make_no_difference(monkeypatch, masked):
    static, warped = (image((23, 6, 7), seed, torch.float32) for seed in (0, 1))
    mask = (image((23, 6, 7), 2, torch.float32) > 0.2).float() if masked else None
    whole = MINDMetric().bind(static, mask)(warped)
    monkeypatch.setattr(self_similarity, "_SLAB", 100)
    bound = MINDMetric().bind(static, mask)
    assert len(bound._slabs) > 3
    for a, b in zip(bound(warped), whole):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("shape", [(20, 21), (9, 10, 11)])
def test_blind_to_contrast(shape):
    """Inverted, brighter or biased intensities give nearly the same descriptor."""
    x = image(shape)
    place = torch.linspace(0, 1, shape[0], dtype=torch.float64)
    bias = (1 + 0.3 * place).view(-1, *[1] * (len(shape) - 1))
    shuffled = image(shape, 1)
    options = {"floor": 1e-6}
    apart = (mind_ssc(x, **options) - mind_ssc(shuffled, **options)).square().mean()
    for other, part in ((1 - x, 1e-6), (3 * x + 2, 1e-6), (x * bias, 0.02)):
        change = (mind_ssc(x, **options) - mind_ssc(other, **options)).square().mean()
        assert change < part * apart


def test_masked_voxels_are_not_compared():
    x, mask = image((9, 8)), torch.ones(1, 1, 9, 8, dtype=torch.float64)
    mask[..., 5:, :] = 0
    spoiled = torch.where(mask > 0, x, torch.full_like(x, 9.0))
    torch.testing.assert_close(mind_ssc(x, mask), mind_ssc(spoiled, mask))
    assert not mind_ssc(x, mask)[..., 5:, :].any()
    inner = (..., slice(2, 3), slice(2, 6))  # patches within image and mask
    torch.testing.assert_close(mind_ssc(x, mask)[inner], mind_ssc(x)[inner])


def test_flat_images_look_alike_everywhere():
    flat = torch.full((1, 1, 8, 8), 0.5)
    assert torch.equal(mind_ssc(flat), torch.ones(1, 4, 8, 8))
    noise = flat + 1e-3 * torch.randn(1, 1, 8, 8)
    assert mind_ssc(noise).min() > 0.97


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"radius": -1}, "radius"),
        ({"radius": "a"}, "radius"),
        ({"dilation": 0}, "dilation"),
        ({"dilation": (1, 0)}, "dilation"),
        ({"dim": 3, "dilation": (1, 2)}, "dilation"),
        ({"floor": 0}, "floor"),
    ],
)
def test_bad_options(options, word):
    with pytest.raises(ValueError, match=word):
        MINDMetric(**options)


def test_dilation_that_does_not_fit_the_images():
    with pytest.raises(ValueError, match="dilation.*2"):
        MINDMetric(dilation=(1, 2, 3)).bind(image((8, 8)))


def test_registers_unlike_contrasts():
    x, y = np.mgrid[-1:1:48j, -1:1:48j]

    def rings(x, y):
        r = np.hypot(x, 1.3 * y)
        return np.cos(14 * r + 2 * x) * np.exp(-((r / 0.8) ** 6))

    field = 0.09 * np.exp(-4 * (x**2 + y**2))
    static, moving = rings(x + field, y), rings(x, y)
    other = (1 - moving) * (1.5 + x)  # upside down, under a bias
    mapping = DeepRegistration("MIND", level_iters=[40, 40]).optimize(static, other)
    inside = np.hypot(x, y) < 0.5
    wanted = field * 47 / 2
    error = np.hypot(mapping.backward[..., 0] - wanted, mapping.backward[..., 1])
    assert np.sqrt((error[inside] ** 2).mean()) < 0.4 * np.sqrt(
        (wanted[inside] ** 2).mean()
    )
