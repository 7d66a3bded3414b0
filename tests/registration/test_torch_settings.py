"""Torch's global settings have no effect on results and are not changed."""

from contextlib import contextmanager, nullcontext

import numpy as np
from pairs import make_pair
import pytest
import torch

from dipy_dl_reg import (
    DeepRegistration,
    ThinPlateSplineRegistration,
    deep_affine_registration,
    fit,
    make_network,
)
from dipy_dl_reg.geometry.kernels import dispatch
from dipy_dl_reg.metrics.registry import METRICS
from dipy_dl_reg.networks.layers import torch_defaults


@contextmanager
def double():
    """float64 is what tensors are made of by default."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def elsewhere():
    """Tensors are made without data by default, as on a device that is not there."""
    torch.set_default_device("meta")
    try:
        yield
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)


SETTINGS = {"float64": double, "device": elsewhere}


@pytest.fixture(params=["compiled", "torch"])
def way(request):
    """With the compiled loops, where they are there, and without."""
    with dispatch.without_kernels() if request.param == "torch" else nullcontext():
        yield


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


def fields(pair, *args, **options):
    """Both fields of a short registration."""
    options = {"model": None, "level_iters": [3, 3], **options}
    registration = DeepRegistration(*args, **options)
    mapping = registration.optimize(pair.static, pair.moving, **pair.affines)
    return mapping.forward, mapping.backward


def marks(pair, bend=0.5):
    """Landmarks in the middle of a 3D pair."""
    points = np.random.default_rng(0).uniform(-8, 8, (12, 3))
    points = points + pair.static_grid2world[:3] @ [*(np.array((21, 23, 19)) / 2), 1]
    return points, points + bend * np.sin(points[:, ::-1])


def unchanged(run, settings=SETTINGS):
    """Check that something is bit for bit the same under each setting."""
    wanted = run()
    for name, setting in settings.items():
        with setting():
            found = run()
        for ours, theirs in zip(wanted, found, strict=True):
            ours, theirs = np.asarray(ours), np.asarray(theirs)
            np.testing.assert_array_equal(theirs, ours, err_msg=name)


@pytest.mark.parametrize("metric", METRICS)
def test_registration_by_every_metric(metric, flat, solid, way):
    unchanged(lambda: fields(solid, metric))
    unchanged(lambda: fields(flat, metric))


@pytest.mark.parametrize(
    "options",
    [
        {"regularizer": "bending", "regularizer_weight": 0.1},
        {"initialization": "discrete"},
        {"landmarks": True},
        {"model": "auto"},
        {"model": "voxelmorph-t1", "level_iters": 0},
    ],
    ids=lambda options: next(iter(options.values())) or "network",
)
def test_registration_with_options(options, flat, solid):
    pair = flat if "initialization" in options else solid
    options = {
        name: marks(solid) if name == "landmarks" else value
        for name, value in options.items()
    }
    unchanged(lambda: fields(pair, "CC", **options))


@pytest.mark.parametrize("metric", ["MI", "CC", "NCC", "SSD"])
def test_affine_registration(metric, flat, solid, way):
    """With the search over rotations where it is fast."""
    for pair, starts in (flat, "auto"), (solid, "one"):
        unchanged(
            lambda pair=pair, starts=starts: deep_affine_registration(
                pair.moving,
                pair.static,
                moving_affine=pair.moving_grid2world,
                static_affine=pair.static_grid2world,
                metric=metric,
                level_iters=[20, 20, 20],
                starts=starts,
            ),
        )


def test_search_over_rotations_in_3d(solid):
    unchanged(
        lambda: deep_affine_registration(
            solid.moving,
            solid.static,
            moving_affine=solid.moving_grid2world,
            static_affine=solid.static_grid2world,
            pipeline=["rigid"],
            level_iters=[4],
            starts="all",
        ),
    )


def test_splines(solid):
    """On a grid small enough for the exact sum, and on one that is not."""
    registration, points = ThinPlateSplineRegistration(), marks(solid)

    def run(shape):
        mapping = registration.optimize(
            *points, static_shape=shape, static_grid2world=solid.static_grid2world
        )
        return mapping.forward, mapping.backward

    unchanged(lambda: run((22, 24, 20)))
    unchanged(lambda: run((66, 68, 64)))
    moved = registration.transform_points(points[0])
    for setting in SETTINGS.values():
        with setting():
            back = registration.transform_points_inverse(moved)
        np.testing.assert_allclose(back, points[0], rtol=0, atol=1e-6)


def test_training(rng):
    images = list(rng.random((4, 24, 24)))

    def run():
        network = fit("voxelmorph", images, steps=3, seed=0)
        return [x.detach().numpy() for x in network.state_dict().values()]

    unchanged(run)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_a_new_network_is_an_ordinary_one(setting):
    with setting():
        network = make_network("dirnet", 2, seed=0)
    (kind,) = {(x.dtype, x.device.type) for x in network.parameters()}
    assert kind == (torch.float32, "cpu")


def test_defaults_are_given_back_after_an_error():
    with double(), elsewhere():
        with pytest.raises(KeyError), torch_defaults():
            raise KeyError
        assert torch.empty(0).device.type == "meta"
        assert torch.empty(0, device="cpu").dtype == torch.float64


#: Without gradients, in both ways of torch.
MODES = {"inference": torch.inference_mode, "no_grad": torch.no_grad}


@pytest.mark.parametrize("metric", ["MI", "CC", "NCC", "SSD"])
def test_affine_registration_without_gradients(metric, flat):
    unchanged(
        lambda: deep_affine_registration(
            flat.moving,
            flat.static,
            moving_affine=flat.moving_grid2world,
            static_affine=flat.static_grid2world,
            moving_mask=flat.moving > 0.1,
            metric=metric,
            level_iters=[20, 20, 20],
        ),
        MODES,
    )


@pytest.mark.parametrize(
    "options",
    [
        {"model": "auto"},
        {"regularizer": "bending", "regularizer_weight": 0.1},
        {"regularizer": lambda u: u.square().mean(), "regularizer_weight": 0.1},
    ],
    ids=["network", "bending", "function"],
)
def test_registration_without_gradients(options, flat, way):
    unchanged(lambda: fields(flat, "CC", **options), MODES)


@pytest.mark.parametrize("metric", METRICS)
def test_deterministic_algorithms(metric, flat, way):
    """On the CPU nothing is refused."""

    @contextmanager
    def deterministic():
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)

    unchanged(lambda: fields(flat, metric), {"deterministic": deterministic})
