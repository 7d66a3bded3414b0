"""Measure DeepRegistration against DIPY's SyN: accuracy, regularity, time, memory.

    .venv-py3.X/bin/python tools/benchmark.py --quick
    .venv-py3.X/bin/python tools/benchmark.py --data FOLDER --output FILE.json

`--quick` needs no data and takes under a minute: bundled images, deformed by known
fields, and the error in mm. (Some of the squared difference, SSD, is interpolation: the
known field itself leaves 0.25 % of it in the slice, 10 % in the template.)

`--data` names a folder of labelled brains: subject_<id>_t1.nii.gz,
subject_<id>_labels.nii.gz, and affines_mni.json, which holds for each subject_<id> a
matrix from MNI world to its world (mm). SyN takes up to a minute a pair at 2 mm and
many at 1 mm; every row is printed and kept as soon as it is measured, and --resume
goes on after an interruption.

How it is measured: every method gets the same images, affine prealign and number of
threads; the methods take turns; images are in memory and only the registration is
timed. Images are brought to the spacing wanted, labels stay as they are and are warped
through the returned map, to the nearest neighbour. Dice is the mean over the labels
present in both subjects; one that vanishes counts 0. J is the Jacobian determinant on
the static grid by central differences, of the map from static to moving ("inverse": of
its inverse); the round trip goes there and back from points in the static labels.
"""

import os

# Must be set before torch loads: its waiting threads then sleep instead of spinning,
# which makes it many times faster where others use the same processors.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from datetime import datetime
from functools import partial
import hashlib
from importlib.metadata import version
from importlib.util import find_spec
import json
from pathlib import Path
import platform
import subprocess
import sys
import time

from benchmark_cases import (
    Memory,
    bundled_slice,
    bundled_template,
    files_of,
    labelled_case,
    regularity,
)
import numpy as np

# DIPY's OpenMP reads the number of threads as it loads, so DIPY, torch and the package
# are imported in functions, after --threads is known.

ROOT = Path(__file__).resolve().parents[1]
SYN_ITERS = {"syn": [100, 100, 25], "syn-short": [10, 10, 5]}
SYN_CALL = "SymmetricDiffeomorphicRegistration(CCMetric(dim), level_iters={})"
METHODS = {name: SYN_CALL.format(iters) for name, iters in SYN_ITERS.items()}
METHODS["deep"] = "DeepRegistration()"
PAIRS = ["1000:1001", "1006:1012", "1107:1122", "1001:1000", "1012:1006", "1122:1107"]

# What a row holds: its heading and format in the table.
COLUMNS = {
    "pair": ("static<-moving", "s"),
    "method": ("method", "s"),
    "dice": ("Dice", ".4f"),
    "field_before": ("before mm", ".3f"),
    "field_rms": ("error mm", ".3f"),
    "field_max": ("max mm", ".2f"),
    "squared_difference": ("SSD left %", ".2f"),
    "seconds": ("seconds", ".1f"),
    "ratio": ("x SyN", ".3f"),
    "minimum_jacobian": ("least J", ".3f"),
    "minimum_jacobian_inverse": ("inverse", ".3f"),
    "folds_percent": ("folds %", ".4f"),
    "folds_inverse_percent": ("inverse", ".4f"),
    "sd_log_jacobian": ("SD log J", ".3f"),
    "round_trip_mean": ("trip mm", ".4f"),
    "round_trip_max": ("max mm", ".3f"),
    "peak_mib": ("peak MiB", ".0f"),
}
KNOWN_FIELD = {"field_before", "field_rms", "field_max", "squared_difference"}
KEY = ("spacing", "repeat", "pair", "method")


def register(method, images, threads):
    """Map of one method, in the words that a user would write."""
    if method == "deep":
        from dipy_dl_reg import DeepRegistration

        return DeepRegistration(progress=False).optimize(**images, num_threads=threads)
    from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
    from dipy.align.metrics import CCMetric

    metric = CCMetric(images["static"].ndim)
    return SymmetricDiffeomorphicRegistration(
        metric, level_iters=SYN_ITERS[method]
    ).optimize(**images)


def measure(method, case, threads):
    """Everything about one registration but its name."""
    memory = Memory()
    start = time.perf_counter()
    mapping = register(method, case.images, threads)
    seconds = time.perf_counter() - start
    row = {"seconds": seconds, "peak_mib": memory.peak_mib()}
    row["measured"] = datetime.now().isoformat(timespec="seconds")
    row |= case.judge(mapping)
    return row | regularity(mapping, case.images["static_grid2world"], case.points)


def warm_up(methods, threads):
    """Seconds of each method's first call, on tiny images: libraries load and start."""
    x = np.stack(np.meshgrid(*[np.linspace(-1, 1, 40)] * 3))
    images = {"static": np.exp(-6 * (x**2).sum(0))}
    images["moving"] = np.roll(images["static"], 1, axis=0)
    seconds = {}
    for method in methods:
        start = time.perf_counter()
        register(method, images, threads)
        seconds[method] = time.perf_counter() - start
    return seconds


def key_of(row):
    return tuple(row[name] for name in KEY)


def with_ratio(row, rows, syn):
    """The row, with its seconds over those of `syn` on the same pair in one turn."""
    key = (*key_of(row)[:-1], syn)
    peer = next((r["seconds"] for r in rows if key_of(r) == key), None)
    return row | {"ratio": row["seconds"] / peer if peer else None}


def medians(rows, syn):
    """One row per method: the median of each number over pairs and repeats."""
    result = []
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [with_ratio(r, rows, syn) for r in rows if r["method"] == method]
        middle = {"pair": f"median of {len(of_method)}", "method": method}
        for name in set(COLUMNS) - set(middle):
            values = [r[name] for r in of_method if r.get(name) is not None]
            middle |= {name: float(np.median(values))} if values else {}
        result.append(middle)
    return result


def table_line(row, columns):
    """One line of the table: the headings for row None, a dash for what is missing."""
    cells = []
    for name in columns:
        title, form = COLUMNS[name]
        wide = 18 if name == "pair" else max(len(title), 9)
        value = title if row is None else row.get(name)
        text = "-" if value is None else value
        if not isinstance(text, str):
            text = format(text, form)
        cells.append(text.ljust(wide) if form == "s" else text.rjust(wide))
    return " ".join(cells).rstrip()


def gain(rows, other):
    """A line on the paired differences in Dice of deep from another method."""
    pairs = {}
    for row in (r for r in rows if "dice" in r):
        pairs.setdefault(row["pair"], {})[row["method"]] = row["dice"]
    pairs = [pair for pair in pairs.values() if {"deep", other} <= set(pair)]
    if not pairs:
        return None
    change = np.array([pair["deep"] - pair[other] for pair in pairs])
    draws = np.random.default_rng(0).choice(change, size=(10_000, len(change)))
    low, high = np.percentile(draws.mean(axis=1), [2.5, 97.5])
    return (
        f"Dice, deep less {other}: {change.mean():+.4f} on average (95 % interval "
        f"{low:+.4f} to {high:+.4f}), {change.min():+.4f} at least; pairs: {len(pairs)}"
    )


def write_json(path, results):
    """All or nothing: an interruption leaves the file as it was."""
    if path is None:
        return
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(temporary, path)


def git_commit():
    words = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


def checksum(folder):
    """Of the code that is measured: a commit elsewhere does not change it."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def describe(threads):
    """The machine, the versions, and how the methods were called."""
    import torch

    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.split(": ")[1] for x in lines if x.startswith("model name")), cpu)
    names = ("dipy_dl_reg", "dipy", "torch", "numpy", "scipy")
    return {
        "machine": {
            "cpu": cpu,
            "cores": os.cpu_count(),
            "threads": threads,
            "cuda": torch.cuda.is_available() and torch.cuda.get_device_name(),
            "system": platform.system(),
        },
        "versions": {name: version(name) for name in names}
        | {"python": platform.python_version()},
        "code": {"commit": git_commit(), "checksum": checksum(ROOT / "dipy_dl_reg")},
        "settings": {
            "methods": METHODS,
            "OMP_WAIT_POLICY": os.environ["OMP_WAIT_POLICY"],
        },
    }


def earlier_results(path, now):
    """Rows of an interrupted run, measured as this one is; else a ValueError."""
    try:
        then = json.loads(path.read_text())
        pairs = [(then[k], now[k]) for k in ("machine", "versions", "settings")]
        pairs.append((then["code"]["checksum"], now["code"]["checksum"]))
        rows = {key_of(row): row for row in then["rows"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"--resume: {path} is no result of this script.") from error
    for before, after in pairs:
        if before != after:
            raise ValueError(
                f"--resume: {path} was measured with {before}, and this is {after}."
            )
    return list(rows.values())


def cases_of(arguments):
    """What to measure: (spacing or None, name, function that loads the case)."""
    if arguments.quick:
        yield None, "coronal slice", bundled_slice
        if find_spec("nilearn"):
            yield None, "MNI152 4 mm", bundled_template
        else:
            print("The MNI152 template is left out: it comes with nilearn.")
        return
    for spacing in arguments.spacing:
        for pair in arguments.pairs:
            load = partial(labelled_case, arguments.data, spacing, pair)
            yield spacing, pair.replace(":", "<-"), load


def run(cases, methods, repeats, results, output):
    """Measure what is not there yet; print and keep every row at once."""
    for spacing in dict.fromkeys(spacing for spacing, _, _ in cases):
        here = [case[1:] for case in cases if case[0] == spacing]
        hidden = {"dice"} if spacing is None else KNOWN_FIELD
        columns = [name for name in COLUMNS if name not in hidden]
        syn = next((name for name in SYN_ITERS if name in methods), "syn")
        title = "Known fields" if spacing is None else f"{spacing:g} mm"
        print(f"\n{title} (x SyN: seconds over those of {syn})")
        print(table_line(None, columns))
        rows = []
        for repeat in range(repeats):
            for name, load in here:
                for row in rows_of(spacing, repeat, name, load, methods, results):
                    write_json(output, results)
                    rows.append(row)
                    print(table_line(with_ratio(row, rows, syn), columns), flush=True)
        for row in medians(rows, syn):
            print(table_line(row, columns))
        for line in filter(None, (gain(rows, name) for name in SYN_ITERS)):
            print(line)


def rows_of(spacing, repeat, name, load, methods, results):
    """Each method's row on one case: the one there is, or a new one, also kept."""
    done = {key_of(row): row for row in results["rows"]}
    case = None
    for method in methods:
        key = (spacing, repeat, name, method)
        if key not in done:
            case = case or load()
            measured = measure(method, case, results["machine"]["threads"])
            results["rows"].append(dict(zip(KEY, key)) | measured)
            yield results["rows"][-1]
        else:
            yield done[key]


def parse(words=None):
    """The command line, checked as far as possible before anything heavy loads."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    folder = os.environ.get("DIPY_DL_REG_DATA")
    add("--quick", action="store_true", help="bundled images; no data needed")
    text = "folder of labelled brains (or set DIPY_DL_REG_DATA)"
    add("--data", type=Path, default=folder and Path(folder), help=text)
    text = f"default: {' '.join(PAIRS)}"
    add("--pairs", nargs="+", default=PAIRS, metavar="STATIC:MOVING", help=text)
    add("--spacing", nargs="+", type=float, default=[2], help="mm; default: 2")
    text = "; ".join(f"{name} is {call}" for name, call in METHODS.items())
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS), help=text)
    add("--repeats", type=int, default=1, help="times all is measured; default: 1")
    text = "of torch and of DIPY; default: all processors (%(default)s)"
    add("--threads", type=int, default=os.cpu_count(), help=text)
    add("--output", type=Path, help="JSON file for results, machine and versions")
    add("--resume", action="store_true", help="go on with the run that OUTPUT holds")
    arguments = parser.parse_args(words)
    problem = problem_of(arguments)
    if problem:
        parser.error(problem)
    return arguments


def problem_of(arguments):
    """What is wrong with the arguments, in one sentence; None if nothing is."""
    if min(arguments.threads, arguments.repeats) < 1:
        return "--threads and --repeats must be 1 or more."
    output = arguments.output
    if arguments.resume and not (output and output.is_file()):
        return "--resume needs --output with the file of an earlier run."
    if output and not output.absolute().parent.is_dir():
        return f"--output: there is no folder {output.absolute().parent}."
    if output and output.exists() and not arguments.resume:
        return f"--output: {output} exists; --resume goes on with it."
    if arguments.quick:
        return None
    if not (arguments.data and output):
        return "--data and --output are needed, or --quick, which needs no data."
    if min(arguments.spacing) <= 0:
        return "--spacing must be above 0."
    needed = [arguments.data / "affines_mni.json"]
    for pair in arguments.pairs:
        if pair.count(":") != 1:
            return f"--pairs: wanted STATIC:MOVING, got {pair}."
        needed += [
            f for name in pair.split(":") for f in files_of(arguments.data, name)
        ]
    missing = next((path for path in needed if not path.is_file()), None)
    return missing and f"--data: there is no {missing}."


def main(words=None):
    arguments = parse(words)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before DIPY loads
    from dipy.utils.logging import logger

    logger.setLevel("WARNING")  # SyN tells of every level
    results = describe(arguments.threads) | {"rows": []}
    if arguments.resume:
        try:
            results["rows"] = earlier_results(arguments.output, results)
        except ValueError as error:
            sys.exit(str(error))
    results["warm_up_seconds"] = warm_up(arguments.methods, arguments.threads)
    print(json.dumps({k: results[k] for k in ("machine", "versions", "code")}))
    print("First calls, on tiny images: ", end="")
    print(*(f"{k} {v:.1f} s" for k, v in results["warm_up_seconds"].items()), sep=", ")
    try:
        cases = list(cases_of(arguments))
        run(cases, arguments.methods, arguments.repeats, results, arguments.output)
    except KeyboardInterrupt:
        kept = f"; {arguments.output} keeps the rows above" if arguments.output else ""
        sys.exit(f"\nInterrupted{kept}.")


if __name__ == "__main__":
    main()
