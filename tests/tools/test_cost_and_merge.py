"""Table of the cost, and rows of other programs beside new ones."""

import json

import pytest

from tools.benchmarks import cost, merge

GPU = """\
Registration: median seconds, and those of the first call
2 mm 81x107x84    1000:1001  cuda  default        1.27    1.40  Dice 0.6277
2 mm 81x107x84    1000:1001  cpu   default        1.69    1.80  Dice 0.6277

Memory of the GPU in use, at most, MB; estimate for refinement alone
  80x104x88    default 276, refinement 275, network 431; estimate 176
  256x256x256  default 3943, refinement 3943, network 7376; estimate 4027
"""


def test_rows_of_the_gpu(tmp_path):
    path = tmp_path / "gpu.txt"
    path.write_text(GPU)
    first, largest, *_ = cost.read_gpu_rows(path)
    assert (first["size"], first["task"], first["seconds"]) == ("2 mm", "default", 1.27)
    assert first["gpu_mib"] == pytest.approx(276e6 / 2**20)
    assert largest["size"] == "256^3" and "seconds" not in largest
    assert cost.read_gpu_rows(tmp_path / "none.txt") == []


def test_rows_are_measured_once(tmp_path, monkeypatch, capsys):
    """A second call measures nothing; one of a quiet machine measures all again."""
    measured = []

    def measure(task, size, threads):
        measured.append((size, task))
        return dict.fromkeys(cost.COLUMNS, 1.0)

    monkeypatch.setattr(cost, "measure_in_process", measure)
    monkeypatch.setattr(cost, "measure_disk", lambda: [{"what": "x", "mib": 1.0}])
    output = tmp_path / "cost.json"
    words = ["--output", str(output), "--sizes", "2D 512^2"]
    cost.main(words)
    assert [task for _, task in measured] == list(cost.PLANE)
    cost.main(words)
    assert len(measured) == len(cost.PLANE)
    cost.main([*words, "--quiet_machine"])
    assert len(measured) == 2 * len(cost.PLANE)
    rows = json.loads(output.read_text())["rows"]
    assert all(row["quiet"] for row in rows if row["device"] == "cpu")
    assert "2D 512^2" in output.with_suffix(".txt").read_text()
    cost.main([*words, "--quiet_machine", "--threads", "2", "--minutes", "0"])
    assert "the time is over" in capsys.readouterr().out


ABOUT = {
    "machine": {"cpu": "x", "threads": 2},
    "versions": {},
    "rivals": {"ants": "1"},
    "code": {"commit": "old"},
}


def row(pair, method, dice, seconds):
    return {
        "spacing": 2.0, "repeat": 0, "pair": pair, "method": method, "dice": dice,
        "seconds": seconds, "sd_log_jacobian": 0.2,
    }  # fmt: skip


def test_rows_of_other_programs_are_kept(tmp_path):
    old = ABOUT | {"rows": [row("1<-2", "syn", 0.6, 10), row("1<-2", "ants", 0.6, 40)]}
    old["rows"].append(row("1<-2", "deep", 0.5, 1))
    new = ABOUT | {"code": {"commit": "new"}}
    new["rows"] = [row("1<-2", "deep", 0.7, 2), row("1<-2", "syn", 0.6, 20)]
    paths = [tmp_path / name for name in ("old.json", "new.json", "both.json")]
    for path, content in zip(paths, (old, new)):
        path.write_text(json.dumps(content))
    merge.main([str(paths[0]), str(paths[1]), "--output", str(paths[2])])
    found = json.loads(paths[2].read_text())
    rows = {r["method"]: r for r in found["rows"]}
    assert {k: (r["dice"], r["ratio"]) for k, r in rows.items()} == {
        "syn": (0.6, 1.0),
        "ants": (0.6, 4.0),
        "deep": (0.7, 0.1),
        "syn-again": (0.6, 1.0),
    }
    assert found["code"]["commit"] == "new" and "commit old" in found["note"]
    table = paths[2].with_suffix(".txt").read_text()
    assert "Dice, deep less ants: +0.1000" in table
    words = [str(paths[0]), str(paths[1]), "--output", str(paths[2]), "--busy"]
    merge.main([*words, "--methods", "deep"])
    rows = json.loads(paths[2].read_text())["rows"]
    assert [r["method"] for r in rows] == ["syn", "ants", "deep"]
    assert "seconds" not in rows[-1]
