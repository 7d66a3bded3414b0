"""A training may begin from a trained network: its weights, and what must agree."""

import pytest
import torch

from dipy_dl_reg import fit, load_model, make_network, save_network
from dipy_dl_reg.training.initial_network import load_initial_network

#: A step that is too short to change a weight of float32.
STILL = {"steps": 1, "learning_rate": 1e-12, "device": "cpu", "progress": False}


@pytest.fixture
def file(tmp_path):
    """A network for 2D images without a voxel size."""
    network = make_network("pyramid", 2, features=[4, 4], width=4, seed=3)
    save_network(tmp_path / "first.npz", network, card={"licence": "CC0-1.0"})
    return tmp_path / "first.npz"


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(16, 16, generator=generator).numpy() for _ in range(2)]


def test_training_begins_with_the_weights_of_a_file(file, images):
    begun = fit("pyramid", images, init=file, **STILL)
    same = fit(None, images, init=str(file), **STILL)
    first = load_initial_network(file)
    for name, weights in first.state_dict().items():
        assert torch.allclose(begun.state_dict()[name], weights, atol=1e-9)
        assert torch.equal(begun.state_dict()[name], same.state_dict()[name])
    assert begun.card["recipe"]["before"]["licence"] == "CC0-1.0"
    random = fit("pyramid", images, network_arguments={"width": 4}, **STILL)
    assert not torch.equal(random.flow[0].weight, first.flow[0].weight)


def test_training_changes_no_network_that_comes_with_the_package(images):
    begun = fit(None, images, init="pyramid-slices", **STILL | {"learning_rate": 0.1})
    released = load_model("pyramid-slices")
    assert begun.arguments == released.arguments
    assert not torch.equal(begun.flow[0].weight, released.flow[0].weight)
    assert begun.card["recipe"]["before"]["recipe"] == released.card["recipe"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "voxelmorph"}, "is a 'pyramid'"),
        ({"network_arguments": {"width": 8}}, "width is 8, but .* is 4"),
        ({"network_arguments": {"depth": 3}}, "no argument 'depth', only"),
        ({"network": make_network("unet", 2)}, "weights of its own"),
        ({"init": "pyramid"}, "is a type of network"),
        ({"init": 3}, "init must be the name or the file"),
        ({"init": "pyramid-brain", "spacing": 3}, "spacing is 3.0, but .* is 2.0"),
        ({"init": "pyramid-brain"}, "3D images, but images are 2D"),
        ({"init": None, "network": None}, "only if init is given"),
    ],
)
def test_contradictions_are_errors(file, images, options, message):
    given = {"network": "pyramid", "init": file, **STILL} | options
    with pytest.raises(ValueError, match=message):
        fit(given.pop("network"), images, **given)


def test_equal_arguments_may_be_repeated(file):
    again = {"features": (4, 4), "output": "velocity"}
    assert load_initial_network(file, "pyramid", again, spacing=2.0).spacing is None


def test_missing_file(images):
    with pytest.raises(FileNotFoundError, match="pyramid-brain"):
        fit(None, images, init="pyramid-brains", **STILL)
