"""A fixture by which tests run twice: with the compiled loops, and in torch alone.

A folder whose tests shall do so imports it in its conftest.py.
"""

from contextlib import nullcontext

import pytest

from dipy_dl_reg.geometry.kernels import dispatch


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def implementation(request):
    """Loops or torch; without compiled loops both parameters use torch."""
    with dispatch.without_kernels() if request.param == "torch" else nullcontext():
        yield request.param
