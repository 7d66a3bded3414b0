"""Where the time of an iteration goes on a CPU, in torch alone and compiled.

    python -m tools.experiments.profile_iteration
    python -m tools.experiments.profile_iteration --shape 160 208 176 --repeats 3
    python -m tools.experiments.profile_iteration --growth

Milliseconds of one thread's CPU time: the least of some repeats, on smooth random
images and fields.  The whole iteration is that of `refine` (local correlation, fields
reconciled each time and looked at for folds every tenth), setting up left out.
`--growth` prints what the whole iteration, compiled, takes for images of many sizes:
the cost of a voxel stays the same.
"""

import argparse
import os
import time

# Must be set before torch loads: see tools/benchmarks/deformable.py.
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


def options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", type=int, nargs="+", default=[80, 104, 88])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--growth", action="store_true")
    return parser.parse_args()


def texture(shape, channels, sigma, seed):
    """Smooth noise between -1 and 1."""
    generator = torch.Generator().manual_seed(seed)
    image = smooth(torch.randn(1, channels, *shape, generator=generator), sigma)
    return image / image.abs().max()


def images(shape):
    """An image, and the same displaced by up to three voxels."""
    image = (texture(shape, 1, 2.0, 0) + 1) / 2
    return image, warp(image, 3 * texture(shape, len(shape), 6.0, 1))


def steps(shape):
    """The parts of an iteration, each a name and a function to time."""
    (static, moving), dim = images(shape), len(shape)
    u, move = texture(shape, dim, 4.0, 2), texture(shape, dim, 2.0, 3) / 2
    out, scratch = torch.empty_like(u), torch.empty_like(u)
    grid, metric, adam = (
        frame(shape),
        CCMetric(),
        Adam(u, epsilon=CCMetric.gradient_floor),
    )
    evaluate = metric.bind(static)
    gradient = evaluate(moving)[1]
    # Fields that pass, as those of an iteration mostly do.
    near = u / 10, -u / 10
    return {
        "warp, image": lambda: warp(moving, u, frame_=grid),
        "local correlation": lambda: evaluate(moving),
        "weighted_gradient": lambda: weighted_gradient(moving, gradient, out=out),
        "smooth, sigma 1": lambda: smooth(u, 1.0, out=out, scratch=scratch),
        "Adam": lambda: adam.direction(out.copy_(move), 0.5),
        "compose": lambda: compose(u, move, out=out),
        "smooth, sigma 0.8": lambda: smooth(u, 0.8, out=out, scratch=scratch),
        "enforce_inverse_consistency": lambda: enforce_inverse_consistency(
            *near, out=(out, scratch)
        ),
        "repair_folds": lambda: repair_folds(*near),
    }


def milliseconds(function, repeats):
    """Least CPU time of some calls, after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def iteration(shape, repeats):
    """Of `refine`: that of twelve iterations less that of two, over ten."""
    grid = Grid(tuple(shape), np.eye(len(shape) + 1))
    pair = Pair(*images(shape), grid, grid, np.eye(len(shape) + 1))

    def run(count):
        refine(pair, Objective(CCMetric()), level_iters=[count])

    few, many = (
        milliseconds(lambda n=n: run(n), max(1, repeats // 3)) for n in (2, 12)
    )
    return (many - few) / 10


def column(shape, repeats):
    times = {name: milliseconds(step, repeats) for name, step in steps(shape).items()}
    return {**times, "whole iteration": iteration(shape, repeats)}


def growth(repeats):
    """Print the time of an iteration against the number of voxels."""
    print(f"{'shape':16}{'voxels':>10}{'ms':>9}{'ns a voxel':>12}")
    for scale in (0.5, 0.75, 1, 1.25, 1.5, 2, 2.5):
        shape = [round(scale * n) for n in (80, 104, 88)]
        voxels = int(np.prod(shape))
        spent = iteration(shape, repeats)
        name = "x".join(map(str, shape))
        print(f"{name:16}{voxels:10}{spent:9.1f}{1e6 * spent / voxels:12.1f}")


def main():
    chosen = options()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if not dispatch.available():
        raise SystemExit("no compiled loops: was there a C compiler on installation?")
    if chosen.growth:
        return growth(chosen.repeats)
    with dispatch.without_kernels():
        before = column(chosen.shape, chosen.repeats)
    after = column(chosen.shape, chosen.repeats)
    print(
        f"{'x'.join(map(str, chosen.shape)):20}{'torch':>9}{'compiled':>10}{'gain':>8}"
    )
    for name in before:
        gain = before[name] / after[name]
        print(f"{name:20}{before[name]:9.1f}{after[name]:10.1f}{gain:7.1f}x")


if __name__ == "__main__":
    main()
