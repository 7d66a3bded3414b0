"""Common settings of all tests: no downloads, no display, DIPY's log in `caplog`.

Objects of the size of a head are no heads, unless a test has the fixture `heads`.
"""

import logging
import os
import socket

import numpy as np
import pytest

from dipy_dl_reg.registration import anatomy_use, head_masks
from dipy_dl_reg.registration.affine import orientation

os.environ["MPLBACKEND"] = "Agg"


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Tests use data that the dependencies contain; a download is an error."""

    def connect(self, address, *args):
        # The processes of dask and ray talk to each other on this computer.
        if self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"):
            return original(self, address, *args)
        raise OSError(f"tests use no network, and something asked for {address}")

    original = socket.socket.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        yield


@pytest.fixture(autouse=True)
def log_of_dipy(monkeypatch):
    """DIPY makes its logger propagate only if pytest has set its handlers before."""
    monkeypatch.setattr(logging.getLogger("dipy"), "propagate", True)


@pytest.fixture
def heads():
    """Let the network find out whether an object is a head, as in use."""


@pytest.fixture(autouse=True)
def no_heads(request, monkeypatch):
    """Say that no object is a head, which takes the network some seconds."""
    if "heads" not in request.fixturenames:
        none = [None, None]
        monkeypatch.setattr(head_masks, "predict_upright", lambda *images: none)
        monkeypatch.setattr(anatomy_use, "predict_pair_maps", lambda pair: None)
        monkeypatch.setattr(orientation, "_shows_upright_head", lambda image: False)


@pytest.fixture
def rng():
    """Seeded generator: the same numbers in every run."""
    return np.random.default_rng(20240607)
