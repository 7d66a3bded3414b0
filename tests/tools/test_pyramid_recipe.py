"""The recipe of the pyramid: a small run of it, stopped, resumed and finished."""

import sys

import pytest

from dipy_dl_reg.networks.checkpoint import load_network
from tools.recipes import brain_maps, train_pyramid

SMALL = train_pyramid.Stage(
    1.0, (17, 17), 4, 1, 0.3, 5e-4, "cosine", {}, {}, {"size": 4, "classes": 4}
)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["train_pyramid.py", "--dim", "2", *arguments])
    train_pyramid.main()


def test_stopped_resumed_and_finished(monkeypatch, tmp_path):
    monkeypatch.setitem(train_pyramid.STAGES, 2, [SMALL])
    output = tmp_path / "net.npz"
    with pytest.raises(SystemExit, match="--resume continues"):
        run(monkeypatch, "--output", str(output), "--minutes", "1e-9")
    assert not output.exists() and (tmp_path / "net_1mm.npz").exists()
    run(monkeypatch, "--output", str(output), "--resume", "--licence", "CC0-1.0")
    network = load_network(output)
    assert network.name == "pyramid" and network.dim == 2
    assert network.card["licence"] == "CC0-1.0"
    assert network.card["recipe"]["steps"] == [4]
    assert (tmp_path / "net_1mm.csv").read_text().count("\n") >= 2
    with pytest.raises(SystemExit):
        run(monkeypatch, "--output", str(output))


def test_sheet(monkeypatch, tmp_path):
    monkeypatch.setitem(train_pyramid.STAGES, 2, [SMALL])
    run(monkeypatch, "--sheet", str(tmp_path / "sheet.png"))
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_every_tissue_has_its_diffusion_contrasts():
    assert brain_maps.DIFFUSION.keys() == brain_maps.TISSUES.keys()
    found = brain_maps.diffusion_contrasts()
    assert [len(c.means) for c in found] == [len(brain_maps.CLASSES)] * 3
    b0, fa, md = (dict(zip(brain_maps.CLASSES, c.means)) for c in found)
    assert b0[4] > b0[3] > b0[2] and fa[2] > fa[3] > fa[4] and md[4] > md[3] > md[2]
