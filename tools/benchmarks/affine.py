r"""Compare deep_affine_registration with DIPY's affine_registration.

    python -m tools.benchmarks.affine --data FOLDER --threads 2
    python -m tools.benchmarks.affine --data FOLDER --capture 100 --dipy 10

The first command prints for each pair of a folder of labelled brains (see
tools/benchmarks/deformable.py): the time in seconds, the mutual information of the
result (by DIPY's MutualInformationMetric, all voxels, 32 bins; higher is better), and
the mean distance between the centroids of corresponding labels in mm. Both methods get
the same arrays, DIPY's default pipeline (centre of mass, translation, rigid, affine)
and their default options. Only the registration is timed; it includes resampling the
moving image, which both functions do.

`--capture` measures how often the registration succeeds from random poses. The moving
image is rotated by 0 to 180 degrees about a random axis, shifted by up to 200 mm, and
resampled to a grid with axes parallel to the world axes. There are four kinds of moving
images: the same subject or another one, as T1 or with intensities remapped to look like
a b0, with noise. The pipeline is centre of mass, rigid. A registration succeeds if its
root mean square error over the brain is below 2 mm. The reference is the known pose for
the same subject, and for another subject the result of the same registration started
from the known pose. `--dipy` is the number of poses for which DIPY is run.

`--slab` uses only the middle third of the moving image.
"""

import os

# Must be set before torch is imported: waiting threads then sleep instead of spinning.
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
    pose_error,
    put_in_pose,
    random_pose,
    simulate_b0,
)
from tools.benchmarks.record import describe, write_json

#: The last pair was not used for choosing settings.
PAIRS = ["1000:1001", "1006:1012", "1107:1122"]
#: Largest shift of a random pose, and the error below which one succeeds, in mm.
MAXIMUM_SHIFT = 200
SUCCESS = 2
KINDS = ("same T1", "other T1", "same b0", "other b0")
STEPS = {"pipeline": ["center_of_mass", "rigid"]}


def register(method, images, **options):
    """Run a registration; return its matrix and its time in seconds."""
    start = perf_counter()
    matrix = method(
        images["moving"],
        images["static"],
        moving_affine=images["moving_grid2world"],
        static_affine=images["static_grid2world"],
        **options,
    )[1]
    return matrix, perf_counter() - start


def mutual_information(images, matrix):
    """Mutual information of the aligned images, by DIPY's metric."""
    metric = MutualInformationMetric(nbins=32)
    metric.setup(
        TranslationTransform3D(),
        images["static"],
        images["moving"],
        static_grid2world=images["static_grid2world"],
        moving_grid2world=images["moving_grid2world"],
        starting_affine=matrix,
    )
    return -metric.distance(np.zeros(3))


def centroids(labels, grid2world, common):
    """Centroid of each common label in world coordinates."""
    places = np.argwhere(labels > 0)
    values = labels[labels > 0]
    total = np.bincount(values)
    middle = [np.bincount(values, places[:, d])[common] for d in range(3)]
    middle = np.stack(middle, -1) / total[common][:, None]
    return middle @ grid2world[:3, :3].T + grid2world[:3, 3]


def centroid_distance(labels, matrix):
    """Mean distance of corresponding centroids after alignment, mm."""
    common = np.intersect1d(labels["static"], labels["moving"])
    common = common[common > 0]
    static, moving = (
        centroids(labels[role], labels[f"{role}_grid2world"], common)
        for role in ("static", "moving")
    )
    moved = static @ matrix[:3, :3].T + matrix[:3, 3]
    return float(np.linalg.norm(moved - moving, axis=1).mean())


def compare_methods(data, pairs, spacings, methods):
    """Register each pair with each method; print a row for each and return all."""
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
                    "mutual_information": mutual_information(case.images, matrix),
                    "centroid_distance": centroid_distance(case.labels, matrix),
                }
                rows.append(row)
                print(
                    f"{pair:9} {spacing:3g}  {name:6} {seconds:8.2f} "
                    f"{row['mutual_information']:8.4f} {row['centroid_distance']:8.3f}",
                    flush=True,
                )
    return rows


def put_slab_in_pose(image, grid2world, pose):
    """Middle third of an image along its last axis, and its matrix in a pose.

    The voxels are not resampled, so that the faces of the slab still cut the object.
    """
    shown = np.flatnonzero((image > 0.1 * image.max()).any((0, 1)))
    low, high = np.quantile(shown, [1 / 3, 2 / 3]).astype(int)
    shift = np.eye(4)
    shift[2, 3] = low
    return image[:, :, low:high], pose @ grid2world @ shift


def make_poses(images, count, kind, slab):
    """Yield pairs with the moving image in random poses, each pose, and its angle."""
    rng = np.random.default_rng(2026)
    role = "static" if kind.startswith("same") else "moving"
    for _ in range(count):
        pose, angle = random_pose(rng, MAXIMUM_SHIFT)
        moving = images[role]
        matrix = images[f"{role}_grid2world"]
        spacing = float(np.linalg.norm(matrix[:3, 0]))
        if slab:
            moving, matrix = put_slab_in_pose(moving, matrix, pose)
        else:
            moving, matrix = put_in_pose(moving, matrix, pose, spacing=spacing)
        if kind.endswith("b0"):
            moving = simulate_b0(moving, rng)
        case = {**images, "moving": moving, "moving_grid2world": matrix}
        yield case, pose, angle


def register_poses(images, kind, method, reference_method, count, slab):
    """Angle, error (mm) and seconds of registrations from random poses."""
    points = brain_points(images["static"], images["static_grid2world"])
    right = np.eye(4)
    if kind.startswith("other"):
        right, _ = register(reference_method, images, **STEPS, starts="one")
    found = []
    for case, pose, angle in make_poses(images, count, kind, slab):
        truth = pose @ right
        if kind.startswith("other"):
            options = {"pipeline": ["rigid"], "starting_affine": truth}
            truth, _ = register(reference_method, case, **options)
        matrix, seconds = register(method, case, **STEPS)
        found.append((angle, pose_error(matrix, truth, points), seconds))
    return found


def measure_capture_range(images, methods, counts, slab):
    """Register from random poses; print a row for each kind and method.

    Parameters
    ----------
    images : dict
        Arguments of `optimize` for one pair.
    methods : dict of str to callable
        The method "deep" gives the reference for pairs of two subjects.
    counts : dict of str to int
        Number of poses for each method.
    slab : bool
        Whether only the middle third of the moving image is used.

    Returns
    -------
    rows : list of dict
        Angles, errors and seconds of each kind and method.
    """
    rows = []
    print(
        "kind      method   poses  < 2 mm  median (mm)  worst (mm)  seconds", flush=True
    )
    for kind in KINDS:
        for name, method in methods.items():
            found = register_poses(
                images, kind, method, methods["deep"], counts[name], slab
            )
            if not found:
                continue
            angles, errors, seconds = np.array(found).T
            row = {"kind": kind, "method": name, "angles": angles.tolist()}
            rows.append(row | {"errors": errors.tolist(), "seconds": seconds.tolist()})
            near = 100 * (errors < SUCCESS).mean()
            print(
                f"{kind:9} {name:6} {len(found):7} {near:5.0f} % "
                f"{np.median(errors):12.2f} {errors.max():11.1f} "
                f"{np.median(seconds):8.2f}",
                flush=True,
            )
    return rows


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of labelled brains")
    add("--pairs", nargs="+", default=PAIRS, metavar="STATIC:MOVING")
    add("--spacing", type=float, nargs="+", default=[2.0], help="voxel size, mm")
    add("--threads", type=int, default=2)
    add("--methods", nargs="+", default=["deep", "dipy"])
    add("--capture", type=int, default=0, help="number of random poses")
    add("--dipy", type=int, default=0, help="number of poses for DIPY")
    add("--slab", action="store_true", help="use the middle third of moving only")
    add("--output", type=Path, help="JSON file for the results")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    logger.setLevel(logging.WARNING)
    methods = {
        "deep": partial(deep_affine_registration, num_threads=arguments.threads),
        "dipy": affine_registration,
    }
    methods = {name: methods[name] for name in arguments.methods}
    case = labelled_case(arguments.data, 4.0, arguments.pairs[0])
    # The first call also loads libraries and is not timed.
    register(methods.get("deep", deep_affine_registration), case.images)
    if arguments.capture:
        rows, spacing = [], arguments.spacing[0]
        counts = {"deep": arguments.capture, "dipy": arguments.dipy}
        for pair in arguments.pairs:
            print(f"pair {pair}, {spacing:g} mm{', slabs' * arguments.slab}")
            images = labelled_case(arguments.data, spacing, pair).images
            rows += measure_capture_range(images, methods, counts, arguments.slab)
    else:
        rows = compare_methods(
            arguments.data, arguments.pairs, arguments.spacing, methods
        )
    if arguments.output:
        hidden = ("data", "output")  # paths are no settings of the measurement
        settings = {k: str(v) for k, v in vars(arguments).items() if k not in hidden}
        results = describe(arguments.threads) | {"settings": settings, "rows": rows}
        write_json(arguments.output, results)


if __name__ == "__main__":
    main()
