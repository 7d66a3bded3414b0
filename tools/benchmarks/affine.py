r"""Measure deep_affine_registration against DIPY's affine_registration.

    python -m tools.benchmarks.affine --data FOLDER --threads 2
    python -m tools.benchmarks.affine --data FOLDER \
        --capture 100 --dipy 10

The first prints, for each pair of a folder of labelled brains (see
tools/benchmarks/deformable.py), seconds, mutual information of the result (by DIPY's
own MutualInformationMetric, all voxels, 32 bins; higher is better) and the mean
distance between the centroids of the labels of both, mm. Both methods get the same
arrays, the pipeline that DIPY has by default (centre of mass, translation, rigid,
affine) and all other options as they come; only the registration is timed, the
resampled image that both return included.

With --capture the moving image is first put into another pose: turned by 0 to 180
degrees about any axis and shifted by up to 200 mm, and resampled onto a grid that lies
along the world's axes. Four kinds: the same subject or another, as a T1 or with its
intensities remapped to look like a b0's, with noise. The pipeline is centre of mass,
rigid. Told is how many ended within 2 mm (root of the mean square over the brain): of
the known pose for the same subject; for another, of what the same registration reaches
when it starts from the known pose. --dipy runs DIPY on the first so many.

--slab does the same with the middle third of the moving image alone.
"""

import os

# Must be set before torch loads: its waiting threads then sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from functools import partial
import logging
from pathlib import Path
from time import perf_counter

from dipy.align import affine_registration
from dipy.align.imaffine import MutualInformationMetric
from dipy.align.transforms import TranslationTransform3D
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg import deep_affine_registration
from tools.benchmarks.cases import labelled_case
from tools.benchmarks.poses import (
    brain_points,
    like_b0,
    misplacement,
    posed,
    random_pose,
)
from tools.benchmarks.record import describe, write_json

#: Those that nothing was tuned on come last.
PAIRS = ["1000:1001", "1006:1012", "1107:1122"]
SHIFT = 200  # mm
NEAR = 2  # mm


def register(method, case, **options):
    """The matrix and the seconds it took."""
    start = perf_counter()
    matrix = method(
        case["moving"],
        case["static"],
        moving_affine=case["moving_grid2world"],
        static_affine=case["static_grid2world"],
        **options,
    )[1]
    return matrix, perf_counter() - start


def information(case, matrix):
    """Mutual information by DIPY's own metric."""
    metric = MutualInformationMetric(nbins=32)
    metric.setup(
        TranslationTransform3D(),
        case["static"],
        case["moving"],
        static_grid2world=case["static_grid2world"],
        moving_grid2world=case["moving_grid2world"],
        starting_affine=matrix,
    )
    return -metric.distance(np.zeros(3))


def centroids(labels, grid2world, common):
    """Centre of each label in the world."""
    places = np.argwhere(labels > 0)
    values = labels[labels > 0]
    total = np.bincount(values)
    middle = [np.bincount(values, places[:, d])[common] for d in range(3)]
    middle = np.stack(middle, -1) / total[common][:, None]
    return middle @ grid2world[:3, :3].T + grid2world[:3, 3]


def centroid_distance(labels, matrix):
    """Mean distance of the labels' centroids, mm."""
    common = np.intersect1d(labels["static"], labels["moving"])
    common = common[common > 0]
    static, moving = (
        centroids(labels[role], labels[f"{role}_grid2world"], common)
        for role in ("static", "moving")
    )
    moved = static @ matrix[:3, :3].T + matrix[:3, 3]
    return float(np.linalg.norm(moved - moving, axis=1).mean())


def compare(data, pairs, spacings, methods):
    """Rows of the first table, printed as they come."""
    print("pair       mm  method  seconds       MI  centroids (mm)", flush=True)
    rows = []
    for spacing in spacings:
        for pair in pairs:
            case = labelled_case(data, spacing, pair)
            for name, method in methods.items():
                matrix, seconds = register(method, case.images)
                row = {
                    "pair": pair,
                    "spacing": spacing,
                    "method": name,
                    "seconds": seconds,
                    "mutual_information": information(case.images, matrix),
                    "centroid_distance": centroid_distance(case.labels, matrix),
                }
                rows.append(row)
                print(
                    f"{pair:9} {spacing:3g}  {name:6} {seconds:8.2f} "
                    f"{row['mutual_information']:8.4f} {row['centroid_distance']:8.3f}",
                    flush=True,
                )
    return rows


def poses(images, count, kind, slab):
    """Cases in other poses, each with the matrix that is right, and the angle."""
    rng = np.random.default_rng(2026)
    role = "static" if kind.startswith("same") else "moving"
    for _ in range(count):
        pose, angle = random_pose(rng, SHIFT)
        moving = images[role]
        matrix = images[f"{role}_grid2world"]
        spacing = float(np.linalg.norm(matrix[:3, 0]))
        if slab:  # turned by its matrix alone: its faces stay where they cut
            shown = np.flatnonzero((moving > 0.1 * moving.max()).any((0, 1)))
            low, high = np.quantile(shown, [1 / 3, 2 / 3]).astype(int)
            shift = np.eye(4)
            shift[2, 3] = low
            moving, matrix = moving[:, :, low:high], pose @ matrix @ shift
        else:
            moving, matrix = posed(moving, matrix, pose, spacing=spacing)
        if kind.endswith("b0"):
            moving = like_b0(moving, rng)
        case = {**images, "moving": moving, "moving_grid2world": matrix}
        yield case, pose, angle


def capture(data, pair, spacing, count, few, methods, slab):
    """Rows of the second table."""
    images = labelled_case(data, spacing, pair).images
    points = brain_points(images["static"], images["static_grid2world"])
    steps = {"pipeline": ["center_of_mass", "rigid"]}
    print(
        f"pair {pair}, {spacing:g} mm{', slabs' if slab else ''}\n"
        "kind      method   poses  < 2 mm  median (mm)  worst (mm)  seconds",
        flush=True,
    )
    rows = []
    for kind in ("same T1", "other T1", "same b0", "other b0"):
        right = np.eye(4)
        if kind.startswith("other"):
            right, _ = register(methods["deep"], images, **steps, starts="one")
        for name, method in methods.items():
            each = poses(images, count if name == "deep" else few, kind, slab)
            found = []
            for case, pose, angle in each:
                truth = pose @ right
                if kind.startswith("other"):
                    options = {"pipeline": ["rigid"], "starting_affine": truth}
                    truth, _ = register(methods["deep"], case, **options)
                matrix, seconds = register(method, case, **steps)
                error = misplacement(matrix, truth, points)
                found.append((angle, error, seconds))
            if not found:
                continue
            angles, errors, seconds = np.array(found).T
            rows.append(
                {
                    "kind": kind,
                    "method": name,
                    "angles": angles.tolist(),
                    "errors": errors.tolist(),
                    "seconds": seconds.tolist(),
                }
            )
            near = 100 * (errors < NEAR).mean()
            print(
                f"{kind:9} {name:6} {len(found):7} {near:5.0f} % "
                f"{np.median(errors):12.2f} {errors.max():11.1f} "
                f"{np.median(seconds):8.2f}",
                flush=True,
            )
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", nargs="+", default=PAIRS)
    parser.add_argument("--spacing", type=float, nargs="+", default=[2.0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=["deep", "dipy"])
    parser.add_argument("--capture", type=int, default=0)
    parser.add_argument("--dipy", type=int, default=0)
    parser.add_argument("--slab", action="store_true")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    logger.setLevel(logging.WARNING)
    methods = {
        "deep": partial(deep_affine_registration, num_threads=given.threads),
        "dipy": affine_registration,
    }
    methods = {name: methods[name] for name in given.methods}
    case = labelled_case(given.data, 4.0, given.pairs[0])
    register(methods.get("deep", deep_affine_registration), case.images)  # warm up
    if given.capture:
        rows = []
        for pair in given.pairs:
            args = (given.data, pair, given.spacing[0], given.capture, given.dipy)
            rows += capture(*args, methods, given.slab)
    else:
        rows = compare(given.data, given.pairs, given.spacing, methods)
    if given.output:
        kept_back = ("data", "output")  # paths say nothing of the measurement
        settings = {k: str(v) for k, v in vars(given).items() if k not in kept_back}
        kept = describe(given.threads) | {"settings": settings, "rows": rows}
        write_json(given.output, kept)


if __name__ == "__main__":
    main()
