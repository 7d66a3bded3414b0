"""CPU time of the parts of an iteration, in torch alone and with compiled loops.

    python -m tools.experiments.profile_iteration
    python -m tools.experiments.profile_iteration --shape 160 208 176 --repeats 3
    python -m tools.experiments.profile_iteration --growth

Times are milliseconds of CPU time of one thread, the minimum of several repetitions, on
smooth random images and fields.  The whole iteration is one of `refine` with local
correlation; the two fields are made inverse-consistent in each iteration, and checked
for folds in every tenth.  The preparation before the first iteration is not included.
`--growth` prints the time of a whole iteration with compiled loops for images of
different sizes; the time for each voxel should be constant.
"""

import argparse
import os
import time

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

from dipy_dl_reg.geometry.derivatives import weighted_gradient
from dipy_dl_reg.geometry.fields import compose, frame, warp
from dipy_dl_reg.geometry.fold_repair import repair_folds
from dipy_dl_reg.geometry.inversion import enforce_inverse_consistency
from dipy_dl_reg.geometry.kernels import dispatch
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.optimization.adam import Adam
from dipy_dl_reg.optimization.deformable import refine


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", type=int, nargs="+", default=[80, 104, 88])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--growth", action="store_true")
    return parser.parse_args()


def smooth_noise(shape, channels, sigma, seed):
    """Make smooth noise between -1 and 1."""
    generator = torch.Generator().manual_seed(seed)
    image = smooth(torch.randn(1, channels, *shape, generator=generator), sigma)
    return image / image.abs().max()


def make_images(shape):
    """Make an image, and the same image displaced by up to three voxels."""
    image = (smooth_noise(shape, 1, 2.0, 0) + 1) / 2
    return image, warp(image, 3 * smooth_noise(shape, len(shape), 6.0, 1))


def make_steps(shape):
    """Make the parts of an iteration: names and functions to be timed."""
    (static, moving), dim = make_images(shape), len(shape)
    u, move = smooth_noise(shape, dim, 4.0, 2), smooth_noise(shape, dim, 2.0, 3) / 2
    out, scratch = torch.empty_like(u), torch.empty_like(u)
    grid, metric, adam = (
        frame(shape),
        CCMetric(),
        Adam(u, epsilon=CCMetric.gradient_floor),
    )
    evaluate = metric.bind(static)
    gradient = evaluate(moving)[1]
    # Fields without folds, as in most iterations.
    near = u / 10, -u / 10
    return {
        "warp, image": lambda: warp(moving, u, frame_=grid),
        "local correlation": lambda: evaluate(moving),
        "weighted gradient": lambda: weighted_gradient(moving, gradient, out=out),
        "smooth, sigma 1": lambda: smooth(u, 1.0, out=out, scratch=scratch),
        "Adam": lambda: adam.direction(out.copy_(move), 0.5),
        "compose": lambda: compose(u, move, out=out),
        "smooth, sigma 0.8": lambda: smooth(u, 0.8, out=out, scratch=scratch),
        "inverse consistency": lambda: enforce_inverse_consistency(
            *near, out=(out, scratch)
        ),
        "repair of folds": lambda: repair_folds(*near),
    }


def measure_milliseconds(function, repeats):
    """Minimum CPU time of several calls, after one that is not timed."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def measure_iteration(shape, repeats):
    """Time of an iteration of `refine`: from twelve iterations minus two, over ten."""
    grid = Grid(tuple(shape), np.eye(len(shape) + 1))
    pair = Pair(*make_images(shape), grid, grid, np.eye(len(shape) + 1))

    def run(count):
        refine(pair, Objective(CCMetric()), level_iters=[count])

    few, many = (
        measure_milliseconds(lambda n=n: run(n), max(1, repeats // 3)) for n in (2, 12)
    )
    return (many - few) / 10


def measure_steps(shape, repeats):
    """Time of each part and of a whole iteration, in milliseconds."""
    times = {
        name: measure_milliseconds(step, repeats)
        for name, step in make_steps(shape).items()
    }
    return {**times, "whole iteration": measure_iteration(shape, repeats)}


def print_growth(repeats):
    """Print the time of an iteration for different numbers of voxels."""
    print(f"{'shape':16}{'voxels':>10}{'ms':>9}{'ns a voxel':>12}")
    for scale in (0.5, 0.75, 1, 1.25, 1.5, 2, 2.5):
        shape = [round(scale * n) for n in (80, 104, 88)]
        voxels = int(np.prod(shape))
        spent = measure_iteration(shape, repeats)
        name = "x".join(map(str, shape))
        print(f"{name:16}{voxels:10}{spent:9.1f}{1e6 * spent / voxels:12.1f}")


def main():
    arguments = parse_arguments()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if not dispatch.available():
        raise SystemExit("no compiled loops: was there a C compiler on installation?")
    if arguments.growth:
        return print_growth(arguments.repeats)
    with dispatch.without_kernels():
        before = measure_steps(arguments.shape, arguments.repeats)
    after = measure_steps(arguments.shape, arguments.repeats)
    size = "x".join(map(str, arguments.shape))
    print(f"{size:20}{'torch':>9}{'compiled':>10}{'gain':>8}")
    for name in before:
        gain = before[name] / after[name]
        print(f"{name:20}{before[name]:9.1f}{after[name]:10.1f}{gain:7.1f}x")


if __name__ == "__main__":
    main()
