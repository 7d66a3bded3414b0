"""Compiled loops against the plain functions, those in float64 wherever it helps."""

import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage
import torch

from dipy_dl_reg.geometry.derivatives import weighted_gradient
from dipy_dl_reg.geometry.fields import compose, frame, warp
from dipy_dl_reg.geometry.fold_repair import (
    _VoxelMeasures,
    measure_quality,
    repair_folds,
)
from dipy_dl_reg.geometry.inversion import enforce_inverse_consistency
from dipy_dl_reg.geometry.kernels import dispatch, loading
from dipy_dl_reg.geometry.kernels import functions as kernels
from dipy_dl_reg.geometry.smoothing import box_sum, smooth
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.optimization.adam import Adam
from dipy_dl_reg.optimization.deformable import refine
from dipy_dl_reg.registration.dipy_adapter import make_pair

pytestmark = pytest.mark.skipif(
    not dispatch.available(), reason="nothing was compiled on installation"
)

#: Odd sizes, thin slabs, single voxels along an axis, rows longer than one piece.
SHAPES = [
    *((17, 13, 21), (3, 19, 9), (1, 12, 10), (12, 1, 10), (1, 1, 5), (4, 3, 300)),
    *((33, 29), (1, 9), (9, 2), (5, 260)),
]


@pytest.fixture(autouse=True)
def implementation():
    """Replaces the folder's fixture: each test here selects loops or torch itself."""


@pytest.fixture
def calls(monkeypatch):
    """Names of the compiled functions that were called."""
    names, run = [], kernels.run

    def noted(name, *arguments):
        names.append(name)
        run(name, *arguments)

    monkeypatch.setattr(kernels, "run", noted)
    return names


def random(shape, channels, *, seed=0, sigma=1.0):
    """Smooth noise of unit range, float64."""
    noise = np.random.default_rng(seed).standard_normal((channels, *shape))
    sigmas = (0, *(sigma if n > 4 * sigma else 0 for n in shape))
    noise = ndimage.gaussian_filter(noise, sigmas)
    return torch.from_numpy(noise / np.ptp(noise))[None]


def inverse_pair(shape):
    u = random(shape, len(shape), seed=1)
    return u, -0.9 * u


def affine(dim):
    matrix = torch.eye(dim + 1, dtype=torch.float64)
    matrix[:dim, :dim] += 0.1 * random((dim, dim), 1, seed=5)[0, 0]
    matrix[:dim, dim] = 0.4
    return matrix


def through_frame(image, u):
    shape = tuple(u.shape[2:])
    larger = torch.nn.functional.pad(image, (2, 3))
    into = frame(shape, larger.shape[2:], affine=affine(len(shape)), dtype=u.dtype)
    return warp(larger, u, frame_=into)


def adam(first, second):
    method = Adam(first, epsilon=0.01)
    method.direction(first.clone(), 0.5)
    return method.direction(second.clone(), 0.5)


def checked(u, v):
    found = _VoxelMeasures.of(u, v)
    figures = found.mean, *found.quality()[:4]
    bad = found.find_violations(u, v, margin=0.5)
    return (*found[:4], *bad, torch.tensor(figures, dtype=torch.float64))


# Each is given two images and two fields.
FUNCTIONS = {
    "warp": lambda s, m, u, v: warp(m, 3 * u),
    "warp of a field": lambda s, m, u, v: warp(v, 3 * u),
    "warp through a frame": lambda s, m, u, v: through_frame(m, u),
    "warp far beyond": lambda s, m, u, v: warp(m, 1e6 * u),
    "compose": lambda s, m, u, v: compose(u, v),
    "compose, scaled": lambda s, m, u, v: compose(u, v, scale=-1),
    "weighted_gradient": lambda s, m, u, v: weighted_gradient(m, s),
    "smooth": lambda s, m, u, v: smooth(u, 0.7),
    "smooth, sigma 1": lambda s, m, u, v: smooth(u, 1.0),
    "smooth one axis": lambda s, m, u, v: smooth(u, [*[0.0] * (u.ndim - 3), 1.3]),
    "smooth widely": lambda s, m, u, v: smooth(m, 4.0),
    "box_sum": lambda s, m, u, v: box_sum(u, 2),
    "box_sum, wide": lambda s, m, u, v: box_sum(m, 7),
    "enforce_inverse_consistency": lambda s, m, u, v: enforce_inverse_consistency(u, v),
    "repair_folds": lambda s, m, u, v: repair_folds(u, v),
    "checked": lambda s, m, u, v: checked(u, v),
    "Adam": lambda s, m, u, v: adam(u, v),
    **{
        f"CC, radius {r}": lambda s, m, u, v, r=r: CCMetric(radius=r).bind(s)(m)
        for r in (1, 2, 6)
    },
    "CC, mask": lambda s, m, u, v: CCMetric().bind(s, (u[:, :1] > 0).to(u))(m),
}


def data(shape, dtype):
    images = (random(shape, 1, seed=seed) + 0.5 for seed in (2, 3))
    return [x.to(dtype) for x in (*images, *inverse_pair(shape))]


def several(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_same_as_plain(name, shape, calls):
    """Within rounding of float32: of values, and of coordinates."""
    expected = several(FUNCTIONS[name](*data(shape, torch.float64)))
    assert not calls
    result = several(FUNCTIONS[name](*data(shape, torch.float32)))
    assert calls
    for one, other in zip(result, expected):
        assert one.dtype in (torch.float32, other.dtype)
        # Variances are differences of squares: fewer digits are left.
        loss = 20 if name.startswith("CC") else 1
        scale = float(other.abs().max().clamp_min(0.1)) * loss
        near = 1e-5 * scale + torch.finfo(torch.float32).eps * max(shape)
        torch.testing.assert_close(one.double(), other, rtol=0, atol=near)


@pytest.mark.parametrize("shape", [(17, 13, 21), (33, 29)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_threads_change_no_bit(name, shape, calls, monkeypatch):
    monkeypatch.setattr(dispatch, "_LEAST_VOXELS", 1)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(several(FUNCTIONS[name](*data(shape, torch.float32))))
    finally:
        torch.set_num_threads(before)
    assert calls
    for others in results[1:]:
        for one, other in zip(results[0], others):
            assert torch.equal(one, other)


@pytest.mark.parametrize("shape", [(9, 8, 7), (9, 8)], ids=str)
def test_in_place_and_across_strides(shape, calls):
    image, _, u, v = data(shape, torch.float32)
    expected = smooth(u, 1.0)
    flipped = u.transpose(2, 3).contiguous().transpose(2, 3)
    assert not flipped.is_contiguous()
    torch.testing.assert_close(smooth(flipped, 1.0), expected, rtol=0, atol=0)
    out = torch.empty_like(flipped)
    assert smooth(u, 1.0, out=out) is out
    assert torch.equal(out, expected)
    assert torch.equal(warp(v, flipped), warp(v, u))
    same = u.clone()
    assert smooth(same, 1.0, out=same) is same
    assert torch.equal(same, expected)
    assert torch.equal(u, data(shape, torch.float32)[2])
    lost = u.clone()
    assert torch.equal(smooth(lost, 1.0, out=out, scratch=lost), expected)
    assert calls


def test_nan_is_kept_inside_and_told(calls):
    """NaN causes no access out of bounds, and counts as a violation."""
    image, _, u, v = data((9, 8, 7), torch.float32)
    u[0, 1, 4, 4, 4] = float("nan")
    warped = warp(image, u)
    assert image.min() <= warped.min() and warped.max() <= image.max()
    assert np.isnan(measure_quality(u, v).minimum_jacobian)
    found, bad = _VoxelMeasures.of(u, v), _VoxelMeasures.of(u, v).find_violations(u, v)
    with dispatch.without_kernels():
        expected = _VoxelMeasures.of(u, v)
        assert torch.equal(found.jacobian.isnan(), expected.jacobian.isnan())
        torch.testing.assert_close(bad, expected.find_violations(u, v))
    assert adam(u, v).isnan().all()
    assert CCMetric().bind(image)(warp(image, v).fill_(float("nan")))[0].isnan()
    assert smooth(u, 0.7)[0, 1, 4, 4, 4].isnan()


def test_infinity_goes_to_the_edge(calls):
    image, _, u, _ = data((9, 8, 7), torch.float32)
    u[0, 0] = torch.tensor([-torch.inf, torch.inf])[torch.arange(9) % 2][:, None, None]
    with dispatch.without_kernels():
        flat = u.clone()
        flat[:, 0] = flat[:, 0].clamp(-1e4, 1e4)
        expected = warp(image, flat)
    torch.testing.assert_close(warp(image, u), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1, 1, 4, 4, dtype=torch.float64),
        torch.zeros(1, 1, 4, 4, dtype=torch.int32),
        torch.zeros(2, 1, 4, 4),
        torch.zeros(1, 1, 4, 1),
        torch.zeros(1, 1, 0, 4),
        torch.zeros(1, 1, 4),
        torch.zeros(1, 1, 4, 4, device="meta"),
        torch.zeros(1, 1, 4, 4, requires_grad=True),
    ],
)
def test_what_does_not_suit(tensor):
    assert dispatch.supports(torch.zeros(1, 1, 4, 4), None)
    assert not dispatch.supports(torch.zeros(1, 1, 4, 4), tensor)


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(1, 1, 6, 7, 8, dtype=torch.float64),
        torch.ones(1, 1, 6, 7, 8, device="meta"),
        torch.ones(1, 1, 6, 7, 8, dtype=torch.bool),
    ],
)
def test_what_a_loop_cannot_read_does_not_reach_it(mask):
    images = [torch.ones(1, 1, 6, 7, 8)] * 4
    options = {"radius": 1, "floor": 1e-3, "total": 336}
    with pytest.raises(ValueError, match="takes contiguous torch.float32 on the CPU"):
        kernels.LocalCorrelation(*images, mask, **options)


def test_offsets_beyond_32_bits_are_left_to_torch():
    many = torch.zeros(1).expand(1, 1, 2048, 1024, 1024)
    assert many.numel() == 2**31 and not dispatch.supports(many)
    assert dispatch.supports(many[:, :, 1:])
    assert not dispatch.supports(torch.zeros(1).expand(1, 3, 1024, 1024, 1024))


def test_what_is_differentiated_is_left_to_torch(calls):
    image, _, u, _ = data((9, 8, 7), torch.float32)
    warp(image, u.requires_grad_()).sum().backward()
    assert u.grad.abs().max() > 0 and not calls
    with torch.no_grad():
        warp(image, u)
    assert calls == ["warp"]


def known(shape=(36, 40, 32)):
    moving = random(shape, 1, sigma=2.0)[0, 0].numpy()
    u = 3 * random(shape, 3, seed=1, sigma=6.0)[0].numpy()
    points = np.indices(shape) + u
    static = ndimage.map_coordinates(moving, points, order=3, mode="nearest")
    return make_pair(static, moving)


def refined():
    energies = []
    fields = refine(
        known(),
        Objective(CCMetric()),
        level_iters=[20, 15],
        observer=lambda stage, level, energy: energies.append(energy),
    )
    return fields, [e for e in energies if e is not None]


def test_refinement_is_the_same_both_ways(calls):
    """Up to the amplified effect of rounding: a hundredth of the energy."""
    (u, v), energies = refined()
    turning = {"turn_tensors", "turn_harmonics"}  # see test_reorientation.py
    assert set(calls) == set(loading.ARGUMENTS) - turning
    calls.clear()
    with dispatch.without_kernels():
        (plain_u, plain_v), expected = refined()
    assert not calls
    assert energies[0] == pytest.approx(expected[0], rel=1e-5)
    np.testing.assert_allclose(energies, expected, rtol=1e-2)
    for one, other in ((u, plain_u), (v, plain_v)):
        assert (one - other).abs().mean() < 0.02 * other.abs().mean()


def test_refinement_does_not_know_threads(monkeypatch):
    monkeypatch.setattr(dispatch, "_LEAST_VOXELS", 1)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(refined())
    finally:
        torch.set_num_threads(before)
    (one, energies), (other, others) = results
    assert energies == others
    assert all(torch.equal(a, b) for a, b in zip(one, other))


def test_environment_turns_it_off():
    code = (
        "from dipy_dl_reg.geometry.kernels import dispatch; print(dispatch.available())"
    )
    environment = {**os.environ, "DIPY_DL_REG_KERNELS": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_another_version_is_not_used(monkeypatch):
    monkeypatch.setattr(loading, "INTERFACE", -1)
    library, reason = loading.load_library()
    assert library is None and "another version" in reason


def _in_child():
    image, _, u, _ = data((9, 8, 7), torch.float32)
    assert torch.isfinite(warp(image, u)).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(dispatch, "_LEAST_VOXELS", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        _in_child()
        child = multiprocessing.get_context("fork").Process(target=_in_child)
        child.start()
        child.join(60)
    finally:
        torch.set_num_threads(before)
    exitcode = child.exitcode
    child.kill()
    assert exitcode == 0
