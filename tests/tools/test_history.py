"""Benchmarks kept over commits: what is stored, and what is reported as worse."""

import json

import numpy as np
import pytest

from tools.benchmarks import history

ROW = {
    "commit": "a",
    "date": "2026-01-01",
    "cpu": "x",
    "cases": {
        "3D": {"dice": 0.8, "sd_log_jacobian": 0.2, "error_mm": 1.0, "time": 5.0}
    },
}


def changed(commit="b", cpu="x", **measures):
    cases = {"3D": ROW["cases"]["3D"] | measures}
    return ROW | {"commit": commit, "cpu": cpu, "cases": cases}


def test_what_is_worse_is_reported():
    assert history.compare(changed(), [ROW]) == []
    assert history.compare(changed(dice=0.798, time=6.4, error_mm=1.04), [ROW]) == []
    for measure, value in [
        ("dice", 0.79), ("time", 6.6), ("error_mm", 1.06), ("sd_log_jacobian", 0.23),
    ]:  # fmt: skip
        (problem,) = history.compare(changed(**{measure: value}), [ROW])
        assert problem.startswith("3D: ")


def test_time_is_compared_on_the_same_processor_only():
    slow = changed(cpu="y", time=50.0)
    assert history.compare(slow, [ROW]) == []
    (problem,) = history.compare(slow, [changed(cpu="y"), ROW])
    assert "time 5.00 to 50.00" in problem
    assert history.compare(changed(), []) == []


def test_rows_are_stored_once_for_a_commit(tmp_path):
    path = tmp_path / "history.json"
    history.append(path, ROW, [])
    history.append(path, changed(dice=0.9), history.read_history(path))
    history.append(path, changed(dice=0.7), history.read_history(path))
    rows = json.loads(path.read_text())["rows"]
    found = [(r["commit"], r["case"], r["dice"]) for r in rows]
    assert found == [("a", "3D", 0.8), ("b", "3D", 0.7)]
    assert history.read_history(path) == [ROW, changed(dice=0.7)]


def test_the_drawn_field_aligns_the_drawn_images():
    """Static is moving at the displaced voxels, but for the noise."""
    from scipy.ndimage import map_coordinates

    shape = (24, 28, 20)
    static, moving, fixed, labels, field, _ = history.draw((shape, 3.0, 6.0), False)
    places = np.indices(shape) + field
    warped = map_coordinates(moving, places, order=1)
    assert np.abs(static - warped).mean() < 0.5 * np.abs(static - moving).mean()
    assert (map_coordinates(labels, places, order=0) == fixed).all()
    dark = history.draw((shape, 3.0, 6.0), True)[1]
    inside = labels > 0
    assert np.corrcoef(moving[inside], dark[inside])[0, 1] < -0.9


def test_exit_status_tells_of_a_warning(tmp_path, monkeypatch, capsys):
    path = tmp_path / "history.json"
    history.append(path, ROW, [])
    monkeypatch.setattr(history, "measure_commit", lambda _: changed(dice=0.5))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    with pytest.raises(SystemExit) as ending:
        history.main(["--history", str(path), "--append"])
    assert ending.value.code == 1
    assert "::warning::3D: Dice 0.8000 to 0.5000" in capsys.readouterr().out
    assert len(history.read_history(path)) == 2


def test_rows_of_an_earlier_commit_are_compared_too(tmp_path, monkeypatch, capsys):
    """The time, too: they were measured on the same processor."""
    stored, base = tmp_path / "history.json", tmp_path / "base.json"
    history.append(stored, ROW, [])
    history.append(base, changed(commit="c", cpu="y"), [])
    slow = changed(commit="d", cpu="y", time=9.0)
    monkeypatch.setattr(history, "measure_commit", lambda _: slow)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    for words, status in ([], 0), (["--base", str(base)], 1):
        with pytest.raises(SystemExit) as ending:
            history.main(["--history", str(stored), *words])
        assert ending.value.code == status
    printed = capsys.readouterr().out
    assert printed.count("WARNING") == 1 and "time 5.00 to 9.00" in printed
    assert "since c" in printed
