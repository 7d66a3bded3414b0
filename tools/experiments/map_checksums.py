"""Checksums of maps: shows whether two versions of the package find the same ones.

    export DIPY_DL_REG_DATA=FOLDER    # of labelled brains, as for tools/benchmark.py
    PYTHONPATH=BEFORE python tools/experiments/map_checksums.py > before.txt
    PYTHONPATH=AFTER  python tools/experiments/map_checksums.py > after.txt
    diff before.txt after.txt
    PYTHONPATH=AFTER python tools/experiments/map_checksums.py --quick > quick.txt
    grep -vxFf before.txt quick.txt    # prints the lines that are different

Prints a line for each case: its name, the SHA-256 of the resulting arrays (first 16
digits), and what the registration says of itself. `--quick` runs a part of the cases,
`--only` those whose name holds one of the words given. Only names that
`import dipy_dl_reg` offers are used, so that this file runs on any version. One thread
is used. Both versions must have the compiled loops, or both not; the first line tells.
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


def line_of(name, run):
    """The line of a case; the traceback of a failure goes to the standard error."""
    start = time.perf_counter()
    try:
        arrays, facts = run()
        text = f"{checksum(arrays)}  {facts}"
    except Exception as error:
        traceback.print_exc()
        text = f"failed: {type(error).__name__}"
    print(f"{time.perf_counter() - start:6.1f} s  {name}", file=sys.stderr)
    return f"{name:44} {text}".rstrip()


def chosen_cases(cases, words, quick):
    """Those of the cases that are asked for."""
    return {
        name: run
        for name, run in cases.items()
        if (not quick or name in QUICK)
        and (not words or any(word in name for word in words))
    }


def compiled_loops():
    """Whether this process has loaded them; Linux alone tells."""
    loaded = Path("/proc/self/maps")
    if not loaded.is_file():
        return "unknown"
    return "yes" if "_kernels." in loaded.read_text() else "no"


def parse(words=None):
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
    arguments = parse(words)
    from dipy.utils.logging import logger

    import dipy_dl_reg

    logger.setLevel("ERROR")
    warnings.simplefilter("ignore")
    print(f"dipy_dl_reg of {Path(dipy_dl_reg.__file__).parent}", file=sys.stderr)
    cases = make_cases(arguments.data, arguments.diffusion)
    cases = chosen_cases(cases, arguments.only, arguments.quick)
    dipy_dl_reg.DeepRegistration  # noqa: B018, loads the compiled loops
    print(f"compiled loops: {compiled_loops()}")
    failed = False
    for name, run in cases.items():
        line = line_of(name, run)
        failed = failed or "failed:" in line
        print(line, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
