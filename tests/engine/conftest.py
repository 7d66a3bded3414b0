"""The engine's tests run twice: with the compiled loops, and in torch alone."""

from contextlib import nullcontext

import pytest

from dipy_dl_reg.engine import compiled


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def way(request):
    """Which of the two; where nothing is compiled both are torch."""
    with compiled.plain() if request.param == "torch" else nullcontext():
        yield request.param
