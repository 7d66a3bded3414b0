"""Compare the speed of two checkouts on quick cases.

    export DIPY_DL_REG_DATA=FOLDER  # as for tools/benchmarks/deformable.py
    python tools/experiments/compare_speed.py BEFORE AFTER
    python tools/experiments/compare_speed.py BEFORE AFTER --repeats 5 --only 2D "T1 MI"

Each process imports the package of one checkout, runs every case once at low resolution
(not measured), and then measures it, on one thread. Processes run in the order before,
after, after, before, so that a slow change of the machine's speed cancels. This is
repeated `--repeats` times, after one process of each checkout that is discarded. The
table shows processor time (`cpu`) and wall time (`wall`): the ratio after / before of
the medians and of the minima over all processes, and the spread (the interquartile
range in percent of the median) before and after. Processor time is more reliable on a
machine where other programs run.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from functools import partial
import json
from pathlib import Path
import subprocess
import sys
import time
import warnings

import checksum_images as images
import checksum_runs as runs
from map_checksums import find_compiled_loops
import numpy as np

#: Clocks by name.
CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}
#: Name, what is run on a pair, and how often within a process.
CASES = {
    "T1 default": (runs.register_pair, 1),
    "T1 no network": (partial(runs.register_pair, model=None), 1),
    "T1 MI": (partial(runs.register_pair, metric="MI", model=None), 1),
    "network alone": (partial(runs.register_pair, level_iters=0), 1),
    "affine": (partial(runs.run_affine_function, pipeline=["rigid", "affine"]), 3),
    "2D": (runs.register_pair, 10),
}
#: Voxel sizes of the run before, and of the one that is measured, mm.
WARM_UP, SPACING = 4.0, 2.0


def make_pair(name, data, spacing):
    make = images.slice_pair if name == "2D" else images.brain_pair
    return make(data, spacing)


def measure_seconds(run):
    """Seconds of a function, by each clock."""
    start = {name: clock() for name, clock in CLOCKS.items()}
    run()
    return {name: clock() - start[name] for name, clock in CLOCKS.items()}


def import_package():
    from dipy_dl_reg import DeepRegistration

    return DeepRegistration()


def measure_cases(data, names):
    """Median seconds of each case by each clock; runs in a separate process."""
    rows = {"import": measure_seconds(import_package)}
    from dipy.utils.logging import logger

    import dipy_dl_reg

    logger.setLevel("ERROR")
    warnings.simplefilter("ignore")
    for name in names:
        run, times = CASES[name]
        run(partial(make_pair, name, data, WARM_UP))
        pair = make_pair(name, data, SPACING)
        found = [
            measure_seconds(partial(run, lambda pair=pair: pair)) for _ in range(times)
        ]
        rows[name] = {k: float(np.median([row[k] for row in found])) for k in CLOCKS}
    folder = Path(dipy_dl_reg.__file__).parent.parent
    return {"root": str(folder), "compiled": find_compiled_loops(), "rows": rows}


def measure_checkout(root, data, names):
    """Measure a checkout in a new process."""
    words = [sys.executable, __file__, str(root), str(root), "--data", str(data)]
    done = subprocess.run(
        [*words, "--measure", "--only", *names],
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    if Path(result["root"]).resolve() != root.resolve():
        raise SystemExit(f"{result['root']} was measured, not {root}.")
    return result


def measure_interleaved(roots, data, names, repeats):
    """Rows of both checkouts: two lists with an item for each process."""
    first = [measure_checkout(root, data, names) for root in roots]
    if first[0]["compiled"] != first[1]["compiled"]:
        raise SystemExit("One checkout has the compiled loops, the other has not.")
    rows = [], []
    for number in range(repeats):
        for which in (0, 1, 1, 0):
            rows[which].append(measure_checkout(roots[which], data, names)["rows"])
        print(f"{number + 1} of {repeats} done", file=sys.stderr)
    return rows


def spread(values):
    """Interquartile range in percent of the median."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return 100 * (high - low) / middle


def format_table(before, after):
    """Lines of the table."""
    yield (
        f"{'case':14} {'clock':5} {'before s':>9} {'after s':>9} {'medians':>8} "
        f"{'minima':>8} {'spread %':>12}"
    )
    for name in before[0]:
        for clock in CLOCKS:
            a, b = ([row[name][clock] for row in rows] for rows in (before, after))
            median = np.median(a), np.median(b)
            yield (
                f"{name:14} {clock:5} {median[0]:9.3f} {median[1]:9.3f} "
                f"{median[1] / median[0]:8.3f} {min(b) / min(a):8.3f} "
                f"{spread(a):6.1f}{spread(b):6.1f}"
            )


def parse_arguments(words=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    folder = os.environ.get("DIPY_DL_REG_DATA")
    add("before", type=Path)
    add("after", type=Path)
    add("--data", type=Path, default=folder and Path(folder))
    add("--repeats", type=int, default=3)
    add("--only", nargs="+", choices=CASES, default=list(CASES))
    add("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.data is None or not arguments.data.is_dir():
        parser.error(f"--data or DIPY_DL_REG_DATA: no such folder: {arguments.data}")
    for root in (arguments.before, arguments.after):
        if not (root / "dipy_dl_reg").is_dir():
            parser.error(f"there is no folder {root / 'dipy_dl_reg'}")
    if arguments.repeats < 1:
        parser.error(f"--repeats must be 1 or more, got {arguments.repeats}")
    return arguments


def main(words=None):
    arguments = parse_arguments(words)
    if arguments.measure:
        print(json.dumps(measure_cases(arguments.data, arguments.only)))
        return
    roots = arguments.before.resolve(), arguments.after.resolve()
    rows = measure_interleaved(roots, arguments.data, arguments.only, arguments.repeats)
    print(*format_table(*rows), sep="\n")


if __name__ == "__main__":
    main()
