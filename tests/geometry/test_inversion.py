"""Inversion of fields, absence of folds, and inverse consistency."""

import numpy as np
import pytest
from scipy import ndimage
import torch

from dipy_dl_reg.geometry import fold_repair
from dipy_dl_reg.geometry.derivatives import jacobian
from dipy_dl_reg.geometry.fields import identity
from dipy_dl_reg.geometry.fold_repair import (
    LEAST_JACOBIAN,
    ROUND_TRIP_MAX,
    ROUND_TRIP_MEAN,
    make_diffeomorphic,
    measure_quality,
    repair_folds,
)
from dipy_dl_reg.geometry.inversion import (
    enforce_inverse_consistency,
    invert,
    round_trip,
)

SHAPES = [(40, 32), (24, 20, 22), (24, 1, 20)]


def rough(shape, amplitude, seed=0, sigma=2.0):
    """Random field of a given size, which may fold."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((1, len(shape), *shape))
    noise = ndimage.gaussian_filter(noise, (0, 0, *[sigma] * len(shape)))
    noise *= amplitude / np.abs(noise).max()
    for axis, size in enumerate(shape):
        if size == 1:
            noise[:, axis] = 0
    return torch.from_numpy(noise.astype(np.float32))


def scipy_round_trip(u, v):
    """Inverse consistency error in NumPy, for points that stay inside."""
    shape = u.shape[2:]
    x = np.indices(shape).astype(float)
    y = x + u[0].numpy()
    back = [
        ndimage.map_coordinates(c, y, order=1, mode="nearest") for c in v[0].numpy()
    ]
    distance = np.linalg.norm(y + back - x, axis=0)
    ends = np.array(shape).reshape(-1, *[1] * len(shape)) - 1
    return distance[((y >= 0) & (y <= ends)).all(0)]


@pytest.mark.parametrize("squeeze", [0.5, 0.9, 0.97])
def test_inverse_of_strong_compression_and_stretch(squeeze):
    """Along each axis x + a sin(2 pi x / L): squeezed to 1 - squeeze, stretched."""
    size = 48
    x = identity((size, size), dtype=torch.float64)
    period = size - 1
    u = -squeeze * period / (2 * np.pi) * torch.sin(2 * np.pi * x / period)
    v = invert(u, newton=60)
    grid = np.arange(size, dtype=float)
    nodes = grid + u[0, 0, :, 0].numpy()
    expected = np.interp(grid, nodes, grid) - grid
    np.testing.assert_allclose(v[0, 0, :, 3], expected, atol=5e-3)
    np.testing.assert_allclose(v[0, 1, 5], expected, atol=5e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip_is_scipys(shape):
    u, v = rough(shape, 1.5), rough(shape, 1.5, seed=1)
    expected = scipy_round_trip(u, v)
    distance, inside = round_trip(u, v)
    assert inside.sum() == len(expected)
    assert distance.shape == (1, 1, *shape)
    assert distance.max().item() == pytest.approx(expected.max(), rel=1e-4)
    assert distance.sum().item() == pytest.approx(expected.sum(), rel=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_inverse_consistency_lowers_both_errors(shape):
    u = rough(shape, 2.0, sigma=3.0)
    v = invert(u)
    before = measure_quality(u, v)
    for _ in range(4):
        u, v = enforce_inverse_consistency(u, v)
    after = measure_quality(u, v)
    assert after.round_trip_mean < before.round_trip_mean
    assert after.round_trip_max < before.round_trip_max


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("amplitude", [1.0, 4.0, 12.0])
def test_the_promise(shape, amplitude):
    """Also for fields that fold badly; measured here in NumPy, not by the package."""
    given = rough(shape, amplitude)
    u, v, quality = make_diffeomorphic(given)
    for field in (u, v):
        matrix = np.zeros((*shape, len(shape), len(shape)))
        for i, component in enumerate(field[0].numpy().astype(float)):
            for j, size in enumerate(shape):
                if size > 1:
                    matrix[..., i, j] = np.gradient(component, axis=j)
        assert np.linalg.det(matrix + np.eye(len(shape))).min() > 0
    for distance in (scipy_round_trip(u, v), scipy_round_trip(v, u)):
        assert distance.mean() <= 0.05 and distance.max() <= 0.5
    assert quality.minimum_jacobian == pytest.approx(jacobian(u).min().item())


@pytest.fixture
def bounded(monkeypatch):
    """Fail instead of an endless loop."""
    calls, measured = [], fold_repair._VoxelMeasures.of.__func__

    def of(cls, u, v):
        calls.append(len(calls))
        # At most 31 rounds, each with a measure before each of six corrections, one
        # after them, and one before the smoothing: 248.
        assert len(calls) < 250, "no end to the repairs"
        return measured(cls, u, v)

    monkeypatch.setattr(fold_repair._VoxelMeasures, "of", classmethod(of))


@pytest.mark.parametrize("amplitude", [1e3, 1e6, 1e30, 3e38])
@pytest.mark.parametrize("shape", [(32, 32), (48, 48), (20, 18, 1)])
def test_any_finite_field_ends_sound(shape, amplitude, bounded):
    """Smoothing cannot repair a displacement of a thousand voxels."""
    u, v, quality = make_diffeomorphic(rough(shape, amplitude))
    assert torch.isfinite(u).all() and torch.isfinite(v).all()
    assert jacobian(u).min() > 0 and jacobian(v).min() > 0
    for distance in (scipy_round_trip(u, v), scipy_round_trip(v, u)):
        if len(distance):  # else all of the grid leaves it, without a fold
            assert distance.mean() <= 0.05 and distance.max() <= 0.5
    assert quality.minimum_jacobian == pytest.approx(jacobian(u).min().item())
    if amplitude > 1e10:  # it comes to nothing
        assert not u.any() and not v.any() and u is not v
        assert quality[:4] == (1, 1, 0, 0) and quality.repairs > 20


def test_a_sound_field_is_left_nearly_alone():
    given = rough((24, 20, 22), 1.0, sigma=4.0)
    u, _, quality = make_diffeomorphic(given)
    assert quality.repairs == 0
    assert (u - given).abs().max() < 0.05


def test_a_pair_within_the_limits_is_not_changed():
    given = rough((24, 20, 22), 1.0, sigma=4.0)
    inverse = invert(given)
    u, v, _ = make_diffeomorphic(given, inverse)
    assert torch.equal(u, given) and torch.equal(v, inverse)


def test_the_inverse_is_corrected_only_where_a_limit_is_violated():
    given = rough((24, 20, 22), 1.0, sigma=4.0)
    inverse = invert(given)
    inverse[0, :, 12, 10, 11] += 0.5
    u, v, quality = make_diffeomorphic(given, inverse)
    assert quality.round_trip_max <= 0.5 and quality.repairs == 0
    assert not torch.equal(v[:, :, 12], inverse[:, :, 12])
    assert torch.equal(u[:, :, :4], given[:, :, :4])
    assert torch.equal(v[:, :, 20:], inverse[:, :, 20:])


@pytest.mark.parametrize("shape", SHAPES)
def test_where_a_field_leads_out_of_the_grid_it_is_kept(shape):
    """The other field is unknown outside the grid."""
    given = rough(shape, 6.0, sigma=8.0)
    inverse = invert(given)
    _, inside = round_trip(given, inverse)
    assert 0.05 < (~inside).float().mean() < 0.5
    once, back = enforce_inverse_consistency(given, inverse)
    assert ((once == given) | inside).all() and not torch.equal(once, given)
    _, back_inside = round_trip(inverse, given)
    assert ((back == inverse) | back_inside).all()
    u, _, quality = make_diffeomorphic(given)
    assert quality.repairs == 0
    assert (u - given).abs().max() < 0.1


def test_a_fold_that_no_point_of_the_other_field_reaches():
    u = torch.zeros(1, 2, 48, 48)
    u[:, 0] = 20
    v = -u
    v[:, 0, 6:9, 20:23] += 12
    u, v, _ = make_diffeomorphic(u, v)
    assert jacobian(u).min() > 0 and jacobian(v).min() > 0


def test_the_mean_is_over_points_that_stay_inside():
    u = torch.zeros(1, 2, 40, 40)
    u[:, 0] = 30
    v = -u + 0.2
    assert measure_quality(u, v).round_trip_mean == pytest.approx(
        0.2 * 2**0.5, rel=1e-4
    )


def test_no_displacement_stays_none():
    u, v, quality = make_diffeomorphic(torch.zeros(1, 3, 6, 7, 8))
    assert not u.any() and not v.any()
    assert quality == fold_repair.Quality(1.0, 1.0, 0.0, 0.0, 0)


def test_not_finite():
    u = torch.zeros(1, 2, 6, 6)
    u[0, 0, 2, 2] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        make_diffeomorphic(u)


def test_limits_are_those_that_are_promised():
    assert (ROUND_TRIP_MEAN, ROUND_TRIP_MAX) == (0.05, 0.5)
    assert LEAST_JACOBIAN > 0


def test_repair_folds_in_given_buffers():
    """The fields are the same with and without buffers for the result."""
    u, v = rough((16, 18, 14), 5.0), rough((16, 18, 14), 5.0, seed=1)
    wanted = repair_folds(u.clone(), v.clone())
    assert not torch.equal(wanted[0], u)  # there was something to mend
    room = torch.empty_like(u), torch.empty_like(v)
    for ours, theirs in zip(repair_folds(u.clone(), v.clone(), out=room), wanted):
        assert torch.equal(ours, theirs)
