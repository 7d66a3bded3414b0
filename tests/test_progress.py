"""Progress: a bar at a terminal, lines in the log elsewhere, or nothing."""

from functools import partial
import io
import logging

import pytest
from tqdm import tqdm

from dipy_dl_reg import progress
from dipy_dl_reg.progress import Progress, format_duration, show_progress, track


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only where a test says so."""
    clock = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def lines(caplog):
    """Lines that are logged."""
    caplog.set_level(logging.INFO, logger="dipy")
    return lambda: caplog.messages


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """What bars write to a terminal."""
    terminal = Terminal()
    monkeypatch.setattr(progress, "tqdm", partial(tqdm, file=terminal))
    return terminal


def work(clock, steps=20, seconds=7, **options):
    with Progress("Cohort", steps, unit="subject", **options) as counted:
        for _ in range(steps):
            clock[0] += seconds
            counted.update()
    return counted


def test_lines_at_intervals(clock, lines, capsys):
    """A line after 10 s, and one each minute, with the time that is left."""
    assert work(clock).done == 20
    assert lines() == [
        "Cohort: 2 of 20 subjects, about 2 min left",
        "Cohort: 11 of 20 subjects, about 63 s left",
        "Cohort: 20 of 20 subjects, about 0 s left",
    ]
    assert not capsys.readouterr().err


def test_time_left_counts_from_where_it_began(clock, lines):
    with Progress("Training", 100, done=90) as counted:
        clock[0] = 20
        counted.update(5)
    assert lines() == ["Training: 95 of 100 steps, about 20 s left"]


def test_bar_at_a_terminal(clock, lines, terminal):
    work(clock)
    assert not lines() and "Cohort" in terminal.getvalue()


def test_explicit_choice(clock, lines, terminal, capsys):
    work(clock, shown=False)
    assert not lines() and not terminal.getvalue()
    with show_progress(bars=False, lines=False):
        work(clock, shown=True)
    assert not lines() and "Cohort" in terminal.getvalue()


@pytest.mark.parametrize("bars", [True, False])
@pytest.mark.parametrize("written", [True, False])
def test_display_decides(clock, lines, terminal, bars, written):
    with show_progress(bars=bars, lines=written):
        work(clock)
        with show_progress(bars=False, lines=False):
            work(clock)
    assert len(lines()) == (3 if written else 0)
    assert bool(terminal.getvalue()) == bars
    work(clock)
    assert "Cohort" in terminal.getvalue()


def test_unknown_total_and_own_line(clock, lines):
    with Progress("Tractogram", None, unit="streamline") as counted:
        clock[0] += 11
        counted.update(500)
    with Progress("A", 3, format_line=lambda: "mine") as counted:
        clock[0] += 11
        counted.update()
    assert lines() == ["Tractogram: 500 streamlines", "mine"]


def test_track_counts_what_has_been_worked_on(clock, lines):
    seen = []
    for item in track("abc", "Letters", 3, unit="letter"):
        seen.append(item)
        clock[0] += 30
    assert seen == list("abc")
    assert lines()[0] == "Letters: 1 of 3 letters, about 60 s left"


@pytest.mark.parametrize(
    "seconds, text",
    [(-1, "0 s"), (89, "89 s"), (120, "2 min"), (5400, "1 h 30 min")],
)
def test_duration(seconds, text):
    assert format_duration(seconds) == text
