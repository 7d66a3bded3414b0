"""Images synthesised from label maps: what they hold, and a seed that repeats them."""

import numpy as np
import pytest
import torch

from dipy_dl_reg.training.synthesis import SynthesisedPairs, shares

CLASSES = [1, 2, 5, 9]
PLAIN = {"noise": 0.0, "blur": 0.0, "bias": 0.0}


def label_map(seed, shape):
    """Four boxes side by side, their borders drawn at random."""
    generator = np.random.default_rng(seed)
    labels = np.zeros(shape, int)
    cuts = np.sort(generator.uniform(0.1, 0.9, 3) * shape[0]).astype(int)
    inner = tuple(slice(3, -3) for _ in shape[1:])
    for value, part in zip(CLASSES, np.split(np.arange(shape[0]), cuts)):
        labels[(part, *inner)] = value
    return labels


def pairs(shape=(24, 30, 28), **options):
    maps = [shares(label_map(seed, shape), CLASSES, 2) for seed in range(3)]
    means, spreads = [0.2, 0.5, 0.8, 0.4], [0.05] * 4
    return SynthesisedPairs(maps, means, spreads, **options)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(12, 10), (8, 6, 10)])
def test_shares_count_the_voxels(shape):
    labels = np.random.default_rng(0).choice([0, *CLASSES], shape)
    parts = shares(labels, CLASSES, 2)
    for index in np.ndindex(*(n // 2 for n in shape)):
        block = labels[tuple(slice(2 * i, 2 * i + 2) for i in index)]
        wanted = [(block == k).mean() for k in CLASSES]
        np.testing.assert_allclose(parts[(slice(None), *index)], wanted)


@pytest.mark.parametrize("shape", [(24, 30), (24, 30, 28)])
def test_a_seed_gives_the_same_pair_again(shape):
    first, again, other = (pairs(shape).draw(seeded(seed)) for seed in (3, 3, 4))
    for a, b in zip(first, again):
        assert torch.equal(a, b)
    assert not torch.equal(first.static, other.static)
    assert first.static.shape == (1, *(n // 2 for n in shape))
    assert first.static.shape == first.moving.shape


def intensities(image, labels):
    """What each class looks like, and how much of the image that leaves unexplained."""
    table = labels.flatten(1).T.double()
    values = torch.linalg.lstsq(table, image.flatten()[:, None].double()).solution
    rest = table @ values - image.flatten()[:, None]
    return values[:, 0].numpy(), float(rest.abs().max())


def test_images_are_their_classes():
    """One intensity a class, and labels that moved with the image."""
    example = pairs(**PLAIN, always=range(4)).draw(seeded(0))
    for image, labels in (
        (example.static, example.static_labels),
        (example.moving, example.moving_labels),
    ):
        values, rest = intensities(image, labels)
        assert rest < 2e-3
        assert values.argsort().tolist() == [0, 3, 1, 2]  # as the means


def test_two_images_of_a_pair_differ_in_shape_and_contrast():
    example = pairs(random_contrast=1.0, **PLAIN).draw(seeded(1))
    assert (example.static_labels - example.moving_labels).abs().max() > 0.5
    assert example.static.min() >= 0 and float(example.static.amax()) == 1


def test_groups_share_their_intensity():
    source = pairs(groups=[0, 1, 0, 1], random_contrast=1.0, always=range(4), **PLAIN)
    example = source.draw(seeded(2))
    values, _ = intensities(example.static, example.static_labels)
    np.testing.assert_allclose(values[:2], values[2:], atol=1e-3)
    assert abs(values[0] - values[1]) > 0.01


def test_what_is_outside_can_be_stripped():
    with_outside = pairs(outside=[3], stripped=0.0, **PLAIN, always=[0, 1, 2])
    without = pairs(outside=[3], stripped=1.0, **PLAIN, always=[0, 1, 2])
    for source, empty in ((with_outside, False), (without, True)):
        example = source.draw(seeded(5))
        elsewhere = example.static[0][example.static_labels.sum(0) < 1e-3]
        assert (float(elsewhere.max()) < 0.01) == empty


def test_every_ordered_pair_has_a_number():
    source = pairs(always=range(4), rotation=0, scale=0, translation=0, bending=0.0)
    assert len(source) == 6
    shapes = {
        (tuple(e.static_labels.sum((1, 2, 3)).tolist()),
         tuple(e.moving_labels.sum((1, 2, 3)).tolist()))
        for e in (source[i] for i in range(6))
    }  # fmt: skip
    assert len(shapes) == 6
    assert all(a != b for a, b in shapes)
    assert torch.equal(source[4].static, source[4].static)
    with pytest.raises(IndexError):
        source[6]


def test_too_few_maps():
    one = shares(label_map(0, (8, 8)), CLASSES, 2)
    for maps in ([one], [one, one[:, 1:]]):
        with pytest.raises(ValueError, match="maps must be"):
            SynthesisedPairs(maps, [0.5] * 4, [0.1] * 4)
