"""`choose_start` follows its documented order, for every combination of options.

What each initializer finds, and whether it improves anything, is set here; the order of
the decisions is stated a second time, in `expected_start`.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import torch

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.point_pairs import Landmarks
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization import starts
from dipy_dl_reg.initialization.messages import NO_DISPLACEMENT
from dipy_dl_reg.initialization.starts import Initializers, choose_start
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.metrics.ssd import SSDMetric

SHAPE = (24, 20)


@pytest.fixture(autouse=True)
def implementation():
    """Instead of the folder's: decisions do not depend on the compiled loops."""


class Network(NamedTuple):
    """What `choose_start` reads of a network."""

    symmetric: bool
    spacing: float | None = None


class Situation(NamedTuple):
    """One combination of options and of what the initializers find."""

    network: str  # "none", "zero", "worse", "better": what its field is
    symmetric: bool
    is_default: bool
    search: str | None
    search_improves: bool
    metric: str  # "given" or "chosen"
    level_iters: tuple
    landmarks: bool
    memory_suffices: bool


def situations():
    """All combinations that differ in what is decided."""
    for each in product(
        ("none", "zero", "worse", "better"),
        (True, False),
        (True, False),
        (None, "discrete", "auto"),
        (True, False),
        ("given", "chosen"),
        ((5, 3), (0, 3), (0,)),
        (True, False),
        (True, False),
    ):
        situation = Situation(*each)
        if situation.network == "none" and not situation.symmetric:
            continue
        if situation.search is None and not situation.memory_suffices:
            continue
        yield situation


def make_pair(landmarks):
    """Two images, with landmarks one voxel apart if asked for."""
    grid = Grid(SHAPE, np.eye(3))
    x = torch.linspace(0, 1, SHAPE[0])[:, None] * torch.linspace(1, 2, SHAPE[1])
    points = torch.tensor([[3.0, 3], [20, 4], [5, 15], [18, 16]], dtype=torch.float64)
    return Pair(
        x[None, None],
        x.flip(0)[None, None],
        grid,
        grid,
        np.eye(3),
        landmarks=Landmarks(points, points + 1) if landmarks else None,
    )


def constant(value):
    """A displacement and its inverse."""
    u = torch.full((1, 2, *SHAPE), value)
    return u, -u


def set_findings(monkeypatch, situation):
    """Let the initializers find what the situation says; returns the metrics chosen."""
    chosen = []
    value = {"zero": 0.0, "worse": 0.25, "better": 0.25}.get(situation.network)

    def select(pair, *, aligned=False, map_contrast=None):
        chosen.append(aligned)
        return starts.MetricChoice(CCMetric(), 0.9, False, None, "Chosen by the test.")

    def improves(pair, objective, u, v, **options):
        if float(u.max()) == 0.25:
            return situation.network == "better"
        return situation.search_improves

    findings = {
        "predict_displacement": lambda *args, **options: constant(value),
        "improves_similarity": lambda *args, **options: situation.network == "better",
        "search_displacements": lambda pair: constant(0.5),
        "improves_refinement": improves,
        "mean_local_correlation": lambda pair: 0.9,
        "select_metric": select,
    }
    for name, function in findings.items():
        monkeypatch.setattr(starts, name, function)
    return chosen


def expected_start(situation):
    """Source and displacement (besides the spline) by the documented order."""
    if situation.network == "better":
        return "network", 0.25
    if situation.search is not None and situation.memory_suffices:
        if situation.search == "discrete" or situation.search_improves:
            return "search", 0.5
    return None, 0.0


def start_of(situation):
    """What `choose_start` decides."""
    pair = make_pair(situation.landmarks)
    network = None if situation.network == "none" else Network(situation.symmetric)
    initializers = Initializers(
        objective=Objective,
        metric=SSDMetric() if situation.metric == "given" else None,
        network=network,
        network_is_default=situation.is_default,
        search=situation.search,
        level_iters=situation.level_iters,
        budget=float("inf") if situation.memory_suffices else 0.0,
    )
    return choose_start(pair, initializers, pair)


def describe(situation):
    """A test's name."""
    return "-".join(str(value) for value in situation)


def test_order_of_decisions(monkeypatch):
    """Landmarks, then the network or the search, then the metric."""
    for situation in situations():
        with monkeypatch.context() as patch:
            chosen = set_findings(patch, situation)
            start = start_of(situation)
        name = describe(situation)
        kind, value = expected_start(situation)
        source = ("landmarks",) * situation.landmarks + (kind,) * (kind is not None)
        assert start.source == source, name
        if not source:
            assert start.fields is None, name
        elif not situation.landmarks:
            assert float(start.fields[0].mean()) == pytest.approx(value), name
        else:  # the spline moves by 1 within the landmarks, and the rest is added
            inner = start.fields[0][..., 6:16, 6:14]
            assert float(inner.mean()) == pytest.approx(1 + value, abs=0.05), name
        check_metric(situation, start, chosen, name)


def check_metric(situation, start, chosen, name):
    """The user's metric is kept; else one is chosen, if anything uses it."""
    if situation.metric == "given":
        assert start.comparison.metric.name == "SSD" and not chosen, name
        return
    used = situation.network != "none" or any(situation.level_iters)
    assert bool(chosen) == used, name
    assert start.comparison.metric.name == "CC", name
    if situation.network in ("better", "worse"):
        # A symmetric network's field comes first, and aligns what is compared.
        assert chosen[0] == situation.symmetric, name
    texts = [message.text for message in start.messages]
    assert any(text.startswith("Metric: CC") for text in texts) == used, name


@pytest.mark.parametrize("is_default", [True, False])
@pytest.mark.parametrize("level_iters", [(0,), (5, 3)])
def test_message_on_a_field_that_is_not_used(is_default, level_iters, monkeypatch):
    """A warning, unless the default network was only tried before a refinement."""
    situation = Situation(
        "worse", True, is_default, None, False, "given", level_iters, False, True
    )
    set_findings(monkeypatch, situation)
    (message,) = start_of(situation).messages
    assert "field is not used" in message.text
    assert message.warns == (not is_default or not any(level_iters))
    assert (NO_DISPLACEMENT in message.text) == (not any(level_iters))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), MemoryError()])
def test_memory_that_runs_out_leaves_no_start(error, monkeypatch):
    """The metric is then chosen on the images as they are."""
    situation = Situation(
        "better", True, True, None, False, "chosen", (5, 3), False, True
    )
    chosen = set_findings(monkeypatch, situation)

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(starts, "improves_similarity", fail)
    start = start_of(situation)
    assert start.fields is None and start.source == ()
    assert start.messages[0].warns and "Memory has run out" in start.messages[0].text
    assert chosen == [True, False]


@pytest.mark.parametrize(
    "correlation, across, asked",
    [(0.9, False, True), (0.3, False, False), (-0.5, False, True), (0.9, True, False)],
)
def test_default_network_must_also_improve_the_refinement(
    correlation, across, asked, monkeypatch
):
    """Unless the images are far apart, or of two contrasts."""
    situation = Situation(
        "better", True, True, None, False, "given", (5, 3), False, True
    )
    set_findings(monkeypatch, situation)
    calls = []

    def improves(*args, **options):
        calls.append(options)
        return False

    def select(pair, **options):
        return starts.MetricChoice(CCMetric(), 0.9, across, None, "")

    monkeypatch.setattr(starts, "mean_local_correlation", lambda pair: correlation)
    monkeypatch.setattr(starts, "improves_refinement", improves)
    monkeypatch.setattr(starts, "select_metric", select)
    start = start_of(situation._replace(metric="chosen"))
    assert bool(calls) == asked
    assert ("network" in start.source) == (not asked)
