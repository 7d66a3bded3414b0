"""Saved networks are read unchanged, and damaged or other files are rejected."""

import json
import zipfile

import numpy as np
import pytest
import torch

from dipy_dl_reg.networks import NETWORKS, make_network
from dipy_dl_reg.networks.array_file import read_arrays, write_arrays
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.checkpoint import load_network, save_network

every_network = pytest.mark.parametrize("name", sorted(NETWORKS))
VARIANTS = [
    ("voxelmorph", {"variant": "vm2", "half_resolution": True, "spacing": 2.5}),
    ("dirnet", {"grid_spacing": 8, "bounded": True}),
    ("selfsup-fcn", {"features": (4, 8, 8)}),
    ("pyramid", {"features": (4, 8)}),
    ("unet", {"features": (4, 8), "output": "velocity"}),
]


def trained(name, dim=2, **arguments):
    """A network that no constructor gives."""
    network = make_network(name, dim, **arguments)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.05 * torch.rand(tensor.shape, generator=generator)
            else:
                tensor += 7
    return network


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "network.npz"
    save_network(path, trained("unet", features=(4, 8)))
    return path


def rewritten(path, change):
    """Change header and arrays of a file, and correct its checksum."""
    header, arrays = read_arrays(path)
    for key in ("sha256", "format", "version"):
        header.pop(key)
    change(header, arrays)
    write_arrays(path, header, arrays)
    return path


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name, arguments", VARIANTS)
def test_network_comes_back(tmp_path, name, arguments, dim):
    network = trained(name, dim, **arguments)
    save_network(tmp_path / "n.npz", network)
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    back = load_network(str(tmp_path / "n.npz"))
    assert torch.rand(1) == before, "loading draws random numbers"
    assert type(back) is type(network) and repr(back) == repr(network)
    assert not back.training
    for a, b in zip(network.state_dict().values(), back.state_dict().values()):
        assert a.dtype == b.dtype and torch.equal(a, b)
    images = torch.rand(2, 1, 1, *[17] * dim)
    fields = (n.eval()(*images).displacement for n in (network, back))
    assert torch.equal(*fields)


def test_every_network_is_tried():
    assert {name for name, _ in VARIANTS} == set(NETWORKS)


def test_file_is_plain(saved):
    """A zip that NumPy reads without pickle, its header readable by eye."""
    with np.load(saved, allow_pickle=False) as arrays:
        weights = {k for k in arrays.files if k.startswith("weights/")}
        assert all(arrays[k].dtype.kind in "fi" for k in weights)
    names = {
        f"weights/{k}" for k in make_network("unet", 2, features=(4, 8)).state_dict()
    }
    assert weights == names
    with zipfile.ZipFile(saved) as file:
        assert file.testzip() is None
        header = json.loads(file.read("header.json"))
    assert header["architecture"] == "unet"
    assert header["arguments"]["features"] == [4, 8] and header["arguments"]["dim"] == 2
    assert {"licence", "recipe", "scores", "preprocessing"} <= header["card"].keys()


def test_same_network_gives_the_same_file(tmp_path):
    network = trained("unet", features=(4, 8))
    for name in "ab":
        save_network(tmp_path / name, network)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_card_goes_along(tmp_path, saved):
    network = load_network(saved)
    card = {"licence": "CC0", "scores": {"dice": [0.7, 0.8]}, "recipe": "ten steps"}
    save_network(tmp_path / "a.npz", network, card=card)
    back = load_network(tmp_path / "a.npz")
    assert {k: back.card[k] for k in card} == card
    assert back.card["preprocessing"] is None, "nobody said"
    save_network(tmp_path / "b.npz", back)
    assert load_network(tmp_path / "b.npz").card == back.card


def test_half_precision_is_kept_as_float32(tmp_path):
    network = trained("unet", features=(4, 8)).bfloat16()
    save_network(tmp_path / "n.npz", network)
    for a, b in zip(
        network.parameters(), load_network(tmp_path / "n.npz").parameters()
    ):
        assert b.dtype == torch.float32 and torch.equal(a.float(), b)


def test_existing_file_is_replaced_only_if_asked(saved):
    before = saved.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite"):
        save_network(saved, trained("unet"))
    assert saved.read_bytes() == before
    save_network(saved, trained("unet"), overwrite=True)
    assert load_network(saved).arguments["features"] == [16, 32, 64]


def test_failed_write_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(OSError, match="disk full"):
        save_network(saved, trained("unet"), overwrite=True)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_what_cannot_be_kept(tmp_path):
    class Own(RegistrationNetwork):
        name = "own"

    with pytest.raises(ValueError, match="Own"):
        save_network(tmp_path / "n", Own(2))
    with pytest.raises(ValueError, match="card"):
        save_network(tmp_path / "n", make_network("unet", 2), card={"x": object()})
    with pytest.raises(ValueError, match="licence of the card"):
        save_network(tmp_path / "n", make_network("unet", 2), card={"licence": 3})
    network = make_network("unet", 2)
    next(network.parameters()).data[0] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        save_network(tmp_path / "n", network)
    assert not list(tmp_path.iterdir())


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_network(tmp_path / "none.npz")


def test_truncated_file(saved):
    whole = saved.read_bytes()
    for length in range(0, len(whole), len(whole) // 17):
        saved.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="network.npz"):
            load_network(saved)


def test_damaged_file(saved):
    """If any byte is changed, an error is raised, or the network is the same."""
    whole, network = saved.read_bytes(), load_network(saved)
    for place in np.linspace(0, len(whole) - 1, 150).astype(int):
        turned = bytearray(whole)
        turned[place] ^= 0x55
        saved.write_bytes(turned)
        try:
            back = load_network(saved)
        except ValueError as error:
            assert "network.npz" in str(error)
        else:
            assert repr(back) == repr(network) and back.card == network.card
            states = network.state_dict(), back.state_dict()
            assert all(
                torch.equal(*both) for both in zip(*(s.values() for s in states))
            )


@pytest.mark.parametrize("old, new", [("velocity", "displacement"), ("CC0", "MIT")])
def test_header_that_was_changed(tmp_path, old, new):
    """Entries are changed in an archive with a valid structure."""
    path, changed = tmp_path / "a.npz", tmp_path / "b.npz"
    network = trained("unet", features=(4, 8), output="velocity")
    save_network(path, network, card={"licence": "CC0"})
    with zipfile.ZipFile(path) as file, zipfile.ZipFile(changed, "w") as copy:
        for name in file.namelist():
            content = file.read(name)
            if name == "header.json":
                content = content.replace(old.encode(), new.encode())
                assert new.encode() in content
            copy.writestr(name, content)
    with pytest.raises(ValueError, match="b.npz.*checksum"):
        load_network(changed)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x05\x06" + bytes(18)])
def test_other_files(tmp_path, content):
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="other.npz"):
        load_network(path)


def test_other_archives(tmp_path):
    np.savez(tmp_path / "a.npz", weights=np.ones(3))
    torch.save(make_network("unet", 2).state_dict(), tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", weights=np.array([{}], dtype=object))
    for name in "abc":
        with pytest.raises(ValueError, match=f"{name}.npz"):
            load_network(tmp_path / f"{name}.npz")


def _header(**changes):
    return lambda header, arrays: header.update(changes)


def _arguments(**changes):
    return lambda header, arrays: header["arguments"].update(changes)


def _extra(header, arrays):
    arrays["weights/more"] = np.ones(3)


def _lack(header, arrays):
    arrays.pop("weights/flow.bias")


def _reshape(header, arrays):
    arrays["weights/flow.bias"] = np.ones((2, 1), np.float32)


@pytest.mark.parametrize(
    "change, word",
    [
        (_header(architecture="transformer"), "transformer"),
        (_header(architecture=["unet"]), "architecture"),
        (_header(format="another"), "kind"),
        (_header(version=2), "version"),
        (_header(arguments={"dim": 5}), "dim"),
        (_header(arguments={"dim": 2, "colour": 1}), "colour"),
        (_header(arguments={"dim": 2, "features": 7}), "features|iterable"),
        (_header(arguments=None), "arguments"),
        (_header(card=3), "card"),
        (_header(card={"licence": 5}), "licence"),
        (_header(card={"preprocessing": "none"}), "preprocessing"),
        (_header(card={"scores": [1]}), "scores"),
        (_arguments(spacing="x"), "spacing must be above 0.*'x'"),
        (_arguments(features=["4", "8"]), "features"),
        (_arguments(features=[4.0, 8]), "4.0"),
        (_extra, "more"),
        (_lack, "flow.bias"),
        (_reshape, "flow.bias"),
    ],
)
def test_wrong_content(saved, change, word):
    rewritten(saved, change)
    with pytest.raises(ValueError, match=f"(?s)network.npz.*({word})"):
        load_network(saved)


def test_training_state_is_passed_over(saved):
    def change(header, arrays):
        header["training"] = {"step": 3}
        arrays["training/adam/flow.bias/exp_avg"] = np.ones(2, np.float32)

    rewritten(saved, change)
    assert load_network(saved).name == "unet"
