"""
Two files to a result
=====================

Two image files that are not aligned are registered in one call, affinely and then
deformably. The result is looked at, judged, saved, and used for another image.

*Static* is the MNI152 T1 template :footcite:p:`Fonov2011`, bundled with nilearn.
*Moving* is a real b0 image, bundled with DIPY :footcite:p:`Garyfallidis2014`: another
person, another contrast, voxels of 4x4x5 mm, and a tilted head.
"""

# sphinx_gallery_thumbnail_number = 2

from pathlib import Path
from tempfile import mkdtemp

from dipy.data import get_fnames
from dipy.segment.mask import median_otsu

# The first page of the tutorials links the file example_figures.py.
from example_figures import draw_slice, new_figure
from matplotlib import pyplot as plt
import nibabel as nib
from nibabel.processing import resample_from_to
from nilearn.datasets import load_mni152_template
import numpy as np

from dipy_dl_reg import (
    apply_mapping,
    assess_mapping,
    deep_registration,
    load_mapping,
    save_mapping,
)

###############################################################################
# Two files
# ---------
# Take files of your own here. Both images show the brain without skull, or both the
# whole head. The template has no skull, so the brain of the b0 image is extracted.

folder = Path(mkdtemp())
static, moving = folder / "template.nii.gz", folder / "b0.nii.gz"
nib.save(load_mni152_template(resolution=3), static)
b0 = nib.load(get_fnames(name="aniso_vox"))
brain, _ = median_otsu(b0.get_fdata(dtype=np.float32), median_radius=2, numpass=1)
nib.save(nib.Nifti1Image(brain, b0.affine), moving)

###############################################################################
# The b0 image on the template's grid, as the headers of the files place it, with the
# outlines of the template. Nothing lies where it should.

template, grid2world = nib.load(static).get_fdata(), nib.load(static).affine
before = resample_from_to(nib.load(moving), nib.load(static), order=1).get_fdata()

planes = {"axial": 10, "coronal": -20, "sagittal": 4}
fig, axes = new_figure(
    "The b0 image before registration, in three planes, with outlines of the "
    "template. The outlines do not match the image: the head is tilted and too low.",
    columns=3,
)
for ax, (plane, at) in zip(axes[0], planes.items(), strict=True):
    place = {"plane": plane, "at": at, "outlines": template, "levels": (0.3, 0.6)}
    draw_slice(ax, before, grid2world, title=f"before, {plane}", **place)

###############################################################################
# One call
# --------
# ``pipeline`` lists the steps. Without it, only the deformable step is done, for images
# that are aligned already. The deformable step is that of ``DeepRegistration()``, whose
# metric and start are chosen for the pair.

warped, mapping = deep_registration(
    moving=moving,
    static=static,
    pipeline=["center_of_mass", "rigid", "affine", "deform"],
)

fig, axes = new_figure(
    "The b0 image after registration, in three planes. The outlines of the template "
    "follow the ventricles and the surface of the brain.",
    columns=3,
)
for ax, (plane, at) in zip(axes[0], planes.items(), strict=True):
    place = {"plane": plane, "at": at, "outlines": template, "levels": (0.3, 0.6)}
    draw_slice(ax, warped, grid2world, title=f"after, {plane}", **place)

###############################################################################
# Can it be trusted?
# ------------------
# The verdict is "good", "doubtful" or "failed", with its reasons (:doc:`/verdict`). It
# can be wrong, so look at the pictures as well: do the outlines follow the ventricles
# and the surface of the brain? The top and the bottom of the brain are outside the
# field of view of this b0 image, and the map is not known there.

verdict = assess_mapping(mapping, static=static, moving=moving)
print(verdict.grade, *verdict.reasons)

###############################################################################
# Save and use the map
# --------------------
# The map goes into one file. It transforms any image of moving's space to static's
# grid, and with ``inverse=True`` any image of static's space to moving's grid: here a
# mask of the template, as labels would be.

save_mapping(mapping, folder / "mapping.npz")
mapping = load_mapping(folder / "mapping.npz")
nib.save(nib.Nifti1Image(warped, grid2world), folder / "warped.nii.gz")

bright = (template > 0.8).astype(np.uint8)  # white matter, roughly
on_b0 = apply_mapping(mapping, bright, inverse=True, interpolation="nearest")
print("mask on the template's grid", bright.shape, "and on the b0's", on_b0.shape)

fig, axes = new_figure(
    "White matter of the template, as a line, on the template and on the b0 image in "
    "the b0's own space, where it follows the dark white matter.",
    columns=2,
)
draw_slice(axes[0, 0], template, grid2world, title="template", at=24, outlines=bright)
draw_slice(axes[0, 1], brain, b0.affine, title="b0, its own grid", outlines=on_b0)
plt.show()

###############################################################################
# The same from the shell
# -----------------------
# .. code-block:: bash
#
#    dipy_align_deep template.nii.gz b0.nii.gz --affine --report --out_dir out
#
# Next: :doc:`/auto_examples/first_steps/plot_reading_the_map` explains the map.
#
# References
# ----------
# .. footbibliography::
