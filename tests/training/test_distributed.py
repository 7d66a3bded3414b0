"""Two processes under torchrun do what one does with a batch twice as large."""

from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest
from shapes import DoublePairs, ellipses, small, weights
import torch

from dipy_dl_reg.networks.array_file import read_arrays
from dipy_dl_reg.networks.checkpoint import load_network
from dipy_dl_reg.training.examples.augmentation import Augment
from dipy_dl_reg.training.loop.distributed import join
from dipy_dl_reg.training.loop.train_network import train_network

SCRIPT = """
import os, sys
import torch
torch.set_num_threads(1)
from test_distributed import *
from dipy_dl_reg.training.loop.distributed import leave
rank, folder = int(os.environ["RANK"]), sys.argv[1]
total = join("cpu").total(np.array([0.1, rank]))
assert total.tolist() == [0.2, 1.0] and total.dtype == np.float64, total
for name in sys.argv[2:]:
    # Only the first process's weights count.
    history, network = train(make(name, rank), f"{folder}/{name}", 2, 4)
    if name == "selfsup-fcn":
        history, network = train(make(name, 5), f"{folder}/{name}", 2, 7, resume=True)
    options = {"mixed_precision": True, **MIXED, "batch_size": 2}
    mixed = train_network(small(name), ellipses(4), **options)
    result = [list(history), network.state_dict(), mixed.rows]
    torch.save(result, f"{folder}/{name}.{rank}.pt")
leave()
tasks = Path("/proc/self/task").glob("*/comm")  # none, but on Linux
assert not [x for x in tasks if "gloo" in x.read_text()], "threads outlive the group"
"""
OPTIONS = {
    "augment": Augment(), "validate_every": 3, "learning_rate": 1e-3,
    "checkpoint_every": 2, "metric": "NCC",
}  # fmt: skip
MIXED = {"steps": 6, "validate_every": 3, "learning_rate": 1e-3}
NAMES = ["selfsup-fcn", "voxelmorph"]


def make(name, seed):
    return small(name, seed=seed).double()


def train(network, path, batch_size, steps, **options):
    images = DoublePairs(ellipses(4)), DoublePairs(ellipses(3, seed=1))
    options = {**OPTIONS, **options}
    history = train_network(
        network, images[0], validation=images[1], steps=steps, batch_size=batch_size,
        checkpoint=f"{path}.npz", log=f"{path}.csv", **options,
    )  # fmt: skip
    return history, network


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    script = folder / "script.py"
    here = str(Path(__file__).parent)
    script.write_text(f"import sys; sys.path.insert(0, {here!r})\n{SCRIPT}")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--nproc_per_node", "2", script, folder, *NAMES]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_do_as_one(launched, tmp_path, name):
    steps = 7 if name == "selfsup-fcn" else 4
    history, alone = train(make(name, 0), tmp_path / name, 4, steps)
    first, second = (
        torch.load(launched / f"{name}.{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert first[0] == second[0]
    for key, tensor in alone.state_dict().items():
        torch.testing.assert_close(first[1][key], tensor, rtol=1e-5, atol=1e-7)
        assert torch.equal(first[1][key], second[1][key]), key
    assert len(first[0][1]) == len(history.rows)
    for ours, theirs in zip(first[0][1], history.rows):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_mixed_precision_of_two(launched, name):
    rows = torch.load(launched / f"{name}.0.pt", weights_only=True)[2]
    alone = train_network(small(name), ellipses(4), **MIXED, batch_size=4)
    assert rows[1]["total"] == pytest.approx(alone.rows[1]["total"], rel=0.05)


def test_one_process_writes(launched):
    header, _ = read_arrays(launched / "selfsup-fcn.npz")
    assert header["training"]["step"] == 7
    saved = torch.load(launched / "selfsup-fcn.0.pt", weights_only=True)[1]
    back = load_network(launched / "selfsup-fcn.npz")
    for key, tensor in back.state_dict().items():
        assert torch.equal(tensor, saved[key].to(tensor.dtype))
    lines = (launched / "selfsup-fcn.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "3", "6", "7"]


def test_one_process_is_no_group(tmp_path):
    """Without torchrun nothing is joined."""
    network = make("voxelmorph", 0)
    train(network, tmp_path / "n", 1, 1)
    assert not torch.distributed.is_initialized()
    assert join("cpu").total(np.array([1.0, 3.0])).tolist() == [1.0, 3.0]
    assert torch.isfinite(weights(network)).all()
