"""The network that segments an image: its form and its file."""

import numpy as np
import pytest
import torch

from dipy_dl_reg.networks import pretrained
from dipy_dl_reg.networks.anatomy_network import (
    AnatomyNetwork,
    load_anatomy_network,
    save_anatomy_network,
)

SMALL = {"classes": 4, "widths": (4, 6)}


def test_blocks_of_voxels_become_voxels():
    """Channel (k, a, b, c) of a block is voxel (2 i + a, 2 j + b, 2 l + c) of map k."""
    network = AnatomyNetwork(**SMALL)
    x = torch.randn(2, 32, 3, 4, 5)
    split = network.split(x)
    assert split.shape == (2, 4, 6, 8, 10)
    parts = x.view(2, 4, 2, 2, 2, 3, 4, 5)
    assert torch.equal(split[1, 3, 1::2, 0::2, 1::2], parts[1, 3, 1, 0, 1])


def test_shapes():
    network = AnatomyNetwork(**SMALL).eval()
    image = torch.rand(1, 1, 8, 12, 16)
    assert network.multiple == 4
    assert network(image).shape == (1, 4, 8, 12, 16)
    assert network.features(image).shape == (1, 4, 4, 6, 8)


def test_file_has_weights_in_half_precision(tmp_path):
    network = AnatomyNetwork(**SMALL).eval()
    network.card = {"licence": "BSD-3-Clause"}
    save_anatomy_network(tmp_path / "small.npz", network)
    read = load_anatomy_network(tmp_path / "small.npz")
    assert read.card == network.card and read.arguments == network.arguments
    assert not read.training
    for name, given in network.state_dict().items():
        half = given.half().float()
        torch.testing.assert_close(read.state_dict()[name], half, rtol=0, atol=0)
    with np.load(tmp_path / "small.npz") as stored:
        assert {stored[k].dtype for k in stored if k.endswith("weight")} == {
            np.dtype(np.float16)
        }


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="architecture must be 'anatomy'"):
        load_anatomy_network(pretrained._FOLDER / "pyramid_slices.npz")
    with pytest.raises(FileNotFoundError):
        load_anatomy_network(tmp_path / "missing.npz")


def test_the_released_file():
    entry, network = pretrained.ANATOMY, pretrained.load_anatomy()
    assert (pretrained._FOLDER / entry.file).stat().st_size < 5e6
    assert network.card["licence"] == entry.licence
    assert network.classes == 35 and not network.training


def test_a_file_that_is_not_the_one_released(tmp_path, monkeypatch):
    (tmp_path / "anatomy.npz").write_bytes(b"something else")
    monkeypatch.setattr(pretrained, "_FOLDER", tmp_path)
    with pytest.raises(ValueError, match="damaged"):
        pretrained.load_anatomy()
