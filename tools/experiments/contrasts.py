r"""Registration of images of different contrasts, measured on brains.

    python -m tools.experiments.contrasts --data FOLDER --model NET.npz \
        --pairs 1000:1001 1006:1012 --metrics CC MIND --output FILE.txt
    python -m tools.experiments.contrasts --data FOLDER --model NET.npz \
        --pairs 1000:1001 --metrics MIND MI --python ants=PYTHON --methods affine \
        network network-10 network-full refined syn-short ants-mi
    python -m tools.experiments.contrasts --real FOLDER --seeds 3 --model NET.npz

FOLDER is a folder of labelled brains, see tools/benchmarks/deformable.py. The moving
image is used unchanged (T1), or its intensities are mapped so that cerebrospinal fluid,
grey and white matter look as in a b0 or an FA image, with blur and noise. Each pair is
registered at 2 mm from the affine alignment by these methods: the affine alone, the
network alone, refinement alone, network and refinement, and ten iterations of
refinement without and with the network; if selected, also by SyN and other programs.
MODEL is a file, or the name of a network that comes with the package. Dice is the mean
over the labels. Times are CPU seconds (of other programs, seconds) of the registration
alone, with images and network in memory, after a first call that loads libraries. The
metric "default" is the one that this package uses if none is named. Means over pairs
and paired differences are printed at the end. OUTPUT.json holds the same values. With
--earlier, rows of other programs are taken from a table of an earlier run.

With --slices, networks for 2D images are measured: three axial slices of the moving
subject, in each contrast, are registered to the T1 slice deformed by a known random
field. The measure is the mean distance from this field over the brain, in mm.

With --real, diffusion images of a subject are registered to a T1 image of the same
subject. FOLDER contains b0, fa, md, mask and parcellation (.nii.gz) on one grid, and t1
and parcellation_t1 in another world. The diffusion images are moved by a known affine
and a known smooth field, one for each seed, and registered from the affine that this
package finds for the unmoved b0, the same for all methods. "mm off" is the mean
distance over the brain between this affine and the map followed by the known motion; it
is 0 if exactly the motion is corrected. Dice is that of the parcellations. "unmoved" is
the image without motion: for the affine alone, its Dice is the value that could be
reached, and for other methods, "mm off" is what they correct besides a motion, such as
the distortion of EPI.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from itertools import product
from pathlib import Path
import time

import numpy as np

from tools.benchmarks.methods import SYN, Setup, register
from tools.benchmarks.rival_programs import (
    MODULES,
    RIVALS,
    find_available,
    register_with_rival,
)
from tools.benchmarks.table import describe_differences
from tools.experiments.contrast_cases import (
    LOOKS,
    REAL,
    contrast_case,
    real_case,
    slice_cases,
)

# DIPY and torch are imported in functions, because DIPY reads the number of threads
# when it is imported.

METHODS = {
    "affine": {"model": None, "level_iters": 0},
    "network": {"level_iters": 0},
    "refined-10": {"model": None, "level_iters": [10]},
    "network-10": {"level_iters": [10]},
    "refined": {"model": None},
    "network-full": {},
}
#: The method without network that each method is compared with.
WITHOUT = {
    "network": "affine",
    "network-10": "refined-10",
    "network-full": "refined",
}
#: Pairs on which options were chosen, and those that were kept out of it.
TUNING = ("1000:1001", "1001:1000", "1006:1012", "1012:1006")
KEPT_OUT = ("1107:1122", "1122:1107")
#: Columns of a line that hold pair, contrast, metric and method.
KEY_COLUMNS = (0, 12), (13, 20), (21, 28), (29, 42)
#: Methods with a fixed metric.
OTHERS = [*SYN, *RIVALS]


def generate_cases(arguments):
    """Yield what to register: (name, kind, cases whose measures are averaged)."""
    for kind in arguments.kinds:
        if arguments.real:
            yield "unmoved", kind, [real_case(arguments.real, kind, None)]
            for seed in range(arguments.seeds):
                yield f"seed {seed}", kind, [real_case(arguments.real, kind, seed)]
        for pair in () if arguments.real else arguments.pairs:
            make = slice_cases if arguments.slices else contrast_case
            made = make(arguments.data, pair, kind)
            yield pair, kind, list(made) if arguments.slices else [made]


def list_runs(arguments):
    """List pairs of metric and method; the metric is "-" for a fixed one."""
    own = [m for m in arguments.methods if m in METHODS and m != "affine"]
    fixed = [m for m in arguments.methods if m in OTHERS or m == "affine"]
    return [("-", m) for m in fixed] + list(product(arguments.metrics, own))


def read_earlier_rows(path, columns):
    """Read the rows of other programs from an earlier table: {key: row}."""
    rows = {}
    for line in path.read_text().splitlines():
        key = tuple(
            line[a:b].strip() for a, b in ((0, 12), (13, 20), (21, 28), (29, 42))
        )
        if key[3] in OTHERS and not key[0].startswith("mean"):
            values = [float(word) for word in line[42:].split()[: len(columns) + 1]]
            rows[key] = dict(zip([*columns, "s"], values)) | {"used": 1.0}
    return rows


def register_case(case, metric, method, setup):
    """Register a case: measures, seconds, and whether the network's field was used."""
    if method in RIVALS:
        mapping, _, warped, facts = register_with_rival(method, case, setup)
        return case.judge(mapping, warped) | {"s": facts["seconds"], "used": 1.0}
    start = time.process_time()
    if method in SYN:
        mapping = register(method, case.images, setup)
        return {"s": time.process_time() - start} | case.judge(mapping) | {"used": 1.0}
    registration = make_registration(metric, method, setup)
    start = time.process_time()
    mapping = registration.optimize(**case.images, num_threads=setup.threads)
    seconds = time.process_time() - start
    used = registration.model is None or registration.network_used
    return case.judge(mapping) | {"s": seconds, "used": float(used)}


def make_registration(metric, method, setup):
    """Make the registration of a metric and a method."""
    from dipy_dl_reg import DeepRegistration

    options = {"model": setup.model} | METHODS[method]
    if metric not in ("-", "default"):
        options["metric"] = metric
    return DeepRegistration(progress=False, **options)


def warm_up(dim, arguments, setup):
    """Call each method on tiny images, to load its libraries."""
    x = np.stack(np.meshgrid(*[np.linspace(-1, 1, 40)] * dim))
    static = np.exp(-6 * np.square(x).sum(0)).astype(np.float32)
    images = {"static": static, "moving": np.roll(static, 1, axis=0)}
    for metric, method in list_runs(arguments):
        if method in SYN:
            register(method, images, setup)
        elif method not in RIVALS:
            make_registration(metric, method, setup).optimize(**images)


def format_row(key, row):
    """Format a line of the table."""
    name, kind, metric, method = key
    start = f"{name:12} {kind:7} {metric:7} {method:13}"
    used = "" if row["used"] == 1 else f" used in {row['used']:.0%}"
    cells = (f"{row[k]:8.4f}" for k in row if k not in ("s", "used"))
    return f"{start} {' '.join(cells)} {row['s']:7.2f}{used}"


def format_heading(row):
    """Format the headings of the table."""
    names = " ".join(f"{k:>8}" for k in row if k not in ("s", "used"))
    return f"{'pair':12} {'moving':7} {'metric':7} {'method':13} {names} {'s':>7}"


def measure_rows(arguments, setup):
    """Yield the key and the measures of every case and method."""
    for name, kind, cases in generate_cases(arguments):
        for metric, method in list_runs(arguments):
            try:
                found = [register_case(case, metric, method, setup) for case in cases]
            except RuntimeError as error:
                if method not in RIVALS:
                    raise
                print(f"{name} {kind} {method} failed: {error}", flush=True)
                continue
            row = {k: float(np.mean([f[k] for f in found])) for k in found[0]}
            row["s"] = row.pop("s")  # last but one
            row["used"] = row.pop("used")
            yield (name, kind, metric, method), row


def merge_rows(rows, earlier):
    """Rows of a run; earlier ones of other programs before those of each case."""
    merged = {}
    for key, row in rows.items():
        for other, kept in earlier.items():
            if other[:2] == key[:2] and other not in rows:
                merged.setdefault(other, kept)
        merged[key] = row
    return merged


def by_case(rows):
    """Rows with the case last in their keys, and the names that the JSON file uses."""
    names = {"Dice": "dice", "mm off": "mm_off"}
    return {
        (*key, name): {names.get(k, k): value for k, value in row.items()}
        for (name, *key), row in rows.items()
    }


def mean_rows(rows):
    """Yield means over pairs (median of the times) for each kind and method."""
    groups = {}
    for (name, *key), row in rows.items():
        if name != "unmoved":
            groups.setdefault(tuple(key), []).append(row)
    for key, found in groups.items():
        row = {k: float(np.mean([f[k] for f in found])) for k in found[0]}
        row["s"] = float(np.median([f["s"] for f in found]))
        yield (f"mean of {len(found)}", *key), row


def compare_methods(rows):
    """Yield lines that describe paired differences between methods."""
    measure = next(iter(next(iter(rows.values()))))
    keys = dict.fromkeys(key[1:] for key in rows if key[0] != "unmoved")
    for kind, metric, method in (key for key in keys if key[2] in WITHOUT):
        for other in keys:
            beside = other[2] == WITHOUT[method] and other[1] in (metric, "-")
            if other[0] != kind or not (beside or other[2] in OTHERS):
                continue
            pairs = [key[0] for key in rows if key[1:] == (kind, metric, method)]
            change = [
                rows[name, kind, metric, method][measure] - rows[name, *other][measure]
                for name in pairs
                if (name, *other) in rows
            ]
            words = f"{kind} {metric}: {measure}, {method} less {other[2]}"
            if change:
                yield describe_differences(words, change)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, help="folder of labelled T1 brains")
    add("--real", type=Path, metavar="FOLDER", help="real images of one subject")
    add("--model", required=True)
    add("--pairs", nargs="+", default=[], metavar="STATIC:MOVING")
    add("--seeds", type=int, default=3, help="number of motions for each real image")
    add("--kinds", nargs="+", choices=["T1", *REAL], help="default: all")
    add("--metrics", nargs="+", default=["CC"])
    add("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *OTHERS])
    add("--python", action="append", default=[], metavar="NAME=PATH",
        help="see tools/benchmarks/deformable.py")  # fmt: skip
    add("--slices", action="store_true")
    add("--earlier", type=Path, metavar="FILE.txt", help="keep its other programs")
    add("--earlier_commit", help="commit of that table, for the heading")
    add("--threads", type=int, default=2)
    add("--output", type=Path)
    arguments = parser.parse_args()
    if bool(arguments.real) == bool(arguments.data and arguments.pairs):
        parser.error("wanted --data with --pairs, or --real.")
    able = list(REAL) if arguments.real else ["T1", *LOOKS]
    arguments.kinds = arguments.kinds or able
    if not set(arguments.kinds) <= set(able):
        parser.error(f"--kinds must be of {able} here, got {arguments.kinds}.")
    if any(word.partition("=")[0] not in MODULES for word in arguments.python):
        parser.error(f"--python: wanted NAME=PATH, NAME of {list(MODULES)}.")
    return arguments


def main():
    """Print a line for every pair, kind, metric and method, and the means."""
    arguments = parse_arguments()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before DIPY loads
    from dipy.utils.logging import logger

    logger.setLevel("ERROR")
    pythons = dict(word.split("=", 1) for word in arguments.python)
    setup = Setup(arguments.threads, arguments.model, pythons)
    arguments.methods, _ = find_available(arguments.methods, pythons)
    warm_up(2 if arguments.slices else 3, arguments, setup)
    rows = {}
    for key, row in measure_rows(arguments, setup):
        if not rows:
            print(format_heading(row))
        rows[key] = row
        print(format_row(key, row), flush=True)
    finish(arguments, rows)


def finish(arguments, rows):
    """Add rows of an earlier table; print means and differences; write the files."""
    columns = [name for name in next(iter(rows.values())) if name not in ("s", "used")]
    from tools.experiments.saved_rows import write_table

    note = "Column s: CPU seconds of all threads"
    if arguments.earlier:
        earlier = read_earlier_rows(arguments.earlier, columns)
        rows = merge_rows(rows, earlier)
        others = ", ".join(sorted({key[3] for key in earlier}))
        note += (
            f"; rows of {others} were kept from the table of commit "
            f"{arguments.earlier_commit} and are seconds, measured on another machine"
        )
    ending = [format_row(*mean) for mean in mean_rows(rows)]
    ending += compare_methods(rows)
    print(*ending, sep="\n")
    if arguments.output:
        lines = [format_heading(next(iter(rows.values())))]
        lines += [format_row(*row) for row in rows.items()]
        groups = {} if arguments.real else {"chosen_on": TUNING, "kept_out": KEPT_OUT}
        write_table(
            arguments.output,
            lines + ending,
            by_case(rows),
            keys=("moving", "metric", "method", "pair"),
            threads=arguments.threads,
            note=f"{note}.",
            **groups,
        )


if __name__ == "__main__":
    main()
