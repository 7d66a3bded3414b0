"""Engines that run a function on many items."""

from functools import partial
import os
from pathlib import Path
import sys

import pytest

from dipy_dl_reg.groupwise import parallel
from dipy_dl_reg.groupwise.parallel import (
    WorkerLostError,
    count_processes,
    run_in_parallel,
)

HERE = str(Path(__file__).parent)


class Unsendable(Exception):
    """An exception that pickle cannot restore."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def half_or_fail(number, offset=0):
    """Half an even number; an error for an odd one."""
    if number % 2:
        raise Unsendable(number, "odd")
    return number // 2 + offset, os.getpid()


def end_the_process(number):
    """End the process, as the system does if memory is exhausted."""
    os._exit(9)


def test_serial_keeps_the_order_and_returns_exceptions():
    results = run_in_parallel(half_or_fail, [4, 3, 8])
    assert results[::2] == [(2, os.getpid()), (4, os.getpid())]
    assert isinstance(results[1], RuntimeError)
    assert str(results[1]) == "Unsendable: 3 and odd"


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_engines_give_the_results_of_serial(engine, monkeypatch):
    pytest.importorskip(parallel.ENGINES[engine])
    # Processes of ray find this module by it, and those of all engines the package.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([HERE, *sys.path]))
    call = partial(half_or_fail, offset=10)
    results = run_in_parallel(call, [4, 3, 8], engine=engine, n_jobs=1)
    assert [results[0][0], results[2][0]] == [12, 14]
    assert str(results[1]) == "Unsendable: 3 and odd"
    assert os.getpid() not in (results[0][1], results[2][1])


@pytest.mark.parametrize("items", [[1, 2], [1]])
def test_a_lost_process_is_one_error(items):
    """Also of one item, which joblib alone would process in this process."""
    pytest.importorskip("joblib")
    with pytest.raises(WorkerLostError, match="fewer n_jobs need less"):
        run_in_parallel(end_the_process, items, engine="joblib", n_jobs=2)


def test_no_items_start_nothing(monkeypatch):
    monkeypatch.setattr(parallel, "_RUNNERS", {})
    assert run_in_parallel(half_or_fail, []) == []


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"engine": "slurm"}, ValueError, "engine must be one of"),
        ({"n_jobs": 0}, ValueError, "n_jobs must be a whole number other than 0"),
        ({"n_jobs": 1.5}, ValueError, "n_jobs must be a whole number other than 0"),
        ({"address": "tcp://a:1"}, ValueError, "only the engines dask and ray"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        run_in_parallel(half_or_fail, [2], **arguments)


def test_an_engine_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(parallel.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="'ray' needs the package ray: pip install"):
        run_in_parallel(half_or_fail, [2], engine="ray")


def test_negative_numbers_count_back(monkeypatch):
    monkeypatch.setattr(parallel, "count_processors", lambda: 8)
    assert [count_processes(n) for n in (3, -1, -2, -20)] == [3, 8, 7, 1]
