"""The expected error of a map against errors that are known."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import (
    DeepRegistration,
    load_mapping,
    mapping_uncertainty,
    save_mapping,
)
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.dipy_map import make_mapping
from dipy_dl_reg.registration import head_masks, uncertainty
from dipy_dl_reg.registration.repeated_registration import (
    PairOfImages,
    Repetition,
    change_pair,
)
from dipy_dl_reg.registration.uncertainty_calibration import CALIBRATIONS, LEVELS

#: Options of the registrations: short, and without a network.
SHORT = {"model": None, "level_iters": [30, 30]}
SPACING = 2.0


def known_pair(shape, seed, *, noise=0.03, size=7.0, blank=None):
    """An image with texture, the same deformed by a known field, and the field (mm)."""
    random = np.random.default_rng(seed)
    dim = len(shape)
    image = sum(
        gaussian_filter(random.normal(size=shape), width) * width**1.5
        for width in (1.5, 3.0)
    )
    image = 1 + 0.3 * image / image.std()
    middle = (np.array(shape) - 1) / 2
    far = (np.indices(shape) - middle.reshape(-1, *[1] * dim)) / middle.max()
    ball = 1 / (1 + np.exp(30 * (np.sqrt(np.square(far).sum(0)) - 0.85)))
    if blank is not None:
        image = np.where(blank(far), 1.0, image)
    image = np.maximum(image, 0) * ball
    field = np.stack([gaussian_filter(random.normal(size=shape), 6) for _ in shape], -1)
    field *= size / np.linalg.norm(field, axis=-1).max()
    at = np.indices(shape) + np.moveaxis(field, -1, 0) / SPACING
    static = map_coordinates(image, at, order=3, mode="nearest")
    static, moving = (
        np.where(x > 0.2, x + random.normal(0, noise, shape), 0).astype(np.float32)
        for x in (static, image)
    )
    return static, moving, field


def register(static, moving, **options):
    """A short registration."""
    affine = np.diag([SPACING] * static.ndim + [1.0])
    registration = DeepRegistration(**SHORT | options)
    registration.verbosity = 0
    return registration.optimize(
        static, moving, static_grid2world=affine, moving_grid2world=affine
    )


@pytest.fixture(scope="module")
def solid():
    """A 3D pair, its map, the known field and the uncertainty."""
    static, moving, field = known_pair((24, 26, 22), 0)
    mapping = register(static, moving)
    found = mapping_uncertainty(mapping, static, moving, subjects="same", **SHORT)
    return static, moving, field, mapping, found


@pytest.fixture(scope="module")
def flat():
    """Errors and uncertainties of the maps of some 2D pairs."""
    pairs = []
    for seed in (1, 2, 3, 4):
        static, moving, field = known_pair((48, 44), seed)
        mapping = register(static, moving)
        found = mapping_uncertainty(mapping, static, moving, subjects="same", **SHORT)
        pairs.append((found, mapping.backward - field))
    return pairs


def coverage(found, error, level):
    """Parts of the voxels of the object within the interval, and within the ball."""
    inside = found.inside
    components = np.abs(error[inside]) <= found.interval(level)[inside][:, None]
    lengths = np.linalg.norm(error[inside], axis=-1) <= found.radius(level)[inside]
    return components.mean(), lengths.mean()


@pytest.mark.parametrize("level, least", [(0.5, 0.4), (0.8, 0.75), (0.95, 0.9)])
def test_known_errors_are_covered_as_often_as_the_level_says(solid, level, least):
    """In small volumes repeated maps differ more, so that more may be covered."""
    *_, field, mapping, found = solid
    error = mapping.backward - field
    assert min(coverage(found, error, level)) > least
    length = np.linalg.norm(error, axis=-1)[found.inside]
    median = np.median(found.radius(level)[found.inside])
    assert median < 3 * np.quantile(length, level)


def test_expected_error_is_about_the_mean_error(solid):
    *_, field, mapping, found = solid
    error = np.linalg.norm(mapping.backward - field, axis=-1)[found.inside].mean()
    assert 0.7 < found.expected_error[found.inside].mean() / error < 2.2


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_slices_are_covered_as_often_as_the_level_says(flat, level):
    covered = np.mean([coverage(*pair, level) for pair in flat], axis=0)
    assert_allclose(covered, level, atol=0.15)


def test_map_without_displacement_has_an_error_as_large_as_the_field(solid):
    static, moving, field, mapping, found = solid
    zero = np.zeros_like(mapping.backward)
    affine = mapping.codomain_grid2world
    bad = make_mapping(zero, zero, static.shape, affine, moving.shape, affine)
    worse = mapping_uncertainty(bad, static, moving, subjects="same", **SHORT)
    inside = found.inside
    missed = np.linalg.norm(field, axis=-1)[inside].mean()
    assert 0.6 < worse.expected_error[inside].mean() / missed < 1.6
    assert (
        worse.expected_error[inside].mean() > 1.5 * found.expected_error[inside].mean()
    )


def test_identical_images_have_a_small_error():
    static, _, _ = known_pair((24, 26, 22), 2)
    mapping = register(static, static)
    found = mapping_uncertainty(mapping, static, static, subjects="same", **SHORT)
    assert found.expected_error[found.inside].mean() < 0.4 * SPACING


def test_region_without_texture_is_less_certain():
    def left(far):
        return far[0] < -0.05

    static, moving, _ = known_pair((28, 24, 22), 3, blank=left)
    mapping = register(static, moving)
    found = mapping_uncertainty(mapping, static, moving, **SHORT)
    x = np.indices(static.shape)[0] / (static.shape[0] - 1)
    blank, textured = ((x > 0.25) & (x < 0.4), (x > 0.6) & (x < 0.75))
    middle = found.inside & (found.radius(0.9) > 0)
    assert (
        found.radius(0.9)[middle & blank].mean()
        > 1.3 * found.radius(0.9)[middle & textured].mean()
    )


def test_two_people_have_wider_intervals_than_one(solid):
    static, moving, _, mapping, found = solid
    wider = mapping_uncertainty(mapping, static, moving, **SHORT)
    assert_array_equal(wider.disagreement, found.disagreement)
    assert (wider.interval(0.95) > found.interval(0.95)).all()


def test_stored_map_has_the_same_uncertainty(solid, tmp_path):
    static, moving, _, mapping, found = solid
    save_mapping(mapping, tmp_path / "map.npz")
    again = mapping_uncertainty(
        load_mapping(tmp_path / "map.npz"), static, moving, subjects="same", **SHORT
    )
    assert_allclose(again.expected_error, found.expected_error, rtol=1e-5)


def test_missing_data_and_masks(solid):
    static, moving, _, mapping, _ = solid
    holed = static.copy()
    holed[:, :, :6] = np.nan
    mask = np.zeros(static.shape, bool)
    mask[4:20, 4:20, 4:18] = True
    found = mapping_uncertainty(mapping, holed, moving, static_mask=mask, **SHORT)
    assert np.isfinite(found.expected_error).all()
    assert_array_equal(found.inside, mask & np.isfinite(holed))


def test_masks_of_heads_are_found_once(solid, monkeypatch):
    """Nothing outside of the brains was compared: the error is not known there."""
    static, moving, _, mapping, _ = solid
    calls, masks = [], {}
    for name, first in (("static", 4), ("moving", 9)):
        masks[name] = np.zeros(static.shape, bool)
        masks[name][first:20, 4:20, 4:18] = True

    def find(images, grids):
        calls.append(list(images))
        return masks

    monkeypatch.setattr(uncertainty, "find_brain_masks", find)
    monkeypatch.setattr(head_masks, "find_brain_masks", find)
    found = mapping_uncertainty(mapping, static, moving, **SHORT)
    assert calls == [["static", "moving"]]
    assert not (found.inside & ~masks["static"]).any()
    assert not found.inside[:6].any() and found.inside[12:18, 6:18, 6:16].all()


def test_points_take_the_values_of_their_voxels(solid):
    *_, mapping, found = solid
    voxels = np.argwhere(found.inside)[::97]
    points = SPACING * voxels.astype(float)
    assert_allclose(
        found.at_points(points), found.expected_error[tuple(voxels.T)], rtol=1e-5
    )
    assert_allclose(
        found.at_points(points, level=0.8),
        found.radius(0.8)[tuple(voxels.T)],
        rtol=1e-5,
    )
    moved = mapping.transform_points(points)
    assert_allclose(
        found.at_points(moved, space="moving"), found.at_points(points), rtol=0.05
    )
    assert np.isnan(found.at_points(np.full((1, 3), 1e3))).all()


@pytest.mark.parametrize("key", CALIBRATIONS)
def test_intervals_widen_with_the_level(key):
    calibration = CALIBRATIONS[key]
    for table in (calibration.component, calibration.length):
        for column in table:
            assert len(column) == len(LEVELS)
            assert (np.diff(column) >= 0).all()
    for level in (0.1, 0.5, 0.93):
        component, length = (
            calibration.component.at(level),
            calibration.length.at(level),
        )
        assert (length.apply(1.0, 1.0)) > component.apply(1.0, 1.0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"subjects": "twins"}, "subjects must be one of"),
        ({"landmarks": (np.eye(3), np.eye(3))}, "landmarks cannot be given"),
        ({"phase_encoding": "j"}, "phase_encoding cannot be given"),
        ({"static": np.ones((5, 5, 5))}, "static must have shape"),
    ],
)
def test_wrong_arguments(solid, changes, message):
    static, moving, _, mapping, _ = solid
    given = {"static": static, "moving": moving} | changes
    with pytest.raises(ValueError, match=message):
        mapping_uncertainty(mapping, **given)


def test_level_outside_of_the_calibration(solid):
    with pytest.raises(ValueError, match="level must be"):
        solid[-1].interval(0.99)
    with pytest.raises(ValueError, match=r"points must have shape \(N, 3\)"):
        solid[-1].at_points(np.zeros((4, 2)))


def test_background_of_a_stripped_image_stays_background(solid):
    """Noise in the air would make a stripped brain look like a whole head."""
    static, moving = solid[:2]
    grid = Grid(static.shape, np.diag([SPACING] * 3 + [1.0]))
    pair = PairOfImages(static, moving, grid, grid, np.eye(4))
    changed = change_pair(
        pair, Repetition(swaps=False, resamples=True, noise=True, seed=3)
    )
    parts = [np.mean(image != 0) for image in (static, changed.static)]
    assert 0 < parts[0] < 0.6
    assert_allclose(parts[1], parts[0], rtol=0.05)
    assert np.mean(changed.moving != 0) == np.mean(moving != 0)
