"""How far two registrations, of two images and of the same swapped, are from inverses.

    python -m tools.experiments.swapped_images --data FOLDER --pairs 1000:1001 1006:1012

FOLDER is that of ``tools/benchmarks/deformable.py``.  Each pair is registered at 2 mm
from the affine start, and again with static and moving swapped and the inverse of the
affine. Printed: how far points of the static brain are from themselves after the first
map and then the second, in voxels of 2 mm, on average, at the 95th percentile and at
most; and how far the first moved them.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from pathlib import Path

import numpy as np

from tools.benchmarks.measures import to_world
from tools.experiments.contrast_cases import LOOKS, case_of, swapped

#: Methods: the network alone, all of it, and refinement alone.
METHODS = {"network": {"level_iters": 0}, "default": {}, "refined": {"model": None}}
SPACING = 2.0


def distances(images, options, threads):
    """How far points come back from themselves, and were away, voxels."""
    from dipy_dl_reg import DeepRegistration

    there, back = (
        DeepRegistration(progress=False, **options).optimize(**x, num_threads=threads)
        for x in (images, swapped(images))
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
    chosen = parser.parse_args()
    print(f"{'pair':12} {'moving':7} {'method':8}   mean    95 %     max   moved")
    for pair in chosen.pairs:
        for kind in chosen.kinds:
            images = case_of(chosen.data, pair, kind).images
            for method in chosen.methods:
                left, moved = distances(images, METHODS[method], chosen.threads)
                figures = left.mean(), np.percentile(left, 95), left.max(), moved.mean()
                columns = " ".join(f"{x:7.3f}" for x in figures)
                print(f"{pair:12} {kind:7} {method:8} {columns}", flush=True)


if __name__ == "__main__":
    main()
