"""The files that the pages name: a small head as template and subject, and so on."""

from pathlib import Path

import nibabel as nib
import numpy as np
import phantom
from recipe_files import make_recipe_files

SHAPE = (18, 20, 17)
#: The phantom is as large as a head; a smaller copy is registered faster.
PART = 4.0

#: Folders with the images of two subjects.
FOLDERS = ("folder_of_images", "subjects", "visits", "t1", "fa")


def save(name, data, grid):
    Path(name).parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(data, grid), name)


def save_bundle(name, grid):
    """Save one streamline, on a grid of the shape of the phantom."""
    line = nib.affines.apply_affine(grid, [[8, 8, 8], [9, 10, 9]])
    tractogram = nib.streamlines.Tractogram([line], affine_to_rasmm=np.eye(4))
    header = nib.streamlines.trk.TrkFile.create_empty_header()
    header["voxel_to_rasmm"] = grid
    header["dimensions"] = SHAPE
    header["voxel_sizes"] = nib.affines.voxel_sizes(grid)
    header["voxel_order"] = "".join(nib.aff2axcodes(grid)).encode()
    nib.streamlines.save(tractogram, name, header=header)


def save_series(name, image, grid):
    """Save a diffusion series of two b0 and six directions."""
    bvecs = np.array([[1, 1, 0], [1, -1, 0], [1, 0, 1], [1, 0, -1], [0, 1, 1]])
    bvecs = np.vstack([np.zeros((2, 3)), [[0, 0, 1]], bvecs / np.sqrt(2)])
    weights = np.where(np.arange(8) < 2, 1, 0.5)
    save(f"{name}.nii.gz", image[..., None] * weights, grid)
    np.savetxt(f"{name}.bval", [np.where(np.arange(8) < 2, 0, 1000)])
    np.savetxt(f"{name}.bvec", bvecs.T)


def draw_heads():
    """Images and grids of the template and of the subject, which is turned a little."""
    grids = {
        "template": phantom.grid(SHAPE, 2.2),
        "subject": phantom.grid(SHAPE, [-2.2, 2.2, 2.2], centre=[1.0, -2, 1]),
    }
    images = {}
    for name, grid in grids.items():
        scaled = np.diag([PART, PART, PART, 1]) @ grid
        bent = phantom.rigid(phantom.rotation([0, 0, 1], 5), np.zeros(3))
        pose = None if name == "template" else bent
        images[name] = phantom.image(SHAPE, scaled, pose)
    return images, grids


def write_files():
    """Write all files into the current folder."""
    images, grids = draw_heads()
    for name, image in images.items():
        save(f"{name}.nii.gz", image, grids[name])
        for folder in FOLDERS:
            save(f"{folder}/{name}.nii.gz", image, grids[name])
    labels = (images["template"] > 0.4).astype(np.uint8)
    save("template_labels.nii.gz", labels, grids["template"])
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[8:11, 9:12, 8:11] = 1
    save("subject_lesion.nii.gz", lesion, grids["subject"])
    save("subject_fa.nii.gz", images["subject"], grids["subject"])
    save_series("dwi", images["subject"], grids["subject"])
    save_bundle("bundle.trk", grids["subject"])
    make_recipe_files(images, grids)
