"""Loading of the compiled loops, and the warning that they are missing."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_int64, c_void_p
from functools import lru_cache
from importlib.util import find_spec
import os
import sys
from typing import Any
import warnings

#: Required return value of ``interface()`` in ``csrc/module.c``.
INTERFACE = 3

#: Types of the arguments of each function, before the first and last plane to compute:
#: p for an array or a structure, i for a whole number, f for a float.
ARGUMENTS = {
    "warp": "ppippippfp",
    "slopes": "pppiip",
    "corrected": "pppifp",
    "checked": "pppippp",
    "separable": "ppipp",
    "local_correlation": "ppppp",
    "moments": "ppppiffp",
    "direction": "pppifffp",
    "turn_tensors": "pppp",
    "turn_harmonics": "pppipppp",
}

#: What a user can do, on Windows and elsewhere.
_REMEDIES = {
    True: "They are not available on Windows itself, but in its Linux subsystem (WSL).",
    False: (
        "To have them, install a C compiler (GCC or Clang), and then this package "
        "again with pip's options --force-reinstall --no-deps --no-cache-dir."
    ),
}


def load_library() -> tuple[ctypes.CDLL | None, str]:
    """Load the compiled loops.

    Returns
    -------
    library : CDLL or None
        None if the loops are missing, turned off, or of another version.
    reason : str
        Why there is no library.  Empty if there is one, or if the user turned the
        loops off.
    """
    if os.environ.get("DIPY_DL_REG_KERNELS") == "0":
        return None, ""
    spec = find_spec("dipy_dl_reg.geometry.kernels._kernels")
    if spec is None or spec.origin is None:
        return None, "no C compiler compiled them when the package was installed"
    try:
        library = ctypes.CDLL(spec.origin)
        library.interface.restype = c_int64
        version = library.interface()
    except (OSError, AttributeError) as error:
        return None, f"{spec.origin} cannot be loaded ({error})"
    if version != INTERFACE:
        return None, f"{spec.origin} was compiled from another version of the package"
    _declare_functions(library)
    return library, ""


def _declare_functions(library: ctypes.CDLL) -> None:
    """Tell ctypes the types of arguments and results."""
    types: dict[str, Any] = {"p": c_void_p, "i": c_int64, "f": c_float}
    for name, letters in ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes = [*(types[x] for x in letters), c_int64, c_int64]
        returns = name in ("separable", "local_correlation")
        function.restype = c_int if returns else None


@lru_cache(maxsize=1)
def warn_of_missing_loops(reason: str) -> None:
    """Warn that computations on the CPU are slow; only the first call of a process.

    Parameters
    ----------
    reason : str
        Why the compiled loops are missing.

    Warns
    -----
    UserWarning
        With the reason, the factor in time and the remedy.
    """
    # The factor is that of a whole iteration in doc/benchmark/profile_2mm.txt and
    # profile_1mm.txt; tests/geometry/test_missing_kernels.py compares them.
    warnings.warn(
        "dipy_dl_reg computes without its compiled loops, because "
        f"{reason}. Results agree up to rounding, but a registration on the CPU takes "
        f"about 4 times as long. {_REMEDIES[sys.platform == 'win32']} "
        "(DIPY_DL_REG_KERNELS=0 in the environment turns this warning off.)",
        UserWarning,
        stacklevel=2,
    )
