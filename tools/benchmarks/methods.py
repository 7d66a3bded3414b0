"""The methods that the deformable benchmark compares, and how each is measured."""

from datetime import datetime
import time
from typing import NamedTuple

import numpy as np

from tools.benchmarks.measures import regularity
from tools.benchmarks.rival_programs import RIVALS, describe_call, register_with_rival
from tools.benchmarks.rivals.job import Memory

# DIPY reads the number of threads when it is imported, so DIPY, torch and the package
# are imported in functions, after the benchmark has parsed --threads.

#: Name of the method: metric, iterations, and whether intensities are scaled first.
SYN = {
    "syn": ("CCMetric", [100, 100, 25], False),
    "syn-short": ("CCMetric", [10, 10, 5], False),
    "syn-ssd": ("SSDMetric", [100, 100, 25], True),
}
DEEP = {
    "affine": {"model": None, "level_iters": 0},
    "deep": {"model": None},
    "default": {},
    "deep-fast": {"model": None, "level_iters": [10, 10, 2]},
    "deep-10": {"model": None, "level_iters": [10]},
}
#: Smoother and rougher fields than "deep": a curve of overlap against regularity.
CURVE = {
    f"deep-s{sigma:g}": {"model": None, "sigma_field": sigma}
    for sigma in (0.5, 0.6, 1, 1.2, 1.5, 2)
}
DEEP |= CURVE
NETWORK = {
    "network": {"level_iters": 0},
    "network-10": {"level_iters": [10]},
    "network-full": {},
}
ONE_PAIR = {
    "steps": 600, "spacing": 3, "metric": "CC", "regularizer": "tv", "weight": 0.01,
    "learning_rate": 2e-3, "schedule": "cosine",
}  # fmt: skip
#: The first of these methods that was selected is compared with all other methods.
COMPARED = ("deep", "network-10", "network")


class Setup(NamedTuple):
    """Number of threads, file of a trained network, and Pythons of other programs."""

    threads: int
    model: object = None
    pythons: dict = {}


def describe_calls():
    """Describe the call of each method."""
    words = {}
    for name, (metric, iters, scaled) in SYN.items():
        call = f"SymmetricDiffeomorphicRegistration({metric}(dim), level_iters={iters})"
        words[name] = call + " on images over their 99.5th percentile" * scaled
    for name, options in (DEEP | NETWORK).items():
        options = [f"{key}={value}" for key, value in options.items()]
        options = ["model=MODEL", *options] if name in NETWORK else options
        words[name] = f"DeepRegistration({', '.join(options)})"
    fit = ", ".join(f"{k}={v!r}" for k, v in ONE_PAIR.items())
    words["one-pair"] = (
        f"DeepRegistration(model=fit('selfsup-fcn', [(static, moving)], {fit}), "
        "level_iters=0)"
    )
    return words | {name: describe_call(name) for name in RIVALS}


METHODS = describe_calls()


def register(method, images, setup):
    """Register with one method of this package or of DIPY; return the map."""
    model = setup.model
    if method == "one-pair":
        model, method = train_on_pair(images, setup.threads), "network"
    if method in DEEP or method in NETWORK:
        from dipy_dl_reg import DeepRegistration

        options = DEEP.get(method, {"model": model} | NETWORK.get(method, {}))
        registration = DeepRegistration(progress=False, **options)
        return registration.optimize(**images, num_threads=setup.threads)
    from dipy.align import metrics
    from dipy.align.imwarp import SymmetricDiffeomorphicRegistration

    name, iters, _ = SYN[method]
    metric = getattr(metrics, name)(images["static"].ndim)
    return SymmetricDiffeomorphicRegistration(metric, level_iters=iters).optimize(
        **images
    )


def prepare_images(method, images):
    """Scale intensities for methods that compare them by squared differences.

    The range from 0 to the 99.5th percentile of the positive values is mapped to 0 to
    1, and values above it to 1. With the maximum instead of the percentile, a few
    bright voxels would determine the scale.
    """
    if not SYN.get(method, (None, None, False))[2]:
        return images
    scaled = {}
    for role in ("static", "moving"):
        image = images[role]
        scaled[role] = np.clip(image / np.percentile(image[image > 0], 99.5), 0, 1)
    return images | scaled


def train_on_pair(images, threads):
    """Train a network on one pair."""
    import nibabel as nib

    from dipy_dl_reg import fit

    pair = tuple(
        nib.Nifti1Image(images[role], images[f"{role}_grid2world"])
        for role in ("static", "moving")
    )
    return fit(
        "selfsup-fcn",
        [pair],
        prealign=[images["prealign"]],
        num_threads=threads,
        progress=False,
        **ONE_PAIR,
    )


def measure(method, case, setup):
    """Register a case with a method; return its measures, or a rival's error."""
    grid2world = case.images["static_grid2world"]
    row = {"measured": datetime.now().isoformat(timespec="seconds")}
    if method in RIVALS:
        if case.images["static"].ndim != 3:
            return row | {"failed": "in 3D only"}
        try:
            mapping, has_inverse, warped, facts = register_with_rival(
                method, case, setup
            )
        except RuntimeError as error:
            return row | {"failed": str(error)}
        row |= facts | case.judge(mapping, warped)
        return row | regularity(mapping, grid2world, case.points, has_inverse)
    images = prepare_images(method, case.images)
    memory = Memory()
    start, cpu_start = time.perf_counter(), time.process_time()
    mapping = register(method, images, setup)
    row["seconds"] = time.perf_counter() - start
    row["cpu_seconds"] = time.process_time() - cpu_start
    row["peak_mib"] = memory.peak_mib()
    row |= case.judge(mapping)
    return row | regularity(mapping, grid2world, case.points)


def warm_up(methods, setup):
    """Call each method on tiny images, to load its libraries; return the seconds.

    Rivals run in separate processes; their adapters do this where it is needed.
    """
    x = np.stack(np.meshgrid(*[np.linspace(-1, 1, 40)] * 3))
    images = {"static": np.exp(-6 * (x**2).sum(0))}
    images["moving"] = np.roll(images["static"], 1, axis=0)
    seconds = {}
    for method in (m for m in methods if m != "one-pair" and m not in RIVALS):
        start = time.perf_counter()
        register(method, images, setup)
        seconds[method] = time.perf_counter() - start
    return seconds
