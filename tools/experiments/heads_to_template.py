r"""Registration of whole heads and the skull-stripped MNI152 template: overlap.

    python -m tools.experiments.heads_to_template --data FOLDER

FOLDER contains NAME_t1.nii.gz, heads with skull, and NAME_labels.nii.gz, labels of
their brains (above 0). Each head is registered to the template by ``deep_registration``
from its centre of mass with default options, and the template to each head. The table
gives the Dice of the labelled brain and the template's brain (above 2 % of its
maximum), the moving one warped by nearest neighbour: after the affine part, after the
deformation, and with the network's field alone; the volume of the warped brain as a
part of the other one's, after the deformation; and the verdict on it.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import logging
from pathlib import Path

import nibabel as nib
from nilearn.datasets import load_mni152_template
import numpy as np

from dipy_dl_reg import apply_mapping, assess_mapping, deep_registration

STEPS = ["center_of_mass", "translation", "rigid", "affine"]


def read_head(path, labels_path):
    """A head and its labelled brain as images."""
    labels = nib.load(labels_path)
    brain = (np.asarray(labels.dataobj) > 0).astype(np.uint8)
    return nib.load(path), nib.Nifti1Image(brain, labels.affine)


def read_template():
    """The template and its brain as images."""
    template = load_mni152_template(resolution=2)
    data = template.get_fdata(dtype=np.float32)
    brain = (data > 0.02 * data.max()).astype(np.uint8)
    return template, nib.Nifti1Image(brain, template.affine)


def compare_brains(mapping, moving_brain, static_brain):
    """Dice of the warped and the static brain, and the ratio of their volumes."""
    warped = apply_mapping(
        mapping,
        np.asarray(moving_brain.dataobj),
        image_grid2world=moving_brain.affine,
        interpolation="nearest",
    )
    static = np.asarray(static_brain.dataobj)
    sizes = int(warped.sum()), int(static.sum())
    return 2 * int((warped & static).sum()) / sum(sizes), sizes[0] / sizes[1]


def register(moving, static):
    """The maps after the affine part, with the network's field, and by default."""
    images = {"moving": moving, "static": static}
    _, affine = deep_registration(**images, pipeline=STEPS)
    given = images | {"prealign": np.linalg.inv(affine.prealign)}
    _, network = deep_registration(**given, level_iters=0)
    _, mapping = deep_registration(**given)
    return affine, network, mapping


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    logging.getLogger("dipy").setLevel(logging.ERROR)
    template = read_template()
    print("moving    static    affine   network  default  volume  verdict")
    for path in sorted(given.data.glob("*_t1.nii.gz")):
        name = path.name.removesuffix("_t1.nii.gz")
        head = read_head(path, given.data / f"{name}_labels.nii.gz")
        for names, (moving, static) in (
            ((name, "template"), (head, template)),
            (("template", name), (template, head)),
        ):
            maps = register(moving[0], static[0])
            found = [compare_brains(m, moving[1], static[1]) for m in maps]
            verdict = assess_mapping(maps[2], moving=moving[0], static=static[0])
            dice = [f"{value:.3f}    " for value, _ in found]
            row = f"{names[0]:10s}{names[1]:10s}{''.join(dice)}"
            print(f"{row}{found[2][1]:.3f}   {verdict}", flush=True)


if __name__ == "__main__":
    main()
