"""Further files that the pages of recipes and of problems name, besides `files`."""

from pathlib import Path

from matplotlib import image as picture
import nibabel as nib
import numpy as np


def save(name, data, grid):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, grid), name)


def make_recipe_files(images, grids):
    """Save the files in the current folder.

    `images` and `grids` are those of the template and of the subject, by name.
    """
    template, subject = images["template"], images["subject"]
    own, grid = grids["template"], grids["subject"]
    save("t1.nii.gz", subject, grid)
    save("b0.nii.gz", np.where(subject > 0.05, 1.2 - subject, 0), grid)
    save("head.nii.gz", subject, grid)
    save("template_mask.nii.gz", (template > 0.05).astype(np.uint8), own)
    save("series.nii.gz", subject[..., None] * [1, 0.9, 1.1], grid)
    for name in ("01", "02"):
        save(f"study/sub-{name}/anat/sub-{name}_T1w.nii.gz", subject, grid)
    rows = ["subject\tT1w\tlabels", "01\tsubject.nii.gz\tn/a"]
    Path("subjects.tsv").write_text("\n".join(rows) + "\n")
    for name, image in images.items():
        middle = image[:, :, image.shape[2] // 2]
        save(f"slice_{name}.nii.gz", middle[..., None], np.diag([2.2, 2.2, 2.2, 1]))
        fine = np.kron(middle, np.ones((4, 4)))
        picture.imsave(f"section_{name}.png", fine.clip(0, 1), cmap="gray")
