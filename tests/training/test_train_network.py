"""Training: networks learn, and how a training is cut up does not change it."""

import math

import numpy as np
import pytest
from shapes import DoublePairs, ellipses, small, weights
from small_trainings import HELD_OUT, IMAGES
import torch

from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.metrics.ncc import NCCMetric
from dipy_dl_reg.metrics.registry import METRICS
from dipy_dl_reg.networks import NETWORKS
from dipy_dl_reg.networks.array_file import read_arrays
from dipy_dl_reg.networks.checkpoint import load_network
from dipy_dl_reg.training.examples.augmentation import Augment
from dipy_dl_reg.training.loop import trainer as loop
from dipy_dl_reg.training.loop.batches import make_generator
from dipy_dl_reg.training.loop.train_network import train_network
from dipy_dl_reg.training.training_set import (
    AtlasPairs,
    CrossSubject,
    Example,
    ListedPairs,
)


def correlation(network, images):
    """Mean correlation of static and warped, and of static and moving."""
    pairs = CrossSubject(images)
    static, moving = (
        torch.stack(x) for x in zip(*(pairs[i][:2] for i in range(len(pairs))))
    )
    with torch.no_grad():
        warped = warp(moving, network(static, moving).displacement)
    return [
        np.mean(
            [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(static, other)]
        )
        for other in (warped, moving)
    ]


@pytest.mark.parametrize("dim, steps, wanted", [(2, 80, 0.9), (3, 30, 0.95)])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_learns(name, dim, steps, wanted):
    shape = (16, 16, 8)[:dim]
    network = small(name, dim)
    history = train_network(
        network, ellipses(6, shape), steps=steps, batch_size=4, learning_rate=3e-3,
        validate_every=10, weight=0.01,
    )  # fmt: skip
    assert history.steps == steps and history.stopped == "steps"
    assert [row["step"] for row in history.rows] == list(range(10, steps + 1, 10))
    assert not network.training
    warped, moving = correlation(network, ellipses(4, shape, seed=1))
    assert 1 - warped < wanted * (1 - moving), "nothing was learnt for other images"


def test_one_pair_is_a_training():
    """Every method from a metric to labels alone, on a single pair."""
    a, b = IMAGES[:2]
    labels = [(a > 0.5, b > 0.5)]
    for options in ({"metric": name} for name in [*METRICS, "MSE", None]):
        pairs = ListedPairs([(a, b)], labels)
        history = train_network(
            small(), pairs, steps=25, learning_rate=1e-2, validate_every=1, weight=0.01,
            dice_weight=float(options["metric"] is None), **options,
        )  # fmt: skip
        assert history.rows[-1]["total"] < history.rows[0]["total"]


def test_a_step_is_adam_on_the_mean_loss():
    """Three steps, and Torch's own loop beside them."""
    pairs, network, other = DoublePairs(IMAGES), small().double(), small().double()
    history = train_network(
        network, pairs, steps=3, batch_size=4, metric=NCCMetric(), weight=0.5, seed=7,
        learning_rate=1e-2, validate_every=1, regularizer="tv",
    )  # fmt: skip
    adam = torch.optim.Adam(other.parameters(), lr=1e-2)
    for step in range(3):
        drawn = [pairs.draw(make_generator(7, 4 * step + i)) for i in range(4)]
        static, moving = (torch.stack(x) for x in list(zip(*drawn))[:2])
        u, v, _ = other(static, moving)
        similarity = 1 - torch.stack(
            [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
             for a, b in zip(static, warp(moving, u))]
        ).mean()  # fmt: skip
        rough = sum(v.diff(dim=d).abs().mean() for d in (2, 3)) * 2
        loss = similarity + 0.5 * rough
        adam.zero_grad()
        loss.backward()
        adam.step()
        assert history.rows[step]["total"] == pytest.approx(loss.item())
    torch.testing.assert_close(weights(network), weights(other), rtol=0, atol=1e-6)


def test_same_seed_same_training():
    first, again, other = small(), small(), small()
    state = torch.get_rng_state()
    histories = [
        train_network(network, IMAGES, steps=4, seed=seed)
        for network, seed in ((first, 1), (again, 1), (other, 2))
    ]
    assert torch.equal(state, torch.get_rng_state()), "the global generator was used"
    assert torch.equal(weights(first), weights(again))
    assert histories[0] == histories[1]
    assert not torch.equal(weights(first), weights(other))


def test_workers_change_nothing():
    alone, helped = small(), small()
    train_network(alone, IMAGES, steps=5, augment=Augment())
    train_network(helped, IMAGES, steps=5, augment=Augment(), workers=2)
    torch.testing.assert_close(weights(alone), weights(helped), rtol=0, atol=1e-6)


def test_the_best_weights_stay(tmp_path):
    """With a learning rate that spoils what was learnt."""
    network, path = small(), tmp_path / "c.npz"
    validation = ListedPairs([tuple(HELD_OUT[:2]), tuple(HELD_OUT[1:3])])
    options = {"validation": validation, "weight": 0.1, "batch_size": 2}
    history = train_network(
        network, IMAGES, steps=40, validate_every=4, learning_rate=0.05,
        checkpoint=path, **options,
    )  # fmt: skip
    losses = [row["validation"] for row in history.rows]
    assert history.best == min(losses) < losses[-1]
    for kept in (network, load_network(path)):
        again = train_network(kept, IMAGES, steps=1, learning_rate=1e-30, **options)
        assert again.rows[-1]["validation"] == pytest.approx(history.best, rel=1e-5)


def test_patience(tmp_path):
    """The learning rate is next to nothing: no validation is better than the first."""
    network, path = small("unet"), tmp_path / "c.npz"
    options = {"validation": HELD_OUT, "validate_every": 2, "patience": 3,
               "learning_rate": 1e-30, "checkpoint": path}  # fmt: skip
    history = train_network(network, IMAGES, steps=50, **options)
    assert (history.stopped, history.steps) == ("patience", 8)
    again = train_network(network, IMAGES, steps=60, resume=True, **options)
    assert again == history


def test_many_validation_pairs_are_not_all_used(monkeypatch):
    seen = []

    class Counted(CrossSubject):
        def __getitem__(self, index):
            seen.append(index)
            return super().__getitem__(index)

    monkeypatch.setattr(loop, "_VALIDATION_PAIRS", 6)
    train_network(
        small(), IMAGES, steps=4, validation=Counted(HELD_OUT), validate_every=2
    )
    assert len(set(seen)) == 6 and seen == 2 * seen[:6]


def test_rows_are_means_since_the_last(tmp_path):
    each = train_network(small(), IMAGES, steps=7, validate_every=1).rows
    some = train_network(small(), IMAGES, steps=7, validate_every=3).rows
    assert [row["step"] for row in some] == [3, 6, 7]
    for row, part in zip(some, (each[:3], each[3:6], each[6:])):
        for key in ("similarity", "regularity", "overlap", "total"):
            assert row[key] == pytest.approx(np.mean([x[key] for x in part]))


def test_checkpoint_is_a_network(tmp_path):
    network, path = small("unet", spacing=2.0), tmp_path / "new folder" / "c.npz"
    card = {"licence": "BSD-3-Clause"}
    train_network(
        network, IMAGES, steps=2, checkpoint=path, card=card, learning_rate=0.01
    )
    back = load_network(path)
    assert torch.equal(weights(network), weights(back)) and back.spacing == 2.0
    assert back.card == network.card and back.card["licence"] == "BSD-3-Clause"
    assert back.card["recipe"]["learning_rate"] == 0.01
    assert back.card["recipe"]["steps"] == 2 and back.card["scores"] is None


@pytest.mark.parametrize(
    "pairs, word",
    [
        (CrossSubject(IMAGES), "quantiles"),
        (CrossSubject(IMAGES, normalized=True), "as the pairs gave"),
        (ListedPairs([tuple(IMAGES[:2])], normalized=True), "as the pairs gave"),
        (ListedPairs([tuple(IMAGES[:2])]), "quantiles"),
        (AtlasPairs(IMAGES[0], IMAGES[1:], normalized=True), "as the pairs gave"),
        (AtlasPairs(IMAGES[0], IMAGES[1:]), "quantiles"),
    ],
)
def test_card_says_how_intensities_were_scaled(pairs, word):
    network = small("dirnet")
    train_network(network, pairs, steps=1)
    assert word in network.card["preprocessing"]["intensity"]


def test_card_in_a_checkpoint_says_how_far_it_is(tmp_path):
    """Both of one that is interrupted, and of one that ends."""
    path, cards = tmp_path / "c.npz", []

    class Read(CrossSubject):
        def draw(self, generator):
            if path.exists():
                cards.append(load_network(path).card)
            return super().draw(generator)

    history = train_network(
        small("dirnet"), Read(IMAGES), steps=5, validation=HELD_OUT, validate_every=2,
        checkpoint=path, checkpoint_every=2,
    )  # fmt: skip
    best = history.rows[0]["validation"]
    assert cards[0]["recipe"]["steps"] == 2 and cards[0]["recipe"]["stopped"] is None
    assert cards[0]["scores"] == {"validation loss": best}
    last = load_network(path).card
    assert (last["recipe"]["steps"], last["recipe"]["stopped"]) == (5, "steps")
    assert last["scores"] == {"validation loss": history.best}


class Spoiled(ListedPairs):
    """Fine for some draws, then a NaN."""

    left = 5

    def draw(self, generator):
        example = super().draw(generator)
        self.left -= 1
        return example if self.left >= 0 else Example(example[0] * math.nan, example[1])


def test_loss_that_is_not_finite(tmp_path):
    path, network = tmp_path / "c.npz", small()
    pairs = Spoiled([tuple(IMAGES[:2])])
    with pytest.raises(RuntimeError, match="not finite after 5 steps"):
        train_network(network, pairs, steps=9, checkpoint=path, checkpoint_every=2)
    header, _ = read_arrays(path)
    assert header["training"]["step"] == 4
    assert torch.isfinite(weights(network)).all()


def test_field_that_is_not_finite():
    """The warped image is finite still, and its gradient would end the process."""
    network = small("dirnet")
    next(network.parameters()).data[:] = math.nan
    with pytest.raises(RuntimeError, match="not finite after 0 steps"):
        train_network(
            network, IMAGES, steps=1, metric="SSD", regularizer=None, validate_every=1
        )


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_mixed_precision_learns_as_well(name):
    """On the CPU, where it has to be asked for.

    The first losses are the same but for rounding; later ones part, as they do between
    any two roundings, and have come down alike.
    """
    plain, mixed = small(name), small(name)
    options = {"steps": 30, "batch_size": 4, "learning_rate": 5e-3, "weight": 0.01}
    options["validate_every"] = 1
    first = train_network(plain, IMAGES, **options)
    second = train_network(mixed, IMAGES, mixed_precision=True, **options)
    assert all(p.dtype == torch.float32 for p in mixed.parameters())
    assert not torch.equal(weights(plain), weights(mixed))
    a, b = ([row["total"] for row in h.rows] for h in (first, second))
    assert b[0] == pytest.approx(a[0], rel=0.005)
    assert 0.5 < (b[0] - b[-1]) / (a[0] - a[-1]) < 2


@pytest.mark.parametrize(
    "options, word",
    [
        ({"steps": 0}, "steps"),
        ({"steps": 1.5}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"validate_every": 0}, "validate_every"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"workers": -1}, "workers"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"schedule": "step"}, "schedule"),
        ({"patience": 3}, "patience requires"),
        ({"patience": 0, "validation": IMAGES}, "patience"),
        ({"time_limit": 0}, "time_limit"),
        ({"metric": "none"}, "metric"),
        ({"dice_weight": 1.0}, "no labels"),
        ({"card": {"x": object()}, "checkpoint": "c.npz"}, "card"),
    ],
)
def test_bad_options(options, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=word):
        train_network(small(), IMAGES, **{"steps": 1, **options})


@pytest.mark.parametrize(
    "validation", [HELD_OUT, [tuple(HELD_OUT[:2])], AtlasPairs(HELD_OUT[0], HELD_OUT)]
)
def test_validation_without_labels_is_said_before_training(validation):
    class Never(CrossSubject):
        def draw(self, generator):
            raise AssertionError("training began")

    pairs = Never(IMAGES, IMAGES > 0.5)
    with pytest.raises(ValueError, match="validation has no labels"):
        train_network(small(), pairs, steps=9, validation=validation, dice_weight=1.0)


def test_network_is_a_registration_network():
    with pytest.raises(ValueError, match="RegistrationNetwork, got str"):
        train_network("unet", IMAGES, steps=1)


def test_images_of_another_dimension():
    with pytest.raises(ValueError, match="3 axes"):
        train_network(small(dim=3), IMAGES, steps=1)
