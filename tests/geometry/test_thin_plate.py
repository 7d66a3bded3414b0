"""Thin-plate splines against SciPy, closed forms, and their own exact sum."""

import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator
import torch

from dipy_dl_reg.geometry.thin_plate import (
    KERNELS,
    evaluate_spline,
    fit_spline,
    invert_points,
    is_flat,
    jacobian_matrix,
)
from dipy_dl_reg.geometry.thin_plate_grid import sample_spline

OBLIQUE = {
    2: np.array([[3.0, 0.2, -70], [0.1, -3.5, 70], [0, 0, 1]]),
    3: np.array(
        [[3.0, 0.2, 0, -70], [0.1, -3.5, 0.3, 70], [0, 0.2, 4, -80], [0, 0, 0, 1]]
    ),
}


def landmarks(dim, count=40, noise=4.0):
    rng = np.random.default_rng(dim)
    points = rng.uniform(-80, 80, (count, dim))
    return points, points + rng.normal(0, noise, points.shape) + 300.0


def spline_of(points, targets, **options):
    return fit_spline(torch.from_numpy(points), torch.from_numpy(targets), **options)


def at(spline, points):
    return evaluate_spline(spline, torch.from_numpy(points)).numpy()


@pytest.mark.parametrize("regularization", [0.0, 0.01])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dim", [2, 3])
def test_it_is_scipys(dim, kernel, regularization):
    """Of both kernels, and with the smoothing that the docstring gives."""
    points, targets = landmarks(dim)
    spline = spline_of(points, targets, kernel=kernel, regularization=regularization)
    size = np.sqrt(np.square(points - points.mean(0)).sum(1).mean())
    logarithmic = kernel == "thin_plate_spline" or dim == 2
    expected = RBFInterpolator(
        points,
        targets,
        kernel="thin_plate_spline" if logarithmic else "linear",
        degree=1,
        smoothing=regularization * len(points) * size ** (2 if logarithmic else 1),
    )
    x = np.random.default_rng(9).uniform(-150, 150, (200, dim))
    np.testing.assert_allclose(at(spline, x), expected(x), rtol=0, atol=1e-6)
    if not regularization:
        np.testing.assert_allclose(at(spline, points), targets, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dim", [2, 3])
def test_affine_targets_give_that_affine_map(dim, kernel):
    points, _ = landmarks(dim)
    linear = OBLIQUE[dim][:dim, :dim]
    targets = points @ linear.T + 500
    for regularization in (0.0, 1.0):
        spline = spline_of(
            points, targets, kernel=kernel, regularization=regularization
        )
        x = np.random.default_rng(9).uniform(-300, 300, (50, dim))
        np.testing.assert_allclose(at(spline, x), x @ linear.T + 500, rtol=0, atol=1e-8)
        np.testing.assert_allclose(
            spline.nearest_affine[:dim, :dim], linear, atol=1e-12
        )


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_unit_of_length_does_not_matter(kernel):
    points, targets = landmarks(3)
    x = np.random.default_rng(9).uniform(-80, 80, (50, 3))
    options = {"kernel": kernel, "regularization": 0.01}
    in_mm = at(spline_of(points, targets, **options), x)
    in_m = at(spline_of(points / 1000, targets / 1000, **options), x / 1000)
    np.testing.assert_allclose(1000 * in_m, in_mm, rtol=1e-9)


def test_regularization_leads_to_the_nearest_affine_map():
    points, targets = landmarks(2)
    misses, bends = [], []
    for regularization in (0, 1e-3, 1e-2, 1e-1, 1e6):
        spline = spline_of(points, targets, regularization=regularization)
        misses.append(np.linalg.norm(at(spline, points) - targets))
        bends.append(float(spline.weights.norm()))
    assert misses == sorted(misses) and bends == sorted(bends, reverse=True)
    ones = np.c_[points, np.ones(len(points))]
    nearest = ones @ np.linalg.lstsq(ones, targets, rcond=None)[0]
    np.testing.assert_allclose(at(spline, points), nearest, atol=1e-3)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dim", [2, 3])
def test_derivatives(dim, kernel):
    spline = spline_of(*landmarks(dim), kernel=kernel)
    x = np.random.default_rng(9).uniform(-100, 100, (30, dim))
    steps = 1e-4 * np.eye(dim)
    expected = np.stack(
        [(at(spline, x + s) - at(spline, x - s)) / 2e-4 for s in steps], -1
    )
    found = jacobian_matrix(spline, torch.from_numpy(x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    there = jacobian_matrix(spline, spline.points * spline.scale + spline.centre)
    assert bool(torch.isfinite(there).all())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dim", [2, 3])
def test_points_come_back(dim, kernel):
    points, targets = landmarks(dim, noise=2.0)
    spline = spline_of(points, targets, kernel=kernel)
    x = torch.from_numpy(np.random.default_rng(9).uniform(-80, 80, (50, dim)))
    back = invert_points(spline, evaluate_spline(spline, x), start=x + 3)
    found = ~back.isnan().any(1)
    assert found.float().mean() > 0.9
    away = evaluate_spline(spline, back[found]) - evaluate_spline(spline, x[found])
    assert away.abs().max() < 1e-6


def test_what_is_reached_by_no_point_is_nan():
    points, _ = landmarks(2, count=9)
    spline = spline_of(points, points)
    squashed = spline._replace(affine=torch.diag(spline.affine.new_tensor([1, 0, 1])))
    y = torch.tensor([[5.0, 7.0], [5.0, 0.0]])
    back = invert_points(squashed, y, start=y)
    assert back[0].isnan().all() and bool(torch.isfinite(back[1]).all())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dim", [2, 3])
def test_a_field_holds_the_spline(dim, kernel):
    """Voxel by voxel, and through the coarse grid within its tolerance."""
    points, targets = landmarks(dim)
    points = np.concatenate([points, [[-400.0, 20, 30][:dim]]])  # far outside
    targets = np.concatenate([targets, points[-1:] + 305])
    spline = spline_of(points, targets, kernel=kernel)
    shape = (50, 37, 30)[:dim]
    to_world = OBLIQUE[dim]
    from_world = np.linalg.inv(to_world + np.eye(dim + 1, k=dim) * 300)
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    flat = voxels.reshape(-1, dim)
    world = at(spline, flat @ to_world[:dim, :dim].T + to_world[:dim, dim])
    expected = world @ from_world[:dim, :dim].T + from_world[:dim, dim] - flat
    expected = expected.T.reshape(1, dim, *shape)
    matrices = to_world, from_world
    exact = sample_spline(spline, shape, *matrices, stride=0).numpy()
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-4)
    # These move 4 mm at random every 20 or so, which no anatomy does.
    largest = {2: 0.08, 3: 0.03}[dim]
    for stride in (4, 2.5):
        quick = sample_spline(spline, shape, *matrices, stride=stride).numpy()
        np.testing.assert_allclose(quick, expected, rtol=0, atol=largest)


def test_a_thousand_points_are_held_within_tolerance():
    """The coarse grid is as fine as it has to be."""
    rng = np.random.default_rng(0)
    shape = (40, 36, 6)
    points = rng.uniform(0, shape, (1000, 3))
    targets = points + np.sin(points / 8) + rng.normal(0, 0.1, points.shape)
    spline = spline_of(points, targets)
    field = sample_spline(spline, shape, np.eye(4), np.eye(4)).numpy()
    voxels = rng.integers(0, shape, (300, 3))
    expected = at(spline, voxels.astype(float)) - voxels
    found = field[0][:, *voxels.T].T
    assert np.linalg.norm(found - expected, axis=1).max() < 0.05


def test_one_slice():
    points, targets = landmarks(3)
    spline = spline_of(points, targets)
    field = sample_spline(spline, (20, 18, 1), np.eye(4), np.eye(4), stride=4)
    exact = sample_spline(spline, (20, 18, 1), np.eye(4), np.eye(4), stride=0)
    torch.testing.assert_close(field, exact, rtol=0, atol=0.03)


@pytest.mark.parametrize("dim", [2, 3])
def test_flat_points_are_told(dim):
    points, targets = landmarks(dim)
    assert not is_flat(torch.from_numpy(points))
    assert is_flat(torch.from_numpy(points[:dim]))
    normal = np.arange(1.0, dim + 1) / np.linalg.norm(np.arange(1.0, dim + 1))
    flat = points - (points @ normal)[:, None] * normal + 1000
    assert is_flat(torch.from_numpy(flat))
    with pytest.raises(ValueError, match="line" if dim == 2 else "plane"):
        spline_of(flat, targets)


def test_a_fit_is_the_same_in_every_call():
    """Bit for bit, wherever the memory of its arrays lies."""
    generator = torch.Generator().manual_seed(0)
    points = 40 * torch.rand(30, 3, generator=generator)
    targets = points + torch.randn(30, 3, generator=generator)
    first = fit_spline(points, targets)
    others = []  # kept, so that each fit finds other memory
    for count in range(1, 40):
        others.append((torch.zeros(count), fit_spline(points, targets)))
    for _, spline in others:
        assert torch.equal(spline.weights, first.weights)
        assert torch.equal(spline.affine, first.affine)
        assert torch.equal(spline.nearest_affine, first.nearest_affine)
