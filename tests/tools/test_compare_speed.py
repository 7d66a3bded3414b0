"""tools/experiments/compare_speed.py: order of the processes, and its table."""

from pathlib import Path
import re
import sys

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "experiments"))

import compare_speed  # noqa: E402


@pytest.fixture
def runs(monkeypatch):
    """Replace the processes; the list of what was to be run."""
    order = []

    def measured(root, data, names):
        order.append(root)
        rows = {name: {"cpu": len(order), "wall": 2.0} for name in names}
        return {"compiled": "no" if root == "slow" else "yes", "rows": rows}

    monkeypatch.setattr(compare_speed, "measure_checkout", measured)
    return order


def test_processes_alternate_and_the_first_of_each_is_discarded(runs):
    before, after = compare_speed.measure_interleaved("AB", None, ["2D"], 2)
    assert "".join(runs) == "AB" + "ABBA" * 2
    assert [row["2D"]["cpu"] for row in before] == [3, 6, 7, 10]
    assert [row["2D"]["cpu"] for row in after] == [4, 5, 8, 9]


def test_compiled_loops_in_one_checkout_only_are_an_error(runs):
    with pytest.raises(SystemExit, match="compiled loops"):
        compare_speed.measure_interleaved(["fast", "slow"], None, ["2D"], 1)


def test_table():
    before = [{"2D": {"cpu": t, "wall": 2 * t}} for t in (1.0, 2.0, 4.0)]
    after = [{"2D": {"cpu": t, "wall": 2 * t}} for t in (1.5, 1.5, 1.5)]
    _, cpu, wall = (line.split() for line in compare_speed.format_table(before, after))
    assert cpu == ["2D", "cpu", *"2.000 1.500 0.750 1.500 75.0 0.0".split()]
    assert wall == ["2D", "wall", *"4.000 3.000 0.750 1.500 75.0 0.0".split()]


def test_folders_are_checked(tmp_path, capsys):
    for words, message in (
        ([tmp_path, tmp_path], "no folder .*dipy_dl_reg"),
        ([tmp_path, tmp_path, "--data", tmp_path / "gone"], "no such folder"),
    ):
        with pytest.raises(SystemExit):
            compare_speed.main(["--data", str(tmp_path), *map(str, words)])
        assert re.search(message, capsys.readouterr().err)
