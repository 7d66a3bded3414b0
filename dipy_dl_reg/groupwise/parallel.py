"""Runs a function on many items in parallel, by the engines of DIPY's `paramap`.

An item that fails does not stop the others: its error stands in the list of results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
import importlib.util
import logging
import os
import pickle
import threading
from typing import Any

from dipy.utils.multiproc import determine_num_processes
from dipy.utils.omp import determine_num_threads
from dipy.utils.parallel import paramap
import numpy as np

from dipy_dl_reg.validation import check_choice, wrong_value

#: The engines, and the package that each needs besides this package's dependencies.
ENGINES = {"serial": None, "joblib": "joblib", "dask": "distributed", "ray": "ray"}
#: Engines that can use a cluster which runs already.
_CLUSTERS = ("dask", "ray")
#: Seconds in which a dask cluster must answer.
_TIMEOUT = 30
#: One item at a time in a process: the number of Torch's threads is that of a process.
_LOCK = threading.Lock()


class WorkerLostError(RuntimeError):
    """A worker process ended before its work was done, such as for lack of memory."""


def run_in_parallel(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    engine: str = "serial",
    n_jobs: int = 1,
    address: str | None = None,
    num_threads: int | None = None,
) -> list[Any]:
    """Call a function for each of several items, in several processes.

    Parameters
    ----------
    function : callable
        Function of one item.  Functions of a module and `functools.partial` of them
        can be sent to processes, and so can what they return.
    items : iterable
        The items.
    engine : {"serial", "joblib", "dask", "ray"}, optional
        What runs the processes.  ``"serial"`` uses this process alone.
    n_jobs : int, optional
        Number of processes.  A negative number counts back from the number of
        processors: -1 is all of them.
    address : str, optional
        Address of a dask or ray cluster that runs already, whose workers then process
        the items; dask processes one item in each worker at a time, and ray `n_jobs`
        items at a time.  By default processes are started on this computer.
    num_threads : int, optional
        Threads of each process on the CPU; by default the number of processors,
        divided by the number of processes, at least 1, and at most ``OMP_NUM_THREADS``;
        1 on a cluster.

    Returns
    -------
    results : list
        What the function returns for each item, in the order of the items, or the
        exception that it raised.

    Raises
    ------
    ValueError
        If an argument cannot be used (see `check_engine`).
    ImportError
        If the package of the engine is not installed.
    OSError
        If the cluster does not answer.
    WorkerLostError
        If a process of joblib or ray ended before its work was done.  With dask this
        error is the result of the item.

    Notes
    -----
    `dipy.utils.parallel.paramap` runs the engines serial, joblib and ray.  With dask it
    chooses one of dask's schedulers for a single computer itself, so that neither a
    cluster nor `n_jobs` can be given; the client of dask is called here instead.

    As for all programs that start processes, a script must call this function below
    ``if __name__ == "__main__":``.

    Examples
    --------
    >>> from math import sqrt
    >>> from dipy_dl_reg.groupwise.parallel import run_in_parallel
    >>> run_in_parallel(sqrt, [4.0, 9.0, -1.0])
    [2.0, 3.0, ValueError('math domain error')]
    """
    check_engine(engine, address)
    items = list(items)
    if not items:
        return []
    # A cluster has workers of its own; fewer items than `n_jobs` need fewer processes.
    count = count_processes(n_jobs)
    count = count if address else min(count, len(items))
    if engine == "serial":
        count = 1
    if num_threads is None:
        # The processors of a cluster are not those of this computer.
        share = 1 if address else max(1, count_processors() // count)
        num_threads = min(share, determine_num_threads(None))
    call = partial(_call, function=function, num_threads=num_threads)
    return _RUNNERS[engine](call, items, count, address)


def check_engine(engine: str, address: str | None = None) -> None:
    """Check that an engine exists and is installed.

    Parameters
    ----------
    engine : str
        Name of the engine.
    address : str, optional
        Address of a cluster.

    Raises
    ------
    ValueError
        If there is no such engine, or an address is given for an engine without
        clusters.
    ImportError
        If the package of the engine is not installed.
    """
    check_choice("engine", engine, ENGINES)
    if address and engine not in _CLUSTERS:
        raise ValueError(
            f"address: only the engines {' and '.join(_CLUSTERS)} use a cluster, got "
            f"engine={engine!r}"
        )
    package = ENGINES[engine]
    if package and importlib.util.find_spec(package) is None:
        install = "dask[distributed]" if engine == "dask" else package
        raise ImportError(
            f"engine={engine!r} needs the package {package}: pip install '{install}'"
        )


def count_processes(n_jobs: int) -> int:
    """Count the processes that a user requests.

    Parameters
    ----------
    n_jobs : int
        A number of processes, or a negative number, which counts back from the number
        of processors: -1 is all of them.

    Returns
    -------
    count : int
        At least 1.

    Raises
    ------
    ValueError
        If `n_jobs` is 0 or not a whole number.
    """
    if (
        isinstance(n_jobs, bool)
        or not isinstance(n_jobs, (int, np.integer))
        or not n_jobs
    ):
        raise wrong_value("n_jobs", "a whole number other than 0", n_jobs)
    return int(n_jobs) if n_jobs > 0 else max(1, count_processors() + int(n_jobs) + 1)


def count_processors() -> int:
    """Count the processors that this process may use.

    Returns
    -------
    count : int
        Number of processors.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return determine_num_processes(-1)


def _call(item: Any, *, function: Callable[[Any], Any], num_threads: int) -> Any:
    """Call a function with a number of threads; return its result, or its exception."""
    from dipy_dl_reg.registration.devices import threads

    with _LOCK, threads(num_threads):
        try:
            return function(item)
        except Exception as error:
            return _make_portable(error)


def _make_portable(error: Exception) -> Exception:
    """The same exception, or one with its message if it cannot be sent to a process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _run_serial(
    call: Callable[[Any], Any], items: list[Any], count: int, address: str | None
) -> list[Any]:
    """Call the function in this process."""
    return paramap(call, items, engine="serial", n_jobs=1)


def _run_joblib(
    call: Callable[[Any], Any], items: list[Any], count: int, address: str | None
) -> list[Any]:
    """Call the function in processes of joblib, one item at a time in each."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    # With one job, joblib would call the function in this process, which would end with
    # it if the system ends it.  Of two processes, one item uses only one.
    n_jobs = 2 if len(items) == 1 else count
    try:
        return paramap(call, items, engine="joblib", n_jobs=n_jobs, batch_size=1)
    except BrokenProcessPool as error:
        raise _lost_worker(error) from error


def _run_ray(
    call: Callable[[Any], Any], items: list[Any], count: int, address: str | None
) -> list[Any]:
    """Call the function in processes of ray, on this computer or on a cluster."""
    # Ray sends statistics of its use to its makers unless this is set.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without it, ray hides GPUs from functions that do not request them.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    starts = not ray.is_initialized()
    if starts:
        local = {"num_cpus": count, "include_dashboard": False}
        options: dict[str, Any] = {"address": address} if address else local
        ray.init(logging_level=logging.WARNING, **options)
    try:
        cap = count if address else None
        return paramap(
            _unbind(call), items, engine="ray", clean_spill=False, inflight_cap=cap
        )
    except ray.exceptions.RayTaskError as error:  # not of `function`: see `_call`
        raise error.as_instanceof_cause() from None
    except ray.exceptions.RayError as error:
        raise _lost_worker(error) from error
    finally:
        if starts:
            ray.shutdown()


def _unbind(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A plain function: ray does not accept `functools.partial`."""

    def function(item: Any) -> Any:
        return call(item)

    return function


def _run_dask(
    call: Callable[[Any], Any], items: list[Any], count: int, address: str | None
) -> list[Any]:
    """Call the function in the workers of a dask cluster."""
    from distributed import Client, wait

    with _open_dask_cluster(count, address) as cluster:
        with Client(cluster, timeout=_TIMEOUT) as client:
            futures = client.map(call, items, pure=False, retries=0)
            wait(futures)
            return [
                future.result() if future.status == "finished" else future.exception()
                for future in futures
            ]


def _open_dask_cluster(count: int, address: str | None) -> Any:
    """A cluster on this computer, or the address of one that runs, in a context."""
    from contextlib import nullcontext

    from distributed import LocalCluster

    if address:
        return nullcontext(address)
    return LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=0,
        silence_logs="ERROR",
    )


def _lost_worker(error: Exception) -> WorkerLostError:
    """The error for a process that ended."""
    first = str(error).strip().splitlines()[0]
    return WorkerLostError(
        "a worker process ended before its work was done, perhaps for lack of memory "
        f"(fewer n_jobs need less): {first}"
    )


_RUNNERS = {
    "serial": _run_serial,
    "joblib": _run_joblib,
    "dask": _run_dask,
    "ray": _run_ray,
}
