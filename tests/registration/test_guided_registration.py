"""Landmarks in a registration of images: first field and penalty."""

import logging

import numpy as np
from pairs import jacobian, make_pair, round_trip
import pytest
import torch

from dipy_dl_reg import (
    DeepRegistration,
    ThinPlateSplineRegistration,
    deep_registration,
    make_network,
)

PERIOD, SHIFT = 12.0, 9.0


@pytest.fixture(scope="module")
def stripes():
    """Equal dots in rows, moved by three quarters of what is between them."""
    x, y = np.mgrid[:72, :60].astype(float)

    def dots(x, y):
        wave = np.cos(2 * np.pi * x / PERIOD) * np.cos(2 * np.pi * y / 15)
        return np.exp(-(((x - 36) / 40) ** 8) - ((y - 30) / 24) ** 8) * (1 + wave)

    return dots(x, y), dots(x - SHIFT, y)


LANDMARKS = np.array([[24.0, 20], [24, 40], [48, 20], [48, 40], [36, 30]])


def found_shift(mapping):
    """Mean displacement in the middle."""
    return mapping.backward[20:50, 15:45].mean((0, 1))


def test_landmarks_pull_where_intensities_go_wrong(stripes):
    """The nearest row of dots is not the right one."""
    static, moving = stripes
    alone = DeepRegistration("SSD", model=None).optimize(static, moving)
    assert abs(found_shift(alone)[0] - SHIFT) > 6
    registration = DeepRegistration(
        "SSD", landmarks=(LANDMARKS, LANDMARKS + [SHIFT, 0])
    )
    mapping = registration.optimize(static, moving)
    np.testing.assert_allclose(found_shift(mapping), [SHIFT, 0], atol=0.3)
    there = mapping.transform_points(LANDMARKS)
    distances = np.linalg.norm(there - LANDMARKS - [SHIFT, 0], axis=1)
    np.testing.assert_allclose(registration.landmark_distances, distances)
    assert distances.max() < 0.5
    assert jacobian(mapping.backward, np.eye(3)).min() > 0
    assert np.nanmean(round_trip(mapping.backward, mapping.forward, np.eye(3))) < 0.05


def test_a_start_is_enough_where_images_agree(stripes):
    """Landmarks that are 1.5 voxels off bring the images within reach."""
    static, moving = stripes
    mapping = DeepRegistration(
        "SSD",
        landmarks=(LANDMARKS, LANDMARKS + [SHIFT - 1.5, 1.0]),
        landmark_weight=0,
    ).optimize(static, moving)
    np.testing.assert_allclose(found_shift(mapping), [SHIFT, 0], atol=0.3)


def test_the_weight_says_how_firmly(stripes):
    """Landmarks that contradict the images by 2 voxels."""
    static, moving = stripes
    landmarks = LANDMARKS, LANDMARKS + [SHIFT - 2, 0]
    means = []
    for weight in (0, 1e-4, 1, 1000):
        registration = DeepRegistration(
            "SSD", landmarks=landmarks, landmark_weight=weight
        )
        registration.optimize(static, moving)
        means.append(registration.landmark_distances.mean())
    assert means[0] > means[1] > means[2] and means[0] > 1.5
    assert means[2] < 0.6 and means[3] == pytest.approx(means[2], abs=0.05)


@pytest.fixture(scope="module")
def solid():
    turn = np.array([[1.02, 0.1, 0, 4], [-0.1, 0.99, 0, -6], [0, 0.05, 1, 2.0]])
    turn = np.vstack([turn, [0, 0, 0, 1]])
    linear = np.diag([-1.5, 1.5, 2.0]), np.diag([1.5, -1.6, 1.9])
    return make_pair(*linear, (24, 22, 20), (23, 26, 21), turn)


def points_of(pair):
    """Landmarks in both worlds, the moving ones moved a little."""
    middle = np.array([11.0, -7.0, 5.0])
    rng = np.random.default_rng(0)
    static_points = middle + rng.uniform(-9, 9, (12, 3))
    bent = static_points + 1.5 * np.sin(static_points[:, ::-1] / 8)
    return static_points, bent @ pair.prealign[:3, :3].T + pair.prealign[:3, 3]


def test_without_refinement_it_is_the_spline(solid):
    """Through affines and prealign; and of the kernel that bends least."""
    landmarks = points_of(solid)
    mapping = DeepRegistration(level_iters=0, landmarks=landmarks).optimize(
        solid.static, solid.moving, **solid.affines
    )
    spline = ThinPlateSplineRegistration(kernel="biharmonic").optimize(
        *landmarks,
        static_shape=solid.static.shape,
        moving_shape=solid.moving.shape,
        **solid.affines,
    )
    for field in ("forward", "backward"):
        one, other = (getattr(m, field) for m in (mapping, spline))
        np.testing.assert_allclose(one, other, atol=0.05)


def test_refinement_with_masks_and_landmarks(solid):
    landmarks = points_of(solid)
    registration = DeepRegistration("CC", level_iters=[10, 5], landmarks=landmarks)
    mask = np.zeros(solid.static.shape)
    mask[4:-4, 4:-4, 4:-4] = 1
    mapping = registration.optimize(
        solid.static, solid.moving, static_mask=mask, **solid.affines
    )
    assert registration.landmark_distances.max() < 1.5
    assert jacobian(mapping.backward, solid.static_grid2world).min() > 0


def test_the_same_from_run_to_run(solid):
    def run():
        registration = DeepRegistration(
            "CC", level_iters=[5, 5], landmarks=points_of(solid)
        )
        return registration.optimize(solid.static, solid.moving, **solid.affines)

    one, other = run(), run()
    np.testing.assert_array_equal(one.backward, other.backward)
    np.testing.assert_array_equal(one.forward, other.forward)


def test_without_landmarks_there_are_no_distances(stripes):
    registration = DeepRegistration("SSD", level_iters=[2], landmark_weight=5.0)
    registration.optimize(*stripes)
    assert registration.landmark_distances is None


def test_a_network_looks_at_what_the_spline_leaves(stripes, caplog):
    """One that is of no use there is dropped, and the spline stays."""
    caplog.set_level(logging.WARNING, logger="dipy")
    static, moving = stripes
    torch.manual_seed(0)
    network = make_network("voxelmorph", 2, seed=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    registration = DeepRegistration(
        "SSD",
        model=network,
        level_iters=0,
        landmarks=(LANDMARKS, LANDMARKS + [SHIFT, 0]),
    )
    mapping = registration.optimize(static, moving)
    if not registration.network_used:
        np.testing.assert_allclose(mapping.backward[..., 0], SHIFT, atol=1e-3)
    assert registration.landmark_distances.max() < 2


def test_the_function_passes_landmarks_on(stripes):
    static, moving = stripes
    _, mapping = deep_registration(
        moving,
        static,
        metric="SSD",
        level_iters=0,
        landmarks=(LANDMARKS, LANDMARKS + [SHIFT, 0]),
    )
    np.testing.assert_allclose(mapping.backward[..., 0], SHIFT, atol=1e-3)


@pytest.fixture
def log(caplog):
    """DIPY's warnings."""
    caplog.set_level(logging.WARNING, logger="dipy")
    return lambda: [record.getMessage() for record in caplog.records]


def test_landmarks_that_are_met_are_no_reason_to_warn(solid, log):
    landmarks = points_of(solid)
    registration = DeepRegistration("CC", level_iters=[5, 5], landmarks=landmarks)
    registration.optimize(solid.static, solid.moving, **solid.affines)
    assert log() == []


@pytest.mark.parametrize("weight", [0, 1.0])
def test_crossing_landmarks_are_told(stripes, log, weight):
    """Two of them change places: no map meets both."""
    static, moving = stripes
    static_points = np.concatenate([LANDMARKS, [[30.0, 26], [36, 26]]])
    moving_points = static_points.copy()
    moving_points[-2:] = moving_points[:-3:-1]
    registration = DeepRegistration(
        "SSD",
        landmarks=(static_points, moving_points),
        landmark_weight=weight,
        level_iters=[10],
    )
    mapping = registration.optimize(static, moving)
    assert jacobian(mapping.backward, np.eye(3)).min() > 0
    *_, message = log()  # a verdict on these images may come before
    assert "does not meet all landmarks, because their spline folds" in message
    assert f"error, {registration.landmark_distances.max():.3g} mm" in message
    assert "Rows 5 and 6 (counted from 0, without repeated landmarks) may" in message


def test_landmarks_against_the_images_are_told(stripes, log):
    """Landmarks that contradict the images, with a small weight."""
    static, moving = stripes
    options = {"landmarks": (LANDMARKS, LANDMARKS + [4.0, 0]), "level_iters": [40, 20]}
    for weight, told in ((1e-6, 1), (0, 1)):
        registration = DeepRegistration("SSD", landmark_weight=weight, **options)
        registration.optimize(static, static)
        assert registration.landmark_distances.max() > 2
        assert len(log()) == told
    assert "The map does not meet all landmarks. The largest error," in log()[0]


def test_landmarks_partly_outside_are_told(solid, log):
    static_points, moving_points = points_of(solid)
    linear, shift = solid.prealign[:3, :3], solid.prealign[:3, 3]
    static_points[0] += 500
    moving_points[0] = linear @ static_points[0] + shift
    landmarks = static_points, moving_points
    DeepRegistration("CC", level_iters=0, landmarks=landmarks).optimize(
        solid.static, solid.moving, **solid.affines
    )
    assert log() == [
        "1 of 12 static landmarks lie outside static's field of view, where the map is "
        "only its affine part.",
        "1 of 12 moving landmarks lie outside moving's field of view.",
    ]


@pytest.mark.parametrize("role", ["static", "moving"])
def test_landmarks_of_another_world_are_an_error(solid, role):
    landmarks = dict(zip(("static", "moving"), points_of(solid)))
    landmarks[role] = landmarks[role] + [500, 0, 0]
    registration = DeepRegistration("CC", landmarks=tuple(landmarks.values()))
    with pytest.raises(ValueError, match=f"landmarks .* {role} extends from .* all of"):
        registration.optimize(solid.static, solid.moving, **solid.affines)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"landmarks": LANDMARKS}, r"landmarks must be a pair .* ndarray"),
        ({"landmarks": (LANDMARKS,)}, "landmarks must be a pair"),
        ({"landmarks": (LANDMARKS, LANDMARKS[:4])}, "must have the same shape"),
        ({"landmarks": (LANDMARKS[:2], LANDMARKS[:2])}, "at least 3"),
        ({"landmark_weight": -1}, "landmark_weight must be 0 or more"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        DeepRegistration(**options)


def test_landmarks_of_another_dimension(solid):
    registration = DeepRegistration(landmarks=(LANDMARKS, LANDMARKS))
    with pytest.raises(ValueError, match="landmarks are 2D, but the images are 3D"):
        registration.optimize(solid.static, solid.moving, **solid.affines)
