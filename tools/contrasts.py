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
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from pathlib import Path
import time

from benchmark_cases import labelled_case
import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter

#: Intensity of fluid, grey matter and white matter.
LOOKS = {"b0": (0.95, 0.52, 0.36), "FA": (0.06, 0.16, 0.60)}
#: What the labels of those are; cortex is from 100 on.
VENTRICLES, WHITE, CORTEX = (51, 52), (44, 45), 100
#: Standard deviations of the blur (voxels of 2 mm) and of the noise.
BLUR, NOISE = 0.4, 0.03
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


def main():
    """Print and write one line for every pair, kind, metric and method."""
    from dipy.utils.logging import logger

    from dipy_dl_reg import DeepRegistration

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
    add("--threads", type=int, default=2)
    add("--output", type=Path)
    arguments = parser.parse_args()
    lines = [f"{'pair':12} {'moving':7} {'metric':7} {'method':13} Dice    s"]
    print(lines[0])
    for pair in arguments.pairs:
        for kind in arguments.kinds:
            case = case_of(arguments.data, pair, kind)
            for metric in arguments.metrics:
                for method in arguments.methods:
                    options = {"model": arguments.model} | METHODS[method]
                    start = time.perf_counter()
                    registration = DeepRegistration(
                        metric=metric, progress=False, **options
                    )
                    mapping = registration.optimize(
                        **case.images, num_threads=arguments.threads
                    )
                    seconds = time.perf_counter() - start
                    judged = case.judge(mapping, None)
                    dropped = options["model"] and not registration.network_used
                    lines.append(
                        f"{pair:12} {kind:7} {metric:7} {method:13} "
                        f"{judged['dice']:.4f} {seconds:5.1f}"
                        + (" dropped" if dropped else "")
                    )
                    print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
