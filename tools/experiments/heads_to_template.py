r"""Registration of whole heads to the skull-stripped MNI152 template: overlap.

    python -m tools.experiments.heads_to_template --data FOLDER

FOLDER contains NAME_t1.nii.gz, heads with skull, and NAME_labels.nii.gz, labels of
their brains (above 0). Each head is registered by ``deep_registration`` from its centre
of mass with default options. The table gives the Dice of the labelled brain, warped by
nearest neighbour, and the template's brain (above 2 % of its maximum), after the affine
part and after the deformation; the scale factors of the affine part, from template to
head; and the verdict.
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


def brain_dice(mapping, labels, brain):
    """Dice of the warped labelled brain and the template's brain."""
    warped = apply_mapping(
        mapping,
        np.asarray(labels.dataobj) > 0,
        image_grid2world=labels.affine,
        interpolation="nearest",
    )
    return 2 * (warped & brain).sum() / (warped.sum() + brain.sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    logging.getLogger("dipy").setLevel(logging.ERROR)
    template = load_mni152_template(resolution=2)
    data = template.get_fdata(dtype=np.float32)
    brain = data > 0.02 * data.max()
    print("head      affine  deformed  scales       verdict")
    for path in sorted(given.data.glob("*_t1.nii.gz")):
        name = path.name.removesuffix("_t1.nii.gz")
        labels = nib.load(given.data / f"{name}_labels.nii.gz")
        images = {"moving": path, "static": template}
        _, affine = deep_registration(**images, pipeline=STEPS)
        _, mapping = deep_registration(**images, pipeline=[*STEPS, "deform"])
        scales = np.linalg.svd(np.linalg.inv(affine.prealign)[:3, :3])[1]
        print(
            f"{name:8s}  {brain_dice(affine, labels, brain):.3f}   "
            f"{brain_dice(mapping, labels, brain):.3f}     "
            f"{scales.min():.2f} to {scales.max():.2f} "
            f"{assess_mapping(mapping, **images)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
