"""Without compiled loops: one warning, the results of torch, and an installation."""

import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
import warnings

import pytest
import torch

from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.geometry.kernels import dispatch, loading

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def implementation():
    """Replaces the folder's fixture: each test here selects loops or torch itself."""


@pytest.fixture
def missing(monkeypatch):
    """The package as it is without the compiled file."""
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    monkeypatch.delenv("DIPY_DL_REG_KERNELS", raising=False)
    library, reason = loading.load_library()
    assert library is None
    monkeypatch.setattr(dispatch, "_library", library)
    monkeypatch.setattr(dispatch, "_reason", reason)
    loading.warn_of_missing_loops.cache_clear()
    yield
    loading.warn_of_missing_loops.cache_clear()


def small_warp(dtype=torch.float32):
    return warp(torch.rand(1, 1, 5, 6, 7, dtype=dtype), torch.zeros(1, 3, 5, 6, 7))


def messages_of(function, *arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function(*arguments)
    return [str(w.message) for w in caught]


def test_first_use_warns_once(missing):
    """It states the cause, the cost and the remedy."""
    (said,) = messages_of(small_warp)
    assert "no C compiler" in said and "4 times" in said
    assert ("WSL" if sys.platform == "win32" else "GCC or Clang") in said
    assert messages_of(small_warp) == []


def test_no_warning_where_no_loop_would_run(missing):
    """Of float64, inside `without_kernels`, or turned off by the user."""
    assert messages_of(lambda: dispatch.supports(torch.rand(1, 1, 5, 6).double())) == []
    with dispatch.without_kernels():
        assert messages_of(small_warp) == []
    assert len(messages_of(small_warp)) == 1


def test_turned_off_is_not_missing(monkeypatch):
    monkeypatch.setenv("DIPY_DL_REG_KERNELS", "0")
    assert loading.load_library() == (None, "")


def test_file_that_cannot_be_loaded(monkeypatch, tmp_path):
    """Such as one for another processor: torch computes, and the warning says why."""
    broken = tmp_path / "_kernels.so"
    broken.write_bytes(b"not a library")
    spec = type("Spec", (), {"origin": str(broken)})
    monkeypatch.delenv("DIPY_DL_REG_KERNELS", raising=False)
    monkeypatch.setattr(loading, "find_spec", lambda name: spec)
    library, reason = loading.load_library()
    assert library is None and "cannot be loaded" in reason and "_kernels.so" in reason


@pytest.mark.parametrize("file", ["profile_2mm.txt", "profile_1mm.txt"])
def test_factor_is_the_measured_one(file):
    """The warning says 4; each measured factor is within a quarter of it."""
    table = (ROOT / "doc" / "benchmark" / file).read_text()
    (factor,) = re.findall(r"^whole iteration .* ([\d.]+)x$", table, re.M)
    assert 3 <= float(factor) <= 5


@pytest.mark.skipif(sys.platform == "win32", reason="CC is not read there")
def test_build_without_a_compiler(tmp_path):
    """setup.py succeeds, and makes no extension."""
    pytest.importorskip("setuptools")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    csrc = Path("dipy_dl_reg", "geometry", "kernels", "csrc")
    shutil.copytree(ROOT / csrc, tmp_path / csrc)
    shutil.copy(ROOT / "dipy_dl_reg" / "__init__.py", tmp_path / "dipy_dl_reg")
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext"],
        cwd=tmp_path,
        env=os.environ | {"CC": "/bin/false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not [*tmp_path.rglob("*.so"), *tmp_path.rglob("*.pyd")]
