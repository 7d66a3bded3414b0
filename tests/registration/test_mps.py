"""On a device without float64, such as Apple's, everything works as on the CPU."""

from fake_mps import MPS, FakeMPS
import numpy as np
from pairs import make_pair, move, voxels
import pytest
import torch

from dipy_dl_reg import (
    DeepRegistration,
    ThinPlateSplineRegistration,
    deep_affine_registration,
)
from dipy_dl_reg.geometry.kernels import dispatch


@pytest.fixture(autouse=True)
def torch_alone():
    """The compiled loops are for the CPU."""
    with dispatch.without_kernels():
        yield


@pytest.fixture
def moved_weights():
    """Weights become new tensors on the device, which are of another class here."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)


@pytest.fixture(scope="module")
def flat():
    """A 2D pair on two grids."""
    return make_pair(
        np.diag([-1.5, 1.5]), np.diag([1.4, -1.6]), (34, 30), (31, 36), None
    )


@pytest.fixture(scope="module")
def solid():
    """A 3D pair on one grid."""
    return make_pair(*[2.0 * np.eye(3)] * 2, (22, 24, 20), (22, 24, 20), None)


def test_the_device_is_taken_seriously():
    """What the real one refuses."""
    with FakeMPS():
        there = torch.ones(3, device="mps")
        assert (there * 2).device == there.to("mps").device == MPS
        assert there.cpu().device.type == "cpu"
        assert there.cpu().double().dtype == torch.float64
        for wrong in (
            lambda: there.double(),
            lambda: there.sum(dtype=torch.float64),
            lambda: there.new_zeros(2, dtype=torch.float64),
            lambda: there.to("cpu", torch.float64),
            lambda: torch.ones(3, dtype=torch.float64, device="mps"),
            lambda: torch.ones(3, dtype=torch.float64).to("mps"),
            lambda: there.numpy(),
        ):
            with pytest.raises(TypeError):
                wrong()
        with pytest.raises(RuntimeError, match="on mps:0 and on cpu"):
            there + torch.ones(3)


def both(run):
    """What something returns on the CPU and there."""
    wanted = run("cpu")
    with FakeMPS():
        found = run("mps")
    return zip(map(np.asarray, wanted), map(np.asarray, found), strict=True)


def register(pair, device, *args, **options):
    options = {"model": None, "level_iters": [4, 4], **options}
    registration = DeepRegistration(*args, device=device, **options)
    assert registration.device.type == device
    masks = {
        "static_mask": pair.static > 0.1,
        "moving_mask": pair.moving > 0.1,
    }
    mapping = registration.optimize(pair.static, pair.moving, **pair.affines, **masks)
    return mapping.forward, mapping.backward


@pytest.mark.parametrize("metric", ["CC", "SSD", "NCC", "MI", "CR", "MIND", None])
def test_registration(metric, flat, solid):
    pair = solid if metric in ("CC", "MI") else flat
    for ours, theirs in both(lambda device: register(pair, device, metric)):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"regularizer": "bending", "regularizer_weight": 0.1},
        {"initialization": "discrete"},
        {"landmarks": 1},
        {"model": "auto"},
    ],
    ids=["penalty", "search", "landmarks", "network"],
)
def test_registration_with_options(options, flat, solid, moved_weights):
    # In 2D what takes long, and does not depend on the dimension of the tensors.
    pair = flat if {"initialization", "model"} & options.keys() else solid
    if "landmarks" in options:
        points = np.random.default_rng(0).uniform(-8, 8, (12, 3)) + [11, -7, 5]
        options = {"landmarks": (points, points + 0.5 * np.sin(points[:, ::-1]))}
    for ours, theirs in both(lambda device: register(pair, device, "CC", **options)):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "metric, dim, starts",
    [
        ("MI", 3, "auto"),
        ("CC", 3, "one"),
        *((metric, 2, "auto") for metric in ("MI", "CC", "NCC", "SSD")),
    ],
)
def test_affine_registration(metric, dim, starts, flat, solid):
    pair = flat if dim == 2 else solid

    def run(device):
        return deep_affine_registration(
            pair.moving,
            pair.static,
            moving_affine=pair.moving_grid2world,
            static_affine=pair.static_grid2world,
            metric=metric,
            static_mask=pair.static > 0.1,
            starts=starts,
            device=device,
        )[1:]

    ((ours, theirs),) = both(run)
    # Where a descent ends depends on rounding, within its tolerance.
    shape = np.array(pair.static.shape)
    corners = voxels((2,) * dim).reshape(-1, dim) * (shape - 1)
    places = move(pair.static_grid2world, corners)
    away = np.linalg.norm(move(ours, places) - move(theirs, places), axis=1)
    assert away.max() < 0.1 * 1.5  # a tenth of a voxel


@pytest.mark.parametrize("shape", [(22, 24, 20), (66, 68, 64)])
def test_splines(shape):
    points = np.random.default_rng(0).uniform(2, 18, (12, 3))
    moved = points + np.sin(points[:, ::-1])

    def run(device):
        registration = ThinPlateSplineRegistration(device=device)
        mapping = registration.optimize(points, moved, static_shape=shape)
        back = registration.transform_points_inverse(moved)
        return mapping.forward, mapping.backward, back

    for ours, theirs in both(run):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)
