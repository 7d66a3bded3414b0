"""
One brain in five contrasts
===========================

A network that comes with the package, ``anatomy``, finds coarse structures of the brain
in an image of any contrast. Here one brain is seen as a T1, T2, b0, MD and FA image.
Its structures are found in each of them, each image is registered to the same T1
template, and the overlap of the structures before and after checks the result. A fall
of the overlap is a warning (:doc:`/verdict`).
"""

# The first page of the tutorials links the file example_figures.py.
from example_figures import draw_slice, new_figure
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
import nibabel as nib
from nilearn.datasets import (
    load_mni152_gm_template,
    load_mni152_template,
    load_mni152_wm_template,
)
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import assess_mapping, deep_registration, segment_anatomy

###############################################################################
# The brain
# ---------
# The template is the MNI152 T1 image :footcite:p:`Fonov2011`, bundled with nilearn. The
# other brain is the same one, deformed by a smooth random field, so that the true map
# is known. Its contrasts are **simulated** from the template's maps of grey and white
# matter, with noise: real images also are distorted and have a lower resolution.

SPACING = 3  # mm
loaders = load_mni152_template, load_mni152_gm_template, load_mni152_wm_template
template, *tissues = (load(resolution=SPACING) for load in loaders)
grid2world = template.affine
t1, grey, white = (x.get_fdata(dtype=np.float32) for x in (template, *tissues))
t1 = np.where(t1 > 0.05 * t1.max(), t1 / t1.max(), 0)
fluid = np.clip(1 - grey - white, 0, 1) * (t1 > 0)

rng = np.random.default_rng(0)
voxels = np.indices(t1.shape)
truth = gaussian_filter(rng.normal(size=voxels.shape), (0, 6, 6, 6))
truth *= 10 / np.linalg.norm(truth, axis=0).max()  # at most 10 mm


def simulate(fluid_value, grey_value, white_value):
    """An image of three tissues, deformed, with noise inside the brain."""
    image = fluid_value * fluid + grey_value * grey + white_value * white
    return deform(image)


def deform(image):
    """The image at displaced voxels, with noise inside the brain."""
    moved = map_coordinates(image, voxels + truth / SPACING, order=1)
    noise = 0.02 * rng.normal(size=image.shape)
    return np.where(moved > 0.01, moved + noise, 0).clip(0).astype(np.float32)


images = {
    "T1": deform(t1),
    "T2": simulate(0.95, 0.55, 0.38),
    "b0": gaussian_filter(simulate(0.95, 0.52, 0.36), 0.4),
    "MD": gaussian_filter(simulate(0.90, 0.32, 0.26), 0.4),
    "FA": gaussian_filter(simulate(0.06, 0.16, 0.55), 0.4),
}

###############################################################################
# Structures in each contrast
# ---------------------------
# ``segment_anatomy`` returns labels in FreeSurfer's numbering on the grid of the image,
# and the probabilities of all structures at 2 mm.

found = {
    name: segment_anatomy(image, grid2world=grid2world, mirror=False)
    for name, image in images.items()
}
print(list(found["FA"].names.items())[:4], "...")

###############################################################################
# Registration to the template
# ----------------------------
# The call is the same for each contrast. ``assess_mapping`` with ``anatomy=True``
# predicts the structures of both images and measures their overlap (soft Dice) before
# and after the map.

brain = t1 > 0
static = nib.Nifti1Image(t1, grid2world)
warped, before = {}, float(np.linalg.norm(truth, axis=0)[brain].mean())
print(f"\nmean distance from the true map before: {before:.1f} mm")
for name, image in images.items():
    moving = nib.Nifti1Image(image, grid2world)
    warped[name], mapping = deep_registration(moving=moving, static=static)
    # static to moving, there and back through the known field: 0 if the map is right
    points = np.moveaxis(voxels, 0, -1)[brain] @ grid2world[:3, :3].T
    ends = mapping.transform_points(points + grid2world[:3, 3])
    at = (ends - grid2world[:3, 3]) @ np.linalg.inv(grid2world[:3, :3]).T
    back = np.stack([map_coordinates(u, at.T, order=1) for u in truth], -1)
    world = np.sign(np.diag(grid2world)[:3])
    error = np.linalg.norm(ends + world * back - points - grid2world[:3, 3], axis=1)
    measures = assess_mapping(mapping, static, moving, anatomy=True).measures
    print(
        f"{name}: {error.mean():.1f} mm; overlap of the structures "
        f"{measures.anatomy_affine:.3f} before, {measures.anatomy:.3f} after"
    )

###############################################################################
# Three of the contrasts, and the structures found in them. Each structure has a colour
# of its own.

colours = np.random.default_rng(3).uniform(0.15, 1, (300, 3))
colours[0] = 0
colours = ListedColormap(colours)
figure, axes = new_figure(
    "The same axial slice as T1, b0 and FA image, and below each the structures that "
    "were found in it. They look alike in the three contrasts.",
    rows=2,
    columns=3,
    aspect=1.2,
)
for (above, below), name in zip(axes.T, ("T1", "b0", "FA"), strict=True):
    draw_slice(above, images[name], grid2world, at=6, title=name)
    labels = found[name].labels
    draw_slice(below, labels, grid2world, at=6, cmap=colours, vmin=0, vmax=299)

###############################################################################
# The registered images with outlines of the template's white matter.

figure, axes = new_figure(
    "The b0 and the FA image, registered to the T1 template, with outlines of its "
    "white matter, which the images follow.",
    columns=2,
    aspect=1.2,
)
for ax, name in zip(axes[0], ("b0", "FA"), strict=True):
    draw_slice(ax, warped[name], grid2world, at=6, title=name, outlines=white)
plt.show()

###############################################################################
# The structures of a healthy adult's brain are found in all five contrasts, better in
# those with much contrast between the tissues. They are coarse: cortex, white matter,
# ventricles, deep grey matter, brain stem and cerebellum, on each side.
#
# References
# ----------
# .. footbibliography::
