"""Pairs from arrays, and examples that depend on the seed and their number alone."""

from collections import Counter

import numpy as np
import pytest
import torch

from dipy_dl_reg.training.image_tensors import normalize
from dipy_dl_reg.training.loop.batches import Batches, collate, make_generator
from dipy_dl_reg.training.training_set import (
    AtlasPairs,
    CrossSubject,
    Example,
    ListedPairs,
    as_pairs,
)


@pytest.fixture
def images(rng):
    return rng.random((5, 8, 9)) * 300 - 20


def which(example, images):
    """Numbers of the two images of an example."""
    return tuple(
        next(k for k, x in enumerate(images) if torch.equal(normalize(x)[None], side))
        for side in example[:2]
    )


def test_normalize(rng):
    image = rng.normal(5, 2, (50, 60)).astype(np.float32)
    low, high = np.quantile(image.astype(float), [0.001, 0.999])
    expected = (image - low) / (high - low)
    scaled = normalize(image)
    assert scaled.dtype == torch.float32
    np.testing.assert_allclose(scaled.numpy(), expected, atol=1e-6)
    holed = image.astype(float)
    holed[:10] = np.nan
    assert (normalize(holed)[:10] == 0).all()
    np.testing.assert_allclose(normalize(holed)[10:], normalize(image[10:]), atol=1e-6)
    # One bright voxel of many: both quantiles are 0, the range is not.
    sparse = np.zeros((100, 100), dtype=np.uint8)
    sparse[3, 4] = 200
    np.testing.assert_array_equal(normalize(sparse), sparse / 200)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_normalize_refuses(value):
    with pytest.raises(ValueError, match="constant|infinite"):
        normalize(np.full((4, 4), value))


def test_all_ordered_pairs_once(images):
    pairs = CrossSubject(images)
    found = [which(pairs[i], images) for i in range(len(pairs))]
    assert sorted(found) == [(a, b) for a in range(5) for b in range(5) if a != b]
    with pytest.raises(IndexError):
        pairs[len(pairs)]


def test_pairs_stay_within_their_group(images):
    groups = ["a", "b", "a", "c", "b"]
    pairs = CrossSubject(images, groups=groups)
    found = [which(pairs[i], images) for i in range(len(pairs))]
    assert sorted(found) == [(0, 2), (1, 4), (2, 0), (4, 1)]
    generator = torch.Generator().manual_seed(0)
    drawn = Counter(which(pairs.draw(generator), images) for _ in range(400))
    assert drawn.keys() == set(found) and min(drawn.values()) > 60


def test_labels_go_with_their_images(images):
    maps = np.arange(5)[:, None, None] * np.ones((1, 8, 9))
    pairs = CrossSubject(images, labels=maps)
    for example in (pairs[7], pairs.draw(torch.Generator())):
        numbers = which(example, images)
        for labels, number in zip(example[2:], numbers):
            assert labels.shape == (1, 8, 9) and not labels.is_floating_point()
            assert (labels == number).all()


def test_atlas_is_static(images):
    maps = np.arange(5)[:, None, None] * np.ones((1, 8, 9), np.uint16)
    pairs = AtlasPairs(images[0], images[1:], maps[0], maps[1:])
    assert len(pairs) == 4
    assert [which(pairs[i], images) for i in range(4)] == [(0, k) for k in range(1, 5)]
    assert pairs[2].static_labels.max() == 0 and pairs[2].moving_labels.min() == 3


def test_one_pair_is_enough(images):
    pairs = ListedPairs([(images[3], images[1])])
    assert len(pairs) == 1
    assert which(pairs.draw(torch.Generator()), images) == (3, 1)


def test_listed_pairs_may_differ_in_shape(rng):
    a, b = rng.random((2, 8, 9)), rng.random((2, 5, 6, 7))
    pairs = ListedPairs([tuple(a), tuple(b)], labels=[tuple(a > 0.5), tuple(b > 0.5)])
    assert pairs[1].moving.shape == pairs[1].moving_labels.shape == (1, 5, 6, 7)
    np.testing.assert_array_equal(pairs[1].static_labels[0], b[0] > 0.5)
    with pytest.raises(ValueError, match="batch_size of 1"):
        collate([pairs[0], pairs[1]])


def test_as_pairs(images):
    assert isinstance(as_pairs(images), CrossSubject)
    assert isinstance(as_pairs(list(images)), CrossSubject)
    assert isinstance(as_pairs(torch.from_numpy(images)), CrossSubject)
    listed = as_pairs([(images[0], images[1])])
    assert isinstance(listed, ListedPairs) and as_pairs(listed) is listed
    for wrong in (None, 3, [], {}):
        with pytest.raises(ValueError, match="pairs must be"):
            as_pairs(wrong)


@pytest.mark.parametrize("normalized", [False, True])
def test_tensors_are_images(images, normalized):
    """In one or in a list, of any type, from the midst of a computation."""
    stack = torch.from_numpy(images).float()
    maps = (stack > 0).int()
    expected = CrossSubject(stack.numpy(), maps.numpy(), normalized=normalized)
    for given in (
        stack.clone().requires_grad_(),
        [x.requires_grad_() for x in stack.clone()],
    ):
        pairs = CrossSubject(given, maps, normalized=normalized)
        for ours, theirs in zip(pairs[3], expected[3]):
            assert torch.equal(ours, theirs) and not ours.requires_grad
    half = CrossSubject(stack.bfloat16(), normalized=normalized)
    assert half.images[0].dtype == torch.float32


def test_normalized_images_stay_as_they_are(rng):
    images = rng.random((3, 6, 6), dtype=np.float32)
    example = CrossSubject(images, normalized=True)[0]
    np.testing.assert_array_equal(example.static[0], images[0])
    images[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        CrossSubject(images, normalized=True)


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda x: CrossSubject(x[:1]), "two"),
        (lambda x: CrossSubject([]), "at least one"),
        (lambda x: CrossSubject([x[0], x[1, :4]]), "the same shape"),
        (lambda x: CrossSubject(x, groups=[1, 2]), "groups"),
        (lambda x: CrossSubject(x, groups=range(5)), "two images of a group"),
        (lambda x: CrossSubject(x, labels=x[:4].round()), "labels"),
        (lambda x: CrossSubject(x, labels=x), "whole"),
        (lambda x: CrossSubject(x, labels=x * np.nan), "whole"),
        (lambda x: CrossSubject(x, labels=x[:, :4].round()), "shape"),
        (lambda x: CrossSubject(x[0]), "2D or 3D"),
        (lambda x: CrossSubject(x.astype(complex)), "real"),
        (lambda x: AtlasPairs(x[0], x[:, :4]), "the same shape"),
        (lambda x: AtlasPairs(x[0], x, atlas_labels=x[0] > 0), "together"),
        (lambda x: ListedPairs([]), "pairs"),
        (lambda x: ListedPairs([(x[0], x[1, :4])]), "the same shape"),
        (lambda x: ListedPairs([(x[0],)]), "pairs"),
    ],
)
def test_unfit(images, make, word):
    with pytest.raises(ValueError, match=word):
        make(images)


class Numbers:
    """Pairs whose draw is a random number."""

    def __len__(self):
        return 1

    def draw(self, generator):
        return Example(*torch.rand(2, 1, 1, 1, generator=generator))


def shaken(example, generator):
    return example._replace(static=torch.rand(1, 1, 1, generator=generator))


def numbers(batches, first, end, **options):
    return [torch.stack(b[:2]).flatten().tolist() for b in batches.steps(
        first, end, **options)]  # fmt: skip


def test_examples_depend_on_seed_and_number_alone():
    single = numbers(Batches(Numbers(), 1, seed=3), 0, 12)
    assert len({tuple(x) for x in single}) == 12
    assert single == numbers(Batches(Numbers(), 1, seed=3), 0, 12)
    assert single != numbers(Batches(Numbers(), 1, seed=4), 0, 12)
    flat = torch.tensor(single).T
    later = numbers(Batches(Numbers(), 4, seed=3), 1, 3)
    assert torch.equal(torch.tensor(later[1]).view(2, 4), flat[:, 8:])
    parts = [
        numbers(Batches(Numbers(), 2, seed=3, rank=r, size=2), 0, 3) for r in (0, 1)
    ]
    together = torch.tensor(parts).view(2, 3, 2, 2).permute(2, 1, 0, 3).reshape(2, 12)
    assert torch.equal(together, flat)


def test_workers_give_the_same_examples():
    batches = Batches(Numbers(), 2, seed=0, augment=shaken)
    state = torch.get_rng_state()
    expected = numbers(batches, 2, 7)
    assert numbers(batches, 2, 7, workers=2) == expected
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"


def test_seeded_generators_do_not_repeat():
    drawn = {torch.rand((), generator=make_generator(s, n)).item() for s in range(20)
             for n in range(20)}  # fmt: skip
    assert len(drawn) == 400


def test_batch_of_some_with_labels(images):
    plain, labelled = CrossSubject(images), CrossSubject(images, labels=images > 9)
    assert collate([plain[0], plain[1]]).static_labels is None
    assert collate([labelled[0], labelled[1]]).static_labels.shape == (2, 1, 8, 9)
    with pytest.raises(ValueError, match="labels"):
        collate([plain[0], labelled[0]])
