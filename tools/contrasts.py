"""Registration across contrasts, measured on labelled T1 brains.

    .venv-py3.X/bin/python tools/contrasts.py --data FOLDER --model NET.npz \
        --pairs 1000:1001 1006:1012 --metrics CC MIND --output FILE.txt

FOLDER is that of ``tools/benchmark.py``. The moving image is taken as it is (T1), or
its intensities are mapped so that fluid, grey and white matter look as in a b0 or an FA
image, with blur and noise of such. Each is registered at 2 mm from the affine start by
nothing, by the network alone, by refinement alone, by both, and refinement stopped
after ten iterations without and with it. MODEL is a file, or the name of a network that
comes with the package. Overlap is the mean Dice of the structures, as in
``tools/benchmark.py``; seconds are those of one call, threads as given.

With --slices, for a network for 2D: three axial slices of the moving subject, of each
kind, onto the T1 slice deformed by a known random field; instead of overlap it says how
far the map is from that field, mm on average over the brain.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from itertools import product
from pathlib import Path
import time
from typing import NamedTuple

from benchmark_cases import labelled_case
import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter
import torch

#: Intensity of fluid, grey matter and white matter.
LOOKS = {"b0": (0.95, 0.52, 0.36), "FA": (0.06, 0.16, 0.60)}
#: What the labels of those are; cortex is from 100 on.
VENTRICLES, WHITE, CORTEX = (51, 52), (44, 45), 100
#: Standard deviations of the blur (voxels of 2 mm) and of the noise.
BLUR, NOISE = 0.4, 0.03
#: Axial slices of 2 mm, and the fields that deform them, in voxels.
SLICES = (35, 45, 55)
FIELD = {"bending": 3.0, "bending_scale": 16}
METHODS = {
    "affine": {"model": None, "level_iters": 0},
    "network": {"level_iters": 0},
    "refined-10": {"model": None, "level_iters": [10]},
    "network-10": {"level_iters": [10]},
    "refined": {"model": None},
    "network-full": {},
}


def looks_like(kind, image, labels, from_image):
    """A T1 image as another contrast would show it; 0 stays 0.

    `from_image` takes voxels of the image to those of the labels.
    """
    if kind == "T1":
        return image
    near = affine_transform(labels, from_image, output_shape=image.shape, order=0)
    parts = np.isin(near, VENTRICLES), near >= CORTEX, np.isin(near, WHITE)
    peaks = [float(np.median(image[part & (image > 0)])) for part in parts]
    outer = [0.0, *peaks, float(image.max())]
    seen = (LOOKS[kind][0], *LOOKS[kind], LOOKS[kind][2])
    mapped = gaussian_filter(np.interp(image, outer, seen), BLUR)
    noise = np.random.default_rng(0).normal(0, NOISE, image.shape)
    return np.where(image > 0, np.abs(mapped + noise), 0).astype(np.float32)


def case_of(folder, pair, kind):
    """A pair at 2 mm, its moving image of that kind."""
    case = labelled_case(folder, 2.0, pair)
    to_labels = np.linalg.inv(case.labels["moving_grid2world"])
    matrix = to_labels @ case.images["moving_grid2world"]
    moving = looks_like(kind, case.images["moving"], case.labels["moving"], matrix)
    return case._replace(images=case.images | {"moving": moving})


class Slice(NamedTuple):
    """A slice to register, and how to judge the map."""

    images: dict
    truth: np.ndarray  # mm, (*shape, 2)
    inside: np.ndarray

    def judge(self, mapping):
        """Mean distance from the true field, mm."""
        left = np.linalg.norm(mapping.backward - self.truth, axis=-1)
        return float(left[self.inside].mean())


def slices_of(folder, pair, kind):
    """Slices of the moving subject, and the same as T1, deformed."""
    from dipy_dl_reg.engine.fields import warp
    from dipy_dl_reg.training.bending import Bending

    looks, plain = (case_of(folder, pair, k).images["moving"] for k in (kind, "T1"))
    for number in SLICES:
        moving, whole = looks[:, :, number], torch.from_numpy(plain[:, :, number])
        generator = torch.Generator().manual_seed(number)
        u = Bending(**FIELD)(whole.shape, generator)
        static = warp(whole[None, None], u)[0, 0].numpy()
        affine = np.diag([2.0, 2.0, 1.0])
        images = {"static": static, "moving": np.ascontiguousarray(moving)}
        images |= {"static_grid2world": affine, "moving_grid2world": affine}
        truth = 2 * np.moveaxis(u[0].numpy(), 0, -1)
        yield Slice(images, truth, static > 0.05 * static.max())


class Volume(NamedTuple):
    """A pair of brains."""

    images: dict
    judged: object

    def judge(self, mapping):
        """Mean Dice."""
        return self.judged(mapping, None)["dice"]


def registered(case, metric, options, threads):
    """What one method makes of a case: its score, seconds, and the network's use."""
    from dipy_dl_reg import DeepRegistration

    start = time.perf_counter()
    registration = DeepRegistration(metric=metric, progress=False, **options)
    mapping = registration.optimize(**case.images, num_threads=threads)
    seconds = time.perf_counter() - start
    used = not options["model"] or registration.network_used
    return case.judge(mapping), seconds, used


def main():
    """Print and write a line for every pair, kind, metric and method; and the means."""
    from dipy.utils.logging import logger

    logger.setLevel("ERROR")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True)
    add("--model", required=True)
    add("--pairs", nargs="+", required=True, metavar="STATIC:MOVING")
    add("--kinds", nargs="+", default=["T1", *LOOKS], choices=["T1", *LOOKS])
    add("--metrics", nargs="+", default=["CC"])
    add("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    add("--slices", action="store_true")
    add("--threads", type=int, default=2)
    add("--output", type=Path)
    arguments = parser.parse_args()
    measure = "mm left" if arguments.slices else "Dice"
    lines = [f"{'pair':12} {'moving':7} {'metric':7} {'method':13} {measure}    s"]
    print(lines[0])
    scores = {}
    for pair, kind in product(arguments.pairs, arguments.kinds):
        if arguments.slices:
            cases = list(slices_of(arguments.data, pair, kind))
        else:
            case = case_of(arguments.data, pair, kind)
            cases = [Volume(case.images, case.judge)]
        for metric, method in product(arguments.metrics, arguments.methods):
            options = {"model": arguments.model} | METHODS[method]
            rows = [registered(c, metric, options, arguments.threads) for c in cases]
            score, seconds, used = np.mean(np.array(rows, dtype=float), axis=0)
            scores.setdefault((kind, metric, method), []).append(score)
            lines.append(
                f"{pair:12} {kind:7} {metric:7} {method:13} {score:.4f} {seconds:5.1f}"
                + ("" if used == 1 else f" used in {used:.0%}")
            )
            print(lines[-1], flush=True)
    for (kind, metric, method), found in scores.items():
        mean = f"mean of {len(found)}"
        lines.append(f"{mean:12} {kind:7} {metric:7} {method:13} {np.mean(found):.4f}")
        print(lines[-1])
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
