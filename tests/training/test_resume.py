"""Checkpoints, and trainings that go on from them."""

import math
import signal

import numpy as np
import pytest
from shapes import small, weights
from small_trainings import HELD_OUT, IMAGES, MUCH
import torch

from dipy_dl_reg.metrics.ncc import NCCMetric
from dipy_dl_reg.networks.array_file import read_arrays, write_arrays
from dipy_dl_reg.training.examples.augmentation import Augment
from dipy_dl_reg.training.loop.train_network import train_network
from dipy_dl_reg.training.training_set import (
    CrossSubject,
    ListedPairs,
)


@pytest.mark.parametrize(
    "name, stops",
    [("voxelmorph", [4, 5]), ("selfsup-fcn", [3, 9]), ("selfsup-fcn", [5, 6, 7])],
)
def test_resumed_is_uninterrupted(tmp_path, name, stops):
    """To the last bit: weights, statistics, log and best validation."""
    whole = small(name)
    expected = train_network(
        whole, IMAGES, steps=11, checkpoint=tmp_path / "whole", **MUCH
    )
    path = tmp_path / "parts.npz"
    for steps in [*stops, 11]:
        # Later ones begin with any weights: those of the checkpoint count.
        network = small(name, seed=0 if steps == stops[0] else steps)
        history = train_network(
            network, IMAGES, steps=steps, checkpoint=path, resume=True,
            checkpoint_every=2, log=tmp_path / "log.csv", **MUCH,
        )  # fmt: skip
    assert history == expected
    assert torch.equal(weights(network), weights(whole))
    (_, ours), (_, theirs) = (read_arrays(p) for p in (path, tmp_path / "whole"))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[k], theirs[k]) for k in ours)
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "3", "6", "9", "11"]


def test_killed_training_goes_on_from_its_last_checkpoint(tmp_path):
    class Killed(Exception):
        pass

    class Dying(CrossSubject):
        left = 9

        def draw(self, generator):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return super().draw(generator)

    whole, network = small(), small()
    expected = train_network(whole, IMAGES, steps=11, validate_every=2)
    options = {"checkpoint": tmp_path / "c.npz", "checkpoint_every": 4, "steps": 11,
               "validate_every": 2}  # fmt: skip
    with pytest.raises(Killed):
        train_network(network, Dying(IMAGES), **options)
    assert read_arrays(tmp_path / "c.npz")[0]["training"]["step"] == 8
    network = small(seed=3)
    assert train_network(network, IMAGES, resume=True, **options) == expected
    assert torch.equal(weights(network), weights(whole))


@pytest.fixture
def interruptible():
    """Python's own handler of Ctrl-C, also where tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("when", ["drawing", "in a step"])
def test_interrupted_training_goes_on(tmp_path, when, monkeypatch, interruptible):
    """Ctrl-C, at whatever time, leaves a checkpoint of the last whole step."""
    path = tmp_path / "c.npz"
    options = {"steps": 7, "validation": HELD_OUT, "validate_every": 3}
    whole, network, left = small("selfsup-fcn"), small("selfsup-fcn"), [5]
    expected = train_network(whole, IMAGES, **options)

    def interrupt(function):
        def called(*arguments):
            left[0] -= 1
            if not left[0]:
                signal.raise_signal(signal.SIGINT)
            return function(*arguments)

        return called

    target = {
        "drawing": (CrossSubject, "draw"),
        "in a step": (torch.Tensor, "backward"),
    }
    with monkeypatch.context() as patch:
        owner, name = target[when]
        patch.setattr(owner, name, interrupt(getattr(owner, name)))
        with pytest.raises(KeyboardInterrupt):
            train_network(network, IMAGES, checkpoint=path, **options)
    step = read_arrays(path)[0]["training"]["step"]
    assert step == {"drawing": 4, "in a step": 5}[when]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    network = small("selfsup-fcn", seed=3)
    assert (
        train_network(network, IMAGES, checkpoint=path, resume=True, **options)
        == expected
    )
    assert torch.equal(weights(network), weights(whole))


def test_cosine_resumes_too(tmp_path):
    whole, network = small(), small()
    options = {"steps": 8, "schedule": "cosine", "learning_rate": 0.01,
               "validate_every": 1}  # fmt: skip
    expected = train_network(whole, IMAGES, **options)
    rates = [row["learning_rate"] for row in expected.rows]
    assert rates == [0.005 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    path = tmp_path / "c.npz"
    stopped = train_network(
        network, IMAGES, checkpoint=path, time_limit=1e-9, **options
    )
    assert stopped.stopped == "time" and stopped.steps < 8
    assert (
        train_network(network, IMAGES, checkpoint=path, resume=True, **options)
        == expected
    )
    assert torch.equal(weights(network), weights(whole))
    with pytest.raises(ValueError, match="steps=8"):
        train_network(
            network, IMAGES, checkpoint=path, resume=True, **{**options, "steps": 9}
        )


def test_checkpoint_is_not_overwritten(tmp_path):
    path = tmp_path / "c.npz"
    train_network(small(), IMAGES, steps=2, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="resume"):
        train_network(small(), IMAGES, steps=3, checkpoint=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"seed": 5}, ["seed=0", "5"]),
        ({"batch_size": 3}, ["batch=2"]),
        ({"learning_rate": 1.0}, ["learning_rate"]),
        ({"metric": "SSD", "weight": 3}, ["metric=", "weight=", "SSDMetric"]),
        ({"metric": NCCMetric(sigma_diff=2)}, ["metric="]),
        ({"regularizer": "tv"}, ["regularizer="]),
        ({"augment": Augment(noise=0.5)}, ["augment="]),
        ({"validation": HELD_OUT[:3]}, ["validation=20"]),
    ],
)
def test_resume_with_other_settings(tmp_path, changes, words):
    path = tmp_path / "c.npz"
    train_network(small(), IMAGES, steps=1, checkpoint=path, **MUCH)
    with pytest.raises(ValueError, match="resume") as error:
        train_network(
            small(), IMAGES, steps=2, checkpoint=path, resume=True, **MUCH | changes
        )
    assert all(word in str(error.value) for word in words)
    assert str(error.value).count("now") == len(changes)


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images[::-1],
        lambda images: images[:, ::-1],
        lambda images: images.transpose(0, 2, 1),
        lambda images: np.concatenate([images[:-1], HELD_OUT[:1]]),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_resume_with_other_images(tmp_path, change, listed):
    """As many, and others; the last digit of them may differ."""
    path = tmp_path / "c.npz"

    def pairs(images):
        images = list(images)
        return ListedPairs(list(zip(images, images[1:]))) if listed else images

    options = {"checkpoint": path, "resume": True, "validation": pairs(HELD_OUT)}
    train_network(small(), pairs(IMAGES), steps=1, **options)
    with pytest.raises(ValueError, match="trained with other images"):
        train_network(small(), pairs(change(IMAGES)), steps=2, **options)
    others = {**options, "validation": pairs(change(HELD_OUT))}
    with pytest.raises(ValueError, match="with other validation images"):
        train_network(small(), pairs(IMAGES), steps=2, **others)
    assert (
        train_network(small(), pairs(IMAGES * (1 + 1e-7)), steps=2, **options).steps
        == 2
    )


def test_resume_with_other_labels(tmp_path):
    options = {"checkpoint": tmp_path / "c.npz", "resume": True, "dice_weight": 1.0}
    train_network(small(), CrossSubject(IMAGES, IMAGES > 0.5), steps=1, **options)
    with pytest.raises(ValueError, match="trained with other images"):
        train_network(small(), CrossSubject(IMAGES, IMAGES > 0.4), steps=2, **options)


def test_resume_of_another_network(tmp_path):
    path = tmp_path / "c.npz"
    train_network(small(), IMAGES, steps=1, checkpoint=path)
    with pytest.raises(ValueError, match="architecture"):
        train_network(small("unet"), IMAGES, steps=2, checkpoint=path, resume=True)
    with pytest.raises(ValueError, match="vm2"):
        train_network(
            small(variant="vm2"), IMAGES, steps=2, checkpoint=path, resume=True
        )


def test_resume_without_training_state(tmp_path):
    from dipy_dl_reg.networks.checkpoint import save_network

    save_network(tmp_path / "c.npz", small())
    with pytest.raises(ValueError, match="no training"):
        train_network(
            small(), IMAGES, steps=1, checkpoint=tmp_path / "c.npz", resume=True
        )
    with pytest.raises(ValueError, match="requires a checkpoint"):
        train_network(small(), IMAGES, steps=1, resume=True)


def _state(**changes):
    return lambda header, arrays: header["training"].update(changes)


def _row(**changes):
    return lambda header, arrays: header["training"]["rows"][0].update(changes)


def _without(name):
    return lambda header, arrays: header["training"].pop(name)


def _array(change):
    """Change the average of one weight; None takes it away."""

    def changed(header, arrays):
        name = "training/adam/flow.bias/exp_avg_sq"
        array = change(arrays.pop(name))
        if array is not None:
            arrays[name] = array

    return changed


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda header, arrays: header.update(training=[1]), "training"),
        (_without("settings"), "settings"),
        (_without("step"), "step"),
        (_without("averaged"), "averaged"),
        (_state(more=1), "more"),
        (_state(step="3"), "step"),
        (_state(step=-3), "step"),
        (_state(step=1), "steps"),
        (_state(step=0, rows=[]), "0 steps"),
        (_state(rows=3), "rows|iterable"),
        (_state(rows=[{"step": 1}]), "rows"),
        (_state(sums=[0.0]), "sums"),
        (_state(best="low"), "best"),
        (_state(stale=True), "stale"),
        (_state(averaged=[]), "averages"),
        (_row(total="much"), "rows"),
        (_array(lambda array: None), "flow.bias/exp_avg_sq"),
        (_array(lambda array: array[:1]), "flow.bias/exp_avg_sq"),
        (_array(lambda array: array.astype(int)), "int64"),
        (_array(lambda array: -array - 1), "below 0"),
        (lambda h, a: a.update({"training/adam/x/exp_avg": a["weights/flow.bias"]}),
         "x/exp_avg"),
    ],
)  # fmt: skip
def test_resume_from_a_state_that_cannot_be(tmp_path, change, word):
    """One clear error, and nothing is changed."""
    path, network = tmp_path / "c.npz", small("unet", seed=3)
    options = {"checkpoint": path, "validation": HELD_OUT[:3], "validate_every": 2}
    train_network(small("unet"), IMAGES, steps=3, **options)
    header, arrays = read_arrays(path)
    for key in ("sha256", "format", "version"):
        header.pop(key)
    change(header, arrays)
    write_arrays(path, header, arrays)
    before = weights(network)
    with pytest.raises(ValueError, match=f"(?s)c.npz.*({word})"):
        train_network(network, IMAGES, steps=5, resume=True, **options)
    assert torch.equal(weights(network), before)
