"""Small pairs, and DIPY's log, for the tests of this folder."""

import logging

from dipy.core.gradients import gradient_table
import nibabel as nib
import numpy as np
from pairs import make_pair
import phantom
from pipeline_images import TRUTH
import pytest


@pytest.fixture(scope="module")
def flat():
    """A 2D pair with affines and a prealign."""
    turn = np.array([[1.02, 0.1, 4.0], [-0.1, 0.99, -6.0], [0, 0, 1]])
    return make_pair(
        np.diag([-1.5, 1.5]), np.diag([1.4, -1.6]), (34, 30), (31, 36), turn
    )


@pytest.fixture(scope="module")
def solid():
    """A 3D pair on one grid of 2 mm."""
    return make_pair(*[2.0 * np.eye(3)] * 2, (22, 24, 20), (22, 24, 20), None)


@pytest.fixture
def log(caplog):
    """DIPY's messages of all levels."""
    caplog.set_level(logging.DEBUG, logger="dipy")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def warned(caplog):
    """DIPY's warnings."""
    caplog.set_level(logging.WARNING, logger="dipy")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture(scope="module")
def pair():
    """An object, and the same turned and far away, on other voxels."""
    static_affine = phantom.grid((34, 40, 30), 5.0)
    moving_affine = phantom.grid((36, 38, 36), 5.0, centre=np.array([30.0, -20, 10]))
    return {
        "static": phantom.image((34, 40, 30), static_affine),
        "moving": phantom.image((36, 38, 36), moving_affine, TRUTH),
        "static_affine": static_affine,
        "moving_affine": moving_affine,
    }


@pytest.fixture(scope="module")
def series(pair, tmp_path_factory):
    """A series of a b0, two weighted volumes and a second b0; and its table."""
    b0 = pair["moving"]
    data = np.stack([b0 + 0.01, 0.3 * b0, 0.2 * b0, b0 - 0.01], axis=-1)
    bvals = np.array([0, 1000, 1000, 0])
    bvecs = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0.0]])
    folder = tmp_path_factory.mktemp("series")
    path = folder / "dwi.nii.gz"
    nib.save(nib.Nifti1Image(data, pair["moving_affine"]), path)
    for name, values in (("bval", bvals[None]), ("bvec", bvecs.T)):
        np.savetxt(folder / f"dwi.{name}", values)
    files = [str(folder / f"dwi.{name}") for name in ("bval", "bvec")]
    return data, gradient_table(bvals, bvecs=bvecs), path, files
