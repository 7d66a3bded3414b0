"""A tiny cohort in BIDS form, and options that make its registration fast."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (16, 16, 16)
AFFINE = np.diag([-4.0, 4, 4, 1]) + np.array(
    [[0, 0, 0, 30.0]] + 2 * [[0, 0, 0, -30]] + [[0] * 4]
)
FAST = {"model": None, "level_iters": [6], "pipeline": ["translation", "deform"]}
FAST |= {"device": "cpu", "num_threads": 1, "metric": "CC", "report": False}


def ellipsoid(centre, radii):
    """A smooth ellipsoid, in voxels."""
    points = np.moveaxis(np.indices(SHAPE), 0, -1) - np.asarray(centre)
    distance = np.linalg.norm(points / np.asarray(radii), axis=-1)
    return (100 / (1 + np.exp(6 * (distance - 1)))).astype(np.float32)


def save_image(path, data, affine=AFFINE):
    """Save an image; make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def save_template(folder):
    """Save the template."""
    return save_image(
        folder / "tpl-Test_T1w.nii.gz", ellipsoid((7.5, 7.5, 7.5), (5, 6, 5))
    )


def save_cohort(folder, labels=("01", "02", "03")):
    """Save a dataset in BIDS form: T1w images, and labels of the first subject."""
    description = {"Name": "test", "BIDSVersion": "1.9.0"}
    folder.mkdir(parents=True)
    Path(folder, "dataset_description.json").write_text(json.dumps(description))
    for k, label in enumerate(labels):
        image = ellipsoid((7, 7 + 0.4 * k, 8), (5, 5, 5 + 0.3 * k))
        stem = folder / f"sub-{label}" / "anat" / f"sub-{label}"
        save_image(stem.with_name(f"{stem.name}_T1w.nii.gz"), image)
        if not k:
            parts = (image > 50).astype(np.uint8) * 17
            save_image(stem.with_name(f"{stem.name}_dseg.nii.gz"), parts)
    return folder
