"""What a training writes and shows."""

import csv
import logging
import re
import sys

import pytest
from shapes import ellipses, small, weights
import torch

from dipy_dl_reg.training.loop.train_network import train_network
from dipy_dl_reg.training.training_set import CrossSubject

IMAGES = ellipses(4)


def test_csv_has_the_rows(tmp_path):
    path = tmp_path / "folder" / "log.csv"
    history = train_network(
        small(), IMAGES, steps=5, validate_every=2, validation=IMAGES[:2], log=path
    )
    with open(path, newline="") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert rows == history.rows


def test_tensorboard_has_the_rows(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = train_network(
        small(), IMAGES, steps=4, validate_every=2, log=tmp_path / "log"
    )
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    assert set(events.Tags()["scalars"]) == history.rows[0].keys() - {"step"}
    for name in events.Tags()["scalars"]:
        told = [(e.step, e.value) for e in events.Scalars(name)]
        assert told == [(r["step"], pytest.approx(r[name])) for r in history.rows]
    assert (tmp_path / "log" / "log.csv").exists()


def test_folder_needs_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"dipy_dl_reg\[tensorboard\]"):
        train_network(small(), IMAGES, steps=1, log=tmp_path / "log")
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("name", ["log.csv", "log"])
def test_log_of_another_training_stays(tmp_path, name):
    pytest.importorskip("tensorboard")
    path = tmp_path / name
    train_network(small(), IMAGES, steps=2, log=path)
    table = path if name == "log.csv" else path / "log.csv"
    before = table.read_text()
    with pytest.raises(FileExistsError, match="log.csv exists"):
        train_network(small(), IMAGES, steps=1, log=path)
    assert table.read_text() == before


def test_bar(capsys):
    train_network(small(), IMAGES, steps=3, progress=True)
    assert "3/3" in capsys.readouterr().err
    train_network(small(), IMAGES, steps=3)
    assert capsys.readouterr().err == "", "a bar where there is no terminal"


class Slow(CrossSubject):
    """Pairs of which each takes some seconds of a clock that a test holds."""

    def __init__(self, images, clock, *, draw=0, index=0):
        super().__init__(images)
        self.clock, self.seconds, self.each = clock, draw, index

    def draw(self, generator):
        self.clock[0] += self.seconds
        return CrossSubject.__getitem__(self, 0)

    def __getitem__(self, index):
        self.clock[0] += self.each
        return super().__getitem__(index)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only where a test says so."""
    clock = [0.0]
    for module in ("training.loop.clock", "progress"):
        monkeypatch.setattr(f"dipy_dl_reg.{module}.monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def lines(caplog):
    """What the log says, at every level."""
    caplog.set_level(logging.INFO, logger="dipy")
    return lambda: caplog.messages


def test_lines_where_there_is_no_terminal(clock, lines):
    """Seven seconds a step: a line after 10 s, and after 60 s more."""
    pairs = Slow(IMAGES, clock, draw=7)
    options = {"steps": 15, "validate_every": 5, "validation": IMAGES[:2]}
    rows = train_network(small(), pairs, **options).rows
    first, second, end = lines()
    assert re.fullmatch(r"Step 2 of 15: loss -?[\d.]+; about 2 min left", first)
    told = re.fullmatch(
        r"Step 11 of 15: loss (-?[\d.]+), validation (-?[\d.]+); about 28 s left",
        second,
    )
    assert float(told[2]) == pytest.approx(rows[1]["validation"], rel=1e-3)
    assert end.startswith("Trained for 15 steps. The weights are the best in valid")


def test_line_says_when_the_time_limit_comes_first(clock, lines):
    pairs = Slow(IMAGES, clock, draw=20)
    train_network(small(), pairs, steps=500, time_limit=150)
    assert lines()[0].endswith("; stops at the time limit in 2 min")
    assert "Stopped by time_limit after 8 of 500 steps" in lines()[-1]
    assert "there was no validation" in lines()[-1]


@pytest.mark.parametrize("progress", [True, False])
def test_no_lines_where_a_bar_was_decided_on(clock, lines, progress):
    train_network(small(), Slow(IMAGES, clock, draw=30), steps=9, progress=progress)
    assert not [line for line in lines() if line.startswith("Step")]


def test_time_limit_is_passed_by_a_step_at_most(clock, lines):
    """Whether time is over in a step or within a validation."""
    for draw, index, steps in ((10, 0, 3), (1, 10, 2)):
        clock[0] = 0.0
        held = Slow(IMAGES, clock, index=index)
        history = train_network(
            small(), Slow(IMAGES, clock, draw=draw), steps=9, time_limit=25,
            validation=held, validate_every=2 if index else 5,
        )  # fmt: skip
        assert (history.stopped, history.steps, history.best) == ("time", steps, None)
        assert 25 < clock[0] < 36 and "validation" not in history.rows[-1]


def test_validation_cut_off_by_time_is_done_on_resuming(clock, tmp_path):
    """The numbers of a training that was not stopped."""
    path, steps = tmp_path / "c.npz", {"steps": 5, "validate_every": 2}
    whole, network = small(), small()

    def pairs(**seconds):
        return {"pairs": Slow(IMAGES, clock), **steps,
                "validation": Slow(IMAGES, clock, **seconds)}  # fmt: skip

    expected = train_network(whole, **pairs())
    stopped = train_network(network, **pairs(index=10), checkpoint=path, time_limit=25)
    assert (stopped.steps, stopped.stopped, stopped.best) == (2, "time", None)
    assert train_network(network, **pairs(), checkpoint=path, resume=True) == expected
    assert torch.equal(weights(network), weights(whole))


def test_stop_by_patience_is_said(lines):
    options = {"validation": IMAGES[:2], "validate_every": 1, "learning_rate": 1e-30}
    train_network(small(), IMAGES, steps=50, patience=2, **options)
    assert "Stopped by patience after 3 of 50 steps" in lines()[-1]
