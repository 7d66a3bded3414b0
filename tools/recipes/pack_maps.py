"""Packs label maps and real images for the trainings on a GPU.

    python -m tools.recipes.pack_maps --label_maps FOLDER --output MAPS.npz
    python -m tools.recipes.pack_maps --images FOLDER --output T1.npz

A label map NAME_07.nii.gz is stored as ``labels_07``, and ``matrix_07`` is the affine
from millimetres about the middle of a mean brain to its voxels. The mean brain has the
mean orientation of all. A real image NAME_t1.nii.gz is stored as ``image_NAME`` with
its own matrix, which `deep_affine_registration` finds to the MNI152 template that
nilearn contains. Both are stored in 8 bits.
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.linalg import polar

from tools.recipes.brain_maps import _centroids, _fit, _middle

#: Middle of the brain in MNI152's world, mm.
MIDDLE = (0, -17, 8)
#: A coarse registration is sufficient, because the affine is varied in training.
AFFINE = {"level_iters": [100, 50], "sigmas": [2, 1], "factors": [4, 2]}
#: Correlation with the template below which an affine registration has failed.
LEAST_CORRELATION = 0.35


def pack_label_maps(folder):
    """Arrays of all label maps of a folder."""
    files = sorted(folder.glob("*.nii.gz"))
    images = [nib.load(file) for file in files]
    centroids = [_centroids(image) for image in images]
    mean = centroids[0]
    for _ in range(3):
        fits = [_fit(mean, own) for own in centroids]
        mean = np.mean([own @ np.linalg.inv(f).T for own, f in zip(centroids, fits)], 0)
    fits = [_fit(mean, own) for own in centroids]
    to_middle = np.eye(4)
    to_middle[:3, 3] = _middle(images[0], fits[0])
    matrices = [
        np.linalg.inv(image.affine) @ fit @ to_middle
        for image, fit in zip(images, fits)
    ]
    turn = np.eye(4)
    turn[:3, :3] = polar(np.mean([polar(m[:3, :3])[0] for m in matrices], 0))[0].T
    packed = {}
    for file, image, matrix in zip(files, images, matrices):
        number = file.name.removesuffix(".nii.gz").rpartition("_")[2]
        packed[f"labels_{number}"] = np.asarray(image.dataobj).astype(np.uint8)
        packed[f"matrix_{number}"] = (matrix @ turn).astype(np.float32)
    return packed


def pack_images(folder):
    """Arrays of all real images of a folder, registered to the template's brain."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    from dipy_dl_reg import deep_affine_registration

    template = load_mni152_template(resolution=2)
    inside = load_mni152_brain_mask(resolution=2).get_fdata() > 0
    brain = template.get_fdata(dtype=np.float32) * inside
    shift = np.eye(4)
    shift[:3, 3] = MIDDLE
    packed = {}
    for file in sorted(folder.glob("*_t1.nii.gz")):
        image, name = nib.load(file), file.name.removesuffix("_t1.nii.gz")
        warped, affine = deep_affine_registration(
            image.get_fdata(dtype=np.float32), brain, moving_affine=image.affine,
            static_affine=template.affine, **AFFINE,
        )  # fmt: skip
        known = inside & np.isfinite(warped)
        if np.corrcoef(brain[known], warped[known])[0, 1] < LEAST_CORRELATION:
            print(f"{name}: left out, the affine registration failed", flush=True)
            continue
        packed[f"image_{name}"] = np.asarray(image.dataobj).astype(np.uint8)
        matrix = np.linalg.inv(image.affine) @ affine @ shift
        packed[f"matrix_{name}"] = matrix.astype(np.float32)
        print(name, flush=True)
    return packed


def main():
    """Write one file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--label_maps", type=Path)
    chosen.add_argument("--images", type=Path, help="skull-stripped T1, 8 bits")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.label_maps:
        packed = pack_label_maps(arguments.label_maps)
    else:
        packed = pack_images(arguments.images)
    np.savez_compressed(arguments.output, **packed)


if __name__ == "__main__":
    main()
