"""Small pairs, and DIPY's log, for the tests of this folder."""

import logging

import numpy as np
from pairs import make_pair
from poses import make_poses
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
    return make_poses()
