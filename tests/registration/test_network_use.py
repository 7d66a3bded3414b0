"""A network is not changed, can be shared by threads, and is given by file or name."""

import threading

from known_networks import GRIDS, Says, heads, register
import numpy as np
import pytest
import torch

from dipy_dl_reg import DeepRegistration
from dipy_dl_reg.initialization.network import _ready_on_device, predict_displacement
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.networks import make_network
from dipy_dl_reg.networks.layers import BatchNorm
from dipy_dl_reg.registration.dipy_adapter import make_pair


def test_the_network_is_left_as_it_was():
    static, moving, grid2world = heads(GRIDS["RAS"], (18, 17, 16))
    network = make_network("selfsup-fcn", 3).train()
    frozen = next(m for m in network.modules() if isinstance(m, BatchNorm)).eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    register(network, static, moving, grid2world, level_iters=[1])
    assert network.training and not frozen.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_threads_share_a_network_in_training_mode():
    """It stays set for use until the last has done, and is set back then."""
    network, modes = make_network("selfsup-fcn", 2).train(), []
    entered, left = threading.Event(), threading.Event()

    def early():
        with _ready_on_device(network, torch.device("cpu")):
            entered.set()
            left.wait(5)

    thread = threading.Thread(target=early)
    thread.start()
    assert entered.wait(5)
    with _ready_on_device(network, torch.device("cpu")):
        left.set()
        thread.join()  # the other has gone
        modes += [module.training for module in network.modules()]
    assert not any(modes)
    assert all(module.training for module in network.modules())


def test_a_network_in_double_precision():
    static, moving, grid2world = heads(GRIDS["RAS"], (18, 17, 16), (1.0, 0, 0))
    torch.manual_seed(0)
    network = make_network("voxelmorph", 3)
    torch.nn.init.normal_(network.flow.weight, std=0.01)
    fields = []
    for kind in (network, network.double()):
        pair = make_pair(
            static, moving, static_grid2world=grid2world, moving_grid2world=grid2world
        )
        fields.append(predict_displacement(kind, pair, Objective(CCMetric()))[0])
    torch.testing.assert_close(*fields, atol=1e-4, rtol=1e-4)


def test_runs_are_the_same_bit_for_bit():
    static, moving, grid2world = heads(GRIDS["LAS"], (18, 17, 16), (2.0, 0, 0))
    torch.manual_seed(0)
    network = make_network("voxelmorph", 3)
    torch.nn.init.normal_(network.flow.weight, std=0.05)
    maps = [
        register(network, static, moving, grid2world, level_iters=[4])[1]
        for _ in range(2)
    ]
    np.testing.assert_array_equal(maps[0].backward, maps[1].backward)


@pytest.mark.parametrize(
    "model, message",
    [
        (True, "model must be"),
        (3, "model must be"),
        ("voxelmorph", "must be trained"),
        (make_network("voxelmorph", 2), "2D"),
        (Says(3, lambda shape: torch.full((3, *shape), torch.nan)), "not finite"),
    ],
)
def test_what_is_no_model_is_one_clear_error(model, message):
    static, moving, grid2world = heads(GRIDS["RAS"], (12, 12, 12))
    with pytest.raises(ValueError, match=message):
        register(model, static, moving, grid2world)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.npz"):
        DeepRegistration(model=tmp_path / "none.npz")
