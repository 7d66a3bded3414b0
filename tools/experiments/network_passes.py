r"""Overlap after each pass of a symmetric network, for networks side by side.

    python -m tools.experiments.network_passes --data FOLDER --real FOLDER \
        --models FIRST.npz SECOND.npz --passes 1 1 --output FILE.txt

The cases are those of contrasts.py: pairs of T1 brains, the moving one as T1, b0 or FA,
and moved real diffusion images with the T1 image of the same person. The network is
applied in mid-space on voxels of 1.5 mm, as for ``level_iters=0``; --passes are the
ratios of the voxel sizes of the passes to 1.5 mm. Passes with voxels of four times and
twice this size come first where the images are far apart or of different contrasts. The
table has a row for the result after each pass: the mean over the cases of a kind of
Dice, of the standard deviation of the logarithm of the Jacobian determinant in the
brain, and for real images of the error in mm ("mm off", see contrasts.py). Labels are
compared on every second voxel along each axis, and the fields are not made invertible
first, so that the values differ a little from those of `DeepRegistration`.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.ndimage import binary_dilation, map_coordinates

from tools.benchmarks.measures import dice, to_world
from tools.experiments.contrast_cases import LOOKS, REAL, contrast_case, real_case

#: Voxel sizes, mm: of the passes, and where the similarity of the images is measured.
SPACING, NETWORK_SPACING = 1.5, 2.0
#: Every so many voxels of the labels, and how far around them, is compared.
EVERY, AROUND = 2, 4


class Midspace:
    """A case in mid-space: the images, their similarity, and points to be mapped."""

    def __init__(self, case):
        from dipy_dl_reg.geometry.pair import Pair
        from dipy_dl_reg.initialization import network
        from dipy_dl_reg.registration.dipy_adapter import make_pair

        pair = make_pair(**case.images, find_masks=True)
        grid, *images = network._sample_in_midspace(pair, NETWORK_SPACING)
        found = network.mean_local_correlation(Pair(*images, grid, grid, np.eye(4)))
        self.similar = found is not None and found >= network.SAME_CONTRAST
        self.grid, self.static, self.moving = network._sample_in_midspace(pair, SPACING)
        self.prealign, self.labels = case.images["prealign"], case.labels
        coarse = self.labels["static"][(slice(None, None, EVERY),) * 3]
        near = binary_dilation(coarse > 0, iterations=AROUND)
        self.fixed = coarse[near]
        places = EVERY * np.argwhere(near)
        self.points = to_world(places, self.labels["static_grid2world"])
        self.motion = case.judge.args[1:] if len(case.judge.args) > 1 else None

    def map_points(self, field, points):
        """World coordinates in moving of those in static."""
        affine = self.grid.affine
        voxels = to_world(points, np.linalg.inv(affine)).T
        moved = voxels + [
            map_coordinates(u, voxels, order=1, mode="nearest") for u in field
        ]
        return to_world(to_world(moved.T, affine), self.prealign)

    def judge(self, field):
        """Dice, and the error in mm of a real image."""
        grid2world = np.linalg.inv(self.labels["moving_grid2world"])
        at = to_world(self.map_points(field, self.points), grid2world)
        warped = map_coordinates(self.labels["moving"], at.T, order=0)
        common = np.intersect1d(self.labels["static"], self.labels["moving"])
        row = {"Dice": dice(self.fixed, warped, common[common > 0]).mean()}
        if self.motion is not None:
            motion, matrix, points, goal = self.motion
            found = to_world(self.map_points(field, points), np.linalg.inv(matrix))
            away = to_world(motion(found.T).T, matrix) - goal
            row["mm off"] = np.linalg.norm(away, axis=1).mean()
        return row


def measure_passes(network, case, passes):
    """Rows of measures after each of the passes."""
    import torch
    import torch.nn.functional as F

    from dipy_dl_reg.geometry.derivatives import jacobian
    from dipy_dl_reg.initialization.midspace import predict_in_midspace

    before = () if case.similar else (4.0, 2.0)
    inside = F.interpolate((case.static > 0.02).float(), scale_factor=0.5)[0, 0] > 0.5
    rows = []
    for count in range(1, len(passes) + 1):
        factors = (*before, *passes[:count])
        with torch.no_grad():
            u, _ = predict_in_midspace(network, case.static, case.moving, factors)
            coarse = F.interpolate(u, size=inside.shape, mode="trilinear") / 2
            logarithm = jacobian(coarse)[0].clamp_min(1e-3).log()
        row = case.judge(u[0].numpy())
        rows.append(row | {"SD log J": float(logarithm[inside].std())})
    return rows


def generate_kinds(arguments):
    """Yield the name of each kind and its cases."""
    for kind in ("T1", *LOOKS) if arguments.data else ():
        yield kind, [contrast_case(arguments.data, p, kind) for p in arguments.pairs]
    for kind in REAL if arguments.real else ():
        seeds = arguments.seeds
        yield f"real {kind}", [real_case(arguments.real, kind, s) for s in seeds]


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, help="folder of labelled T1 brains")
    add("--real", type=Path, help="folder of the real images of one subject")
    add("--pairs", nargs="+", default=["1000:1001", "1006:1012"])
    add("--seeds", nargs="+", type=int, default=[10, 11], help="of the real motions")
    add("--models", nargs="+", required=True, help="files or names of networks")
    add("--passes", nargs="+", type=float, default=[1.0, 1.0])
    add("--output", type=Path)
    return parser.parse_args()


def main():
    """Print a line for each kind of images, network and number of passes."""
    arguments = parse_arguments()
    from dipy.utils.logging import logger

    from dipy_dl_reg.registration.factory import make_model

    logger.setLevel("ERROR")
    networks = {Path(m).stem: make_model(m) for m in arguments.models}
    lines = [f"{'moving':8} {'network':20} {'passes':>6}     Dice SD log J   mm off"]
    print(lines[0])
    for kind, cases in generate_kinds(arguments):
        inputs = [Midspace(case) for case in cases]
        for name, network in networks.items():
            found = [measure_passes(network, i, arguments.passes) for i in inputs]
            for count, rows in enumerate(zip(*found), 1):
                cells = [
                    f"{np.mean([row[key] for row in rows]):8.4f}"
                    for key in ("Dice", "SD log J", "mm off")
                    if key in rows[0]
                ]
                lines.append(f"{kind:8} {name:20} {count:6} {' '.join(cells)}")
                print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
