"""Checks of what a user gives: what passes, and that errors name the argument."""

from decimal import Decimal
from fractions import Fraction
import re

import numpy as np
from numpy.testing import assert_array_equal
import pytest
import torch

from dipy_dl_reg.validation import (
    check_affine,
    check_choice,
    check_number,
    check_points,
    check_shape,
    check_whole_number,
    wrong_value,
)


def test_message_says_name_wanted_and_got():
    error = wrong_value("steps", "a whole number from 1", "many")
    assert isinstance(error, ValueError)
    assert str(error) == "steps must be a whole number from 1, got 'many'."


def test_choice():
    assert check_choice("kind", "a", ["a", "b"]) == "a"
    assert check_choice("kind", "b", {"a": 1, "b": 2}) == "b"
    for value in ("c", None, 1, ["a"]):
        with pytest.raises(ValueError, match=r"^kind must be one of \['a', 'b'\], got"):
            check_choice("kind", value, iter(["a", "b"]))


@pytest.mark.parametrize(
    "value, limits",
    [
        (0, {}),
        (1e300, {}),
        (-3.5, {"low": -4}),
        (np.float32(2), {"high": 2}),
        (np.int16(2), {"low": 2}),
        (True, {}),
        (np.array(2.5), {}),
        (torch.tensor(2.5), {}),
        (Fraction(1, 2), {}),
        (Decimal("0.5"), {}),
        (0.001, {"above": True}),
        (0.999, {"high": 1, "below": True}),
    ],
)
def test_number_in_range(value, limits):
    found = check_number("x", value, **limits)
    assert type(found) is float and found == value


@pytest.mark.parametrize(
    "value, limits, wanted",
    [
        (-1, {}, "0 or more and finite"),
        (float("inf"), {}, "0 or more and finite"),
        (float("nan"), {}, "0 or more and finite"),
        ("1", {}, "0 or more and finite"),
        (None, {}, "0 or more and finite"),
        (1j, {}, "0 or more and finite"),
        ([1.0], {}, "0 or more and finite"),
        (np.array([1.0]), {}, "0 or more and finite"),
        (np.array("1"), {}, "0 or more and finite"),
        (np.complex128(1), {}, "0 or more and finite"),
        (10**400, {}, "0 or more and finite"),
        (0, {"above": True}, "above 0 and finite"),
        (3, {"low": 1, "high": 2}, "1 or more and at most 2"),
        (1, {"above": True, "high": 1, "below": True}, "above 0 and below 1"),
        (float("inf"), {"low": 1}, "1 or more and finite"),
    ],
)
def test_number_out_of_range(value, limits, wanted):
    message = re.escape(f"x must be {wanted}, got {value!r}.")
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_number("x", value, **limits)


@pytest.mark.parametrize("value", [3, 3.0, np.int64(3), np.array(3)])
def test_whole_number(value):
    found = check_whole_number("count", value, low=3)
    assert type(found) is int and found == 3


@pytest.mark.parametrize("value", [2, 3.5, "3", None, float("inf"), float("nan"), [3]])
def test_what_is_no_whole_number(value):
    message = re.escape(f"count must be a whole number from 3, got {value!r}.")
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_whole_number("count", value, low=3)


@pytest.mark.parametrize("dim", [2, 3])
def test_affine_is_copied(dim, rng):
    given = np.eye(dim + 1)
    given[:dim] += 0.1 * rng.random((dim, dim + 1))
    found = check_affine(given.tolist(), dim, "prealign")
    assert found.dtype == np.float64
    assert_array_equal(found, given)
    assert not np.shares_memory(found, check_affine(found, dim, "prealign"))


@pytest.mark.parametrize(
    "matrix, words",
    [
        ("none", "matrix of numbers"),
        ([[1, 2], [3]], "matrix of numbers"),
        (np.eye(3), "shape (4, 4), got (3, 3)"),
        (np.diag([1, np.nan, 1, 1]), "finite"),
        (np.ones((4, 4)), "row 0 ... 0 1"),
        (np.diag([1.0, 1e-12, 0, 1]), "invertible"),
    ],
)
def test_what_is_no_affine(matrix, words):
    with pytest.raises(ValueError, match=f"^prealign must .*{re.escape(words)}"):
        check_affine(matrix, 3, "prealign")


def test_small_voxels_are_no_singular_matrix():
    matrix = np.diag([1e-9, 1e-9, 1e-9, 1])
    assert_array_equal(check_affine(matrix, 3, "prealign"), matrix)


@pytest.mark.parametrize("dim", [2, 3])
def test_points_become_float64(dim):
    points = check_points(np.ones((4, dim), np.int16).tolist(), "points")
    assert points.shape == (4, dim) and points.dtype == np.float64


@pytest.mark.parametrize(
    "points, words",
    [
        (np.ones((4, 4)), "points must be an array of points .* got shape"),
        ([[1, 2], [3]], "points must be an array of points of shape"),
        ([["a", "b"]], "of real numbers"),
        ([[0, 0], [np.nan, 1]], "points must be finite, but row 1 is"),
    ],
)
def test_what_are_no_points(points, words):
    with pytest.raises(ValueError, match=words):
        check_points(points, "points")


def test_shape():
    assert check_shape(np.array([4, 5], np.int16), 2, "shape") == (4, 5)


@pytest.mark.parametrize("shape", [(4,), (4, 5, 6), (4, 0), (4, 5.0), "45", None])
def test_what_is_no_shape(shape):
    with pytest.raises(ValueError, match="shape must be 2 positive whole numbers"):
        check_shape(shape, 2, "shape")
