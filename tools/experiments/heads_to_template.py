r"""Whole heads to the stripped MNI152 template, without any option: overlap of brains.

    python -m tools.experiments.heads_to_template --data FOLDER

FOLDER holds NAME_t1.nii.gz, heads with skull, and NAME_labels.nii.gz, labels of their
brains (above 0). Each is registered by ``deep_registration`` from its centre of mass.
Printed: Dice of the labelled brain, carried over by nearest neighbour, and the template
above 2 % of its maximum, after the affine part and after the deformation; the scales of
the affine part, template to head; the verdict.
"""

import os

# Must be set before torch loads: see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import logging
from pathlib import Path

import nibabel as nib
from nilearn.datasets import load_mni152_template
import numpy as np

from dipy_dl_reg import apply_mapping, assess_mapping, deep_registration

STEPS = ["center_of_mass", "translation", "rigid", "affine"]


def overlap(mapping, labels, brain):
    """Dice of the labelled brain through a map and the template's."""
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
            f"{name:8s}  {overlap(affine, labels, brain):.3f}   "
            f"{overlap(mapping, labels, brain):.3f}     "
            f"{scales.min():.2f} to {scales.max():.2f} "
            f"{assess_mapping(mapping, **images)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
