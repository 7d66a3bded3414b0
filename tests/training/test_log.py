"""What a training writes and shows."""

import csv
import sys

import pytest
from shapes import ellipses, small

from dipy_dl_reg.training.fit import fit

IMAGES = ellipses(4)


def test_csv_has_the_rows(tmp_path):
    path = tmp_path / "folder" / "log.csv"
    history = fit(
        small(), IMAGES, steps=5, validate_every=2, validation=IMAGES[:2], log=path
    )
    with open(path, newline="") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert rows == history.rows


def test_tensorboard_has_the_rows(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = fit(small(), IMAGES, steps=4, validate_every=2, log=tmp_path / "log")
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    assert set(events.Tags()["scalars"]) == history.rows[0].keys() - {"step"}
    for name in events.Tags()["scalars"]:
        told = [(e.step, e.value) for e in events.Scalars(name)]
        assert told == [(r["step"], pytest.approx(r[name])) for r in history.rows]
    assert (tmp_path / "log" / "log.csv").exists()


def test_folder_needs_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"dipy_dl_reg\[tensorboard\]"):
        fit(small(), IMAGES, steps=1, log=tmp_path / "log")
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("name", ["log.csv", "log"])
def test_log_of_another_training_stays(tmp_path, name):
    pytest.importorskip("tensorboard")
    path = tmp_path / name
    fit(small(), IMAGES, steps=2, log=path)
    table = path if name == "log.csv" else path / "log.csv"
    before = table.read_text()
    with pytest.raises(FileExistsError, match="log.csv exists"):
        fit(small(), IMAGES, steps=1, log=path)
    assert table.read_text() == before


def test_bar(capsys):
    fit(small(), IMAGES, steps=3, progress=True)
    assert "3/3" in capsys.readouterr().err
    fit(small(), IMAGES, steps=3)
    assert capsys.readouterr().err == "", "a bar where there is no terminal"
