"""Overlap of anatomy maps: against numpy, in known positions, and without brain."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates
import torch

from dipy_dl_reg.anatomy.classes import CLASSES
from dipy_dl_reg.anatomy.overlap import STRUCTURES, measure_anatomy_overlap
from dipy_dl_reg.anatomy.prediction import AnatomyMaps
from dipy_dl_reg.grid import Grid

SHAPE = (36, 40, 32)
AFFINE = np.array([[2, 0, 0, -30.0], [0, 2, 0, -44], [0, 0, 2, -20], [0, 0, 0, 1]])


def make_maps(shift=(0, 0, 0)):
    """Smooth maps of random blobs about the middle, displaced by a shift in mm."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(len(CLASSES), *SHAPE))
    logits = np.stack([gaussian_filter(each, 3.0) for each in noise]) * 80
    away = np.linalg.norm(np.indices(SHAPE).T - np.array(SHAPE) / 2, axis=-1).T
    logits[0] += 0.8 * (away - 12)
    at = np.indices(SHAPE) + np.reshape(shift, (3, 1, 1, 1)) / 2
    moved = [map_coordinates(each, at, order=1, mode="nearest") for each in logits]
    tensor = torch.tensor(np.stack(moved), dtype=torch.float32).softmax(0)
    return AnatomyMaps(tensor, Grid(SHAPE, AFFINE))


def dice_by_numpy(static, moving):
    """The overlap of maps on one grid, by its definition."""
    first, second = (
        x.probabilities.numpy()[:, ::2, ::2, ::2] for x in (static, moving)
    )
    found, weights = [], []
    for k in STRUCTURES:
        s, m = first[k].astype(float), second[k].astype(float)
        found.append(2 * (s * m).sum() / ((s**2).sum() + (m**2).sum()))
        weights.append(np.sqrt(max(s.sum(), m.sum())))
    return np.average(found, weights=weights)


def translation(*shift):
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    return matrix


def test_overlap_is_that_of_numpy():
    static, moving = make_maps(), make_maps((6, 0, 0))
    found = measure_anatomy_overlap(static, moving, prealign=np.eye(4))
    assert found.before == found.affine == found.after
    assert found.after == pytest.approx(dice_by_numpy(static, moving), abs=1e-5)
    assert measure_anatomy_overlap(
        static, static, prealign=np.eye(4)
    ).after == pytest.approx(1)


def test_right_prealign_and_field_raise_it():
    """`moving` at x is `static` at x + shift; half is corrected by the affine."""
    static, moving = make_maps(), make_maps((8, 4, 0))
    grid, u = Grid((18, 20, 16), AFFINE @ np.diag([2, 2, 2, 1])), torch.zeros(1, 3, 1)
    u = torch.zeros(1, 3, *grid.shape)
    u[:, 0] = -1  # voxels of 4 mm
    options = {"prealign": translation(-4, -4, 0), "grid": grid}
    found = measure_anatomy_overlap(static, moving, displacement=u, **options)
    assert found.before < found.affine - 0.1 < found.after - 0.2
    assert found.after > 0.97
    wrong = measure_anatomy_overlap(static, moving, displacement=-u, **options)
    assert wrong.affine == found.affine and wrong.after < wrong.affine - 0.1


def test_grids_and_fields_of_view_may_differ():
    """Flipped axes change nothing, and what moving does not show is left out."""
    static = make_maps()
    flipped = AnatomyMaps(
        static.probabilities.flip(1),
        Grid(SHAPE, AFFINE @ np.array(
            [[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
        )),
    )  # fmt: skip
    slab = AnatomyMaps(
        static.probabilities[..., 8:24],
        Grid((36, 40, 16), AFFINE @ translation(0, 0, 8)),
    )
    for moving in (flipped, slab):
        found = measure_anatomy_overlap(static, moving, prealign=np.eye(4))
        assert found.after == pytest.approx(1, abs=1e-5)


def test_no_brain_no_figure():
    static = make_maps()
    air = torch.zeros_like(static.probabilities)
    air[0] = 1
    empty = AnatomyMaps(air, static.grid)
    for pair in ((static, empty), (empty, static)):
        assert measure_anatomy_overlap(*pair, prealign=np.eye(4)) is None
    away = translation(500, 0, 0)
    assert measure_anatomy_overlap(static, static, prealign=away) is None
