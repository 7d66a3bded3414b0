"""A stripped brain paired with a whole head is detected, masked, and not enlarged."""

import numpy as np
import phantom
import pytest
import torch

from dipy_dl_reg import DeepRegistration, deep_affine_registration
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization.network import sample_pair_on_grid
from dipy_dl_reg.registration import dipy_adapter
from dipy_dl_reg.registration.brain_masks import find_brain_mask

SHAPE, SPACING = (56, 64, 60), 4.0
#: Outer radii, mm, of skull (dark) and scalp (bright) as parts of the brain's.
SKULL, SCALP, NECK = 1.12, 1.3, 75.0


def inside(points, factor):
    """Whether points lie in the brain, enlarged by a factor."""
    centre, radii, _ = phantom.PARTS[0]
    return (((points - np.array(centre)) / (factor * np.array(radii))) ** 2).sum(-1) < 1


def points_of(grid2world):
    places = np.moveaxis(np.indices(SHAPE), 0, -1)
    return places @ grid2world[:3, :3].T + grid2world[:3, 3]


def brain(grid2world):
    """The phantom cut out: nothing around it."""
    points = points_of(grid2world)
    image = phantom.value(points) * inside(points, 1.0)
    return image.astype(np.float32)


def head(grid2world, rng):
    """The same brain in skull, scalp and neck, with a scanner's noise everywhere."""
    points = points_of(grid2world)
    image = phantom.value(points) * inside(points, 1.0)
    scalp = inside(points, SCALP) & ~inside(points, SKULL)
    away = np.hypot(points[..., 0], points[..., 1])
    neck = (away < 50) & (points[..., 2] < -60) & ~inside(points, SKULL)
    image = np.where(scalp | neck, 0.6, image)
    noise = rng.normal(0, 0.02, (2, *SHAPE))
    return np.hypot(image + noise[0], noise[1]).astype(np.float32)


@pytest.fixture
def scene(rng):
    grid2world = phantom.grid(SHAPE, SPACING)
    return brain(grid2world), head(grid2world, rng), grid2world


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_brain_is_masked_wherever_it_stands(scene, order):
    *images, grid2world = scene
    images = [images[k] for k in order]
    index, mask = find_brain_mask(images, [Grid(SHAPE, grid2world)] * 2)
    assert index == order.index(0)
    points = points_of(grid2world)
    assert mask[inside(points, 1.0)].all()
    assert not mask[~inside(points, 1.12)].any()


@pytest.mark.parametrize("which", [0, 1])
def test_two_images_of_a_kind_need_no_mask(scene, which):
    image, grid = scene[which], Grid(SHAPE, scene[2])
    assert find_brain_mask((image, image), (grid, grid)) == (None, None)


def test_a_constant_image_and_a_slice_need_no_mask(scene):
    image, grid = scene[0], Grid(SHAPE, scene[2])
    blank = np.zeros(SHAPE, np.float32)
    assert find_brain_mask((image, blank), (grid, grid)) == (None, None)
    plane = Grid(SHAPE[:2], np.eye(3))
    both = image[:, :, 30], scene[1][:, :, 30]
    assert find_brain_mask(both, (plane, plane)) == (None, None)


def test_missing_data_around_a_brain_count_as_background(scene):
    image, whole, grid2world = scene
    grid = Grid(SHAPE, grid2world)
    image = np.where(image > 0, image, np.nan)
    index, mask = find_brain_mask((whole, image), (grid, grid))
    assert index == 1 and mask[np.isfinite(image)].all()


def test_data_between_the_inspected_voxels_need_no_mask():
    image = np.full((120, 112, 112), np.nan, np.float32)
    image[1::2, 1::2, 1::2] = 1.0
    image[61, 61, 61] = 2.0
    grid, whole = Grid(image.shape, np.eye(4)), np.nan_to_num(image)
    assert find_brain_mask((image, whole), (grid, grid)) == (None, None)


@pytest.mark.parametrize("stripped", ["static", "moving"])
def test_the_affine_keeps_the_size_of_the_brain(scene, stripped):
    """Without a mask the brain is enlarged to fill the scalp."""
    images = dict(zip(("static", "moving"), scene))
    if stripped == "moving":
        images = {"static": scene[1], "moving": scene[0]}
    _, matrix = deep_affine_registration(
        **images, static_affine=scene[2], moving_affine=scene[2]
    )
    scales = np.linalg.svd(matrix[:3, :3])[1]
    assert np.abs(scales - 1).max() < 0.06


def test_masks_that_are_given_are_the_ones_used(scene):
    static, moving, grid2world = scene
    affines = {"static_grid2world": grid2world, "moving_grid2world": grid2world}
    found = dipy_adapter.make_pair(static, moving, **affines, find_masks=True)
    assert found.static_mask is not None and found.moving_mask is None
    everywhere = np.ones(SHAPE, bool)
    given = dipy_adapter.make_pair(
        static, moving, **affines, moving_mask=everywhere, find_masks=True
    )
    assert given.static_mask is None


def test_the_scalp_does_not_enter_the_brain(scene):
    """The brain in the head is already aligned: the displacement is small."""
    static, moving, grid2world = scene
    mapping = DeepRegistration().optimize(
        static, moving, static_grid2world=grid2world, moving_grid2world=grid2world
    )
    still = inside(points_of(grid2world), 1.0)
    moved = np.linalg.norm(mapping.backward, axis=-1)[still]
    assert moved.mean() < 0.5 * SPACING


@pytest.mark.parametrize("role", ["static", "moving"])
def test_a_network_sees_the_brain_alone_in_both_images(scene, role):
    """It would expand the brain to the size of the head."""
    stripped, whole, grid2world = scene
    images = {"static": whole, "moving": whole} | {role: stripped}
    pair = dipy_adapter.make_pair(
        **images,
        static_grid2world=grid2world,
        moving_grid2world=grid2world,
        find_masks=True,
    )
    grid = Grid(SHAPE, grid2world)
    seen = sample_pair_on_grid(pair, grid)
    _, mask = find_brain_mask((stripped, whole), (grid, grid))
    for image in seen:
        assert not image[0, 0][torch.from_numpy(~mask)].any()
        assert image[0, 0][torch.from_numpy(mask)].mean() > 0.1
