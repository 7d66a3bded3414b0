"""The compiled loops: whether they are there, and their work shared among threads.

`fields.warp`, `smoothing.smooth` and others call a compiled loop if `supports` says
that it accepts their tensors.  Otherwise, and where the package was installed without
a compiler, they compute the same in torch.  The two agree to rounding; the compiled
loops return the same bits for any number of threads.  ``DIPY_DL_REG_KERNELS=0`` in the
environment turns the loops off.

`dipy_dl_reg.geometry.kernels.functions` says what they compute; the code is in
``csrc``.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
import ctypes
from ctypes import c_float, c_int64, c_void_p
from functools import lru_cache
from importlib.util import find_spec
import os

import torch

#: What ``interface()`` in ``csrc/module.c`` must return.
_INTERFACE = 1
#: A thread's share of the voxels is at least this: below, waking it costs more.
_SHARE = 20_000

#: What the functions take before the planes they are to do: p for an array or a
#: structure, i for a whole number, f for a float.
_ARGUMENTS = {
    "warp": "ppippippfp",
    "slopes": "pppip",
    "corrected": "pppifp",
    "checked": "pppippp",
    "separable": "ppipp",
    "local_correlation": "ppppp",
    "moments": "ppppiffp",
    "direction": "pppifffp",
}


def _load():
    """The library, or None where it is missing, unwanted, or of another version."""
    spec = find_spec("dipy_dl_reg.geometry.kernels._kernels")
    if spec is None or os.environ.get("DIPY_DL_REG_KERNELS") == "0":
        return None
    library = ctypes.CDLL(spec.origin)
    library.interface.restype = c_int64
    if library.interface() != _INTERFACE:
        return None
    types = {"p": c_void_p, "i": c_int64, "f": c_float}
    for name, letters in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes = [*(types[x] for x in letters), c_int64, c_int64]
        returns = name in ("separable", "local_correlation")
        function.restype = ctypes.c_int if returns else None
    return library


_library = _load()
_switches = []


def available():
    """Whether the compiled loops are there and not turned off.

    Returns
    -------
    available : bool
        Without them everything works, more slowly.
    """
    return _library is not None and not _switches


@contextmanager
def without_kernels():
    """Turn the compiled loops off for a while, in all threads.

    Yields
    ------
    nothing : None
        Within, everything is computed by torch.
    """
    _switches.append("off")
    try:
        yield
    finally:
        _switches.pop()


def supports(*tensors):
    """Whether the compiled loops can work on these tensors.

    Parameters
    ----------
    *tensors : Tensor or None
        Images and fields, of one batch entry.

    Returns
    -------
    supported : bool
        True for float32 in two or three dimensions on the CPU, where nothing is to be
        differentiated; None is passed over.
    """
    return available() and all(_supports_one(x) for x in tensors if x is not None)


def _supports_one(x):
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.ndim in (4, 5)
        and x.shape[0] == 1
        and x.shape[-1] > 1  # neighbours along it are read in pairs
        and 0 < x.numel() < 2**31  # offsets are 32 bits wide
        and not (x.requires_grad and torch.is_grad_enabled())
    )


def run(name, x, *arguments):
    """Call a function for all planes of an image, shared among torch's threads.

    Parameters
    ----------
    name : str
        The function's.
    x : Tensor, shape (1, C, *shape)
        Its first spatial axis is shared out.
    *arguments : object
        What the function takes before the planes it is to do.

    Raises
    ------
    MemoryError
        If the function found none.
    """
    function, planes = getattr(_library, name), x.shape[2]
    voxels = x[0, 0].numel()
    threads = max(1, min(torch.get_num_threads(), planes, voxels // _SHARE))
    ends = [planes * part // threads for part in range(threads + 1)]
    shares = list(zip(ends, ends[1:]))
    pool = _pool(threads - 1) if threads > 1 else None
    others = [pool.submit(function, *arguments, *share) for share in shares[1:]]
    failed = [function(*arguments, *shares[0]), *(other.result() for other in others)]
    if any(failed):
        raise MemoryError(f"no memory for {name} of {voxels} voxels.")


@lru_cache(maxsize=1)
def _pool(threads):
    """Threads that sleep until they are given work."""
    return ThreadPoolExecutor(threads, thread_name_prefix="dipy_dl_reg")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
