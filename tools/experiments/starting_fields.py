r"""Compare the refinement from given fields with the one without a start.

    python -m tools.experiments.starting_fields --data FOLDER \
        --pairs 1000:1001 1006:1012 --output FILE.txt
    PYTHONPATH=EARLIER_VERSION python -m tools.experiments.starting_fields ...

FOLDER contains labelled T1 brains, see tools/benchmarks/deformable.py. Each pair is
registered at 2 mm, with the default levels and local correlation, without a start and
from each of these fields, which are made invertible first, as the fields of a network:

own        the field that refinement without a start finds, i.e. a start at the goal
blurred    this field, smoothed (standard deviation 4 voxels)
noisy      this field with noise (1 voxel, smoothed by 1.5 voxels)
rough      this field with noise (.7 voxel, smoothed by .7 voxel)
unrelated  the field of the pair of two other brains
large      an unrelated field of up to 10 voxels, unlike any deformation of a brain
network    the field of the network voxelmorph-t1
sharpened  the same with its differences from a smoothed copy enlarged threefold
syn        the field of DIPY's SyN, [10, 10, 5] iterations

The columns are the Dice overlap of the start, that of the result, the difference from
the result without a start, the standard deviation of log J, the energy of the result,
and the seconds of processor time of the refinement. One thread.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
from pathlib import Path
import time

import numpy as np
import torch

from tools.experiments.contrast_cases import contrast_case

# The package is imported in functions: DIPY reads the number of threads.

PAIRS = ["1000:1001", "1006:1012"]
ITERATIONS, TOLERANCE = [100, 100, 60], 0.005
SYN_ITERATIONS = [10, 10, 5]
STARTS = ("none", "own", "blurred", "noisy", "rough", "unrelated", "large", "network",
          "sharpened", "syn")  # fmt: skip
COLUMNS = ("start", "Dice", "gain", "SD log J", "energy", "CPU s")


class Brains:
    """A pair of brains, its tensors, its objective, and the fields to start from."""

    def __init__(self, folder, name):
        from dipy_dl_reg import CCMetric
        from dipy_dl_reg.metrics.objective import Objective
        from dipy_dl_reg.registration.channels import make_pair

        self.name, self.case = name, contrast_case(folder, name, "T1")
        device = torch.device("cpu")
        self.pair = make_pair(None, **self.case.images, device=device, find_masks=True)
        self.objective = Objective(CCMetric())
        self.shape = self.pair.static_grid.shape

    def refine(self, start=None):
        """Refine with the default options; fields, and seconds of processor time."""
        from dipy_dl_reg.optimization.deformable import refine

        options = {"level_iters": ITERATIONS, "tolerance": TOLERANCE}
        began = time.process_time()
        fields = refine(self.pair, self.objective, start=start, **options)
        return fields, time.process_time() - began

    def judge(self, u, v):
        """Dice, and standard deviation of log J, of the final map of two fields."""
        from dipy_dl_reg.geometry.derivatives import jacobian
        from dipy_dl_reg.geometry.fold_repair import make_diffeomorphic
        from dipy_dl_reg.registration.dipy_adapter import make_map

        u, v, _ = make_diffeomorphic(u, v)
        names = ("static_grid2world", "moving_grid2world", "prealign")
        affines = {name: self.case.images[name] for name in names}
        mapping = make_map(u, v, self.pair, **affines)
        spread = float(jacobian(u).clamp_min(1e-3).log().std())
        return self.case.judge(mapping)["Dice"], spread

    def energy(self, u):
        """Energy of a field at full resolution."""
        from dipy_dl_reg.optimization.deformable import evaluate_energies

        return evaluate_energies(self.pair, self.objective, [u])[0]


def make_noise(shape, seed, sigma, size):
    """Gaussian noise, smoothed by `sigma` voxels, of standard deviation `size`."""
    from dipy_dl_reg.geometry.smoothing import smooth

    generator = torch.Generator().manual_seed(seed)
    noise = smooth(torch.randn(1, 3, *shape, generator=generator), sigma)
    return noise * (size / noise.std())


def predict(brains, name):
    """The field of a network that comes with the package."""
    from dipy_dl_reg import load_model
    from dipy_dl_reg.initialization.network import predict_displacement

    network = load_model(name)
    return predict_displacement(network, brains.pair, brains.objective, alone=False)[0]


def register_by_syn(brains):
    """The field of SyN, in voxels of static."""
    from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
    from dipy.align.metrics import CCMetric

    syn = SymmetricDiffeomorphicRegistration(CCMetric(3), level_iters=SYN_ITERATIONS)
    mapping = syn.optimize(**brains.case.images)
    # Outside the prealigned moving image the backward map is read on static's grid.
    backward = np.asarray(mapping.backward, dtype=np.float64)
    matrix = np.linalg.inv(brains.case.images["static_grid2world"])[:3, :3]
    voxels = np.moveaxis(backward @ matrix.T, -1, 0)
    return torch.from_numpy(np.ascontiguousarray(voxels)).float()[None]


def make_fields(brains, own, other):
    """The fields to start from, by name, before they are made invertible."""
    from dipy_dl_reg.geometry.smoothing import smooth
    from tools.experiments.large_deformations import large_field

    inside = brains.pair.static[0, 0].numpy() > 0.05
    network = predict(brains, "voxelmorph-t1")
    size = tuple(brains.shape)
    return {
        "own": own,
        "blurred": smooth(own, 4.0),
        "noisy": own + make_noise(size, 1, 1.5, 1.0),
        "rough": own + make_noise(size, 2, 0.7, 0.7),
        "unrelated": torch.nn.functional.interpolate(
            other, size=size, mode="trilinear", align_corners=True
        ),
        "large": large_field(inside, 5, 10.0, 8.0)[0],
        "network": network,
        "sharpened": network + 2.0 * (network - smooth(network, 2.0)),
        "syn": register_by_syn(brains),
    }


def measure_pair(folder, name, other, starts):
    """Yield the name of each start and its row of measures."""
    from dipy_dl_reg.geometry.fold_repair import make_diffeomorphic

    brains, others = Brains(folder, name), Brains(folder, other)
    alone, seconds = brains.refine()
    fields = make_fields(brains, alone[0], others.refine()[0][0])
    zero = torch.zeros_like(alone[0])
    without, spread = brains.judge(*alone)
    first = brains.judge(zero, zero)[0]
    yield "none", [first, without, 0.0, spread, brains.energy(alone[0]), seconds]
    for kind in starts[1:]:
        start = make_diffeomorphic(fields[kind])[:2]
        (u, v), seconds = brains.refine(start)
        overlap, spread = brains.judge(u, v)
        gain = overlap - without
        row = [brains.judge(*start)[0], overlap, gain, spread, brains.energy(u)]
        yield kind, [*row, seconds]


def format_row(pair, start, row):
    """Format a line of the table."""
    first, dice, gain, spread, energy, seconds = row
    return (
        f"{pair:10} {start:10} {first:8.4f} {dice:8.4f} {gain:+8.4f} {spread:8.3f} "
        f"{energy:8.4f} {seconds:8.1f}"
    )


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", nargs="+", default=PAIRS, metavar="STATIC:MOVING")
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=STARTS)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def main():
    """Print a line for each pair and start, and the means."""
    from dipy.utils.logging import logger

    logger.setLevel("ERROR")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    arguments = parse_arguments()
    starts = ["none", *(s for s in arguments.starts if s != "none")]
    heading = f"{'pair':10} {'kind':10} " + " ".join(f"{c:>8}" for c in COLUMNS)
    print(heading)
    lines, rows = [heading], {}
    for index, pair in enumerate(arguments.pairs):
        other = arguments.pairs[index - 1] if len(arguments.pairs) > 1 else PAIRS[-1]
        for kind, row in measure_pair(arguments.data, pair, other, starts):
            rows.setdefault(kind, []).append(row)
            lines.append(format_row(pair, kind, row))
            print(lines[-1], flush=True)
    for kind, found in rows.items():
        lines.append(format_row("mean", kind, np.mean(found, 0)))
        print(lines[-1])
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
