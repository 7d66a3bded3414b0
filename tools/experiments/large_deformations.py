r"""Recovery of large known deformations: refinement, search and network.

    python -m tools.experiments.large_deformations --data FOLDER
    python -m tools.experiments.large_deformations --data FOLDER --subjects 1000 \
        --sigma 14 --seeds 5

FOLDER contains subject_<id>_t1.nii.gz, skull-stripped brains.  Each is resampled to 2
mm and padded by `--margin` voxels of 0, so that the deformed brain stays in the image.

The known field is the exponential map (eight squarings) of a stationary velocity field:
Gaussian white noise (torch, with the given seed), smoothed by `--sigma` voxels and
scaled such that the longest displacement within the brain is `--peak` voxels.  It is
diffeomorphic; "least J" is the minimum of its Jacobian determinant.  Moving is the
brain warped by the inverse field, static is the brain itself; independent noise is
added to both (2 % of the brain's 99.5th percentile).

The table gives the root mean square distance from the known field within the brain, in
voxels of 2 mm: before registration; after refinement alone; after the search alone;
after the search and refinement; after the default network alone; after the network and
refinement.  Registration has failed if the error is above `--lost` voxels.  The CPU
time of each call is also printed, in seconds of all threads.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from pathlib import Path
import time

from dipy.utils.logging import logger
import nibabel as nib
import numpy as np
import torch

from dipy_dl_reg import DeepRegistration
from dipy_dl_reg.geometry.derivatives import jacobian
from dipy_dl_reg.geometry.fields import exp, warp
from dipy_dl_reg.geometry.smoothing import smooth
from tools.benchmarks.cases import resample
from tools.experiments.saved_rows import write_table

#: Fraction of the maximum above which a voxel is brain, and the noise of the images.
_BRAIN, _NOISE = 0.05, 0.02
#: Voxel-to-world matrix.
MATRIX = np.diag([2.0, 2.0, 2.0, 1.0])
METHODS = {
    "refined": {"model": None},
    "search": {"model": None, "initialization": "discrete", "level_iters": 0},
    "both": {"model": None, "initialization": "discrete"},
    "network": {"level_iters": 0},
    "default": {},
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--subjects", nargs="+", default=["1000", "1006"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peak", type=float, default=20)
    parser.add_argument("--sigma", type=float, default=20)
    parser.add_argument("--margin", type=int, default=16)
    parser.add_argument("--metric", default="auto")
    parser.add_argument("--lost", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="FILE.txt; and rows in FILE.json")
    return parser.parse_args()


def read_brain(path, margin):
    """Read a brain at 2 mm, scaled by its 99.5th percentile, with a margin of 0."""
    image = nib.load(path)
    data, _ = resample(image.get_fdata(dtype=np.float32), image.affine, 2)
    return np.pad(data / np.percentile(data, 99.5), margin).astype(np.float32)


def large_field(inside, seed, peak, sigma):
    """Random field and its inverse (1, 3, *shape); longest displacement `peak`."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 3, *inside.shape, generator=generator)
    velocity, inside = smooth(noise, sigma), torch.from_numpy(inside)
    for _ in range(6):  # the displacement is almost proportional to the velocity
        longest = exp(velocity, steps=8).square().sum(1).sqrt()[0][inside].max()
        velocity *= peak / longest
    return exp(velocity, steps=8), exp(-velocity, steps=8)


def make_images(image, u, v, seed):
    """Static, moving, and the field that registration should find, (*shape, 3)."""
    rng = np.random.default_rng(seed)
    moving = warp(torch.from_numpy(image)[None, None], v)[0, 0].numpy()
    static, moving = (
        x + _NOISE * rng.normal(size=x.shape).astype(np.float32)
        for x in (image, moving)
    )
    return static, moving, u[0].movedim(0, -1).numpy()


def root_mean_square(field, inside):
    """Root mean square length of a field within the brain."""
    return float(np.sqrt(np.square(field[inside]).sum(-1).mean()))


def measure_methods(image, seed, arguments):
    """Errors and seconds of each method, and the field's minimum determinant."""
    inside = image > _BRAIN
    u, v = large_field(inside, seed, arguments.peak, arguments.sigma)
    static, moving, field = make_images(image, u, v, seed)
    row = {
        "before": root_mean_square(field, inside),
        "least J": float(jacobian(u).min()),
    }
    for name, options in METHODS.items():
        registration = DeepRegistration(arguments.metric, progress=False, **options)
        start = time.process_time()
        affines = dict.fromkeys(("static_grid2world", "moving_grid2world"), MATRIX)
        mapping = registration.optimize(
            static=static, moving=moving, num_threads=arguments.threads, **affines
        )
        row[f"s {name}"] = time.process_time() - start
        row[name] = root_mean_square(mapping.backward / 2 - field, inside)
    row["ratio"] = row["default"] / row["refined"]
    return row


def main():
    logger.setLevel("WARNING")
    arguments = parse_arguments()
    torch.set_grad_enabled(False)
    columns = [
        "least J",
        "before",
        *METHODS,
        "ratio",
        *(f"s {name}" for name in METHODS),
    ]
    lines = [" ".join([f"{'subject':>8} {'seed':>4}", *(f"{n:>9}" for n in columns)])]
    print(lines[0])
    rows = {}
    for subject in arguments.subjects:
        image = read_brain(
            arguments.data / f"subject_{subject}_t1.nii.gz", arguments.margin
        )
        for seed in range(arguments.seeds):
            row = rows[f"{subject} seed {seed}"] = measure_methods(
                image, seed, arguments
            )
            values = (f"{row[name]:9.3f}" for name in columns)
            lines.append(" ".join([f"{subject:>8} {seed:>4}", *values]))
            print(lines[-1], flush=True)
    ending = summarize([*rows.values()], columns, arguments.lost)
    print(*ending, sep="\n")
    if arguments.output:
        by_method = {
            (name, case): {
                "rms_voxels": row[name],
                "cpu_s": row.get(f"s {name}"),
                "least_j": row["least J"],
            }
            for case, row in rows.items()
            for name in ("before", *METHODS)
        }
        write_table(
            arguments.output,
            lines + ending,
            by_method,
            keys=("method", "case"),
            threads=arguments.threads,
        )


def summarize(rows, columns, limit):
    """Lines of the means, and how many failures of refinement others recover."""
    means = (f"{np.mean([row[name] for row in rows]):9.3f}" for name in columns)
    lines = [" ".join([f"{'mean':>13}", *means])]
    lost = [row for row in rows if row["refined"] > limit]
    for name in ("both", "network", "default"):
        found = sum(row[name] <= limit for row in lost)
        lines.append(
            f"{name}: recovers {found} of {len(lost)} where refinement alone fails"
        )
    return lines


if __name__ == "__main__":
    main()
