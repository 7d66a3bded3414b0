"""The average of two networks: its weights, its card, and a file of it."""

import json
import sys

import pytest
import torch

from dipy_dl_reg import load_network, make_network, save_network
from tools.recipes import average_networks


def make(seed):
    return make_network("pyramid", 2, features=[4], width=4, seed=seed)


def test_average_of_two_networks(tmp_path, monkeypatch):
    first, second = make(1), make(2)
    licence = {"licence": "CC0-1.0", "scores": {"loss": 1.0}}
    save_network(tmp_path / "first.npz", first, card=licence)
    torch.save(second.state_dict(), tmp_path / "mean.pt")
    card = {"command": "here", "scores": None, "training": {"steps": 7}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    given = [tmp_path / "first.npz", tmp_path / "mean.pt", "--part", 0.25]
    given += ["--card", tmp_path / "card.json", "--output", tmp_path / "new.npz"]
    monkeypatch.setattr(sys, "argv", ["average_networks", *map(str, given)])
    average_networks.main()
    found = load_network(tmp_path / "new.npz")
    weights = first.state_dict(), second.state_dict()
    for name, value in found.state_dict().items():
        expected = 0.75 * weights[0][name] + 0.25 * weights[1][name]
        torch.testing.assert_close(value, expected)
    recipe = found.card["recipe"]
    assert (recipe["command"], recipe["part"]) == ("here", 0.25)
    assert recipe["second"] == {"steps": 7}
    assert recipe["before"]["scores"] == {"loss": 1.0}
    assert found.card["licence"] == "CC0-1.0" and found.card["scores"] is None


def test_other_networks_are_not_averaged():
    other = make_network("pyramid", 2, features=[4, 4], width=4)
    with pytest.raises(ValueError, match="weights differ"):
        average_networks.average_weights(make(1).state_dict(), other.state_dict(), 0.5)
