"""Distinction of extreme values from bright ones."""

import numpy as np
import pytest

from dipy_dl_reg.geometry.intensity import extreme_limits


def clipped(values):
    low, high = extreme_limits(values)
    return np.clip(values, low, high)


IMAGES = {
    "noise": lambda rng: rng.normal(size=(20, 30, 25)),
    "uniform": lambda rng: rng.random((9, 8)),
    "few voxels": lambda rng: rng.random(5),
    "exponential": lambda rng: rng.exponential(size=(30, 30, 30)),
    "bytes": lambda rng: rng.integers(0, 255, (20, 20), dtype=np.uint8),
    "one bright spot on nothing": lambda rng: np.eye(1, 8000, 77) * 1e6,
    "a small object on nothing": lambda rng: np.r_[np.zeros(9950), 50 + rng.random(50)],
    "labels": lambda rng: np.repeat([0, 1, 7, 4035], [9000, 500, 400, 30]),
    "constant": lambda rng: np.full(100, 3.0),
}


@pytest.mark.parametrize("name", IMAGES)
def test_ordinary_images_stay(name, rng):
    values = IMAGES[name](rng)
    assert np.array_equal(clipped(values), values)


@pytest.mark.parametrize("value", [1e6, -1e6, 1e60, 50.0])
@pytest.mark.parametrize("size, count", [(60, 1), (500, 3), (20_000, 3), (20_000, 20)])
def test_extreme_values_are_clipped(size, count, value, rng):
    """To within one range of the others, which stay; also of images of few voxels."""
    values = rng.random(size)
    values[:count] = value
    found = clipped(values)
    assert np.array_equal(found[count:], values[count:])
    assert np.abs(found).max() < 2.01
    assert (found[:count] * np.sign(value) > 0.5).all()


def test_both_sides_and_single_precision(rng):
    values = rng.random(5000).astype(np.float32)
    values[:2] = 1e30, -1e30
    low, high = extreme_limits(values)
    assert -1.01 < low < -0.9 and 1.9 < high < 2.01


@pytest.mark.parametrize("inside", [np.ones(60), np.linspace(0.5, 1, 60)])
def test_a_small_object_and_an_extreme_value(inside):
    """The object is still visible, unlike with quantiles."""
    values = np.r_[np.zeros(100_000), inside, 1e9]
    found = clipped(values)
    assert np.array_equal(found[:-1], values[:-1])
    assert 1 < found[-1] < 3
