"""Common settings of all tests: no downloads, no display, DIPY's log in `caplog`."""

import logging
import os
import socket

import numpy as np
import pytest

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
def rng():
    """Seeded generator: the same numbers in every run."""
    return np.random.default_rng(20240607)
