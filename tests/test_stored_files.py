"""Files of an earlier version are read, and give what they gave: see data/README."""

import json
from pathlib import Path
import shutil

from data.stored_files import STEPS, blobs, describe, describe_training, pair, train
import numpy as np
from numpy.testing import assert_allclose
import pytest
import torch

from dipy_dl_reg import load_mapping, load_network, read_dipy_mapping
from dipy_dl_reg.networks import NETWORKS
from dipy_dl_reg.networks.pretrained import WEIGHTS, load_model

FOLDER = Path(__file__).parent / "data"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())


def test_there_is_a_file_of_every_network():
    names = {load_network(FOLDER / file).name for file in EXPECTED["networks"]}
    shipped = {load_model(name).name for name in WEIGHTS}
    assert names | shipped == set(NETWORKS)


@pytest.mark.parametrize("file", EXPECTED["networks"])
def test_network_predicts_the_same(file):
    network = load_network(FOLDER / file)
    with torch.no_grad():
        found = describe(network(*pair(network.dim)).displacement)
    assert_allclose(found, EXPECTED["networks"][file], rtol=1e-4, atol=1e-6)
    assert network.card["licence"] == "CC0-1.0"


def test_interrupted_training_goes_on(tmp_path, monkeypatch):
    """With the matrices that were found, to the same end."""
    for name in ("checkpoint.npz", "checkpoint.prealign.json"):
        shutil.copy(FOLDER / name, tmp_path / name)
    before = load_network(tmp_path / "checkpoint.npz").card["recipe"]
    assert before["steps"] == STEPS[0] and before["prealign"] == "affine"

    def never(*images):
        raise AssertionError("an affine registration was done again")

    monkeypatch.setattr("dipy_dl_reg.training.prealigns.find_prealign", never)
    trained = train(tmp_path / "checkpoint.npz", resume=True)
    assert trained.history.steps == STEPS[1]
    found, expected = describe_training(trained), EXPECTED["training"]
    assert_allclose(found["displacement"], expected["displacement"], rtol=1e-3)
    for row, wanted in zip(found["rows"], expected["rows"], strict=True):
        assert row == pytest.approx(wanted, rel=1e-3)
    after = trained.card["recipe"]
    assert after.keys() == before.keys()
    assert {k for k in after if after[k] != before[k]} <= {
        "steps",
        "stopped",
        "versions",
    }


@pytest.mark.parametrize("dim", [2, 3])
def test_mapping_gives_the_same_points(dim):
    mapping = load_mapping(FOLDER / f"mapping_{dim}d.npz")
    check_points(mapping, EXPECTED["maps"][f"mapping_{dim}d.npz"])


def test_dipy_mapping_gives_the_same_points():
    mapping = read_dipy_mapping(
        FOLDER / "dipy_mapping.nii.gz", *blobs(2), prealign=EXPECTED["maps"]["prealign"]
    )
    check_points(mapping, EXPECTED["maps"]["mapping_3d.npz"])


def check_points(mapping, expected):
    """Whether a point goes where it went, both ways."""
    point, there, back = np.array(expected)[:, None]
    assert_allclose(mapping.transform_points(point), there, atol=1e-4)
    assert_allclose(mapping.transform_points_inverse(point), back, atol=1e-4)
