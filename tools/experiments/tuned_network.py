r"""What tuning the default network on a few images of one scanner adds on others.

    python -m tools.experiments.tuned_network --data FOLDER --steps 24 --output FILE.txt

FOLDER has pairs of files NAME_t1.nii.gz and NAME_labels.nii.gz. Whole heads are
stripped by their labels. All images but the last two are trained on by `fit` with
``init="pyramid-brain"``, on voxels of 2 mm, without their labels; the last two are
registered to each other, in both directions, by the network alone (``level_iters=0``)
before and after the tuning. Dice is the mean over the labels; "SD log J" is the
standard deviation of the logarithm of the Jacobian determinant. With --labels, the
labels are also used in training.
"""

import argparse
import os
from pathlib import Path
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import nibabel as nib
import numpy as np
from scipy.ndimage import binary_closing, find_objects

from tools.benchmarks.cases import warp_labels
from tools.benchmarks.measures import dice, regularity, to_world

#: Voxels of background that are kept around a brain.
MARGIN = 4


def read_brains(folder):
    """Brains and label maps of a folder by name, stripped by the labels and cropped."""
    brains = {}
    for path in sorted(folder.glob("*_t1.nii.gz")):
        image = nib.load(path)
        labels = nib.load(path.with_name(path.name.replace("_t1.", "_labels.")))
        found = np.asarray(labels.dataobj).astype(np.int32)
        inside = binary_closing(found > 0, iterations=2)
        stripped = np.where(inside, image.get_fdata(dtype=np.float32), 0)
        ((box),) = find_objects(inside.astype(int))
        box = tuple(slice(max(0, s.start - MARGIN), s.stop + MARGIN) for s in box)
        affine = image.slicer[box].affine
        brains[path.name.removesuffix("_t1.nii.gz")] = [
            nib.Nifti1Image(values[box], affine) for values in (stripped, found)
        ]
    return brains


def prealign_images(brains, names):
    """World of the first of some brains to the world of each of them."""
    from dipy_dl_reg import deep_affine_registration

    matrices = [np.eye(4)]
    for name in names[1:]:
        images = brains[name][0], brains[names[0]][0]
        matrices.append(deep_affine_registration(*images)[1])
    return matrices


def register_both_ways(network, brains, names):
    """Mean Dice and SD log J of the network's own maps between two brains."""
    from dipy_dl_reg import DeepRegistration, deep_affine_registration

    rows = []
    for static, moving in (names, names[::-1]):
        (fixed, fixed_labels), (other, other_labels) = brains[static], brains[moving]
        prealign = deep_affine_registration(other, fixed)[1]
        begin = time.process_time()
        mapping = DeepRegistration(
            model=network, level_iters=0, progress=False
        ).optimize(
            fixed.get_fdata(dtype=np.float32), other.get_fdata(dtype=np.float32),
            static_grid2world=fixed.affine, moving_grid2world=other.affine,
            prealign=prealign,
        )  # fmt: skip
        seconds = time.process_time() - begin
        labels = {
            "static": np.asarray(fixed_labels.dataobj),
            "moving": np.asarray(other_labels.dataobj),
            "static_grid2world": fixed.affine,
            "moving_grid2world": other.affine,
        }
        common = np.intersect1d(labels["static"], labels["moving"])
        warped = np.asarray(warp_labels(labels, mapping))
        found = dice(labels["static"], warped, common[common > 0])
        points = to_world(np.argwhere(labels["static"] > 0)[::997], fixed.affine)
        measures = regularity(mapping, fixed.affine, points)
        rows.append([found.mean(), measures["sd_log_jacobian"], seconds])
    return np.mean(rows, axis=0)


def tune(brains, names, arguments):
    """Network tuned on some brains, and the CPU time of the training in seconds."""
    from dipy_dl_reg import fit

    options = {}
    if arguments.labels:
        options = {"labels": [brains[n][1] for n in names], "dice_weight": 1.0}
    matrices = prealign_images(brains, names)
    begin = time.process_time()
    network = fit(
        None, [brains[n][0] for n in names], init="pyramid-brain", prealign=matrices,
        metric="CC", weight=arguments.weight, steps=arguments.steps,
        learning_rate=arguments.learning_rate, schedule="cosine", device="cpu",
        progress=False, num_threads=arguments.threads, **options,
    )  # fmt: skip
    return network, time.process_time() - begin


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of images and labels")
    add("--steps", type=int, default=24)
    add("--learning_rate", type=float, default=2e-4)
    add("--weight", type=float, default=0.1, help="of the penalty")
    add("--labels", action="store_true", help="also train on the labels")
    add("--threads", type=int, default=1)
    add("--output", type=Path)
    return parser.parse_args()


def main():
    """Print the measures before and after the tuning."""
    arguments = parse_arguments()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before DIPY loads
    from dipy.utils.logging import logger

    logger.setLevel("ERROR")
    brains = read_brains(arguments.data)
    *trained, one, other = brains
    lines = [f"{'network':24} {'Dice':>7} {'SD log J':>9} {'CPU s':>6}"]

    def add_line(name, network):
        overlap, roughness, seconds = register_both_ways(network, brains, (one, other))
        lines.append(f"{name:24} {overlap:7.4f} {roughness:9.4f} {seconds:6.1f}")
        print(lines[-1], flush=True)

    add_line("pyramid-brain", "pyramid-brain")
    network, seconds = tune(brains, trained, arguments)
    add_line(f"tuned on {len(trained)}, {arguments.steps} steps", network)
    lines.append(f"CPU time of the tuning: {seconds:.0f} s")
    print(lines[-1])
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
