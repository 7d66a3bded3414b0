"""Measures of a registration, against NumPy and closed forms."""

import numpy as np
import phantom
import pytest
import torch

from dipy_dl_reg.maps.measures import _squared_correlation, measure_registration
from dipy_dl_reg.registration import dipy_adapter

SHAPE = (40, 48, 44)


@pytest.fixture
def grid2world():
    return phantom.grid(SHAPE, 4.0)


def pair_of(static, moving, grid2world, **options):
    affines = {"static_grid2world": grid2world, "moving_grid2world": grid2world}
    return dipy_adapter.make_pair(static, moving, **affines, **options)


def test_an_image_and_itself(grid2world):
    image = phantom.image(SHAPE, grid2world)
    measures = measure_registration(pair_of(image, image, grid2world))
    assert measures.similarity > 0.6 and measures.overlap == 1
    assert measures.similarity_before == measures.similarity_affine
    assert measures.displacement == 0 and measures.rotation == 0
    assert measures.smallest_scale == measures.largest_scale == 1
    assert measures.visible == 1 and not measures.mirrors


def test_squared_correlation_is_that_of_windows_one_by_one(rng):
    shape = (9, 8, 7)
    a = rng.random(shape)
    b = 0.5 * a + 0.3 * rng.random(shape)
    values = []
    for index in np.ndindex(shape):
        window = tuple(slice(max(i - 2, 0), i + 3) for i in index)
        s, w = a[window], b[window]
        covariance = (s * w).mean() - s.mean() * w.mean()
        values.append(covariance**2 / ((s.var() + 1e-3) * (w.var() + 1e-3)))
    images = (torch.from_numpy(x)[None, None] for x in (a, b))
    everywhere = torch.ones(1, 1, *shape, dtype=torch.bool)
    found = _squared_correlation(*images, everywhere)
    assert found == pytest.approx(np.mean(values), rel=1e-6)


def test_parts_of_the_affine(grid2world):
    image = phantom.image(SHAPE, grid2world)
    turn = phantom.rigid(phantom.rotation((1, 2, 3), 25), np.array([3.0, -2, 5]))
    stretch = np.diag([1.2, 0.9, 1.0, 1.0])
    pair = pair_of(image, image, grid2world, prealign=turn @ stretch)
    measures = measure_registration(pair)
    assert measures.rotation == pytest.approx(25, abs=1e-6)
    assert measures.smallest_scale == pytest.approx(0.9)
    assert measures.largest_scale == pytest.approx(1.2)
    assert not measures.mirrors
    mirrored = pair._replace(prealign=np.diag([-1.0, 1, 1, 1]))
    assert measure_registration(mirrored).mirrors


def test_a_displacement_is_measured_within_the_object(grid2world):
    image = phantom.image(SHAPE, grid2world)
    pair = pair_of(image, image, grid2world)
    u = torch.zeros(1, 3, *SHAPE)
    u[:, 0] = 2.0  # voxels of 4 mm; the longest side has 192 mm
    measures = measure_registration(pair, u)
    assert measures.displacement == pytest.approx(8 / 192, rel=1e-4)
    assert measures.displacement_95 == pytest.approx(8 / 192, rel=1e-4)
    assert measures.similarity < measures.similarity_affine


def test_what_is_masked_does_not_count(grid2world, rng):
    image = phantom.image(SHAPE, grid2world)
    spoilt = image.copy()
    spoilt[:20] = rng.random(spoilt[:20].shape)
    mask = np.zeros(SHAPE, bool)
    mask[22:] = True
    whole = measure_registration(pair_of(image, spoilt, grid2world))
    masked = measure_registration(pair_of(image, spoilt, grid2world, static_mask=mask))
    assert masked.similarity > 0.6 > whole.similarity


@pytest.mark.parametrize("role", ["static_mask", "moving_mask"])
def test_an_enlargement_of_the_masked_region_is_measured(grid2world, role):
    """The displacement -x / 5 from the centre enlarges lengths by 1 / .8."""
    image, mask = phantom.image(SHAPE, grid2world), np.zeros(SHAPE, bool)
    mask[10:-10, 10:-10, 10:-10] = True
    centre = (torch.tensor(SHAPE) - 1).view(1, 3, 1, 1, 1) / 2
    u = (centre - torch.from_numpy(np.indices(SHAPE)[None])) * 0.2
    masked = pair_of(image, image, grid2world, **{role: mask})
    ratio = measure_registration(masked, u.float()).volume_ratio
    assert ratio == pytest.approx(0.8**-3, rel=1e-3)
    whole = pair_of(image, image, grid2world)
    assert measure_registration(whole, u.float()).volume_ratio is None


def test_images_without_common_structure(grid2world):
    """Where nothing is compared there is no similarity, rather than a perfect one."""
    image = phantom.image(SHAPE, grid2world)
    away = np.eye(4)
    away[0, 3] = 150.0
    measures = measure_registration(pair_of(image, image, grid2world, prealign=away))
    assert measures.visible < 0.3
    assert not measures.similarity > 0.3


def about_centre(image, grid2world, axis, angle):
    """Rotation about the centre of an object."""
    middle = np.argwhere(image > 0.05 * image.max()).mean(0)
    centre = grid2world[:3, :3] @ middle + grid2world[:3, 3]
    turn = phantom.rotation(axis, angle)
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = centre - turn @ centre
    return matrix


@pytest.fixture
def weak(grid2world, rng):
    """Two images of one object with much noise: they resemble each other weakly."""
    image = phantom.image(SHAPE, grid2world)
    inside = image > 0.05 * image.max()
    noise = rng.normal(0, 0.17 * image.max(), (2, *SHAPE))
    return [np.where(inside, np.clip(image + n, 0.1, None), 0) for n in noise]


def test_wrong_poses_are_compared_where_similarity_is_weak(weak, grid2world):
    """The right pose is one of those that are compared if the image is turned by 40."""
    image = phantom.image(SHAPE, grid2world)
    assert (
        measure_registration(pair_of(image, image, grid2world)).similarity_wrong is None
    )
    pair = pair_of(*weak, grid2world)
    right = measure_registration(pair)
    assert 0.02 < right.similarity_affine < 0.19
    assert right.similarity_wrong < 0.85 * right.similarity_affine
    for axis in np.eye(3):
        for angle in (40, -40):
            turn = about_centre(weak[0], grid2world, axis, angle)
            turned = measure_registration(pair._replace(prealign=turn))
            assert turned.similarity_affine < 0.85 * right.similarity_affine
            assert turned.similarity_wrong > 0.9 * right.similarity_affine
