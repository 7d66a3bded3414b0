"""The trained networks of the package are complete and can be loaded by name."""

from hashlib import sha256

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from dipy_dl_reg import DeepRegistration, list_models, load_model
from dipy_dl_reg.networks import pretrained as weights

#: Largest file of a 3D and of a 2D network, bytes.
LARGEST = {3: 5e6, 2: 2e6}


@pytest.mark.parametrize("name", list_models())
def test_what_the_table_says_is_in_the_file(name):
    entry, network = weights.WEIGHTS[name], load_model(name)
    data = (weights._FOLDER / entry.file).read_bytes()
    assert sha256(data).hexdigest() == entry.checksum
    assert len(data) < LARGEST[network.dim]
    assert network.card["licence"] == entry.licence
    assert not network.training
    assert all(entry._asdict().values())


@pytest.mark.parametrize("name", list_models())
def test_a_name_is_enough_for_a_registration(name):
    dim = load_model(name).dim
    noise = np.random.default_rng(0).random((24,) * dim)
    image = gaussian_filter(noise, 2)
    registration = DeepRegistration(model=name, level_iters=0)
    mapping = registration.optimize(image, np.roll(image, 1, axis=0))
    assert registration.network.dim == dim
    assert registration.quality.minimum_jacobian > 0
    assert mapping.dim == dim


def test_unknown_name():
    with pytest.raises(ValueError, match="model must be one of"):
        load_model("voxelmorph")


def test_a_file_that_is_not_the_one_released(tmp_path, monkeypatch):
    entry = weights.Weights("file.npz", "0" * 64, "-", "-", "-", {})
    (tmp_path / "file.npz").write_bytes(b"something else")
    monkeypatch.setattr(weights, "_FOLDER", tmp_path)
    monkeypatch.setitem(weights.WEIGHTS, "bad", entry)
    with pytest.raises(ValueError, match="damaged"):
        load_model("bad")
