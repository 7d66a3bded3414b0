"""The twelve brains of the experiment on templates: six stripped brains and six heads.

The folder of the environment variable ``DIPY_DL_REG_DATA`` contains ``t1_labels``
(``subject_NAME_t1.nii.gz``, skull-stripped, 1 mm) and ``t1_labels_2mm``
(``NAME_t1.nii.gz``, whole heads, 2 mm), each with labels of the same numbering. Images
of 1 mm are resampled to 2 mm; labels stay as they are. The skulls of the heads are
removed without their labels: each head is registered to the MNI152 template that
nilearn bundles, and the template's brain mask is carried to the head.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from tools.benchmarks.cases import resample

#: Voxel size of the images, mm.
SPACING = 2.0
#: Part of a voxel that must lie in the template's brain.
_INSIDE = 0.5


class Brain(NamedTuple):
    """A labelled brain: its name, the stripped image and the labels, as images."""

    name: str
    image: nib.Nifti1Image
    labels: nib.Nifti1Image


def data_folder() -> Path:
    """The folder with both data sets, from the environment."""
    return Path(os.environ["DIPY_DL_REG_DATA"])


def prepare_brains(data: Path, folder: Path) -> list[Brain]:
    """Read or make the stripped images at 2 mm in `folder`; return all brains."""
    folder.mkdir(parents=True, exist_ok=True)
    brains = []
    for path in sorted((data / "t1_labels").glob("subject_*_t1.nii.gz")):
        brains.append(_prepare(path, folder, _to_spacing))
    for path in sorted((data / "t1_labels_2mm").glob("*_t1.nii.gz")):
        brains.append(_prepare(path, folder, strip_head))
    return brains


def _prepare(path, folder, make_image):
    """One brain; its image is made if `folder` does not have it yet."""
    name = path.name.removesuffix("_t1.nii.gz")
    made = folder / f"{name}.nii.gz"
    if not made.is_file():
        nib.save(make_image(nib.load(path)), made)
    labels = nib.load(path.with_name(f"{name}_labels.nii.gz"))
    return Brain(name.removeprefix("subject_"), nib.load(made), labels)


def _to_spacing(image):
    """The image with voxels of 2 mm."""
    values = image.get_fdata(dtype=np.float32)
    return nib.Nifti1Image(*resample(values, image.affine, SPACING))


def strip_head(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Set to 0 what the MNI152 template's brain mask, carried to a head, excludes."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    from dipy_dl_reg import apply_mapping, deep_registration

    steps = ["center_of_mass", "translation", "rigid", "affine", "deform"]
    template = load_mni152_template(resolution=2)
    _, mapping = deep_registration(moving=image, static=template, pipeline=steps)
    mask = load_mni152_brain_mask(resolution=2)
    inside = apply_mapping(
        mapping,
        mask.get_fdata(dtype=np.float32),
        image_grid2world=mask.affine,
        interpolation="linear",
        inverse=True,
    )
    values = image.get_fdata(dtype=np.float32)
    kept = np.where(inside > _INSIDE, values, np.float32(0))
    return nib.Nifti1Image(kept, image.affine)


if __name__ == "__main__":
    import sys

    for brain in prepare_brains(data_folder(), Path(sys.argv[1])):
        inside = np.asarray(brain.image.dataobj) > 0
        print(brain.name, brain.image.shape, int(inside.sum()), flush=True)
