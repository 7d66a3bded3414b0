"""Gives each process of a study a GPU of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import getpass
import os
from pathlib import Path
import re
import tempfile
import time

from filelock import FileLock, Timeout

#: Seconds between two attempts to get a GPU.
_PAUSE = 0.5


@contextmanager
def claim_device(
    device: str, *, count: int | None = None, folder: str | os.PathLike | None = None
) -> Iterator[str]:
    """Reserve a GPU for this process, while others use the others.

    Parameters
    ----------
    device : str
        ``"auto"`` or ``"cuda"`` is any GPU that is free, or the CPU if this computer
        has none; any other device is not reserved.
    count : int, optional
        Number of GPUs; by default it is determined.
    folder : str or Path, optional
        Folder of the lock files; by default one of this user for temporary files.

    Yields
    ------
    device : str
        Such as ``"cuda:1"``.  The function waits until one is free.  If a process
        ends, the system frees its GPU.
    """
    if device not in ("auto", "cuda"):
        yield device
        return
    from dipy_dl_reg.registration.devices import count_gpus

    names = _name_gpus(count_gpus() if count is None else count)
    if not names:
        yield device
        return
    locks = [_lock_file(name, folder) for name in names]
    index, lock = _wait_for_one(locks)
    try:
        yield f"cuda:{index}"
    finally:
        lock.release()


def _name_gpus(count: int) -> list[str]:
    """Name GPUs so that all processes of a computer use the same names.

    The variable ``CUDA_VISIBLE_DEVICES`` changes the numbers in a process.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return names if len(names) == count else [str(k) for k in range(count)]


def _lock_file(name: str, folder: str | os.PathLike | None) -> FileLock:
    """The lock of a GPU."""
    if folder is None:
        folder = Path(tempfile.gettempdir(), f"dipy_dl_reg-{getpass.getuser()}")
    Path(folder).mkdir(parents=True, exist_ok=True)
    # Names of parts of a GPU (MIG) contain slashes; Windows forbids more characters.
    name = re.sub(r"[^\w.-]", "_", name)
    return FileLock(Path(folder, f"gpu-{name}.lock"))


def _wait_for_one(locks: Sequence[FileLock]) -> tuple[int, FileLock]:
    """Wait until one of several locks is free, and acquire it."""
    while True:
        for index, lock in enumerate(locks):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            return index, lock
        time.sleep(_PAUSE)
