"""Metrics of `DeepRegistration`: names, DIPY's objects, and the default."""

import re

from dipy.align import metrics as dipy_metrics
import numpy as np
import pytest
from short_runs import SHORT, apart, run, same

import dipy_dl_reg
from dipy_dl_reg import DeepRegistration
from dipy_dl_reg.metrics.registry import METRICS
from dipy_dl_reg.registration.factory import make_metric


class OwnMetric(dipy_metrics.SimilarityMetric):
    """A user's own class for SyN, which cannot be translated."""


def gain(pair, metric):
    """Squared error after a registration, as a part of that before."""
    registered = run(pair, metric, level_iters=[20, 20]).transform(pair.moving)
    still = run(pair, metric, level_iters=[0]).transform(pair.moving)
    return np.square(registered - pair.static).sum() / (
        np.square(still - pair.static).sum()
    )


@pytest.mark.parametrize("name", ["SSD", "CC", "NCC", "MI"])
def test_metrics_by_name(flat, name):
    mapping = run(flat, name, level_iters=[5, 5])
    assert same(mapping, run(flat, name.lower(), level_iters=[5, 5]))
    own = getattr(dipy_dl_reg, f"{name}Metric")
    assert same(mapping, run(flat, own(), level_iters=[5, 5]))
    assert same(mapping, run(flat, own(2), level_iters=[5, 5]))
    assert gain(flat, name) < 0.6


def test_local_correlation_by_default(flat):
    for asked in (None, "auto"):
        assert same(run(flat, asked, **SHORT), run(flat, "CC", **SHORT))


@pytest.mark.parametrize("kind", ["CCMetric", "SSDMetric", "EMMetric"])
@pytest.mark.parametrize("dim", [2, 3])
def test_metrics_of_dipy(flat, solid, kind, dim):
    pair = flat if dim == 2 else solid
    assert gain(pair, getattr(dipy_metrics, kind)(dim)) < 0.6


def test_dipys_options_are_carried_over(flat):
    """A larger window, more smoothing: another result."""
    narrow, wide = (dipy_metrics.CCMetric(2, radius=r) for r in (2, 6))
    assert apart(run(flat, narrow), run(flat, wide)) > 0.05
    sharp, smooth = (dipy_metrics.CCMetric(2, sigma_diff=s) for s in (1.0, 6.0))
    assert apart(run(flat, sharp), run(flat, smooth)) > 0.05


@pytest.mark.parametrize("given, wanted", [(0, 0), (2 / 3, 2 / 3), (1.5, 1), (4, 2)])
def test_smoothing_of_dipys_metrics(given, wanted):
    """Half of it, for steps are of equal length; but no rougher than a voxel."""
    for metric in (
        dipy_metrics.CCMetric(3, sigma_diff=given),
        dipy_metrics.SSDMetric(3, smooth=given),
    ):
        assert make_metric(metric).sigma_diff == pytest.approx(wanted)


def test_what_stands_for_em_is_said(flat, log):
    run(flat, dipy_metrics.EMMetric(2), **SHORT)
    (message,) = [m for m in log() if "EMMetric" in m]
    assert "correlation ratio" in message


def test_other_contrast(flat):
    """Inverted intensities: MI and the correlation ratio align the same anatomy."""
    inverted = flat._replace(moving=flat.moving.max() - flat.moving)
    for metric in ("MI", dipy_metrics.EMMetric(2)):
        mapping = run(inverted, metric, level_iters=[20, 20])
        before = run(flat, level_iters=[0]).transform(flat.moving) - flat.static
        after = mapping.transform(flat.moving) - flat.static
        assert np.square(after).sum() < 0.6 * np.square(before).sum()


@pytest.mark.parametrize("metric", ["best", 3, OwnMetric(2)])
def test_error_for_an_unknown_metric_names_all_choices(metric):
    with pytest.raises(ValueError, match="^metric must be") as error:
        DeepRegistration(metric)
    assert {"auto", *METRICS} <= set(re.findall(r"\w+", str(error.value)))


def test_metric_of_another_dimension(flat, solid):
    for metric in (dipy_dl_reg.CCMetric(3), dipy_metrics.SSDMetric(3)):
        with pytest.raises(ValueError, match="metric.*3D.*2D"):
            run(flat, metric)
    with pytest.raises(ValueError, match="metric.*2D.*3D"):
        run(solid, dipy_dl_reg.MIMetric(2))


def test_one_object_for_many_pairs(flat, solid):
    """Dimension, levels and records are each pair's own."""
    registration = DeepRegistration("SSD", level_iters=[5, 5], model=None)
    for pair in (flat, solid, flat):
        mapping = registration.optimize(*pair[:2], **pair.affines)
        assert registration.dim == mapping.dim == pair.static.ndim
        assert same(mapping, run(pair, level_iters=[5, 5]))
