"""Availability of the compiled loops, and their execution on several threads.

`fields.warp`, `smoothing.smooth` and other functions call a compiled loop if `supports`
returns True for their tensors.  Otherwise, or if the package was installed without a
compiler, they compute the same values with torch.  Both results agree up to rounding;
the compiled loops return identical bits for any number of threads.  The environment
variable ``DIPY_DL_REG_KERNELS=0`` disables the loops.  If the loops are missing for
another reason, the first computation that would call one warns.

`dipy_dl_reg.geometry.kernels.functions` documents the loops; the C code is in ``csrc``.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
import os

import torch

from dipy_dl_reg.geometry.kernels.loading import load_library, warn_of_missing_loops

#: Minimum number of voxels for each thread; with fewer voxels, starting a thread takes
#: longer than the time that it saves.
_LEAST_VOXELS = 20_000

_library, _reason = load_library()
#: Not empty while the loops are turned off by `without_kernels`.
_switches: list[str] = []


def available() -> bool:
    """Whether the compiled loops are installed and not turned off.

    Returns
    -------
    available : bool
        If False, everything is computed with torch, more slowly.
    """
    return _library is not None and not _switches


@contextmanager
def without_kernels() -> Iterator[None]:
    """Turn the compiled loops off inside a ``with`` block, in all threads.

    Yields
    ------
    nothing : None
        Inside the block everything is computed in torch.
    """
    _switches.append("off")
    try:
        yield
    finally:
        _switches.pop()


def supports(*tensors: torch.Tensor | None) -> bool:
    """Whether the compiled loops accept these tensors.

    Parameters
    ----------
    *tensors : Tensor or None
        Images and fields, of one batch entry; None is ignored.

    Returns
    -------
    supported : bool
        True for float32 tensors in two or three dimensions on the CPU that autograd
        does not differentiate.

    Warns
    -----
    UserWarning
        Once, if the loops would accept the tensors but were not installed.
    """
    if not (available() or _reason):
        return False
    supported = all(_supports_one(x) for x in tensors if x is not None)
    if supported and _reason and not _switches:
        warn_of_missing_loops(_reason)
    return supported and available()


def _supports_one(x: torch.Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.ndim in (4, 5)
        and x.shape[0] == 1
        and x.shape[-1] > 1  # neighbours along it are read in pairs
        and 0 < x.numel() < 2**31  # offsets are 32 bits wide
        and not (x.requires_grad and torch.is_grad_enabled())
    )


def run(name: str, x: torch.Tensor, *arguments: object) -> None:
    """Call a compiled function for all planes of an image, on torch's threads.

    Parameters
    ----------
    name : str
        Name of the function.
    x : Tensor, shape (1, C, *shape)
        Its planes along the first spatial axis are divided among the threads.
    *arguments : object
        Arguments of the function before the first and last plane to compute.

    Raises
    ------
    MemoryError
        If the function could not allocate memory.
    """
    function, count = getattr(_library, name), x.shape[2]
    voxels = x[0, 0].numel()
    threads = max(1, min(torch.get_num_threads(), count, voxels // _LEAST_VOXELS))
    ends = [count * part // threads for part in range(threads + 1)]
    first, *rest = zip(ends, ends[1:])
    others = [
        _pool(threads - 1).submit(function, *arguments, *planes) for planes in rest
    ]
    failed = [function(*arguments, *first), *(other.result() for other in others)]
    if any(failed):
        raise MemoryError(f"no memory for {name} of {voxels} voxels.")


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """A pool of threads; waiting threads sleep."""
    return ThreadPoolExecutor(threads, thread_name_prefix="dipy_dl_reg")


if hasattr(os, "register_at_fork"):  # a forked process has no threads of its parent
    os.register_at_fork(after_in_child=_pool.cache_clear)
