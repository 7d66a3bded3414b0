"""Write the files of this folder, with whatever version of the package is imported.

    python tests/data/stored_files.py FOLDER

README.rst says what each is, and by which version those kept here were written.
"""

from contextlib import suppress
import json
from pathlib import Path
import sys
from tempfile import TemporaryDirectory
import warnings

import nibabel as nib
import numpy as np
import torch

from dipy_dl_reg import (
    DeepRegistration,
    fit,
    make_network,
    save_mapping,
    save_network,
    write_dipy_mapping,
)

SHAPE = (8, 9, 8)
AFFINE = np.diag([3.0, -3.0, 3.0, 1.0])
#: Arguments of the smallest network of each kind, by its name; voxelmorph has no size.
SMALLEST = {
    "dirnet": {"grid_spacing": 2, "features": 2, "bounded": True},
    "pyramid": {"features": (2,), "width": 2, "repeats": 1},
    "selfsup-fcn": {"features": (2, 2, 2), "output": "velocity"},
    "unet": {"features": (2, 2), "spacing": 3.0},
}
#: Of the training whose checkpoint is kept.
TRAINING = {
    "prealign": "affine", "validation": 0.4, "metric": "SSD", "regularizer": "bending",
    "weight": 0.01, "learning_rate": 0.01, "amsgrad": True, "seed": 3, "device": "cpu",
    "num_threads": 1, "progress": False, "validate_every": 2,
    "network_arguments": {"grid_spacing": 2, "features": 2},
}  # fmt: skip
#: Steps before the interruption, and in all.
STEPS = 5, 8


def blobs(count=5):
    """Images of a smooth ellipsoid on grids that are apart from each other."""
    axes, images = np.indices(SHAPE), []
    for i in range(count):
        middle = np.array(SHAPE) / 2 - 0.5 + 0.1 * i
        radii = np.array(SHAPE) * [0.3, 0.36, 0.27 + 0.01 * i]
        parts = zip(axes, middle, radii)
        image = np.exp(-sum(((x - m) / r) ** 2 for x, m, r in parts))
        affine = AFFINE.copy()
        affine[:3, 3] = [2.0 * i, 1.0, -0.5 * i]
        images.append(nib.Nifti1Image(image.astype(np.float32), affine))
    return images


def pair(dim):
    """Two images (1, 1, *shape) for a network."""
    images = [image.get_fdata(dtype=np.float32) for image in blobs(2)]
    return [
        torch.from_numpy(x if dim == 3 else x[4].copy())[None, None] for x in images
    ]


class Interruption:
    """Changes no example, and interrupts the training after a number of them.

    Parameters
    ----------
    count : int or None
        How many examples pass; by default all.
    """

    def __init__(self, count=None):
        self.left = count

    def __call__(self, example, generator):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left = None if self.left is None else self.left - 1
        return example

    def __repr__(self):
        return "Interruption()"


def network(name, dim):
    """A network that moves something, the same each time."""
    made = make_network(name, dim, seed=dim, **SMALLEST[name])
    generator = torch.Generator().manual_seed(dim)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made.eval()


def write_networks(folder):
    """A file of each kind, and the displacements that they predict."""
    expected = {}
    for dim, name in ((2, "pyramid"), (3, "pyramid"), (3, "dirnet"), (3, "unet"),
                      (2, "selfsup-fcn")):  # fmt: skip
        made = network(name, dim)
        card = {
            "licence": "CC0-1.0",
            "scores": {"none": 0},
            "recipe": "stored_files.py",
        }
        save_network(folder / f"{name}_{dim}d.npz", made, card=card)
        with torch.no_grad():
            u = made(*pair(dim)).displacement
        expected[f"{name}_{dim}d.npz"] = describe(u)
    return expected


def describe(displacement):
    """Mean and spread of a field, and one of its values."""
    u = displacement.double()
    return [float(u.mean()), float(u.std()), float(u.flatten()[u.numel() // 2])]


def train(state, steps=STEPS[1], examples=None, *, resume=False):
    """Train, or go on with a training."""
    changes = Interruption(examples)
    return fit("dirnet", blobs(), steps=steps, checkpoint=state, augment=changes,
               resume=resume, **TRAINING)  # fmt: skip


def describe_training(trained):
    """How a training went, and what its network predicts."""
    with torch.no_grad():
        u = trained(*pair(3)).displacement
    return {"rows": trained.history.rows, "displacement": describe(u)}


def write_training(folder):
    """The checkpoint of an interrupted training, and what it would have come to."""
    with TemporaryDirectory() as other:
        expected = describe_training(train(Path(other, "checkpoint.npz")))
    with suppress(KeyboardInterrupt):
        train(folder / "checkpoint.npz", examples=STEPS[0])
    return expected


def write_maps(folder):
    """The map of one registration in the formats there are, and points through it."""
    static, moving = blobs(2)
    expected, how = {}, {"model": None, "level_iters": [5], "progress": False}
    for dim in (2, 3):
        images = [x.get_fdata(dtype=np.float32) for x in (static, moving)]
        grids = [x.affine for x in (static, moving)]
        if dim == 2:
            images = [x[4] for x in images]
            grids = [x[1:, 1:] for x in grids]
        prealign = np.eye(dim + 1)
        prealign[:dim, dim] = [1.5, -0.5, 0.25][:dim]
        mapping = DeepRegistration("SSD", device="cpu", **how).optimize(
            *images, static_grid2world=grids[0], moving_grid2world=grids[1],
            prealign=prealign,
        )  # fmt: skip
        save_mapping(mapping, folder / f"mapping_{dim}d.npz")
        points = (grids[0] @ [*([4, 5, 3][:dim]), 1])[None, :dim]
        moved = mapping.transform_points(points)
        back = mapping.transform_points_inverse(points)
        expected[f"mapping_{dim}d.npz"] = [x[0].tolist() for x in (points, moved, back)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its format holds no prealign
        write_dipy_mapping(mapping, folder / "dipy_mapping.nii.gz")
    return expected | {"prealign": prealign.tolist()}


def main():
    """Write all files, and what was found with them."""
    folder = Path(sys.argv[1])
    expected = {
        "networks": write_networks(folder),
        "training": write_training(folder),
        "maps": write_maps(folder),
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
