r"""What anatomy maps add to the registration of brains, see doc/benchmark.

    python -m tools.experiments.anatomy_channels --data FOLDER --pairs 1000:1001 \
        --kinds T1 b0 FA --variants none auto channels --output FILE.txt
    python -m tools.experiments.anatomy_channels --real FOLDER --seeds 10 11 \
        --kinds b0 MD FA --variants none auto --output FILE.txt

FOLDER and the contrasts are those of tools/experiments/contrasts.py. Each variant is
the default registration at 2 mm with the options of `VARIANTS`; constants of the code
are replaced during the registration. Rows are appended to FILE. Columns: mean Dice of
the labels, for real images the mean distance from the known motion (mm), the SD of the
logarithm and the minimum of the Jacobian determinant, CPU seconds of one thread
(prediction of the maps included), and whether the maps were used.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from contextlib import ExitStack
from pathlib import Path
import time
from unittest import mock

import numpy as np

from tools.benchmarks.measures import jacobian_determinant
from tools.experiments.contrast_cases import contrast_case, real_case

MAPS = "dipy_dl_reg.initialization.anatomy_maps"
USE = "dipy_dl_reg.registration.anatomy_use"
SIGMA = "dipy_dl_reg.initialization.metric_selection._SIGMA_ANATOMY"
#: Groups of structures as channels.
DEEP = (
    *(("thalamus",), ("caudate", "accumbens"), ("putamen",), ("pallidum",)),
    *(("hippocampus", "amygdala"), ("ventral diencephalon",), ("brain stem",)),
)
TISSUES = (("cerebral white matter",), ("cerebral cortex",))


def replace_channels(groups):
    """Constants that make other structures the channels."""
    return {f"{MAPS}.CHANNELS": groups, f"{USE}.CHANNELS": groups}


#: Name of a variant: options of DeepRegistration; "constants" are replaced values.
VARIANTS = {
    "none": {"anatomy": False},
    "none, no network": {"anatomy": False, "model": None},
    "network alone": {"anatomy": False, "level_iters": 0},
    "auto": {},
    "auto, no network": {"model": None},
    "sigma 0.8": {"constants": {SIGMA: 0.8}},
    "sigma 1.3": {"constants": {SIGMA: 1.3}},
    "sharpness 1": {"constants": {f"{MAPS}._SHARPNESS": 1}},
    "sharpness 3": {"constants": {f"{MAPS}._SHARPNESS": 3}},
    "channels": {"anatomy": True},
    "channels, weight 0.3": {"anatomy": True, "constants": {f"{USE}._WEIGHT": 0.3}},
    "channels, weight 3": {"anatomy": True, "constants": {f"{USE}._WEIGHT": 3.0}},
    "channels, deep nuclei": {"anatomy": True, "constants": replace_channels(DEEP)},
    "channels, two tissues": {"anatomy": True, "constants": replace_channels(TISSUES)},
}


def generate_cases(arguments):
    """Yield the name, the contrast and the images of each case."""
    for kind in arguments.kinds:
        for pair in arguments.pairs:
            yield pair, kind, contrast_case(arguments.data, pair, kind)
        for seed in arguments.seeds if arguments.real else ():
            yield f"real {seed}", kind, real_case(arguments.real, kind, seed)


def measure(case, variant):
    """Register a case, and measure the map."""
    from dipy_dl_reg import DeepRegistration

    options = dict(VARIANTS[variant])
    with ExitStack() as stack:
        for name, value in options.pop("constants", {}).items():
            stack.enter_context(mock.patch(name, value))
        registration = DeepRegistration(progress=False, **options)
        start = time.process_time()
        mapping = registration.optimize(**case.images, num_threads=1)
        seconds = time.process_time() - start
    matrix = case.images["static_grid2world"]
    determinant = jacobian_determinant(mapping.backward, matrix)
    row = case.judge(mapping)
    row["SD log J"] = float(np.log(determinant.clip(1e-3)).std())
    row["min J"] = float(determinant.min())
    row["CPU s"] = seconds
    return row, registration.anatomy_used


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, help="folder of labelled T1 brains")
    add("--pairs", nargs="+", default=[], metavar="STATIC:MOVING")
    add("--real", type=Path, help="folder of real images of one subject")
    add("--seeds", nargs="+", type=int, default=[10, 11])
    add("--kinds", nargs="+", default=["b0"])
    add("--variants", nargs="+", default=["none", "auto"], choices=VARIANTS)
    add("--output", type=Path)
    return parser.parse_args()


def main():
    """Print a line for every case and variant, and append it to the output."""
    arguments = parse_arguments()
    from dipy.utils.logging import logger

    logger.setLevel("ERROR")
    for name, kind, case in generate_cases(arguments):
        for variant in arguments.variants:
            row, used = measure(case, variant)
            cells = "  ".join(f"{key} {value:.4f}" for key, value in row.items())
            maps = "maps used" if used else ""
            line = f"{name:10} {kind:3} {variant:22} {cells}  {maps}".rstrip()
            print(line, flush=True)
            if arguments.output:
                with arguments.output.open("a") as file:
                    file.write(line + "\n")


if __name__ == "__main__":
    main()
