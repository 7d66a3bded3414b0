r"""Compare variants of the refinement on labelled brains, see doc/experiments.rst.

    python -m tools.experiments.refinement_variants --data FOLDER --output FILE.json
    python -m tools.experiments.refinement_variants --data FOLDER --output FILE.json \
        --only default "radius 3" --spacing 2

Each variant differs from the default only by its entry in `VARIANTS`: options of
`DeepRegistration` or of the metric, or constants of the code, which are replaced during
that registration. The pairs are those used for choosing settings, not those used for
evaluation. Every row is saved as soon as it is measured, and reused by later calls of
the same version of the code. Times are those of one thread; compare them only within
one run on a machine without other programs.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from contextlib import ExitStack
from functools import cache
from pathlib import Path
import statistics
import time
from unittest import mock

import numpy as np

from tools.benchmarks.cases import labelled_case
from tools.benchmarks.measures import regularity
from tools.benchmarks.record import describe, read_earlier_rows, write_json
from tools.benchmarks.table import KEY

PAIRS = ["1000:1001", "1006:1012", "1001:1000", "1012:1006"]

#: Name of a variant: options of DeepRegistration; "metric" are options of CCMetric, and
#: "constants" are values in the package's modules, replaced during the registration.
GRADIENT_FLOOR = "dipy_dl_reg.CCMetric.gradient_floor"
STEP_FACTOR = "dipy_dl_reg.CCMetric.max_step_factor"
WINDOW = "dipy_dl_reg.optimization.energy_history._WINDOW"
BETAS = "dipy_dl_reg.optimization.adam._BETAS"
SYMMETRIC = "dipy_dl_reg.CCMetric.symmetric"
COARSE_SMOOTHING = "dipy_dl_reg.CCMetric.coarse_smoothing"
VERSION_1 = {"level_iters": [40, 30, 20], "opt_tol": 0, "ss_sigma_factor": 0.5}
VARIANTS = {
    "default": {},
    "settings of an earlier version": VERSION_1
    | {
        "sigma_field": 0.7,
        "metric": {"radius": 2},
        "constants": {
            GRADIENT_FLOOR: 0.01,
            STEP_FACTOR: 1.0,
            SYMMETRIC: False,
            COARSE_SMOOTHING: 1.0,
        },
    },
    "at most [100, 100, 60, 40]": {"level_iters": [100, 100, 60, 40]},
    "at most [100, 100, 60, 20]": {"level_iters": [100, 100, 60, 20]},
    "at most [100, 100, 60, 5]": {"level_iters": [100, 100, 60, 5]},
    "fixed iterations [40, 30, 20]": {"level_iters": [40, 30, 20], "opt_tol": 0},
    "fixed iterations [100, 100, 50]": {"level_iters": [100, 100, 50], "opt_tol": 0},
    "tolerance 0.003": {"opt_tol": 0.003},
    "tolerance 0.02": {"opt_tol": 0.02},
    "tolerance 0.05": {"opt_tol": 0.05},
    "tolerance 0.02 over 5": {"opt_tol": 0.02, "constants": {WINDOW: 5}},
    "at most [10, 10, 5]": {"level_iters": [10, 10, 5]},
    "at most [10, 10, 2]": {"level_iters": [10, 10, 2]},
    "at most [10, 10, 1]": {"level_iters": [10, 10, 1]},
    "at most [20, 15, 10]": {"level_iters": [20, 15, 10]},
    "four levels": {"level_iters": [100, 100, 100, 60]},
    "two levels": {"level_iters": [100, 60]},
    "one level": {"level_iters": [100]},
    "half resolution only": {"level_iters": [100, 100, 0]},
    "radius 2": {"metric": {"radius": 2}},
    "radius 3": {"metric": {"radius": 3}},
    "radius 1": {"metric": {"radius": 1}},
    "radius 4": {"metric": {"radius": 4}},
    "one direction": {"constants": {SYMMETRIC: False}},
    "one direction, radius 1": {
        "metric": {"radius": 1},
        "constants": {SYMMETRIC: False},
    },
    "equal smoothing of all levels": {"constants": {COARSE_SMOOTHING: 1.0}},
    "coarse smoothing 2": {"constants": {COARSE_SMOOTHING: 2.0}},
    "gradient floor 0.01": {"constants": {GRADIENT_FLOOR: 0.01}},
    "gradient floor 0.1": {"constants": {GRADIENT_FLOOR: 0.1}},
    "gradient floor 1": {"constants": {GRADIENT_FLOOR: 1.0}},
    "step factor 1": {"constants": {STEP_FACTOR: 1.0}},
    "step factor 2": {"constants": {STEP_FACTOR: 2.0}},
    "step factor 4": {"constants": {STEP_FACTOR: 4.0}},
    "gradient floor 0.01, step factor 1": {
        "constants": {GRADIENT_FLOOR: 0.01, STEP_FACTOR: 1.0}
    },
    "gradient floor 1, step factor 4": {
        "constants": {GRADIENT_FLOOR: 1.0, STEP_FACTOR: 4.0}
    },
    "gradient floor 3, step factor 8": {
        "constants": {GRADIENT_FLOOR: 3.0, STEP_FACTOR: 8.0}
    },
    "variance floor 3e-4": {"metric": {"variance_floor": 3e-4}},
    "variance floor 3e-3": {"metric": {"variance_floor": 3e-3}},
    "variance floor 1e-2": {"metric": {"variance_floor": 1e-2}},
    "gradient sigma 0": {"metric": {"sigma_diff": 0.0}},
    "gradient sigma 0.7": {"metric": {"sigma_diff": 0.7}},
    "gradient sigma 1.4": {"metric": {"sigma_diff": 1.4}},
    "gradient sigma 2": {"metric": {"sigma_diff": 2.0}},
    "field sigma 0.5": {"sigma_field": 0.5},
    "field sigma 0.6": {"sigma_field": 0.6},
    "field sigma 0.8": {"sigma_field": 0.8},
    "field sigma 0.9": {"sigma_field": 0.9},
    "field sigma 1.0": {"sigma_field": 1.0},
    "field sigma 1.2": {"sigma_field": 1.2},
    "field sigma 1.5": {"sigma_field": 1.5},
    "field sigma 2.0": {"sigma_field": 2.0},
    "bending penalty 0.01": {"regularizer": "bending", "regularizer_weight": 0.01},
    "diffusion penalty 0.01": {"regularizer": "diffusion", "regularizer_weight": 0.01},
    "diffusion penalty 0.03": {"regularizer": "diffusion", "regularizer_weight": 0.03},
    "betas 0.8, 0.99": {"constants": {BETAS: (0.8, 0.99)}},
    "betas 0.9, 0.9": {"constants": {BETAS: (0.9, 0.9)}},
    "betas 0.9, 0.999": {"constants": {BETAS: (0.9, 0.999)}},
    "pyramid sigma 0.5": {"ss_sigma_factor": 0.5},
    "pyramid sigma 1.1": {"ss_sigma_factor": 1.1},
}


@cache
def load_case(data, spacing, pair):
    """Load a pair once."""
    return labelled_case(data, spacing, pair)


def measure_variant(case, variant, threads=1):
    """Register a case with a variant; return the benchmark's measures and seconds."""
    from dipy_dl_reg import CCMetric, DeepRegistration

    options = dict(variant)
    metric = CCMetric(3, **options.pop("metric", {}))
    with ExitStack() as stack:
        for name, value in options.pop("constants", {}).items():
            stack.enter_context(mock.patch(name, value))
        registration = DeepRegistration(metric, model=None, progress=False, **options)
        start = time.perf_counter()
        mapping = registration.optimize(**case.images, num_threads=threads)
        seconds = time.perf_counter() - start
    row = {"seconds": seconds, "iterations": len(registration.full_energy_profile)}
    row |= case.judge(mapping)
    row.pop("dice_of"), row.pop("hd95_of")
    return row | regularity(mapping, case.images["static_grid2world"], case.points)


def warm_up():
    """Register tiny images, so that no measured time includes loading libraries."""
    from dipy_dl_reg import DeepRegistration

    ramp = np.mgrid[:24, :24, :24].sum(0).astype(float)
    DeepRegistration(level_iters=[2], progress=False).optimize(ramp, ramp**1.1)


#: Columns of the table: heading and format.
COLUMNS = {
    "gain": ("gain", "+.4f"),
    "dice": ("Dice", ".4f"),
    "hd95": ("HD95 mm", ".2f"),
    "sd_log_jacobian": ("SD log J", ".3f"),
    "round_trip_mean": ("trip mm", ".4f"),
    "iterations": ("iterations", ".0f"),
    "seconds": ("seconds", ".2f"),
}


def summarize(rows, name):
    """Medians of a variant over its pairs, and its mean difference from the default."""
    mine = {row["pair"]: row for row in rows if row["method"] == name}
    base = {row["pair"]: row for row in rows if row["method"] == "default"}
    keys = [key for key in COLUMNS if key != "gain"]
    line = {key: statistics.median(row[key] for row in mine.values()) for key in keys}
    both = [mine[pair]["dice"] - base[pair]["dice"] for pair in mine if pair in base]
    return line | ({"gain": statistics.mean(both)} if both else {})


def table_line(name, line=None):
    """Format a line of the table; the headings if `line` is None."""
    cells = [
        title if line is None else format(line[key], form) if key in line else "-"
        for key, (title, form) in COLUMNS.items()
    ]
    return f"{name:34}" + "".join(f"{cell:>11}" for cell in cells)


def main(words=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    folder = os.environ.get("DIPY_DL_REG_DATA")
    add("--data", type=Path, default=folder and Path(folder))
    add("--output", type=Path, required=True)
    add("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    add("--pairs", nargs="+", default=PAIRS)
    add("--spacing", type=float, default=2.0)
    arguments = parser.parse_args(words)
    if arguments.data is None:
        parser.error("--data is needed, or DIPY_DL_REG_DATA.")
    from dipy.utils.logging import logger

    logger.setLevel("WARNING")
    results = describe(1, None, {}) | {"rows": []}
    if arguments.output.exists():
        try:
            results["rows"] = read_earlier_rows(arguments.output, results)
        except ValueError as error:
            parser.error(str(error))
    done = {(r["method"], r["pair"], r["spacing"]) for r in results["rows"]}
    warm_up()
    print(table_line(""))
    for name in arguments.only:
        for pair in arguments.pairs:
            if (name, pair, arguments.spacing) in done:
                continue
            case = load_case(arguments.data, arguments.spacing, pair)
            key = (arguments.spacing, 0, pair, name)
            row = dict(zip(KEY, key)) | measure_variant(case, VARIANTS[name])
            results["rows"].append(row)
            write_json(arguments.output, results)
        rows = [r for r in results["rows"] if r["spacing"] == arguments.spacing]
        print(table_line(name, summarize(rows, name)), flush=True)


if __name__ == "__main__":
    main()
