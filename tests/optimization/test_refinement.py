"""Refinement of pairs with a known field, its events and the image pyramid."""

import numpy as np
import phantom
import pytest
from scipy import ndimage
import torch

from dipy_dl_reg.geometry.pyramid import coarsen, level_spacings
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.metrics.correlation_ratio import CRMetric
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.mutual_information import MIMetric
from dipy_dl_reg.metrics.ncc import NCCMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.metrics.registry import METRICS, metric_by_name
from dipy_dl_reg.metrics.regularizers.bending import bending
from dipy_dl_reg.metrics.regularizers.diffusion import diffusion
from dipy_dl_reg.metrics.ssd import SSDMetric
from dipy_dl_reg.optimization.deformable import refine
from dipy_dl_reg.registration.dipy_adapter import make_pair


def texture(shape, seed=0, sigma=2.0):
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.standard_normal(shape), sigma)
    return (image - image.min()) / np.ptp(image)


def displaced(shape, amplitude=1.5):
    """A texture, the same warped by a known smooth field, and the field."""
    moving = texture(shape)
    u = np.stack(
        [
            amplitude * texture(shape, seed=k + 1, sigma=6.0) - amplitude / 2
            for k in range(len(shape))
        ]
    )
    points = np.indices(shape) + u
    return ndimage.map_coordinates(moving, points, order=3, mode="nearest"), moving, u


@pytest.mark.parametrize("shape", [(96, 80), (30, 28, 26)])
@pytest.mark.parametrize(
    "metric", [CCMetric(), SSDMetric(), NCCMetric(), MIMetric(), CRMetric()]
)
def test_a_known_field_is_found(shape, metric):
    static, moving, expected = displaced(shape)
    pair = make_pair(static, moving)
    # make_pair scales each image by its own range; these two are of one scale.
    same = (torch.from_numpy(x[None, None]).float() for x in (static, moving))
    pair = pair._replace(**dict(zip(("static", "moving"), same)))
    u, v = refine(pair, Objective(metric), level_iters=[60, 40])
    inner = (slice(None), *(slice(4, -4),) * len(shape))
    before = np.sqrt((expected[inner] ** 2).mean())
    after = np.sqrt(((u[0].numpy() - expected)[inner] ** 2).mean())
    assert after < 0.5 * before


class GivenValues(SSDMetric):
    """The gradients of squared differences, with given values."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def _bind(self, static, mask, moving):
        evaluate, values = super()._bind(static, mask, moving), iter(self.values)
        return lambda warped: (warped.new_tensor(next(values)), evaluate(warped)[1])


def refine_with_energies(values, iterations):
    """Fields and ``"level_reverted"`` events of a level with these energies."""
    static, moving, _ = displaced((32, 30))
    seen = []
    found = refine(
        make_pair(static, moving),
        Objective(GivenValues(values)),
        level_iters=[iterations],
        observer=lambda *event: seen.append(event),
    )
    return found, [event for event in seen if event[0] == "level_reverted"]


@pytest.mark.parametrize(
    "values, best",
    [
        ([1.0, 0.5, 0.3, 0.7, 1.2], 2),
        ([1.0, 0.5, 0.3, 0.7, 0.2, 3.0], 4),
        ([1.0] * 8 + [0.9] + [2.0], 8),
        ([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.3, 0.4, 4.0], 9),
        ([1.0, 2.0, 3.0], 0),
    ],
)
def test_a_level_that_ends_worse_keeps_its_best_fields(values, best):
    found, reverted = refine_with_energies(values, len(values))
    assert reverted == [("level_reverted", 0, pytest.approx(values[best]))]
    if best:
        wanted, none = refine_with_energies([1.0] * best, best)
        assert not none
    else:
        wanted = torch.zeros_like(found[0]), torch.zeros_like(found[1])
    for ours, theirs in zip(found, wanted):
        assert torch.equal(ours, theirs)


def test_a_level_that_ends_better_is_kept_as_it_ends():
    """Also if the energy was lower in between."""
    found, reverted = refine_with_energies([1.0, 0.2, 0.9], 3)
    wanted, _ = refine_with_energies([1.0, 0.9, 0.8], 3)
    assert not reverted and torch.equal(found[0], wanted[0])


def test_a_level_of_increasing_energy_is_undone():
    static, moving, expected = displaced((32, 30))
    pair, seen = make_pair(static, moving), []
    start = torch.from_numpy(expected[None].astype(np.float32))
    u, _ = refine(
        pair,
        Objective(SSDMetric()),
        level_iters=[2],
        step=30.0,
        start=(start, -start),
        observer=lambda *event: seen.append(event[0]),
    )
    torch.testing.assert_close(u, start)
    assert seen[-2:] == ["level_reverted", "level_end"]


def test_without_iterations_the_start_is_returned():
    static, moving, expected = displaced((32, 30))
    pair = make_pair(static, moving)
    start = torch.from_numpy(expected[None].astype(np.float32))
    u, v = refine(pair, Objective(SSDMetric()), level_iters=[0], start=(start, -start))
    torch.testing.assert_close(u, start)
    torch.testing.assert_close(v, -start)


def test_coarser_levels_have_isotropic_voxels():
    grid = Grid((40, 40, 10), np.diag([1.0, 1, 4, 1]))
    assert level_spacings(grid, 3) == [4, 2, 1]
    pair = make_pair(
        texture((40, 40, 10)),
        texture((40, 40, 10), seed=1),
        static_grid2world=grid.affine,
        moving_grid2world=grid.affine,
    )
    coarse = coarsen(pair, 4.0, sigma_factor=0.5)
    assert coarse.static_grid.shape == (11, 11, 10)
    np.testing.assert_allclose(coarse.static_grid.spacing, [3.9, 3.9, 4])


def test_coarsening_keeps_world_coordinates():
    """An image that is linear in world coordinates remains the same function."""
    affine = np.array([[1.0, 0.2, 5], [-0.1, 1.5, -3], [0, 0, 1]])
    world = np.einsum("ij,j...->i...", affine[:2, :2], np.indices((33, 41)))
    image = world[0] + affine[0, 2]
    pair = make_pair(image, image, static_grid2world=affine, moving_grid2world=affine)
    coarse = coarsen(pair, 3.0, sigma_factor=0.5)
    grid = coarse.static_grid
    points = np.einsum("ij,j...->i...", grid.affine[:2, :2], np.indices(grid.shape))
    there = points[0] + grid.affine[0, 2]
    kept = coarse.static[0, 0].numpy()
    inner = (slice(2, -2), slice(2, -2))
    slope, offset = np.polyfit(there[inner].ravel(), kept[inner].ravel(), 1)
    np.testing.assert_allclose(kept[inner], slope * there[inner] + offset, atol=1e-4)


def test_a_penalty_makes_the_field_smoother():
    static, moving, _ = displaced((40, 36), amplitude=3.0)
    pair = make_pair(static, moving)

    def roughness(objective):
        u, _ = refine(pair, objective, level_iters=[30, 30])
        return diffusion(u).item()

    plain = roughness(Objective(SSDMetric()))
    assert roughness(Objective(SSDMetric(), regularizer=bending, weight=1.0)) < plain


def test_voxels_outside_the_moving_image_are_not_compared():
    """With half of the field of view, the field is accurate in the overlap."""
    static, moving, expected = displaced((48, 40))
    shift = np.eye(3)
    shift[0, 2] = 20  # the first 20 rows of moving are missing
    pair = make_pair(static, moving[20:], moving_grid2world=shift)
    assert not pair.overlap()[0, 0, :19].any() and pair.overlap()[0, 0, 20:].all()
    u, _ = refine(pair, Objective(CCMetric()), level_iters=[60, 40])
    inner = (slice(None), slice(26, -4), slice(4, -4))
    before = np.sqrt((expected[inner] ** 2).mean())
    after = np.sqrt(((u[0].numpy() - expected)[inner] ** 2).mean())
    assert after < 0.6 * before


def test_the_observer_is_called_at_every_stage():
    static, moving, _ = displaced((24, 24), amplitude=8)
    seen = []
    refine(
        make_pair(static, moving),
        Objective(SSDMetric()),
        level_iters=[2, 1],
        observer=lambda *event: seen.append(event),
    )
    stages = [(stage, level) for stage, level, _ in seen]
    iteration = ["iteration_start", "iteration_end"]
    assert stages == [
        *((s, 1) for s in ["level_start", *iteration, *iteration, "level_end"]),
        *((s, 0) for s in ["level_start", *iteration, "level_end"]),
    ]
    assert all(isinstance(e, float) for s, _, e in seen if s == "iteration_end")


@pytest.mark.parametrize("metric", [CCMetric, SSDMetric, NCCMetric])
def test_identical_images_are_not_moved(metric):
    image = texture((30, 28, 26))
    u, v = refine(make_pair(image, image), Objective(metric()), level_iters=[20, 10])
    assert u.abs().max() < 0.02 and v.abs().max() < 0.02


@pytest.mark.parametrize("name", sorted(METRICS))
def test_no_metric_moves_an_object_with_plateaus(name):
    """Plateaus, edges and background, which are difficult for histograms."""
    shape = (40, 46, 38)
    affine = phantom.grid(shape, 4.5)
    image = phantom.image(shape, affine)
    pair = make_pair(image, image, static_grid2world=affine, moving_grid2world=affine)
    u, _ = refine(pair, Objective(metric_by_name(name)), level_iters=[40, 20])
    away = torch.linalg.vector_norm(u, dim=1)
    assert away.mean() < 0.01 and away.max() < 0.05
