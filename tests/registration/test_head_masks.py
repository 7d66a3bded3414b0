"""Whole heads are compared within masks of their brains."""

import numpy as np
import pytest
import torch

from dipy_dl_reg import DeepRegistration, deep_registration
from dipy_dl_reg.anatomy.prediction import AnatomyMaps
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.input_image import InputImage
from dipy_dl_reg.registration import channels, dipy_adapter, head_masks, head_poses
from dipy_dl_reg.registration.devices import threads

SHAPE, MATRIX = (26, 30, 24), np.diag([7.0, 7, 7, 1])
CENTRE = np.array([12, 14, 11])
AWAY = 7 * np.linalg.norm(np.indices(SHAPE).T - CENTRE[::1], axis=-1).T


def make_head(noise=0.02):
    """A ball in noise; without noise, as if it was stripped."""
    rng = np.random.default_rng(0)
    head = np.where(AWAY < 80, 1 + 0.1 * rng.normal(size=SHAPE), 0)
    return (head + noise * np.abs(rng.normal(size=SHAPE))).astype(np.float32)


@pytest.fixture
def network(heads, monkeypatch):
    """A network that finds a ball of 60 mm, half a litre and more; it counts calls."""
    calls = []

    def predict(image, grid):
        calls.append(image)
        brain = torch.from_numpy((predict.radius > AWAY).astype(np.float32))
        maps = torch.zeros(35, *SHAPE)
        maps[0], maps[1] = 1 - brain, brain
        return AnatomyMaps(maps, grid)

    predict.radius, predict.calls = 60, calls
    monkeypatch.setattr(head_poses, "predict_anatomy", predict)
    monkeypatch.setattr(head_poses, "is_plausible", lambda maps: True)
    return predict


def test_masks_are_the_brain_with_a_margin(network):
    grids = [Grid(SHAPE, MATRIX)] * 2
    masks = head_masks.find_head_masks([make_head(), make_head()], grids)
    assert len(masks) == len(network.calls) == 2
    # the next voxels of a grid of 7 mm are farther away than the margin of 4 mm
    assert np.array_equal(masks[0], AWAY < 60)
    pair = dipy_adapter.make_pair(
        make_head(), make_head(), static_grid2world=MATRIX, moving_grid2world=MATRIX,
        find_masks=True,
    )  # fmt: skip
    for mask in (pair.static_mask, pair.moving_mask):
        assert np.array_equal(mask[0, 0].numpy() > 0, AWAY < 60)


def test_no_masks_without_two_heads(network):
    grid, heads = Grid(SHAPE, MATRIX), [make_head(), make_head()]
    stripped = [make_head(0), make_head(0)]
    assert head_masks.find_head_masks(stripped, [grid, grid]) is None
    small = Grid(SHAPE, np.diag([3.0, 3, 3, 1]))
    assert head_masks.find_head_masks(heads, [small, small]) is None
    micrometres = Grid(SHAPE, np.diag([7e3, 7e3, 7e3, 1]))
    assert head_masks.find_head_masks(heads, [micrometres] * 2) is None
    assert not network.calls
    network.radius = 30  # 0.1 l: no brain
    assert head_masks.find_head_masks(heads, [grid, grid]) is None


def test_objects_that_are_no_heads(heads):
    """The network itself finds no brain in balls."""
    grids = [Grid(SHAPE, MATRIX)] * 2
    assert head_masks.find_head_masks([make_head(), make_head()], grids) is None


def test_number_of_threads(network, monkeypatch):
    image, counts = InputImage(make_head(), MATRIX, None), []
    find = head_masks.find_head_masks

    def find_and_count(*given):
        counts.append(torch.get_num_threads())
        return find(*given)

    monkeypatch.setattr(head_masks, "find_head_masks", find_and_count)
    before = torch.get_num_threads()
    head_masks.mask_heads(image, image, num_threads=before + 1)
    head_masks.mask_heads(image, image)
    with threads(before + 2):
        head_masks.mask_heads(image, image)
    assert counts == [before + 1, before, before + 2]


def test_given_masks_are_kept(network):
    image = InputImage(make_head(), MATRIX, None)
    masked = image._replace(mask=np.ones(SHAPE, bool))
    assert head_masks.mask_heads(image, masked) == (image, masked)
    assert not network.calls
    found = head_masks.mask_heads(image, image)
    assert all(each.mask.sum() == (AWAY < 60).sum() for each in found)
    unknown = image._replace(grid2world=None)
    assert head_masks.mask_heads(unknown, unknown)[0].mask is None


def test_channels_have_one_mask_which_is_found_once(network):
    head = np.stack([make_head(), make_head()[::-1].copy(), make_head() ** 2], -1)
    affines = {"static_grid2world": MATRIX, "moving_grid2world": MATRIX}
    pair = channels.make_pair(3, static=head, moving=head, **affines, find_masks=True)
    assert len(network.calls) == 2 and pair.channels == 3
    for mask in (pair.static_mask, pair.moving_mask):
        assert mask.shape[1] == 1
        assert np.array_equal(mask[0, 0].numpy() > 0, AWAY < 60)
    whole = channels.make_pair(3, static=head, moving=head, **affines)
    assert whole.static_mask is None and len(network.calls) == 2
    broken = head.copy()
    broken[..., 0] = np.inf
    with pytest.raises(ValueError, match="channel 1 of 3: moving"):
        channels.make_pair(3, static=head, moving=broken, find_masks=True)


def test_all_steps_and_channels_have_the_same_masks(network, monkeypatch):
    given = []
    optimize = DeepRegistration.optimize

    def note(self, *images, static_mask=None, **options):
        given.append(static_mask)
        return optimize(self, *images, static_mask=static_mask, **options)

    monkeypatch.setattr(DeepRegistration, "optimize", note)
    head = make_head()
    deep_registration(
        moving=[head, head**2], static=[head, head**2], static_affine=MATRIX,
        moving_affine=MATRIX, pipeline=["center_of_mass", "deform"], level_iters=[1],
        model=None, metric=["SSD", "SSD"],
    )  # fmt: skip
    assert len(network.calls) == 2 and len(given) == 1
    for k in range(2):
        assert np.array_equal(given[0][..., k], AWAY < 60)
