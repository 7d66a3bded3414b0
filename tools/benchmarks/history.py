"""Benchmarks kept over commits: a short fixed set of registrations of drawn images.

    python -m tools.benchmarks.history                  compares with the stored rows
    python -m tools.benchmarks.history --append         and stores the row of the commit
    python -m tools.benchmarks.history --base FILE.json compares with these rows, too
    python -m tools.benchmarks.history --data FOLDER --pairs 1000:1001 --append

Without FOLDER no data are needed: objects of 40 labelled regions are drawn, deformed by
a known smooth field, and noise is added. FOLDER contains labelled brains, see
tools/benchmarks/deformable.py; its pairs are registered at 2 mm as further cases.

For each case, the table has the mean Dice of the labels, SD of log J, the mean error of
the known field in mm, and the time: CPU seconds of the call over those of a Gaussian
smoothing by SciPy of a fixed array, measured before and after the call. This ratio
depends on the machine much less than seconds do, but it does depend on it.

Rows are stored in doc/benchmark/history.json. The new row is compared with the last
stored one (time: with the last one of the same processor). If Dice is lower by more
than `--dice` (.003), the error or SD of log J higher by more than 5 % and 10 %, or the
time higher by more than `--time` (1.3 times), this is printed as a warning, and the
exit status is 1. On a processor without a stored row, time is not compared. FILE.json
has the row of an earlier commit, measured on this machine: in a checkout of that commit,
run `python -m tools.benchmarks.history --history FILE.json --append`.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from datetime import date
import json
from pathlib import Path
import sys
import time

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from tools.benchmarks.record import ROOT, git_commit, processor
from tools.benchmarks.table import COLUMNS

HISTORY = ROOT / "doc" / "benchmark" / "history.json"
#: Shape, voxel size (mm), and longest displacement of the known field (mm).
VOLUME = ((56, 64, 52), 2.5, 9.0)
PLANE = ((160, 176), 1.0, 9.0)
REGIONS, NOISE = 40, 0.02
#: Case: what is drawn, whether moving has inverted intensities, and the options.
CASES = {
    "3D default": (VOLUME, False, {}),
    "3D network alone": (VOLUME, False, {"level_iters": 0}),
    "3D inverted contrast": (VOLUME, True, {}),
    "3D MI": (VOLUME, True, {"metric": "MI", "model": None, "anatomy": False}),
    "2D default": (PLANE, False, {}),
}
#: Largest relative increase of the other measures.
INCREASE = {"error_mm": 0.05, "sd_log_jacobian": 0.10}
FORMATS = {
    "dice": ("Dice", ".4f"),
    "sd_log_jacobian": ("SD log J", COLUMNS["sd_log_jacobian"][1]),
    "error_mm": ("error mm", ".3f"),
    "time": ("time", ".2f"),
    "cpu_seconds": ("CPU s", ".2f"),
}


def draw(what, inverted):
    """Static, moving, their labels, the true field (voxels), and the matrix."""
    shape, spacing, longest = what
    rng = np.random.default_rng(0)
    at = np.stack(np.indices(shape), -1) - (np.array(shape) - 1) / 2
    radius = np.sqrt(np.square(at / (np.array(shape) / 2.4)).sum(-1))
    seeds = rng.uniform(-0.42, 0.42, (REGIONS, len(shape))) * shape
    nearest = np.argmin([np.square(at - seed).sum(-1) for seed in seeds], 0)
    labels = np.where(radius < 1, nearest + 1, 0)
    levels = np.concatenate([[0], rng.uniform(0.35, 1.0, REGIONS)])
    texture = gaussian_filter(rng.normal(size=shape), 1.5)
    image = gaussian_filter(levels[labels], 0.7) * (1 + 0.1 * texture / texture.std())
    field = [gaussian_filter(rng.normal(size=shape), 20 / spacing) for _ in shape]
    field = np.array(field) * longest / spacing / np.abs(field).max()
    places = np.indices(shape) + field
    static = map_coordinates(image, places, order=1)
    fixed_labels = map_coordinates(labels, places, order=0)
    moving = np.where(image > 0.1, 1.2 - image, 0) if inverted else image
    static, moving = (
        np.abs(x + NOISE * rng.normal(size=shape)).astype(np.float32)
        for x in (static, moving)
    )
    matrix = np.diag([spacing] * len(shape) + [1])
    return static, moving, fixed_labels, labels, field, matrix


def measure_drawn(what, inverted, options):
    """Register drawn images; return the measures."""
    from tools.benchmarks.measures import dice, jacobian_determinant

    static, moving, fixed, labels, field, matrix = draw(what, inverted)
    images = {"static": static, "moving": moving}
    images |= {"static_grid2world": matrix, "moving_grid2world": matrix}
    mapping, seconds, ratio = timed_registration(images, options)
    warped = np.asarray(mapping.transform(labels, interpolation="nearest"))
    found = np.moveaxis(np.asarray(mapping.backward), -1, 0)
    error = np.linalg.norm(found - field * what[1], axis=0)[fixed > 0]
    jacobian = jacobian_determinant(mapping.backward, matrix)
    return {
        "dice": float(dice(fixed, warped, np.arange(1, REGIONS + 1)).mean()),
        "sd_log_jacobian": float(np.log(jacobian.clip(1e-3)).std()),
        "error_mm": float(error.mean()),
        "time": ratio,
        "cpu_seconds": seconds,
    }


def measure_brains(folder, pair):
    """Register a pair of labelled brains with the default; return the measures."""
    from tools.benchmarks.cases import labelled_case
    from tools.benchmarks.measures import jacobian_determinant

    case = labelled_case(folder, 2.0, pair)
    mapping, seconds, ratio = timed_registration(case.images, {})
    jacobian = jacobian_determinant(mapping.backward, case.images["static_grid2world"])
    return {
        "dice": case.judge(mapping)["dice"],
        "sd_log_jacobian": float(np.log(jacobian.clip(1e-3)).std()),
        "time": ratio,
        "cpu_seconds": seconds,
    }


def timed_registration(images, options):
    """Map, CPU seconds, and their ratio to the reference; the least of two runs."""
    from dipy_dl_reg import DeepRegistration

    references, seconds = [reference_seconds()], []
    for _ in range(2):
        registration = DeepRegistration(progress=False, **options)
        start = time.process_time()
        mapping = registration.optimize(**images, num_threads=1)
        seconds.append(time.process_time() - start)
        references.append(reference_seconds())
    return mapping, min(seconds), min(seconds) / min(references)


def reference_seconds():
    """CPU seconds of a fixed smoothing by SciPy, the least of three."""
    image = np.random.default_rng(0).random((128, 128, 96), dtype=np.float32)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        gaussian_filter(image, 4.0)
        seconds.append(time.process_time() - start)
    return min(seconds)


def warm_up():
    """Load libraries and networks."""
    for shape in ((24, 24, 24), (32, 32)):
        images = draw((shape, 4.0, 4.0), False)
        timed_registration({"static": images[0], "moving": images[1]}, {})


def measure_commit(arguments):
    """The row of this commit."""
    warm_up()
    cases = {}
    for name, (what, inverted, options) in CASES.items():
        if name in (arguments.cases or CASES):
            cases[name] = measure_drawn(what, inverted, options)
            print(format_line(name, cases[name]), flush=True)
    for pair in arguments.pairs if arguments.data else ():
        cases[f"brains {pair}"] = measure_brains(arguments.data, pair)
        print(format_line(f"brains {pair}", cases[f"brains {pair}"]), flush=True)
    return {
        "commit": git_commit(),
        "date": date.today().isoformat(),
        "cpu": processor(),
        "cases": cases,
    }


def format_line(name, row):
    """A line of the table; the headings if `row` is None."""
    cells = []
    for key, (head, form) in FORMATS.items():
        value = head if row is None else row.get(key)
        known = value is not None and row is not None
        cells.append(f"{format(value, form) if known else value or '-':>10}")
    return f"{name:24}{''.join(cells)}"


def compare(row, history, dice_drop=0.003, time_factor=1.3):
    """Sentences about what is worse in a row than in the last of the stored ones."""
    problems = []
    for name, new in row["cases"].items():
        stored = [r for r in history if name in r["cases"]]
        if not stored:
            continue
        last = stored[-1]["cases"][name]
        since = f"(since {stored[-1]['commit']})"
        if new["dice"] < last["dice"] - dice_drop:
            problems.append(f"{name}: Dice {last['dice']:.4f} to {new['dice']:.4f} {since}")
        for key, part in INCREASE.items():
            if key in last and new[key] > last[key] * (1 + part):
                problems.append(f"{name}: {key} {last[key]:.3f} to {new[key]:.3f} {since}")
        same = [r for r in stored if r["cpu"] == row["cpu"]]
        then = same[-1]["cases"][name]["time"] if same else float("inf")
        if new["time"] > then * time_factor:
            problems.append(
                f"{name}: time {then:.2f} to {new['time']:.2f}, relative to SciPy's "
                f"smoothing (since {same[-1]['commit']})"
            )
    return problems


def read_history(path):
    """The stored rows, oldest first."""
    if not path.is_file():
        return []
    commits = {}
    for row in json.loads(path.read_text())["rows"]:
        about = {key: row.pop(key) for key in ("commit", "date", "cpu")}
        key = about["commit"], about["cpu"]
        commit = commits.setdefault(key, about | {"cases": {}})
        commit["cases"][row.pop("case")] = row
    return [*commits.values()]


def append(path, row, history):
    """Store a row; the row of the same commit and processor is replaced."""
    same = ("commit", "cpu")
    rows = [r for r in history if any(r[key] != row[key] for key in same)] + [row]
    flat = [
        {k: r[k] for k in ("commit", "date", "cpu")} | {"case": name} | measures
        for r in rows
        for name, measures in r["cases"].items()
    ]
    lines = ",\n  ".join(json.dumps(r) for r in flat)
    head = '"keys": ["case", "cpu", "commit"],\n "groups": {},\n'
    path.write_text(f'{{\n {head} "rows": [\n  {lines}\n ]\n}}\n')


def parse_arguments(words=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--append", action="store_true", help="store the row of this commit")
    add("--history", type=Path, default=HISTORY, metavar="FILE.json")
    add("--base", type=Path, metavar="FILE.json", help="rows to compare with, too")
    add("--cases", nargs="+", choices=CASES, help="default: all")
    add("--data", type=Path, help="folder of labelled brains, for further cases")
    add("--pairs", nargs="+", default=["1000:1001"], metavar="STATIC:MOVING")
    add("--dice", type=float, default=0.003, help="largest decrease of Dice")
    add("--time", type=float, default=1.3, help="largest factor of the time")
    return parser.parse_args(words)


def main(words=None):
    """Measure, compare, and store; the exit status is 1 if something is worse."""
    from dipy.utils.logging import logger

    logger.setLevel("ERROR")
    arguments = parse_arguments(words)
    history = read_history(arguments.history)
    print(format_line("", None))
    row = measure_commit(arguments)
    problems = compare(row, history, arguments.dice, arguments.time)
    if arguments.base:
        base = read_history(arguments.base)
        problems += compare(row, base, arguments.dice, arguments.time)
    # GitHub shows lines that begin so beside the commit.
    start = "::warning::" if os.environ.get("GITHUB_ACTIONS") else "WARNING: "
    for problem in problems:
        print(f"{start}{problem}")
    if arguments.append:
        append(arguments.history, row, history)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
