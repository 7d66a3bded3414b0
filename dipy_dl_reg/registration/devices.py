"""Choice of the Torch device, and of the number of threads on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
import threading

import numpy as np
import torch


def find_device(name: str | torch.device = "auto") -> torch.device:
    """Find a Torch device by its name.

    Parameters
    ----------
    name : str or torch.device, optional
        ``"auto"`` is CUDA if it is available, else MPS if it can sample volumes, else
        the CPU; other values are Torch's names of devices.

    Returns
    -------
    device : torch.device
        The device.

    Raises
    ------
    ValueError
        If there is no such device.
    """
    if str(name) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if _mps_works() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"device={name!r} cannot be used: {first}") from None
    return device


def describe_device(device: torch.device) -> str:
    """Describe a device for the record.

    Parameters
    ----------
    device : torch.device
        The device.

    Returns
    -------
    text : str
        Such as "cpu, 4 threads" or "cuda (NVIDIA H100)".
    """
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu, {threads} thread{'s' if threads > 1 else ''}"
    return str(device)


def count_gpus() -> int:
    """Count the GPUs of this computer that Torch can use with CUDA.

    Returns
    -------
    count : int
        0 if there are none.
    """
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _mps_works() -> bool:
    """Whether this version of Torch can sample volumes on Apple's device."""
    if not torch.backends.mps.is_available():
        return False
    try:
        image = torch.zeros(1, 1, 2, 2, 2, device="mps")
        grid = torch.zeros(1, 1, 1, 1, 3, device="mps")
        torch.nn.functional.grid_sample(
            image, grid, padding_mode="border", align_corners=True
        )
    except (RuntimeError, NotImplementedError):
        return False
    return True


class _ThreadCounts(threading.local):
    """Counts of open `threads` blocks: `depth` in this thread, `open_blocks` in all."""

    lock = threading.Lock()
    open_blocks, outer_count = 0, 1
    #: Whether this process was forked from one that had loaded Torch.
    forked = False

    def __init__(self):
        self.depth = 0


_COUNTS = _ThreadCounts()


def _use_one_thread() -> None:
    """Limit Torch to one thread in a process that was forked.

    A fork does not copy OpenMP's threads; a parallel loop would wait for them forever.
    """
    _ThreadCounts.lock, _ThreadCounts.forked = threading.Lock(), True
    _ThreadCounts.open_blocks = _COUNTS.depth = 0
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_one_thread)


@contextmanager
def threads(count: int | None = None) -> Iterator[None]:
    """Set Torch's number of threads within a ``with`` block.

    Parameters
    ----------
    count : int, optional
        As in DIPY: None leaves Torch's number unchanged; a negative number counts back
        from the number of processors (-1 is all of them).  A process that was forked,
        such as a worker of `multiprocessing.Pool` on Linux, always uses one thread.

    Yields
    ------
    None
        The previous number is restored afterwards.

    Raises
    ------
    ValueError
        If `count` is 0 or not a whole number.

    Notes
    -----
    Torch stores one number for each Python thread; a new Python thread begins with the
    number that was set last in any thread.  Blocks may be nested, and may be open in
    several Python threads at once.  If a thread enters a block while a block of another
    thread is open, its number is restored at the end to the number that was set before
    the first of these blocks.
    """
    if count is None:
        yield
        return
    from dipy.utils.omp import determine_num_threads

    if not isinstance(count, (int, np.integer)) or count == 0:
        raise ValueError(
            f"num_threads must be a whole number other than 0, got {count!r}."
        )
    wanted = 1 if _COUNTS.forked else max(1, determine_num_threads(int(count)))
    before = _enter_block(wanted)
    try:
        yield
    finally:
        _leave_block(before)


def _enter_block(count: int) -> int:
    """Set the number of threads; return the number to restore afterwards."""
    with _COUNTS.lock:
        # A new Python thread begins with the number that another has just set.
        others_alone = _COUNTS.open_blocks and not _COUNTS.depth
        before = _COUNTS.outer_count if others_alone else torch.get_num_threads()
        if not _COUNTS.open_blocks:
            _ThreadCounts.outer_count = before
        _ThreadCounts.open_blocks += 1
        _COUNTS.depth += 1
        torch.set_num_threads(count)
    return before


def _leave_block(before: int) -> None:
    """Restore the previous number of threads."""
    with _COUNTS.lock:
        _ThreadCounts.open_blocks -= 1
        _COUNTS.depth -= 1
        torch.set_num_threads(before)
