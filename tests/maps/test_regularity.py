"""Jacobian determinants, folds and inverse consistency against formulas."""

from maps import affine, make_map, oblique_map, smooth_field
import numpy as np
from numpy.testing import assert_allclose
import pytest
from scipy.ndimage import gaussian_filter

from dipy_dl_reg import DeepRegistration
from dipy_dl_reg.maps.regularity import (
    RegularityMeasures,
    jacobian_determinant,
    measure_regularity,
)


@pytest.mark.parametrize("dim", [2, 3])
def test_jacobian_of_a_linear_map(rng, dim):
    """u(x) = (M - I) x has the determinant of M everywhere, on any grid."""
    shape = (6, 5, 7)[:dim]
    grid = affine([2.0, -1.5, 3.0][:dim], (0.3, -0.2, 0.1), [4.0] * dim)
    linear = np.eye(dim) + rng.uniform(-0.2, 0.2, (dim, dim))
    voxels = np.moveaxis(np.indices(shape), 0, -1)
    world = voxels @ grid[:dim, :dim].T + grid[:dim, dim]
    field = (world @ (linear - np.eye(dim)).T).astype(np.float32)
    determinant = jacobian_determinant(field, grid)
    assert determinant.shape == shape
    assert_allclose(determinant, np.linalg.det(linear), rtol=1e-4)


def test_jacobian_agrees_with_an_analytic_one():
    """u_0 = a sin(k x_0): the determinant is 1 + a k cos(k x_0)."""
    spacing, k, a = 0.5, 0.2, 1.5
    x = spacing * np.arange(60)
    field = np.zeros((60, 4, 3))
    field = np.zeros((60, 4, 3, 3))
    field[..., 0] = a * np.sin(k * x)[:, None, None]
    found = jacobian_determinant(field, affine([spacing] * 3))
    wanted = 1 + a * k * np.cos(k * x)
    assert_allclose(found[1:-1, 2, 1], wanted[1:-1], atol=1e-3)


def test_folding_is_counted():
    mapping = make_map((10, 12), (10, 12), amplitude=0.2)
    numbers = measure_regularity(mapping)
    assert numbers.folds_percent == 0 == numbers.folds_percent_inverse
    assert 0 < numbers.minimum_jacobian < 1
    mapping.forward[5, 6, 0] = 4
    folded = measure_regularity(mapping)
    assert folded.minimum_jacobian_inverse < 0 < folded.minimum_jacobian
    # det of 1 + du/dx at the two neighbours along axis 0 is about 1 -+ 2
    assert folded.folds_percent_inverse == pytest.approx(100 / 120)
    assert folded.folds_percent == 0


@pytest.mark.parametrize("dim", [2, 3])
def test_round_trip_of_true_inverses_and_of_false_ones(dim):
    mapping = oblique_map(dim)
    good = measure_regularity(mapping)
    assert isinstance(good, RegularityMeasures)
    assert good.round_trip_max < 0.15
    assert all(np.isfinite(good))
    mapping.forward = np.zeros_like(mapping.forward)
    mapping.backward = np.zeros_like(mapping.backward)
    mapping.forward[..., 0] = 0.3
    lost = measure_regularity(mapping)
    assert_allclose([lost.round_trip_mean_mm, lost.round_trip_max_mm], 0.3, rtol=1e-5)
    world2grid = np.linalg.inv(mapping.disp_grid2world[:dim, :dim])
    voxels = 0.3 * np.linalg.norm(world2grid[:, 0])
    assert_allclose([lost.round_trip_mean, lost.round_trip_max], voxels, rtol=1e-5)


def test_round_trip_agrees_with_the_points_of_the_map():
    """Whichever field goes first: the worse of the two orders counts."""
    mapping = oblique_map()
    mapping.forward *= np.float32(0.9)
    mapping.forward[8, 10, 7] += np.float32(0.4)
    shape, grid = mapping.disp_shape, mapping.disp_grid2world
    voxels = np.indices(shape).reshape(3, -1).T
    world = voxels @ grid[:3, :3].T + grid[:3, 3]

    def errors(field, there, back):
        moved = world + field.reshape(-1, 3)
        at = (moved - grid[:3, 3]) @ np.linalg.inv(grid[:3, :3]).T
        inside = ((at >= -1e-5) & (at <= shape - 1 + 1e-5)).all(axis=1)
        return np.linalg.norm(back(there(world)) - world, axis=1)[inside]

    straight = mapping.shallow_copy()  # the prealign folds nothing and is left out
    straight.prealign = straight.prealign_inv = None
    calls = straight.transform_points, straight.transform_points_inverse
    both = [
        errors(mapping.backward, *calls),
        errors(mapping.forward, *reversed(calls)),
    ]
    assert abs(both[0].max() - both[1].max()) > 0.01
    numbers = measure_regularity(mapping)
    mean, most = (max(getattr(e, k)() for e in both) for k in ("mean", "max"))
    assert_allclose(numbers.round_trip_mean_mm, mean, rtol=1e-3)
    assert_allclose(numbers.round_trip_max_mm, most, rtol=1e-3)


@pytest.mark.parametrize("dim", [2, 3])
def test_log_and_report_tell_the_same(rng, dim):
    """On a registration that leaves the grid and had to be repaired."""
    shape = (24, 26, 22)[:dim]
    static, moving = (gaussian_filter(rng.random(shape), 2) for _ in range(2))
    grid = affine([1.5, -2, 2.5][:dim], (0.2, 0.1, 0), [3.0, 5, -4][:dim])
    registration = DeepRegistration("ssd", model=None, level_iters=[20, 20])
    mapping = registration.optimize(
        static, moving, static_grid2world=grid, moving_grid2world=grid
    )
    numbers, logged = measure_regularity(mapping), registration.quality
    for name in (
        *("round_trip_mean", "round_trip_max"),
        *("minimum_jacobian", "minimum_jacobian_inverse"),
    ):
        assert getattr(numbers, name) == pytest.approx(getattr(logged, name), rel=1e-3)


def test_singleton_axis_and_field_that_leaves():
    backward, forward = smooth_field((9, 8), np.eye(3), 0.5)
    mapping = make_map((9, 8, 1), (9, 8, 1))
    mapping.backward = np.zeros((9, 8, 1, 3), np.float32)
    mapping.forward = mapping.backward.copy()
    mapping.backward[..., 0, :2], mapping.forward[..., 0, :2] = backward, forward
    flat = measure_regularity(mapping)
    plane = make_map((9, 8), (9, 8))
    plane.backward, plane.forward = (f.astype(np.float32) for f in (backward, forward))
    assert_allclose(flat, measure_regularity(plane), rtol=1e-6)
    mapping.backward += 100
    mapping.forward += 100
    assert np.isnan(measure_regularity(mapping).round_trip_mean)
