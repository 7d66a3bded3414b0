"""Checks of landmarks: errors, warnings, and swapped rows."""

from itertools import combinations

from known_landmarks import BETWEEN, LINE, PLANE, POINTS, grids, landmarks
import numpy as np
from pairs import move
import pytest

from dipy_dl_reg import (
    ThinPlateSplineRegistration,
)
from dipy_dl_reg.registration.landmark_checks import find_swapped_rows


@pytest.mark.parametrize("dim", [2, 3])
def test_swapped_rows_are_those_whose_exchange_helps_most(dim):
    """Against fits of all exchanges; with a turn, a scale and a few outliers."""
    rng = np.random.default_rng(dim)
    static_points = rng.uniform(0, 90, (9, dim))
    moving_points = move(BETWEEN[dim], static_points) + rng.normal(0, 2, (9, dim))
    assert find_swapped_rows(static_points, move(BETWEEN[dim], static_points)) is None
    moving_points[[2, 7]] = moving_points[[7, 2]]
    moving_points[4] += 12
    design = np.column_stack([np.ones(9), static_points])

    def misfit(i, j):
        exchanged = moving_points.copy()
        exchanged[[i, j]] = moving_points[[j, i]]
        return np.linalg.lstsq(design, exchanged, rcond=None)[1].sum()

    best = min(combinations(range(9), 2), key=lambda pair: misfit(*pair))
    assert find_swapped_rows(static_points, moving_points) == best == (2, 7)


def test_copies_count_once_and_are_told(warned):
    static_points, moving_points = landmarks(2)
    expected = ThinPlateSplineRegistration().optimize(
        static_points, moving_points, **grids(2)
    )
    twice = [np.concatenate([p, p[:3], p[:1]]) for p in (static_points, moving_points)]
    registration = ThinPlateSplineRegistration()
    mapping = registration.optimize(*twice, **grids(2))
    np.testing.assert_array_equal(mapping.backward, expected.backward)
    assert len(registration.distances) == len(static_points)
    assert warned() == ["4 landmarks repeat others and are not used."]


def test_one_static_landmark_with_two_moving_ones():
    static_points, moving_points = landmarks(2)
    static_points = np.concatenate([static_points, static_points[4:5]])
    moving_points = np.concatenate([moving_points, moving_points[4:5] + 3])
    with pytest.raises(ValueError, match="rows 4 and 30 are the same point"):
        ThinPlateSplineRegistration().optimize(static_points, moving_points, **grids(2))
    registration = ThinPlateSplineRegistration(regularization=1e-6)
    registration.optimize(static_points, moving_points, **grids(2))
    between = moving_points[[4, 30]].mean(0)
    there = registration.transform_points(static_points[4:5])
    np.testing.assert_allclose(there[0], between, atol=0.01)


def test_landmarks_beyond_the_field_of_view(warned):
    static_points, moving_points = landmarks(2)
    static_points[0] += 500
    moving_points[0] += 500
    registration = ThinPlateSplineRegistration()
    registration.optimize(static_points, moving_points, **grids(2))
    there = registration.transform_points(static_points)
    np.testing.assert_allclose(there, moving_points, rtol=0, atol=1e-6)
    assert "1 of 30 static landmarks lie outside" in warned()[0]


def test_mirrored_landmarks_are_told(warned):
    static_points, _ = landmarks(3)
    mapping = ThinPlateSplineRegistration().optimize(
        static_points, static_points * [-1, 1, 1], **grids(3)
    )
    assert "reflection" in warned()[0]
    there = mapping.transform_points(static_points)
    np.testing.assert_allclose(there, static_points * [-1, 1, 1], atol=1e-8)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"static_points": POINTS[:3], "moving_points": POINTS[:3]}, "at least 4"),
        ({"static_points": PLANE}, "static_points must .* plane"),
        ({"moving_points": PLANE}, "moving_points must .* plane"),
        (
            {"static_points": LINE, "moving_points": LINE, "static_shape": (9, 9)},
            "static_points must .* line",
        ),
        ({"static_points": POINTS[:4]}, "must have the same shape"),
        ({"static_points": POINTS[:, :2]}, "must have the same shape"),
        ({"static_points": POINTS[:, :1]}, "static_points must be an array"),
        ({"static_points": POINTS[0]}, r"static_points .* got shape \(3,\)"),
        ({"static_points": np.zeros((0, 3))}, "must have the same shape"),
        ({"moving_points": POINTS.astype(str)}, "moving_points .* real numbers"),
        ({"moving_points": [[1, 2], [3]]}, "moving_points must be an array"),
        ({"moving_points": POINTS * [1, np.nan, 1]}, "moving_points .* row 0"),
        ({"static_points": POINTS * [1, np.inf, 1]}, "static_points .* finite"),
        ({"static_shape": (9, 9)}, "static_shape must be 3"),
        ({"static_shape": (9, 9, 0)}, "static_shape must be 3"),
        ({"static_shape": (9, 9, 9.5)}, "static_shape must be 3"),
        ({"moving_shape": (9,)}, "moving_shape must be 3"),
        ({"moving_grid2world": np.eye(4)}, "moving_shape is required"),
        ({"static_grid2world": np.eye(3)}, "static_grid2world"),
        (
            {"moving_shape": (9, 9, 9), "moving_grid2world": np.zeros((4, 4))},
            "moving_grid2world",
        ),
        ({"prealign": np.diag([1, 1, 0, 1])}, "prealign"),
    ],
)
def test_bad_input_is_one_clear_error(changes, message):
    given = {
        "static_points": POINTS,
        "moving_points": POINTS + 1,
        "static_shape": (12, 12, 12),
        **changes,
    }
    points = given.pop("static_points"), given.pop("moving_points")
    with pytest.raises(ValueError, match=message):
        ThinPlateSplineRegistration().optimize(*points, **given)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"regularization": -1}, "regularization"),
        ({"regularization": np.nan}, "regularization"),
        ({"kernel": "gaussian"}, "kernel must be one of"),
        ({"device": "nowhere"}, "device"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ThinPlateSplineRegistration(**options)


def test_nothing_before_optimize():
    registration = ThinPlateSplineRegistration()
    calls = [
        registration.get_map,
        lambda: registration.transform_points(POINTS),
        lambda: registration.transform_points_inverse(POINTS),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="optimize"):
            call()
    registration.optimize(POINTS, POINTS, static_shape=(12, 12, 12))
    with pytest.raises(ValueError, match="3 columns"):
        registration.transform_points(POINTS[:, :2])
    for call in (registration.transform_points, registration.transform_points_inverse):
        assert call(np.zeros((0, 3))).shape == (0, 3)
