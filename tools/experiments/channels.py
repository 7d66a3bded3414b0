r"""Two channels against one: b0 and FA to T1 and FA.

    DIPY_DL_REG_DATA=FOLDER OMP_NUM_THREADS=1 python -m tools.experiments.channels \
        --output doc/benchmark/channels.txt

FOLDER holds labelled T1 brains (tools/benchmarks/deformable.py); the folder "diffusion"
beside it holds subjects with b0, FA and T1. The same images are registered by b0 alone,
by FA alone and by both, with all options at their defaults, from the same affine and
with the same masks.

known a, known b: b0 and FA of a subject are moved by a known smooth field (peak 8 mm)
and registered to T1 and FA of the same subject; noise is added to the moving b0 and, to
both FA images independently, because they come from one acquisition. The measure is the
root mean square error in mm over the brain. In subject a, whose diffusion images are
distorted, the FA of the template is FA warped by the map of b0 to T1.

real: two people, an adult and a child; Dice of cerebrospinal fluid, cortex, white
matter and deep grey matter. Their images were acquired on different scanners.

simulated: T1 brains of two people, b0 and FA simulated from T1; Dice of all labels.

Weights and metrics of the channels are those that the package chooses. They were tuned
on the seeds 100 and 101 and on the pairs 1000:1001 and 1006:1012, which are not
reported. Times are those of the process (CPU), images in memory.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from importlib.metadata import version
from pathlib import Path
import platform
import time

import numpy as np

from tools.experiments.channel_cases import (
    known_field_a,
    known_field_b,
    real_pair,
    simulated_pair,
)

#: Channels of each method.
METHODS = {"b0": [0], "FA": [1], "both": [0, 1]}
SEEDS = (0, 1, 2, 3)
PAIRS = ("1107:1122", "1122:1107")


def list_cases(arguments):
    """Yield the name, whether low is good, and a function that makes each case."""
    diffusion = arguments.data.parent / "diffusion"
    for seed in SEEDS:
        yield f"known a, seed {seed}", True, lambda s=seed: known_field_a(diffusion, s)
    for seed in SEEDS:
        yield f"known b, seed {seed}", True, lambda s=seed: known_field_b(diffusion, s)
    for name in ("a to b", "b to a"):
        yield f"real, {name}", False, lambda n=name: real_pair(diffusion, n)
    for pair in PAIRS:
        yield (
            f"simulated, {pair}",
            False,
            lambda p=pair: simulated_pair(arguments.data, p),
        )


def register(case, channels):
    """Register a case by some of its channels; the map and what was used."""
    from dipy_dl_reg import DeepRegistration

    several = len(channels) > 1
    images = {
        side: np.stack([given[k] for k in channels], -1)
        if several
        else given[channels[0]]
        for side, given in case.channels.items()
    }
    registration = DeepRegistration(
        ["auto"] * len(channels) if several else "auto", progress=False
    )
    begin = time.process_time()
    mapping = registration.optimize(**images, **case.options)
    return mapping, registration, time.process_time() - begin


def format_row(name, start, results):
    """Format a line of the table."""
    cells = [f"{name:22} {start:8.3f}"]
    cells += [f"{results[m][0]:8.3f} {results[m][1]:6.1f}" for m in METHODS]
    weights = results["both"][2].metric.weights
    return " ".join([*cells, "  ", f"{weights[0]:.2f} : {weights[1]:.2f}"])


def describe(rows):
    """Yield the means of each group of cases."""
    groups = {}
    for name, low, start, results in rows:
        groups.setdefault((name.split(",")[0], low), []).append((start, results))
    for (group, low), found in groups.items():
        values = {m: np.array([r[m][0] for _, r in found]) for m in METHODS}
        best = np.minimum(*(values[m] for m in ("b0", "FA"))) if low else np.maximum(
            *(values[m] for m in ("b0", "FA"))
        )  # fmt: skip
        better = (values["both"] < best) if low else (values["both"] > best)
        ratio = np.mean([r["both"][1] / r["FA"][1] for _, r in found])
        means = ", ".join(f"{m} {values[m].mean():.3f}" for m in METHODS)
        yield (
            f"{group}: mean {means}; both less the best single one "
            f"{(values['both'] - best).mean():+.3f}, better in {better.sum()} of "
            f"{len(better)}; time of both over FA alone {ratio:.2f}"
        )


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = os.environ.get("DIPY_DL_REG_DATA")
    parser.add_argument("--data", type=Path, default=folder and Path(folder))
    parser.add_argument("--only", help="cases whose names contain this")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data or DIPY_DL_REG_DATA is required")
    return arguments


def main():
    """Print a line for every case, and the means."""
    arguments = parse_arguments()
    from dipy.utils.logging import logger

    logger.setLevel("ERROR")
    lines = [
        f"{platform.machine()}, 1 thread; dipy_dl_reg {version('dipy_dl_reg')}, "
        f"torch {version('torch')}, dipy {version('dipy')}",
        "measure and CPU seconds: root mean square error, mm (known) or Dice; weights "
        "of b0 and FA",
        f"{'case':22} {'affine':>8} "
        + " ".join(f"{m:>8} {'s':>6}" for m in METHODS)
        + "    weights",
    ]
    print(*lines, sep="\n", flush=True)
    rows = []
    for name, low, make in list_cases(arguments):
        if arguments.only and arguments.only not in name:
            continue
        case, results = make(), {}
        for method, channels in METHODS.items():
            mapping, registration, seconds = register(case, channels)
            results[method] = case.judge(mapping), seconds, registration
        rows.append((name, low, case.start, results))
        lines.append(format_row(name, case.start, results))
        print(lines[-1], flush=True)
    ending = list(describe(rows))
    print(*ending, sep="\n")
    if arguments.output:
        arguments.output.write_text("\n".join([*lines, *ending]) + "\n")


if __name__ == "__main__":
    main()
