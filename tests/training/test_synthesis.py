"""Images synthesised from label maps: what they hold, and a seed that repeats them."""

import numpy as np
import pytest
import torch

from dipy_dl_reg.geometry.derivatives import jacobian
from dipy_dl_reg.training.examples.acquisition import Acquisition
from dipy_dl_reg.training.examples.deformation import Bending
from dipy_dl_reg.training.examples.shapes import Mixture, ShapePairs
from dipy_dl_reg.training.examples.synthesis import Contrast, SynthesisedPairs, shares
from dipy_dl_reg.training.loop.batches import Batches
from dipy_dl_reg.training.loop.batches import make_generator as step_generator
from dipy_dl_reg.training.loop.losses import dice_loss

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


def make_generator(seed):
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
    first, again, other = (
        pairs(shape).draw(make_generator(seed)) for seed in (3, 3, 4)
    )
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
    example = pairs(**PLAIN, always=range(4)).draw(make_generator(0))
    for image, labels in (
        (example.static, example.static_labels),
        (example.moving, example.moving_labels),
    ):
        values, rest = intensities(image, labels)
        assert rest < 2e-3
        assert values.argsort().tolist() == [0, 3, 1, 2]  # as the means


def test_two_images_of_a_pair_differ_in_shape_and_contrast():
    example = pairs(random_contrast=1.0, **PLAIN).draw(make_generator(1))
    assert (example.static_labels - example.moving_labels).abs().max() > 0.5
    assert example.static.min() >= 0 and float(example.static.amax()) == 1


def test_groups_share_their_intensity():
    source = pairs(groups=[0, 1, 0, 1], random_contrast=1.0, always=range(4), **PLAIN)
    example = source.draw(make_generator(2))
    values, _ = intensities(example.static, example.static_labels)
    np.testing.assert_allclose(values[:2], values[2:], atol=1e-3)
    assert abs(values[0] - values[1]) > 0.01


def test_what_is_outside_can_be_stripped():
    with_outside = pairs(outside=[3], stripped=0.0, **PLAIN, always=[0, 1, 2])
    without = pairs(outside=[3], stripped=1.0, **PLAIN, always=[0, 1, 2])
    for source, empty in ((with_outside, False), (without, True)):
        example = source.draw(make_generator(5))
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


def test_contrasts_of_the_two_images():
    """One for both, or any for each; by their weights."""
    bright = Contrast([0.9, 0.1, 0.9, 0.1], [0.0] * 4, 1e6, Acquisition(**PLAIN))
    for across, kinds in ((0.0, 1), (1.0, 2)):
        source = pairs(contrasts=[bright], across=across, always=range(4), **PLAIN)
        source.contrasts[0] = source.contrasts[0]._replace(weight=1e6)
        found = set()
        for seed in range(12):
            example = source.draw(make_generator(seed))
            first, _ = intensities(example.static, example.static_labels)
            second, _ = intensities(example.moving, example.moving_labels)
            found.add(len({bool(v[0] > v[2] - 0.1) for v in (first, second)}))
        assert max(found) == kinds


def test_brains_can_be_masked():
    example = pairs(outside=[3], stripped=1.0, masked=1.0, noise=0.5).draw(
        make_generator(1)
    )
    for image, labels in (
        (example.static[0], example.static_labels.sum(0)),
        (example.moving[0], example.moving_labels.sum(0)),
    ):
        assert not image[labels < 0.45].any()
        assert (image[labels > 0.55] > 0).double().mean() > 0.5


def test_a_contrast_of_other_classes():
    with pytest.raises(ValueError, match="must have 4 values, got 3 and 4"):
        pairs(contrasts=[Contrast([0.1] * 3, [0.1] * 4)])


@pytest.mark.parametrize("shape", [(40, 36), (24, 20, 28)])
def test_bending_never_folds(shape):
    bent = Bending(bending=1.5, bending_scale=8, rotation=10, translation=2)
    for seed in range(4):
        u = bent(shape, make_generator(seed))
        assert u.shape == (1, len(shape), *shape)
        assert jacobian(u).min() > 0
        assert torch.equal(u, bent(shape, make_generator(seed)))


def test_bending_is_as_large_as_asked():
    still = {"rotation": 0, "scale": 0, "translation": 0}
    sizes = [
        Bending(bending=b, **still)((60, 60), make_generator(0)).square().mean().sqrt()
        for b in (0.0, 0.5, 1.0)
    ]
    assert sizes[0] == 0
    np.testing.assert_allclose(sizes[1:], [0.5, 1.0], rtol=0.15)
    turned = Bending(rotation=5, scale=0, translation=0, bending=0)(
        (30, 30), make_generator(0)
    )
    matrix = [turned[0, :, 20, 15] - turned[0, :, 10, 15],
              turned[0, :, 15, 20] - turned[0, :, 15, 10]]  # fmt: skip
    matrix = torch.stack(matrix) / 10 + torch.eye(2)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(2), atol=1e-5, rtol=0)


def flat(shape=(1, 40, 36, 38), value=0.5):
    """A bright corner, so that the scale is known, on something flat."""
    image = torch.full(shape, value)
    image[(0, *[slice(0, 6)] * (len(shape) - 1))] = 1.0
    return image


def test_noise_of_a_magnitude_has_a_floor():
    """Rayleigh where nothing is: its mean is sigma sqrt(pi / 2)."""
    means, deviations = [], []
    for seed in range(4):
        options = PLAIN | {"noise": 0.2, "rician": 1.0}
        image = Acquisition(**options)(flat(value=0.0), make_generator(seed))
        empty = image[0, 10:, 10:, 10:]
        assert image.min() >= 0
        means.append(float(empty.mean()))
        deviations.append(float(empty.square().mean().sqrt()))
    # Of Rayleigh's distribution the root of the mean square is sigma sqrt(2).
    np.testing.assert_allclose(
        np.divide(means, deviations), np.sqrt(np.pi) / 2, rtol=0.02
    )


@pytest.mark.parametrize("shape", [(1, 40, 36), (1, 24, 30, 28)])
def test_slices_blur_along_one_axis(shape):
    options = PLAIN | {"thick": 6.0, "slices": 1.0}
    generator = make_generator(3)
    noise = torch.rand(shape, generator=generator)
    image = Acquisition(**options)(noise, generator)
    rough = [float(image.diff(dim=d).square().mean()) for d in range(1, len(shape))]
    before = [float(noise.diff(dim=d).square().mean()) for d in range(1, len(shape))]
    lost = sorted(np.divide(rough, before) / max(np.divide(rough, before)))
    assert lost[0] < 0.5 and min(lost[1:]) > 0.9


def test_low_resolution_blurs_along_all_axes():
    noise = torch.rand(1, 30, 30, generator=make_generator(0))
    options = PLAIN | {"coarse": 3.0}
    image = Acquisition(**options)(noise, make_generator(4))
    for axis in (1, 2):
        part = (
            image.diff(dim=axis).square().mean() / noise.diff(dim=axis).square().mean()
        )
        assert part < 0.5


def test_part_of_the_field_of_view_is_missing():
    image = torch.ones(1, 30, 20, 25)
    found = set()
    for seed in range(12):
        options = PLAIN | {"cut": 1.0, "largest_cut": 0.5}
        cut = Acquisition(**options)(image, make_generator(seed))
        assert 0.5 <= (cut > 0).double().mean() <= 1
        empty = [not cut.select(d, i).any() for d in (1, 2, 3) for i in (0, -1)]
        assert sum(empty) <= 1
        found.add(tuple(empty))
    assert len(found) > 3
    assert image.all(), "the image given stays as it is"


@pytest.mark.parametrize(
    "option, message",
    [
        ({"noise": -1.0}, "noise must be 0 or more and finite, got -1.0"),
        ({"coarse": 0.5}, "coarse must be 1 or more and finite, got 0.5"),
        ({"cut": 2.0}, "cut must be 0 or more and at most 1, got 2.0"),
    ],
)
def test_acquisition_out_of_range(option, message):
    with pytest.raises(ValueError, match=message):
        Acquisition(**option)


@pytest.mark.parametrize("shape", [(48, 40), (24, 20, 28)])
def test_shapes_are_found_again_in_both_images(shape):
    source = ShapePairs(shape, classes=6, scored=3, bending=1.0)
    first, again, other = (source.draw(make_generator(seed)) for seed in (1, 1, 2))
    for a, b in zip(first, again):
        assert torch.equal(a, b)
    assert not torch.equal(first.static, other.static)
    assert first.static.shape == first.moving.shape == (1, *shape)
    assert first.static_labels.shape == (3, *shape)
    assert not torch.equal(first.static_labels, first.moving_labels)
    overlap = 1 - dice_loss(
        first.static_labels[None],
        first.moving_labels[None],
        torch.zeros(1, len(shape), *shape),
    )
    assert 0.3 < overlap < 0.99
    for image in first[:2]:
        assert image.min() >= 0 and image.max() == 1
        assert image.std() > 0.02


def test_shapes_have_edges_and_a_background():
    blobs = ShapePairs((60, 60), classes=6, edge=0.5)._draw_blobs(make_generator(0))
    torch.testing.assert_close(blobs.sum(0), torch.ones(60, 60))
    assert (blobs.amax(0) > 0.9).double().mean() > 0.7
    assert blobs[0, [0, 0, -1, -1], [0, -1, 0, -1]].min() > 0.99
    assert blobs[0, 30, 30] < 0.01


def test_a_mixture_draws_by_its_weights():
    small, large = ShapePairs((8, 8), count=2), ShapePairs((10, 10), count=3)
    source = Mixture([small, large], [1, 3])
    sizes = [source.draw(make_generator(seed)).static.shape[-1] for seed in range(200)]
    assert sizes.count(10) == pytest.approx(150, abs=25)
    assert len(source) == 5
    assert [source[i].static.shape[-1] for i in range(5)] == [8, 8, 10, 10, 10]
    assert torch.equal(source[2].static, large[0].static)
    with pytest.raises(IndexError):
        source[5]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ShapePairs((8,)), "shape must be 2 or 3 numbers"),
        (lambda: ShapePairs((8, 8), classes=2), "classes must be a whole number"),
        (lambda: ShapePairs((8, 8), edge=0), "edge must be above 0"),
        (lambda: Mixture([], []), "one for each source"),
        (lambda: Mixture([ShapePairs((8, 8))], [0]), "not all 0"),
    ],
)
def test_wrong_shapes_and_mixtures(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("workers", [0, 1])
def test_same_numbers_whoever_draws(workers):
    source = Mixture([pairs(), ShapePairs((12, 15, 14), scored=6)], [1, 1])
    source.sources[0].always = [0, 1]
    batches = Batches(source, 1, seed=5)
    drawn = [batch.static for batch in batches.steps(0, 4, workers=workers)]
    wanted = [source.draw(step_generator(5, n)).static for n in range(4)]
    for a, b in zip(drawn, wanted):
        assert torch.equal(a[0], b)
