r"""Brains deformed by far: how much of it refinement finds, alone and after a search.

    python -m tools.experiments.large_deformations --data FOLDER
    python -m tools.experiments.large_deformations --data FOLDER --subjects 1000 \
        --sigma 14 --seeds 5

FOLDER holds subject_<id>_t1.nii.gz, brains without skull.  Each is brought to 2 mm and
given a margin of `--margin` voxels of nothing, so that no part of it leaves the view.

The known field is the flow of a stationary velocity (eight squarings): Gaussian white
noise (torch, the seed as said), smoothed by `--sigma` voxels and scaled until the
longest displacement within the brain is `--peak` voxels.  It is diffeomorphic; "least
J" is its smallest Jacobian determinant.  Moving is the brain through the inverse flow,
static the brain itself, each with noise of its own (2 % of the brain's 99.5th
percentile).

Printed: root mean square of the distance to the known field within the brain, in voxels
of 2 mm: before; after refinement alone; after the search alone; after both; after the
default network alone; after it and refinement.  A pair is lost if more than `--lost`
voxels are left.  And the seconds of each call.
"""

import os

# Must be set before torch loads: see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from pathlib import Path
import time

from dipy.utils.logging import logger
import nibabel as nib
import numpy as np
import torch

from dipy_dl_reg import DeepRegistration
from dipy_dl_reg.geometry.fields import exp, jacobian, warp
from dipy_dl_reg.geometry.smoothing import smooth
from tools.benchmarks.cases import resample

#: Part of the brightest value above which a voxel is brain; noise of the images.
_BRAIN, _NOISE = 0.05, 0.02
#: Voxels to world.
MATRIX = np.diag([2.0, 2.0, 2.0, 1.0])
WAYS = {
    "refined": {"model": None},
    "search": {"model": None, "initialization": "discrete", "level_iters": 0},
    "both": {"model": None, "initialization": "discrete"},
    "network": {"level_iters": 0},
    "default": {},
}


def options():
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
    return parser.parse_args()


def brain(path, margin):
    """A brain at 2 mm, its 99.5th percentile 1, with nothing around it."""
    image = nib.load(path)
    data, _ = resample(image.get_fdata(dtype=np.float32), image.affine, 2)
    return np.pad(data / np.percentile(data, 99.5), margin).astype(np.float32)


def large_field(inside, seed, peak, sigma):
    """Flow and inverse flow (1, 3, *shape) with a longest displacement of `peak`."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 3, *inside.shape, generator=generator)
    velocity, inside = smooth(noise, sigma), torch.from_numpy(inside)
    for _ in range(6):  # the flow's length is all but proportional to the velocity's
        longest = exp(velocity, steps=8).square().sum(1).sqrt()[0][inside].max()
        velocity *= peak / longest
    return exp(velocity, steps=8), exp(-velocity, steps=8)


def deformed(image, u, v, seed):
    """The two images and the field that registration should find, (*shape, 3)."""
    rng = np.random.default_rng(seed)
    moving = warp(torch.from_numpy(image)[None, None], v)[0, 0].numpy()
    static, moving = (
        x + _NOISE * rng.normal(size=x.shape).astype(np.float32)
        for x in (image, moving)
    )
    return static, moving, u[0].movedim(0, -1).numpy()


def length(field, inside):
    """Root mean square within the brain."""
    return float(np.sqrt(np.square(field[inside]).sum(-1).mean()))


def measured(image, seed, chosen):
    """One line: errors by way, seconds by way, and the field's least determinant."""
    inside = image > _BRAIN
    u, v = large_field(inside, seed, chosen.peak, chosen.sigma)
    static, moving, field = deformed(image, u, v, seed)
    row = {"before": length(field, inside), "least J": float(jacobian(u).min())}
    for way, how in WAYS.items():
        registration = DeepRegistration(chosen.metric, progress=False, **how)
        start = time.perf_counter()
        affines = dict.fromkeys(("static_grid2world", "moving_grid2world"), MATRIX)
        mapping = registration.optimize(
            static=static, moving=moving, num_threads=chosen.threads, **affines
        )
        row[f"s {way}"] = time.perf_counter() - start
        row[way] = length(mapping.backward / 2 - field, inside)
    row["ratio"] = row["default"] / row["refined"]
    return row


def main():
    logger.setLevel("WARNING")
    chosen = options()
    torch.set_grad_enabled(False)
    columns = ["least J", "before", *WAYS, "ratio", *(f"s {way}" for way in WAYS)]
    print(f"{'subject':>8} {'seed':>4}", *(f"{name:>9}" for name in columns))
    rows = []
    for subject in chosen.subjects:
        image = brain(chosen.data / f"subject_{subject}_t1.nii.gz", chosen.margin)
        for seed in range(chosen.seeds):
            rows.append(measured(image, seed, chosen))
            values = (f"{rows[-1][name]:9.3f}" for name in columns)
            print(f"{subject:>8} {seed:>4}", *values, flush=True)
    means = (f"{np.mean([row[name] for row in rows]):9.3f}" for name in columns)
    print(f"{'mean':>13}", *means)
    lost = [row for row in rows if row["refined"] > chosen.lost]
    for way in ("both", "network", "default"):
        found = sum(row[way] <= chosen.lost for row in lost)
        print(f"{way}: finds {found} of {len(lost)} that refinement alone loses")


if __name__ == "__main__":
    main()
