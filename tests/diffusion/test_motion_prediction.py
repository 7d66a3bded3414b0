"""Prediction of the volumes of a series from each other."""

from dipy.core.gradients import gradient_table
from dipy.core.sphere import HemiSphere, disperse_charges
from dipy.reconst.dti import TensorModel
import numpy as np
import pytest

from dipy_dl_reg.diffusion.motion_prediction import (
    choose_model,
    extrapolate_signal,
    fit_prediction,
    mean_model,
    tensor_model,
)

FORM = 1e-3 * np.array([[1.2, 0.3, -0.2], [0.3, 0.8, 0.1], [-0.2, 0.1, 0.5]])


def directions(count, seed=0):
    """Evenly distributed directions."""
    rng = np.random.default_rng(seed)
    angles = np.arccos(rng.uniform(-1, 1, count)), rng.uniform(0, 6.28, count)
    return disperse_charges(HemiSphere(theta=angles[0], phi=angles[1]), 200)[0].vertices


def two_shells(count=8):
    """Shell numbers, b-values and directions of two shells."""
    shells = np.repeat([0, 1], count)
    return shells, np.array([700.0, 2000])[shells], directions(2 * count)


def fit(signal, model, largest=1000.0):
    """Fit a model to signals (n, X, Y, Z)."""
    known = np.ones(signal.shape[1:], dtype=bool)
    volumes = ((volume.copy(), known) for volume in signal.astype(np.float32))
    return fit_prediction(volumes, model, largest)


@pytest.mark.parametrize(
    "count, aligned, functions", [(4, True, 1), (12, False, 1), (12, True, 6)]
)
def test_tensor_needs_directions(count, aligned, functions):
    shells, bvals = np.zeros(count, int), np.full(count, 1000.0)
    model = choose_model(shells, bvals, directions(count), aligned=aligned)
    assert model.design.shape == (count, functions)


def test_directions_in_a_plane_are_averaged():
    angles = np.linspace(0, 3, 20)
    bvecs = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    model = choose_model(np.zeros(20, int), np.full(20, 1e3), bvecs, aligned=True)
    assert not model.logarithmic


@pytest.mark.parametrize("kind", ["mean", "tensor"])
def test_volume_has_no_part_in_its_prediction(kind):
    """The prediction is that of a weighted fit to all other volumes."""
    rng = np.random.default_rng(1)
    shells, bvals, bvecs = two_shells()
    model = mean_model(shells) if kind == "mean" else tensor_model(shells, bvals, bvecs)
    signal = rng.uniform(100, 200, (16, 4, 3, 2))
    changed = signal.copy()
    changed[3] += 70
    weights = np.exp(-1.4e-3 * (bvals - 700)) if kind == "tensor" else np.ones(16)
    others = np.arange(16) != 3
    root = np.sqrt(weights[others])[:, None]
    values = (np.log(signal) if kind == "tensor" else signal).reshape(16, -1)
    best = np.linalg.lstsq(
        root * model.design[others], root * values[others], rcond=None
    )[0]
    wanted = (model.design[3] @ best).reshape(4, 3, 2)
    wanted = np.exp(wanted) if kind == "tensor" else wanted
    for each in (signal, changed):
        found = fit(each, model).predict(3, each[3].astype(np.float32))
        np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_signal_of_a_tensor_is_predicted_as_by_dipy():
    shells, bvals, bvecs = two_shells()
    table = gradient_table(np.append(0, bvals), bvecs=np.vstack([[0, 0, 0], bvecs]))
    decay = np.einsum("ki,ij,kj->k", table.bvecs, FORM, table.bvecs)
    signal = 800 * np.exp(-table.bvals * decay)
    dipy = TensorModel(table).fit(signal).predict(table, S0=800)
    volumes = signal[1:, None, None, None] * np.ones((16, 2, 2, 2))
    prediction = fit(volumes, tensor_model(shells, bvals, bvecs))
    for k in range(16):
        found = prediction.predict(k, volumes[k].astype(np.float32))
        np.testing.assert_allclose(found, dipy[k + 1], rtol=2e-3)
    for shell in (0, 1):
        mean = signal[1:][shells == shell].mean()
        np.testing.assert_allclose(prediction.means[shell], mean, rtol=1e-5)
        assert prediction.known[shell].all()


def test_zeros_are_no_infinities():
    prediction = fit(np.zeros((16, 2, 2, 2)), tensor_model(*two_shells()))
    found = prediction.predict(0, np.zeros((2, 2, 2), np.float32))
    assert np.isfinite(found).all() and found.max() < 2


def test_exponential_decay_is_extrapolated():
    rate = np.linspace(0, 2e-3, 24, dtype=np.float32).reshape(4, 3, 2)
    b0 = np.full(rate.shape, 500, np.float32)
    found = extrapolate_signal(b0, b0 * np.exp(-1000 * rate), 2.5)
    np.testing.assert_allclose(found, 500 * np.exp(-2500 * rate), rtol=1e-4)
    assert (extrapolate_signal(0 * b0, 0 * b0, 2.0) < 1e-20).all()
    assert np.isfinite(extrapolate_signal(b0, -b0, 3.0)).all()
