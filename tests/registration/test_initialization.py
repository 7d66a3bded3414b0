"""DeepRegistration(initialization=...): displacements that descent does not find."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import DeepRegistration

SHAPE = 96, 90


def texture(shape, seed=0):
    """A disc or ball full of blobs, on nothing."""
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.normal(size=shape), 1.5)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = gaussian_filter((sum(a**2 for a in axes) < 0.4).astype(float), 1.5)
    return inside * (1 + 0.3 * image / image.std())


def displaced(shape, peak, sigma):
    """Static, moving and the field: static(x) = moving(x + field(x))."""
    moving = texture(shape)
    middle = np.array(shape) / 2
    x = np.moveaxis(np.indices(shape), 0, -1) - middle
    window = np.exp(-(x**2).sum(-1) / (2 * sigma**2))[..., None]
    direction = np.ones(len(shape)) / np.sqrt(len(shape))
    field = peak * window * direction
    at = np.moveaxis(x + middle + field, -1, 0)
    return map_coordinates(moving, at, order=1), moving, field


def error(mapping, field, static):
    inside = static > 0.3
    return np.sqrt(np.square(mapping.backward - field).sum(-1)[inside].mean())


def run(static, moving, initialization, metric="CC", **options):
    registration = DeepRegistration(
        metric, initialization=initialization, level_iters=[15, 15], model=None
    )
    return registration, registration.optimize(static, moving, **options)


@pytest.fixture(scope="module")
def far():
    return displaced(SHAPE, 16, 24)


@pytest.mark.parametrize("initialization", ["discrete", "auto"])
def test_far_displacement_is_found(far, initialization):
    static, moving, field = far
    _, without = run(static, moving, None)
    registration, found = run(static, moving, initialization)
    assert registration.initialization_used
    assert error(without, field, static) > 4
    assert error(found, field, static) < 1
    assert registration.quality.minimum_jacobian > 0


def test_another_contrast(far):
    static, moving, field = far
    upside_down = np.where(moving > 0.3, 2 - moving, moving)
    _, found = run(static, upside_down, "discrete", "MIND")
    assert error(found, field, static) < 2


def test_three_dimensions():
    static, moving, field = displaced((40, 44, 42), 8, 11)
    (_, without), (_, found) = (run(static, moving, i) for i in (None, "discrete"))
    assert error(found, field, static) < 0.2
    assert error(found, field, static) < 0.5 * error(without, field, static)


def test_auto_drops_what_does_not_help():
    """Unrelated images: the field of the search must improve the refinement."""
    image = texture(SHAPE)
    registration, mapping = run(image, image, "auto")
    assert np.abs(mapping.backward).max() < 0.5
    assert not registration.initialization_used


def test_grids_of_any_kind(far):
    """Static on a rotated grid with other voxels: only world positions matter."""
    static, moving, field = far
    turned = static[::-1].T
    static_grid2world = np.array(
        [[0, -2.0, 2 * (SHAPE[0] - 1)], [2.0, 0, 0], [0, 0, 1]]
    )
    affines = {
        "static_grid2world": static_grid2world,
        "moving_grid2world": np.diag([2.0, 2, 1]),
    }
    _, mapping = run(turned, moving, "discrete", **affines)
    wanted = 2 * np.swapaxes(field[::-1], 0, 1)
    assert error(mapping, wanted, turned) < 2


@pytest.mark.parametrize("shape", [(9, 11), (12, 40), (16, 1, 16), (8, 9, 24), (5, 5)])
def test_small_and_thin_images(shape):
    rng = np.random.default_rng(1)
    static = gaussian_filter(rng.normal(size=shape), 1)
    moving = gaussian_filter(rng.normal(size=shape), 1)
    registration, mapping = run(static, moving, "discrete")
    assert np.isfinite(mapping.backward).all()
    assert registration.quality.minimum_jacobian > 0
    if 1 in shape:
        assert not mapping.backward[..., shape.index(1)].any()


def test_masks_and_missing_data(far):
    static, moving, field = far
    holed = moving.copy()
    holed[60:70, 60:70] = np.nan
    mask = gaussian_filter((static > 0.3).astype(float), 4) > 0.1
    _, mapping = run(static, holed, "discrete", static_mask=mask)
    assert error(mapping, field, static) < 2


def test_twice_the_same(far):
    one, two = (run(*far[:2], "discrete")[1] for _ in range(2))
    assert np.array_equal(one.backward, two.backward)


def test_bad_name():
    with pytest.raises(ValueError, match="initialization.*discrete.*'convex'"):
        DeepRegistration(initialization="convex")
