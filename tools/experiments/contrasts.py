r"""Registration across contrasts, measured on labelled brains.

    python -m tools.experiments.contrasts --data FOLDER --model NET.npz \
        --pairs 1000:1001 1006:1012 --metrics CC MIND --output FILE.txt
    python -m tools.experiments.contrasts --data FOLDER --model NET.npz \
        --pairs 1000:1001 --metrics MIND MI --python ants=PYTHON --methods affine \
        network network-10 network-full refined syn-short ants-mi
    python -m tools.experiments.contrasts --real FOLDER --seeds 3 --model NET.npz

FOLDER is that of ``tools/benchmarks/deformable.py``. The moving image is taken as it is
(T1), or its intensities are mapped so that fluid, grey and white matter look as in a b0
or an FA image, with blur and noise of such. Each is registered at 2 mm from the affine
start by nothing, by the network alone, by refinement alone, by both, and refinement
stopped after ten iterations without and with it; and, where asked for, by SyN and by
the rivals of ``tools/benchmarks/deformable.py``. MODEL is a file, or the name of a
network that comes with the package. Overlap is the mean Dice of the structures, as in
``tools/benchmarks/deformable.py``; seconds are those of the registration alone, images
and network in memory, after a warm-up (a rival's: see its adapter). The metric
"default" is what this package takes when none is named. At the end, means over pairs,
and paired differences.

With --slices, for a network for 2D: three axial slices of the moving subject, of each
kind, onto the T1 slice deformed by a known random field; instead of overlap it says how
far the map is from that field, mm on average over the brain.

With --real, diffusion images of one subject onto a T1 image of the same: FOLDER holds
b0, fa, md, mask and parcellation (.nii.gz) on one grid and t1 and parcellation_t1 in
another world. Each of the first is moved by a known affine and a known smooth field,
one for each seed, and registered from the affine that this package finds for the
unmoved b0, the same for all methods. "mm off" is how far the map, followed by the known
motion, is from that affine, mean over the brain: 0 would be to undo the motion, and
nothing else. Dice is of the parcellations. "unmoved" is the image as it was: what the
affine alone has there could be hoped for, and how far another method goes from it is
what that finds besides a motion, such as the distortion of EPI.
"""

import os

# Must be set before torch loads: see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from itertools import product
from pathlib import Path
import time

import numpy as np

from tools.benchmarks.methods import SYN, Setup, register
from tools.benchmarks.rival_programs import MODULES, RIVALS, present, register_by
from tools.benchmarks.table import told
from tools.experiments.contrast_cases import LOOKS, REAL, case_of, real_case, slices_of

# DIPY and torch are imported in functions: DIPY's OpenMP reads the number of threads as
# it loads.

METHODS = {
    "affine": {"model": None, "level_iters": 0},
    "network": {"level_iters": 0},
    "refined-10": {"model": None, "level_iters": [10]},
    "network-10": {"level_iters": [10]},
    "refined": {"model": None},
    "network-full": {},
}
#: What each is compared with, besides SyN and the rivals.
WITHOUT = {
    "network": "affine",
    "network-10": "refined-10",
    "network-full": "refined",
}
#: Methods that have a metric of their own.
OTHERS = [*SYN, *RIVALS]


def cases_of(arguments):
    """What to register: (name, kind, cases whose measures are averaged)."""
    for kind in arguments.kinds:
        if arguments.real:
            yield "unmoved", kind, [real_case(arguments.real, kind, None)]
            for seed in range(arguments.seeds):
                yield f"seed {seed}", kind, [real_case(arguments.real, kind, seed)]
        for pair in () if arguments.real else arguments.pairs:
            make = slices_of if arguments.slices else case_of
            made = make(arguments.data, pair, kind)
            yield pair, kind, list(made) if arguments.slices else [made]


def runs_of(arguments):
    """Metric and method, one after the other; "-" where it has one of its own."""
    own = [m for m in arguments.methods if m in METHODS and m != "affine"]
    fixed = [m for m in arguments.methods if m in OTHERS or m == "affine"]
    return [("-", m) for m in fixed] + list(product(arguments.metrics, own))


def registered(case, metric, method, setup):
    """What one method makes of a case: measures, seconds, and the network's use."""
    if method in RIVALS:
        mapping, _, warped, told_ = register_by(method, case, setup)
        return case.judge(mapping, warped) | {"s": told_["seconds"], "used": 1.0}
    start = time.perf_counter()
    if method in SYN:
        mapping = register(method, case.images, setup)
        return {"s": time.perf_counter() - start} | case.judge(mapping) | {"used": 1.0}
    registration = registration_of(metric, method, setup)
    start = time.perf_counter()
    mapping = registration.optimize(**case.images, num_threads=setup.threads)
    seconds = time.perf_counter() - start
    used = registration.model is None or registration.network_used
    return case.judge(mapping) | {"s": seconds, "used": float(used)}


def registration_of(metric, method, setup):
    """What a user writes."""
    from dipy_dl_reg import DeepRegistration

    options = {"model": setup.model} | METHODS[method]
    if metric not in ("-", "default"):
        options["metric"] = metric
    return DeepRegistration(progress=False, **options)


def warm_up(dim, arguments, setup):
    """First calls, on tiny images: libraries load and start."""
    x = np.stack(np.meshgrid(*[np.linspace(-1, 1, 40)] * dim))
    static = np.exp(-6 * np.square(x).sum(0)).astype(np.float32)
    images = {"static": static, "moving": np.roll(static, 1, axis=0)}
    for metric, method in runs_of(arguments):
        if method in SYN:
            register(method, images, setup)
        elif method not in RIVALS:
            registration_of(metric, method, setup).optimize(**images)


def line_of(key, row):
    """A line of the table, or its heading where there is no row."""
    name, kind, metric, method = key
    start = f"{name:12} {kind:7} {metric:7} {method:13}"
    used = "" if row["used"] == 1 else f" used in {row['used']:.0%}"
    cells = (f"{row[k]:8.4f}" for k in row if k not in ("s", "used"))
    return f"{start} {' '.join(cells)} {row['s']:7.2f}{used}"


def heading(row):
    names = " ".join(f"{k:>8}" for k in row if k not in ("s", "used"))
    return f"{'pair':12} {'moving':7} {'metric':7} {'method':13} {names} {'s':>7}"


def rows_of(arguments, setup):
    """Key and measures of every case and method, as they are measured."""
    for name, kind, cases in cases_of(arguments):
        for metric, method in runs_of(arguments):
            try:
                found = [registered(case, metric, method, setup) for case in cases]
            except RuntimeError as error:
                if method not in RIVALS:
                    raise
                print(f"{name} {kind} {method} failed: {error}", flush=True)
                continue
            row = {k: float(np.mean([f[k] for f in found])) for k in found[0]}
            row["s"] = row.pop("s")  # last but one
            row["used"] = row.pop("used")
            yield (name, kind, metric, method), row


def means(rows):
    """The means over pairs, seconds the median."""
    groups = {}
    for (name, *key), row in rows.items():
        if name != "unmoved":
            groups.setdefault(tuple(key), []).append(row)
    for key, found in groups.items():
        row = {k: float(np.mean([f[k] for f in found])) for k in found[0]}
        row["s"] = float(np.median([f["s"] for f in found]))
        yield (f"mean of {len(found)}", *key), row


def differences(rows):
    """Lines on paired differences, of this package's methods from what is beside."""
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
                yield told(words, change)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, help="folder of labelled T1 brains")
    add("--real", type=Path, metavar="FOLDER", help="of one subject's real images")
    add("--model", required=True)
    add("--pairs", nargs="+", default=[], metavar="STATIC:MOVING")
    add("--seeds", type=int, default=3, help="motions of each real image")
    add("--kinds", nargs="+", choices=["T1", *REAL], help="by default all there are")
    add("--metrics", nargs="+", default=["CC"])
    add("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *OTHERS])
    add("--python", action="append", default=[], metavar="NAME=PATH",
        help="see tools/benchmarks/deformable.py")  # fmt: skip
    add("--slices", action="store_true")
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
    """Print and write a line for every pair, kind, metric and method; and the means."""
    arguments = parse()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before DIPY loads
    from dipy.utils.logging import logger

    logger.setLevel("ERROR")
    pythons = dict(word.split("=", 1) for word in arguments.python)
    setup = Setup(arguments.threads, arguments.model, pythons)
    arguments.methods, _ = present(arguments.methods, pythons)
    warm_up(2 if arguments.slices else 3, arguments, setup)
    rows, lines = {}, []
    for key, row in rows_of(arguments, setup):
        if not rows:
            lines.append(heading(row))
            print(lines[0])
        rows[key] = row
        lines.append(line_of(key, row))
        print(lines[-1], flush=True)
    ending = [line_of(*mean) for mean in means(rows)] + list(differences(rows))
    print(*ending, sep="\n")
    if arguments.output:
        arguments.output.write_text("\n".join(lines + ending) + "\n")


if __name__ == "__main__":
    main()
