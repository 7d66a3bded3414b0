"""Registration by FODs: bases and frames, errors before work."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest
from test_orientation_registration import AFFINES, QUIET, angles, bundles

from dipy_dl_reg import convert_harmonics, register_fods
from dipy_dl_reg.diffusion.fod_registration import fod_channels
from dipy_dl_reg.diffusion.harmonics import make_basis
from dipy_dl_reg.diffusion.tensors import transform_tensors
from dipy_dl_reg.geometry.sphere import spread_directions

DIRECTIONS = spread_directions(200)
FAST = QUIET | {"weights": "least_squares"}


def fods(tensors, count=15):
    """FODs of order 4 or more in MRtrix3's basis: the fourth power of a cosine."""
    basis = make_basis("mrtrix", count)
    inverse = np.linalg.pinv(basis.evaluate(DIRECTIONS))
    evals, evecs = np.linalg.eigh(tensors)
    amplitude = 1e3 * (evals[..., 2] - evals[..., 1])
    cosines = evecs[..., 2] @ DIRECTIONS.T
    return (amplitude[..., None] * cosines**4) @ inverse.T


def test_border_that_only_directions_show():
    static, moving = bundles(0.0), bundles(0.25)
    warped, mapping = register_fods(fods(moving), fods(static), basis="mrtrix", **FAST)
    assert warped.shape == (*static.shape[:3], 15)
    before = angles(static, moving).mean()
    after = angles(static, transform_tensors(mapping, moving)).mean()
    assert after < 0.4 * before
    wanted = fods(static)[10:14, 8:18, 4:8]
    errors = [
        np.abs(image[10:14, 8:18, 4:8] - wanted).mean()
        for image in (fods(moving), warped)
    ]
    # The voxels at the border hold an interpolation of both directions.
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize(
    "basis, legacy, frame",
    [("descoteaux07", True, "voxel"), ("tournier07", True, "fsl"),
     ("descoteaux07", False, "world")],
)  # fmt: skip
def test_bases_and_frames(basis, legacy, frame):
    """The same FODs in any basis and frame, also of higher order, give the same map."""
    affine = AFFINES["LAS"]
    given = {"moving_affine": affine, "static_affine": affine, **FAST}
    images = fods(bundles(0.25)), fods(bundles(0.0))
    _, expected = register_fods(*images, basis="mrtrix", **given)
    converted = [
        convert_harmonics(
            sh,
            "mrtrix",
            basis,
            to_legacy=legacy,
            affine=affine,
            to_frame=frame,
        )
        for sh in (fods(bundles(0.25), 28), fods(bundles(0.0), 28))
    ]
    _, mapping = register_fods(
        *converted, basis=basis, legacy=legacy, frame=frame, **given
    )
    assert np.abs(expected.backward).max() > 2
    assert np.abs(mapping.backward - expected.backward).mean() < 0.02


def test_fod_channels():
    """The 99th percentiles are 1, and norms are those of the functions."""
    basis = make_basis("tournier07", 15)
    rng = np.random.default_rng(0)
    sh = rng.normal(size=(8, 8, 8, 15)) * rng.uniform(0, 5, (8, 8, 8, 1))
    sh[0], sh[1, 0, 0, 3] = 0, np.nan
    channels = fod_channels(sh, basis, 4)
    assert channels.shape == sh.shape
    assert_array_equal(channels[0], 0)
    assert_array_equal(channels[1, 0, 0], 0)
    norms = np.linalg.norm(channels[..., 1:], axis=-1)
    assert_allclose(np.percentile(norms[norms > 0], 99), 1, atol=1e-5)
    functions = sh[..., 1:] @ basis.evaluate(DIRECTIONS)[:, 1:].T
    lengths = np.sqrt(np.square(functions).mean(-1))
    ratio = (lengths / np.maximum(norms, 1e-9))[2:]
    assert ratio.std() < 0.02 * ratio.mean()
    assert fod_channels(sh, basis, 2).shape[-1] == 6


@pytest.mark.parametrize(
    "sh, options, message",
    [
        (np.zeros((9, 9, 9)), {}, "moving must hold 6, 15, 28"),
        (np.zeros((9, 9, 9, 1)), {}, "moving must hold 6, 15, 28"),
        (np.zeros((9, 9, 9, 16)), {}, "moving: sh must have"),
        (np.zeros((9, 9, 9, 15)), {}, "moving must not be zero or NaN everywhere"),
        (np.ones((9, 9, 9, 15)), {"basis": "sh"}, "basis must be"),
        (np.ones((9, 9, 9, 15)), {"frame": "ras"}, "frame must be"),
        (np.ones((9, 9, 9, 15)), {"weights": "all"}, "weights must be"),
        (np.ones((9, 9, 9, 15)), {"density_weight": -1}, "density_weight must be"),
        (np.ones((9, 9, 9, 15)), {"pipeline": ["affine"]}, "must end with 'deform'"),
    ],
)
def test_wrong_input(sh, options, message):
    with pytest.raises(ValueError, match=message):
        register_fods(sh, np.ones((9, 9, 9, 15)), **options)
