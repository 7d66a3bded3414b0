"""Penalty on landmarks: its value in mm, its gradient and the bound of that."""

import numpy as np
import pytest
import torch

from dipy_dl_reg.geometry.fields import sample
from dipy_dl_reg.geometry.inversion import invert
from dipy_dl_reg.geometry.pair import move_pair
from dipy_dl_reg.geometry.point_pairs import to_voxels
from dipy_dl_reg.geometry.pyramid import coarsen
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.metrics.ssd import SSDMetric
from dipy_dl_reg.optimization.deformable import refine
from dipy_dl_reg.optimization.landmark_penalty import LandmarkPenalty
from dipy_dl_reg.registration.dipy_adapter import make_pair, with_landmarks

#: A gradient of the images so large that no landmark is bounded.
FREE = torch.tensor(1e9)
SHAPES = {2: (14, 12), 3: (10, 9, 8)}


def case(dim, count=7):
    """A pair with oblique grids, a prealign and landmarks, and a field."""
    rng = np.random.default_rng(dim)
    shape = SHAPES[dim]
    static_grid = np.eye(dim + 1)
    static_grid[:dim, :dim] = np.diag([2.0, -1.5, 3][:dim]) + 0.1
    static_grid[:dim, dim] = [5, -8, 2][:dim]
    prealign = np.eye(dim + 1)
    prealign[:dim, :dim] = 1.2 * np.eye(dim) + 0.05
    prealign[:dim, dim] = 4
    pair = make_pair(
        rng.random(shape),
        rng.random(shape),
        static_grid2world=static_grid,
        moving_grid2world=prealign @ static_grid,
        prealign=prealign,
    )
    places = rng.uniform(0, np.array(shape) - 1, (count, dim))
    points = places @ static_grid[:dim, :dim].T + static_grid[:dim, dim]
    targets = points + rng.normal(0, 2, points.shape)
    targets = targets @ prealign[:dim, :dim].T + prealign[:dim, dim]
    u = torch.from_numpy(rng.normal(0, 1, (1, dim, *shape)).astype(np.float32))
    return with_landmarks(pair, (points, targets)), points, targets, u


@pytest.mark.parametrize("dim", [2, 3])
def test_penalty_is_the_mean_squared_distance_in_mm(dim):
    pair, points, targets, u = case(dim)
    places = to_voxels(pair.static_grid, torch.from_numpy(points))
    at = places + sample(u.double(), places.T).T
    matrix = pair.prealign @ pair.static_grid.affine
    there = at.numpy() @ matrix[:dim, :dim].T + matrix[:dim, dim]
    expected = 0.3 * np.square(there - targets).sum(1).mean()
    found = LandmarkPenalty(pair, 0.3, 1.0).add_gradient(
        u, torch.zeros_like(u), largest=FREE
    )
    assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dim", [2, 3])
def test_its_gradient_is_spread_over_voxels(dim):
    pair, _, _, u = case(dim)
    penalty = LandmarkPenalty(pair, 0.3, 1.0)
    u.requires_grad_()
    missed = sample(u, penalty.points) - penalty.displacements
    (0.3 / 7 * (missed * (penalty.metric @ missed)).sum()).backward()
    gradient = torch.zeros_like(u)
    penalty.add_gradient(u.detach(), gradient, largest=FREE)
    # spread over more voxels than those that linear interpolation uses
    whole = gradient.flatten(2).sum(2)
    torch.testing.assert_close(whole, u.grad.flatten(2).sum(2), rtol=1e-4, atol=1e-4)
    assert float((gradient * u.grad).sum()) > 0


@pytest.mark.parametrize("dim", [2, 3])
def test_its_gradient_is_bounded_by_that_of_the_images(dim):
    """Bounded by the largest gradient of the images, after smoothing."""
    pair, _, _, u = case(dim)
    landmarks = pair.landmarks._replace(
        points=pair.landmarks.points[:1], targets=pair.landmarks.targets[:1] + 9
    )
    sigma = 1.0
    for weight, bounded in ((1e9, True), (1e-9, False)):
        gradient = torch.zeros_like(u)
        penalty = LandmarkPenalty(pair._replace(landmarks=landmarks), weight, sigma)
        penalty.add_gradient(u, gradient, largest=torch.tensor(0.2))
        longest = float(smooth(gradient, sigma).norm(dim=1).max())
        assert (0.07 if bounded else 0) < longest < (0.5 if bounded else 1e-5)


def test_landmarks_outside_the_grid_are_left_out():
    pair, points, targets, u = case(2)
    far = np.concatenate([points, points[:1] + 500])
    far_targets = np.concatenate([targets, targets[:1]])
    gradients = [torch.zeros_like(u), torch.zeros_like(u)]
    one = LandmarkPenalty(pair, 1.0, 1.0).add_gradient(u, gradients[0], largest=FREE)
    other = LandmarkPenalty(with_landmarks(pair, (far, far_targets)), 1.0, 1.0)
    assert float(one) == float(other.add_gradient(u, gradients[1], largest=FREE))
    assert torch.equal(*gradients)


@pytest.mark.parametrize("dim", [2, 3])
def test_landmarks_after_a_field(dim):
    """The field maps the remaining targets to the given ones."""
    pair, _, _, _ = case(dim)
    shape = SHAPES[dim]
    axes = torch.meshgrid(*(torch.linspace(0, 1, n) for n in shape), indexing="ij")
    u = torch.stack([0.5 * torch.sin(2 * a + k) for k, a in enumerate(axes)])[None]
    left = move_pair(pair, u, invert(u)).landmarks
    aims = to_voxels(pair.static_grid, left.targets)
    inner = ((aims >= 1) & (aims <= torch.tensor(shape) - 2)).all(1)
    wanted = to_voxels(pair.static_grid, pair.landmarks.targets)
    reached = aims + sample(u.double(), aims.T).T
    assert inner.any()
    torch.testing.assert_close(reached[inner], wanted[inner], rtol=0, atol=0.02)
    assert torch.equal(left.points, pair.landmarks.points)


def test_coarser_levels_have_the_same_penalty():
    pair, _, _, u = case(2)
    coarse = coarsen(pair, 6.0, sigma_factor=0.5)
    assert coarse.landmarks is pair.landmarks
    none = torch.zeros(1, 2, *coarse.static_grid.shape)
    one = LandmarkPenalty(coarse, 1.0, 1.0).add_gradient(none, none + 1, largest=FREE)
    other = LandmarkPenalty(pair, 1.0, 1.0).add_gradient(
        torch.zeros_like(u), torch.zeros_like(u), largest=FREE
    )
    assert float(one) == pytest.approx(float(other), rel=1e-4)


@pytest.mark.parametrize("weight", [1.0, 1e6])
def test_refinement_converges_to_the_landmarks(weight):
    """With equal images, from a distance, and with any weight."""
    rng = np.random.default_rng(0)
    image = rng.random((40, 36))
    points = np.array([[10.0, 10], [28, 9], [18, 25], [30, 28]])
    targets = points + [2.0, -1.5]
    pair = with_landmarks(make_pair(image, image), (points, targets))
    objective = Objective(SSDMetric(), landmark_weight=weight)
    u, _ = refine(pair, objective, level_iters=[40, 40])
    there = sample(u, torch.from_numpy(points.T).float()).T.numpy() + points
    assert np.linalg.norm(there - targets, axis=1).max() < 0.5


def test_without_weight_landmarks_change_nothing():
    rng = np.random.default_rng(0)
    pair = make_pair(rng.random((30, 28)), rng.random((30, 28)))
    points = np.array([[10.0, 10], [20, 9], [18, 25]])
    guided = with_landmarks(pair, (points, points + 3))
    fields = [
        refine(p, Objective(SSDMetric()), level_iters=[10, 5]) for p in (pair, guided)
    ]
    assert all(torch.equal(*both) for both in zip(*fields, strict=True))
    with pytest.raises(ValueError, match="landmark_weight"):
        Objective(SSDMetric(), landmark_weight=-1)
