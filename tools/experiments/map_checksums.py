"""Checksums of maps: shows whether two versions of the package find the same ones.

    export DIPY_DL_REG_DATA=FOLDER  # as for tools/benchmarks/deformable.py
    PYTHONPATH=BEFORE python tools/experiments/map_checksums.py > before.txt
    PYTHONPATH=AFTER  python tools/experiments/map_checksums.py > after.txt
    diff before.txt after.txt
    PYTHONPATH=AFTER python tools/experiments/map_checksums.py --quick > quick.txt
    grep -vxFf before.txt quick.txt    # prints the lines that are different

The script prints a line for each case: its name, the SHA-256 of the resulting arrays
(first 16 digits), and properties of the registration. `--quick` runs a part of the
cases, `--only` those whose names contain one of the given words. Only names that
`import dipy_dl_reg` offers are used, and this file is a plain script and not a module
of `tools`, so that it can be run with any version of the package. One thread is used.
Both versions must use the compiled loops, or neither; the first line of the output
states this.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from hashlib import sha256
from pathlib import Path
import sys
import time
import traceback
import warnings

from checksum_cases import QUICK, make_cases
import numpy as np


def checksum(arrays):
    """First 16 digits of the SHA-256 of arrays: type, shape and values of each."""
    digest = sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def format_case(name, run):
    """Run a case and format its line; a traceback is written to standard error."""
    start = time.perf_counter()
    try:
        arrays, facts = run()
        text = f"{checksum(arrays)}  {facts}"
    except Exception as error:
        traceback.print_exc()
        text = f"failed: {type(error).__name__}"
    print(f"{time.perf_counter() - start:6.1f} s  {name}", file=sys.stderr)
    return f"{name:44} {text}".rstrip()


def select_cases(cases, words, quick):
    """Select the cases by the options."""
    return {
        name: run
        for name, run in cases.items()
        if (not quick or name in QUICK)
        and (not words or any(word in name for word in words))
    }


def find_compiled_loops():
    """Tell whether this process has loaded the compiled loops; only on Linux."""
    loaded = Path("/proc/self/maps")
    if not loaded.is_file():
        return "unknown"
    return "yes" if "_kernels." in loaded.read_text() else "no"


def parse_arguments(words=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    folder = os.environ.get("DIPY_DL_REG_DATA")
    add("--data", type=Path, default=folder and Path(folder))
    text = "folder of a subject's b0, fa, mask and t1.nii.gz (default: beside --data)"
    add("--diffusion", type=Path, help=text)
    add("--quick", action="store_true", help="a part of the cases")
    add("--only", nargs="+", default=[], metavar="WORD", help="cases by their names")
    arguments = parser.parse_args(words)
    if arguments.data is None or not arguments.data.is_dir():
        parser.error(f"--data or DIPY_DL_REG_DATA: no such folder: {arguments.data}")
    beside = arguments.data.parent / "diffusion" / "subject_a"
    arguments.diffusion = arguments.diffusion or (beside if beside.is_dir() else None)
    return arguments


def main(words=None):
    arguments = parse_arguments(words)
    from dipy.utils.logging import logger

    import dipy_dl_reg

    logger.setLevel("ERROR")
    warnings.simplefilter("ignore")
    print(f"dipy_dl_reg of {Path(dipy_dl_reg.__file__).parent}", file=sys.stderr)
    cases = make_cases(arguments.data, arguments.diffusion)
    cases = select_cases(cases, arguments.only, arguments.quick)
    dipy_dl_reg.DeepRegistration  # noqa: B018, loads the compiled loops
    print(f"compiled loops: {find_compiled_loops()}")
    failed = False
    for name, run in cases.items():
        line = format_case(name, run)
        failed = failed or "failed:" in line
        print(line, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
