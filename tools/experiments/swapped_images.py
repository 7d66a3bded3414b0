"""Inverse consistency of two registrations with static and moving exchanged.

    python -m tools.experiments.swapped_images --data FOLDER --pairs 1000:1001 1006:1012

FOLDER is a folder of labelled brains, see tools/benchmarks/deformable.py.  Each pair is
registered at 2 mm from the affine alignment, and again with static and moving exchanged
and the inverse of the affine. Points of the static brain are mapped by the first map
and then by the second. The table gives the distance from their initial position in
voxels of 2 mm (mean, 95th percentile and maximum), and the mean displacement by the
first map.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from pathlib import Path

import numpy as np

from tools.benchmarks.measures import to_world
from tools.experiments.contrast_cases import LOOKS, contrast_case, swap_images
from tools.experiments.saved_rows import write_table

#: The network alone, network and refinement, and refinement alone.
METHODS = {"network": {"level_iters": 0}, "default": {}, "refined": {"model": None}}
SPACING = 2.0


def measure_distances(images, options, threads):
    """Inversion error of points, and their displacement by the first map, voxels."""
    from dipy_dl_reg import DeepRegistration

    there, back = (
        DeepRegistration(progress=False, **options).optimize(**x, num_threads=threads)
        for x in (images, swap_images(images))
    )
    matrix = images["static_grid2world"]
    points = to_world(np.argwhere(images["static"] > 0)[::97], matrix)
    landed = there.transform_points(points)
    before = to_world(points, images["prealign"])
    left = np.linalg.norm(back.transform_points(landed) - points, axis=1)
    return left / SPACING, np.linalg.norm(landed - before, axis=1) / SPACING


def main():
    """Print a line for every pair, kind and method."""
    from dipy.utils.logging import logger

    logger.setLevel("ERROR")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", nargs="+", required=True, metavar="STATIC:MOVING")
    parser.add_argument("--kinds", nargs="+", default=["T1", *LOOKS])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="FILE.txt; and rows in FILE.json")
    arguments = parser.parse_args()
    rows = {}
    lines = [f"{'pair':12} {'moving':7} {'method':8}   mean    95 %     max   moved"]
    print(lines[0])
    for pair in arguments.pairs:
        for kind in arguments.kinds:
            images = contrast_case(arguments.data, pair, kind).images
            for method in arguments.methods:
                left, moved = measure_distances(
                    images, METHODS[method], arguments.threads
                )
                figures = left.mean(), np.percentile(left, 95), left.max(), moved.mean()
                columns = " ".join(f"{x:7.3f}" for x in figures)
                lines.append(f"{pair:12} {kind:7} {method:8} {columns}")
                print(lines[-1], flush=True)
                named = zip(("mean", "p95", "max", "moved"), map(float, figures))
                rows[kind, method, pair] = dict(named)
    if arguments.output:
        write_table(
            arguments.output,
            lines,
            rows,
            keys=("moving", "method", "pair"),
            threads=arguments.threads,
        )


if __name__ == "__main__":
    main()
