"""Random changes of examples: what they keep, what they reach, what they depend on."""

import numpy as np
import pytest
from scipy.ndimage import affine_transform
import torch

from dipy_dl_reg.training.examples.augmentation import Augment
from dipy_dl_reg.training.training_set import Example

NOTHING = dict.fromkeys(
    ("rotation", "scale", "translation", "gamma", "contrast", "bias", "noise"), 0
)
SHAPES = [(24, 20), (12, 10, 9)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def example(shape):
    """Smooth images, and the labels of their halves."""
    axes = torch.meshgrid(*[torch.linspace(0, 1, n) for n in shape], indexing="ij")
    image = torch.stack(axes).prod(0)[None]
    labels = (image > 0.2).int() * 40000
    return Example(image, 1 - image, labels, labels)


@every_shape
def test_nothing_asked_nothing_changed(shape):
    before = example(shape)
    for a, b in zip(before, Augment(**NOTHING)(before, generator())):
        assert torch.equal(a, b)


@every_shape
def test_same_generator_same_change(shape):
    augment = Augment(flips=(0, 1), bending=1.0)
    first, again, other = (augment(example(shape), generator(s)) for s in (1, 1, 2))
    for a, b, c in zip(first, again, other):
        assert torch.equal(a, b) and not torch.equal(a, c)
    for part, before in zip(first, example(shape)):
        assert part.shape == before.shape and part.dtype == before.dtype


@every_shape
def test_labels_follow_their_image(shape):
    """With the label as image, both land in the same place."""
    labels = example(shape).static_labels
    augment = Augment(**{**NOTHING, "rotation": 8.0, "translation": 0.05}, bending=1.0)
    image, _, moved, _ = augment(
        Example(labels / 40000, labels / 40000, labels, labels), generator()
    )
    assert set(moved.unique().tolist()) == {0, 40000}
    assert not torch.equal(moved, labels)
    certain = (image - 0.5).abs() > 0.45
    assert certain.float().mean() > 0.5
    assert torch.equal((image > 0.5)[certain], (moved > 0)[certain])
    shares = (labels / 40000).repeat(2, *[1] * len(shape))
    soft = augment(Example(labels / 40000, image, shares, shares), generator())
    torch.testing.assert_close(soft.static_labels[:1], soft.static)


@every_shape
def test_images_move_by_themselves_but_flip_together(shape):
    same = example(shape)._replace(moving=example(shape).static)
    moved = Augment()(same, generator())
    assert not torch.equal(moved.static, moved.moving)
    flips = Augment(**NOTHING, flips=[1])
    seen = set()
    for seed in range(20):
        out = flips(same, generator(seed))
        assert torch.equal(out.static, out.moving)
        flipped = torch.equal(out.static_labels, same.static_labels.flip(2))
        assert flipped or torch.equal(out.static_labels, same.static_labels)
        seen.add(flipped)
    assert seen == {True, False}


def test_affine_is_about_the_middle():
    """A rotation as SciPy does it, its angle found from the result."""
    image = torch.rand(1, 1, 5, 5, generator=generator())
    image = torch.nn.functional.interpolate(image, (33, 33), mode="bicubic")[0]
    turned = Augment(**{**NOTHING, "rotation": 20.0})(
        Example(image, image), generator(4)
    ).static[0].numpy()  # fmt: skip
    best = np.inf
    for degrees in np.arange(-60, 60, 0.5):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        matrix = np.array([[c, -s], [s, c]])
        offset = 16 - matrix @ [16, 16]
        out = affine_transform(
            image[0].numpy(), matrix, offset, order=1, mode="nearest"
        )
        best = min(best, np.abs(out - turned).max())
    assert best < 0.03


@pytest.mark.parametrize(
    "name, value, measure, wanted",
    [
        ("gamma", 0.2, lambda x: np.log(np.log(x) / np.log(0.5)), 0.2),
        ("contrast", 0.3, lambda x: np.log(x / 0.5), 0.3),
        # Uniform below 0.1 at each image: 0.1 / sqrt(3) over all.
        ("noise", 0.1, lambda x: x - 0.5, 0.1 / 3**0.5),
    ],
)
def test_intensities_spread_as_asked(name, value, measure, wanted):
    augment = Augment(**{**NOTHING, name: value})
    grey = torch.full((1, 4, 4), 0.5)
    drawn = [
        augment(Example(grey, grey), generator(s)).static[0, 0, 0].item()
        for s in range(1500)
    ]
    assert np.std(measure(np.array(drawn))) == pytest.approx(wanted, rel=0.1)


def test_bias_is_smooth():
    grey = torch.ones(1, 40, 40)
    out = Augment(**{**NOTHING, "bias": 0.5})(Example(grey, grey), generator()).static
    steps = out.log().diff(dim=1).abs().max().item()
    assert out.std() > 0.1 and steps < 0.3


def test_shift_is_a_part_of_the_size():
    line = torch.arange(100.0).view(1, 100, 1).expand(1, 100, 4)
    augment = Augment(**{**NOTHING, "translation": 0.02})
    moves = [
        (augment(Example(line, line), generator(s)).static - line)[0, 50, 0].item()
        for s in range(400)
    ]
    assert np.std(moves) == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize("name", ["rotation", "bending", "noise"])
def test_bad_options(name):
    with pytest.raises(ValueError, match=name):
        Augment(**{name: -1})


def test_repr_tells_options():
    assert "noise=0.5" in repr(Augment(noise=0.5)) and "(1,)" in repr(
        Augment(flips=[1])
    )
