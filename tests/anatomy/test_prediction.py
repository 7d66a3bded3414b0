"""Anatomy maps: grids, intensities, tiles and the network's own result."""

from maps import affine
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
import torch

from dipy_dl_reg.anatomy import tiles
from dipy_dl_reg.anatomy.classes import brain_probability
from dipy_dl_reg.anatomy.intensities import prepare_intensities
from dipy_dl_reg.anatomy.prediction import find_prediction_grid, predict_anatomy
from dipy_dl_reg.anatomy.resampling import resample_maps
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.networks.pretrained import load_anatomy


def make_blob(shape=(20, 24, 18), seed=0):
    """Smooth positive values inside of an ellipsoid, 0 outside."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    axes = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    values = 1 + 0.4 * noise / noise.std()
    return (values.clip(0.3) * (sum(a**2 for a in axes) < 1)).astype(np.float32)


GRID = Grid((20, 24, 18), affine([2.0, 2, 2], origin=[-20.0, -30, -16]))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2)])
def test_same_maps_for_every_storage_of_the_same_image(order, flips):
    """The maps depend on the place of voxels in the world only."""
    image = make_blob()
    matrix = GRID.affine[:, [*order, 3]].copy()
    stored = image.transpose(order)
    for axis in flips:
        matrix[:3, 3] += (stored.shape[axis] - 1) * matrix[:3, axis]
        matrix[:3, axis] *= -1
        stored = np.flip(stored, axis)
    expected = predict_anatomy(image, GRID)
    found = predict_anatomy(stored, Grid(stored.shape, matrix))
    np.testing.assert_allclose(found.grid.affine, expected.grid.affine, atol=1e-9)
    torch.testing.assert_close(found.probabilities, expected.probabilities)
    assert torch.allclose(found.probabilities.sum(0), torch.ones(found.grid.shape))


@pytest.mark.parametrize("spacing", [(1.0, 1, 1), (0.8, 0.8, 0.8), (1.0, 1, 5)])
def test_voxels_of_any_size(spacing, local_network):
    extent = np.array([40.0, 48, 36])
    shape = tuple(int(n) for n in extent / spacing)
    maps = predict_anatomy(make_blob(shape), Grid(shape, affine(spacing)))
    np.testing.assert_allclose(maps.grid.spacing, 2, atol=1e-9)
    covered = (np.array(maps.grid.shape) - 1) * 2
    assert (abs(covered - (np.array(shape) - 1) * spacing) <= 1 + 1e-9).all()
    inside = maps.probabilities.argmax(0) > 0
    volume = 8 * int(inside.sum())
    ellipsoid = 4 / 3 * np.pi * np.prod(extent / 2 / 1.2)
    assert volume == pytest.approx(ellipsoid, rel=0.15)


def test_grids_that_are_very_oblique_follow_the_world():
    slightly = Grid((20, 24, 18), affine([2.0, 2, 2], angles=(0.1, 0.1, 0)))
    very = Grid((20, 24, 18), affine([2.0, 2, 2], angles=(0.6, 0, 0)))
    assert not np.allclose(
        find_prediction_grid(slightly).affine[:3, :3], np.diag([2] * 3)
    )
    target = find_prediction_grid(very)
    np.testing.assert_allclose(target.affine[:3, :3], np.diag([2] * 3))
    corners = [[0, 0, 0], [19, 23, 17], [19, 0, 17], [0, 23, 0]]
    world = np.array(corners) @ very.affine[:3, :3].T + very.affine[:3, 3]
    assert target.contains(world, margin=0.5).all()


def test_missing_and_masked_voxels_are_background(local_network):
    image = make_blob()
    holes = np.zeros(image.shape, bool)
    holes[8:12, 8:12, 8:12] = True
    expected = predict_anatomy(np.where(holes, 0, image), GRID)
    missing = predict_anatomy(np.where(holes, np.nan, image), GRID)
    masked = predict_anatomy(image, GRID, mask=~holes)
    assert torch.equal(missing.probabilities, expected.probabilities)
    assert torch.equal(masked.probabilities, expected.probabilities)


def test_constant_images_and_wrong_dimensions(local_network):
    maps = predict_anatomy(np.full(GRID.shape, 7.0), GRID)
    assert bool((maps.probabilities[0] == 1).all())
    with pytest.raises(ValueError, match="image must be 3D"):
        predict_anatomy(np.ones((8, 8)), Grid((8, 8), np.eye(3)))


def test_mean_of_the_image_and_its_mirror_image(local_network):
    """For a network that sees each voxel alone, only left and right are averaged."""
    once = predict_anatomy(make_blob(), GRID).probabilities
    both = predict_anatomy(make_blob(), GRID, mirror=True).probabilities
    for left, right in ((1, 2), (3, 4)):
        torch.testing.assert_close(both[left], both[right])
        torch.testing.assert_close(both[left] + both[right], once[left] + once[right])


@pytest.mark.parametrize("shift, factor", [(0.0, 1.0), (0.0, 250.0), (-1.0, 1.0)])
def test_intensities_of_any_origin_and_scale(shift, factor):
    """A brain of mean 0 keeps its order of intensities, and its background is 0."""
    image = make_blob()
    given = factor * image + shift * image[image > 0].mean() * (image > 0)
    prepared = prepare_intensities(given)
    inside = image > 0
    assert (prepared[~inside] == 0).all()
    assert (prepared >= 0).all()
    assert np.corrcoef(prepared[inside], image[inside])[0, 1] > 0.999


def test_small_object_in_a_large_image():
    """The network's coarsest level needs more than one voxel of it."""
    image = np.zeros((40, 40, 40), np.float32)
    image[18:22, 18:22, 18:22] = make_blob((4, 4, 4)) + 0.5
    maps = predict_anatomy(image, Grid(image.shape, GRID.affine))
    assert maps.probabilities.shape[1:] == image.shape


def test_background_other_than_zero():
    image = make_blob()
    given = np.where(image > 0, image + 10, 10)
    np.testing.assert_allclose(prepare_intensities(given), image, atol=1e-5)


def test_large_images_are_seen_around_the_brain(local_network, monkeypatch):
    """Tiles that overlap give the same maps as the whole image."""
    image = make_blob((40, 44, 38), seed=1)
    padded = np.pad(image, ((30, 6), (4, 30), (8, 20)))
    noise = np.random.default_rng(2).uniform(0.05, 0.1, padded.shape)
    padded = np.maximum(padded, noise.astype(np.float32))
    grid = Grid(padded.shape, GRID.affine)
    monkeypatch.setattr(tiles, "_TRAINED", (96, 96, 96))
    whole = predict_anatomy(padded, grid)
    monkeypatch.setattr(tiles, "_TRAINED", (48, 48, 48))
    local_network.seen.clear()
    first = predict_anatomy(padded, grid)
    assert len(local_network.seen) == 2  # the whole image, and around the brain
    torch.testing.assert_close(first.probabilities, whole.probabilities)
    monkeypatch.setattr(tiles, "_LARGEST", 48**3)
    local_network.seen.clear()
    tiled = predict_anatomy(padded, grid)
    assert len(local_network.seen) > 3
    assert {tuple(x.shape[2:]) for x in local_network.seen} == {(48, 48, 48)}
    assert tiled.grid.shape == (48, 48, 48)
    expected = resample_maps(whole, tiled.grid)[0]
    torch.testing.assert_close(tiled.probabilities, expected)
    volumes = [(brain_probability(m.probabilities) > 0.5).sum() for m in (tiled, whole)]
    assert volumes[0] == volumes[1] > 0


def test_large_images_without_an_object(local_network, monkeypatch):
    monkeypatch.setattr(tiles, "_LARGEST", 1000)
    maps = predict_anatomy(np.zeros((20, 24, 18)), GRID)
    assert bool((maps.probabilities[0] == 1).all())


def test_tiles_cover_an_image():
    count = torch.zeros(150, 40, 201)
    for tile in tiles._make_tiles(tuple(count.shape)):
        count[tile] += 1
    assert bool((count >= 1).all())


def test_boxes():
    mask = torch.zeros(8, 9, 10, dtype=torch.bool)
    assert tiles.find_box(mask) is None
    mask[2:4, 0:3, 9] = True
    box = tiles.find_box(mask, margin=1)
    assert box == (slice(1, 5), slice(0, 4), slice(8, 10))


def test_every_call_gives_the_same_bits():
    image = make_blob()
    first, second = (predict_anatomy(image, GRID).probabilities for _ in range(2))
    assert torch.equal(first, second)


def test_weights_are_those_of_the_package():
    network = load_anatomy()
    assert not network.training
    assert network.card["licence"]
