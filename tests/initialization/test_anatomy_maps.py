"""Intensity mappings from the anatomy maps of two images that are not aligned."""

import numpy as np
import pytest
import torch

from dipy_dl_reg.anatomy.classes import CLASSES
from dipy_dl_reg.anatomy.prediction import AnatomyMaps
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization import anatomy_maps
from dipy_dl_reg.initialization.anatomy_maps import (
    CHANNELS,
    PairMaps,
    add_map_channels,
    map_intensities,
    predict_pair_maps,
)
from dipy_dl_reg.initialization.intensity_mapping import IntensityMapping
from dipy_dl_reg.initialization.metric_selection import select_metric

SHAPE, SPACING = (26, 28, 24), 4.0
NAMES = [of.name for of in CLASSES]
#: Classes of the drawn brain, and their intensities.
USED = ["left lateral ventricle", "left cerebral cortex", "left cerebral white matter"]
T1, B0, FA = (0.15, 0.55, 0.9), (0.95, 0.5, 0.3), (0.05, 0.2, 0.7)


def make_grid():
    affine = np.diag([SPACING, SPACING, SPACING, 1])
    return Grid(SHAPE, affine)


def draw_brain(seed):
    """Shares of three tissues within a ball, of random shapes, and the maps."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 3, 5, 5, 5, generator=generator)
    height = torch.nn.functional.interpolate(noise, size=SHAPE, mode="trilinear")[0]
    lines = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = torch.sigmoid(30 * (0.85 - torch.stack(lines).norm(dim=0)))
    shares = torch.softmax(8 * height, 0) * inside
    maps = torch.zeros(len(CLASSES), *SHAPE)
    for name, share in zip(USED, shares):
        maps[NAMES.index(name)] = share
    maps[0] = 1 - inside
    return shares, AnatomyMaps(maps, make_grid())


def draw_image(shares, intensities, noise=0.02):
    image = torch.einsum("k,k...->...", torch.tensor(intensities), shares)[None, None]
    generator = torch.Generator().manual_seed(5)
    return (image + noise * torch.randn(image.shape, generator=generator)).clamp_min(0)


def draw_pair(looks, *, mask=None):
    """Two brains of different shapes, T1 and another contrast."""
    (one, static_maps), (two, moving_maps) = draw_brain(0), draw_brain(1)
    grid = make_grid()
    images = draw_image(one, T1), draw_image(two, looks)
    pair = Pair(*images, grid, grid, np.eye(4), moving_mask=mask)
    return pair, PairMaps(static_maps, moving_maps)


@pytest.mark.parametrize("looks", [T1, B0, FA])
def test_tissues_get_the_intensities_of_static(looks):
    """The two brains have nothing in common but their tissues.

    Mixtures with the background at the edge of the brain have the intensities of
    tissues, too.
    """
    mapping = map_intensities(*draw_pair(looks))
    found = mapping(torch.tensor(looks))
    # In FA, fluid is as dark as the background: only its place in the order is known.
    first = 1 if looks is FA else 0
    np.testing.assert_allclose(found[first:], T1[first:], atol=0.08)
    assert (np.diff(found) > 0.2).all()
    assert float(mapping(torch.tensor([0.0]))) < 0.05


def test_mixtures_are_in_order():
    """Between cortex and fluid, brighter in b0 is darker in T1."""
    mapping = map_intensities(*draw_pair(B0))
    values = mapping(torch.linspace(B0[1], B0[0], 8)).numpy()
    assert np.diff(values).max() < 0.02


def test_masked_voxels_do_not_count():
    """A lesion as bright as nothing else, and masked."""
    pair, maps = draw_pair(B0)
    mask = torch.ones_like(pair.moving)
    mask[..., 8:18, 8:18, 8:14] = 0
    masked = pair._replace(moving_mask=mask)
    spoiled = masked._replace(moving=torch.where(mask > 0, pair.moving, 3.0))
    wanted, found = (map_intensities(each, maps) for each in (masked, spoiled))
    assert torch.equal(found.values, wanted.values) and found.highest == wanted.highest


def test_result_is_repeatable():
    first, second = (map_intensities(*draw_pair(B0)) for _ in range(2))
    assert torch.equal(first.values, second.values) and first.highest == second.highest


def test_channels_follow_the_image():
    pair, maps = draw_pair(B0)
    mask = torch.ones_like(pair.moving).expand(1, 2, *SHAPE)
    both = torch.cat([pair.moving] * 2, 1)
    several = pair._replace(static=both, moving=both, moving_mask=mask)
    found = add_map_channels(several, maps)
    assert found.channels == 2 + len(CHANNELS) == found.moving_mask.shape[1]
    cortex = maps.moving.probabilities[NAMES.index("left cerebral cortex")]
    place = [names[0] for names in CHANNELS].index("cerebral cortex")
    torch.testing.assert_close(found.moving[0, 2 + place], cortex)


def test_metric_uses_the_mapping_only_across_contrasts():
    calls = []

    def map_contrast():
        calls.append(1)
        return IntensityMapping(torch.linspace(1, 0, 64), 1.0)

    grid = make_grid()
    shares, _ = draw_brain(0)
    t1, b0 = draw_image(shares, T1), draw_image(shares, B0)
    same = select_metric(Pair(t1, t1, grid, grid, np.eye(4)), map_contrast=map_contrast)
    assert not same.by_anatomy and same.intensity_mapping is None and not calls
    other = Pair(t1, b0, grid, grid, np.eye(4))
    found = select_metric(other, map_contrast=map_contrast)
    assert found.by_anatomy and found.metric.name == "CC" and calls == [1]
    assert "anatomy maps" in found.reason
    without = select_metric(other, map_contrast=lambda: None)
    assert not without.by_anatomy
    assert without.reason == select_metric(other).reason


class Scanner:
    """A network that finds a brain in the images that it sees in the right pose."""

    def __init__(self, monkeypatch, maps, upright):
        self.maps, self.upright, self.poses = maps, upright, []
        monkeypatch.setattr(anatomy_maps, "predict_anatomy", self.predict)
        monkeypatch.setattr(anatomy_maps, "is_plausible", lambda _, pose: self.found)

    def predict(self, image, grid, *, pose, **_):
        turn = np.eye(3) if pose is None else pose[:3, :3]
        self.poses.append(pose)
        self.found = np.allclose(turn, self.upright[len(self.poses) - 1])
        return self.maps


def turned_pair(looks=B0):
    """A pair whose prealign turns the head by 90 degrees about the first axis."""
    pair, maps = draw_pair(looks)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[0, -1], [1, 0]]
    return pair._replace(prealign=turn), maps, turn


def test_no_maps_without_brain(monkeypatch):
    """Small fields of view are not predicted; maps without a brain are not used."""
    pair, maps = draw_pair(B0)
    small = Grid(SHAPE, np.diag([1.0, 1, 1, 1]))
    network = Scanner(monkeypatch, maps.static, [np.eye(3)] * 2)
    assert predict_pair_maps(pair._replace(moving_grid=small)) is None
    assert not network.poses
    assert predict_pair_maps(pair) is not None
    Scanner(monkeypatch, maps.static, [np.eye(3), None])
    monkeypatch.setattr(anatomy_maps, "is_plausible", lambda *_: False)
    assert predict_pair_maps(pair) is None


def test_heads_turned_against_their_headers(monkeypatch):
    """The prealign tells how the head of one image lies, if the other is upright."""
    pair, maps, turn = turned_pair()
    back = np.linalg.inv(turn)
    network = Scanner(monkeypatch, maps.static, [np.eye(3), back[:3, :3]])
    assert predict_pair_maps(pair) is not None
    assert len(network.poses) == 2
    upright = [back[:3, :3], np.eye(3), turn[:3, :3]]
    network = Scanner(monkeypatch, maps.static, upright)
    assert predict_pair_maps(pair) is not None
    assert len(network.poses) == 3


def test_phantom_shows_no_brain():
    """A bright ball of the volume of a brain has no structures of a brain."""
    lines = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 44, 40)), indexing="ij")
    ball = (np.square(lines).sum(0) < 0.5).astype(np.float32)
    grid = Grid(ball.shape, np.diag([4.0, 4, 4, 1]))
    image = torch.from_numpy(ball)[None, None]
    assert predict_pair_maps(Pair(image, 1 - image, grid, grid, np.eye(4))) is None
