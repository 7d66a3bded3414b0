"""
Labels through a chain of two maps
==================================

Labels of a template are wanted in the space of a diffusion series, for example to seed
tractography. The b0 image was registered to the subject's T1 image, and the T1 image to
the template. :func:`~dipy_dl_reg.compose_mappings` combines both maps to one, so that
labels are interpolated once. This example compares this with two interpolations, one
after the other; the true labels of the simulated subject are known.
"""

# sphinx_gallery_thumbnail_number = 1

# The first page of the tutorials links the file example_figures.py.
from example_figures import draw_slice, new_figure
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
import nibabel as nib
from nibabel.affines import apply_affine
from nilearn.datasets import (
    load_mni152_brain_mask,
    load_mni152_gm_template,
    load_mni152_template,
    load_mni152_wm_template,
)
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import apply_mapping, compose_mappings, deep_registration

###############################################################################
# Template and labels
# -------------------
# The MNI152 template, bundled with nilearn, at 3 mm, with labels of the two sides of
# white matter (1, 2), grey matter (3, 4) and fluid (5).

template = load_mni152_template(resolution=3)
white, grey = (
    load(resolution=3).get_fdata(dtype=np.float32)
    for load in (load_mni152_wm_template, load_mni152_gm_template)
)
brain = load_mni152_brain_mask(resolution=3).get_fdata() > 0
t1 = np.where(brain, template.get_fdata(dtype=np.float32), 0)
points = apply_affine(template.affine, np.moveaxis(np.indices(t1.shape), 0, -1))
right = points[..., 0] > 0
fluid = np.where(brain, np.clip(1 - white - grey, 0, 1), 0)
tissue = np.argmax([np.full_like(t1, 0.3), white, grey, fluid], axis=0)
labels = np.choose(tissue, [0, 1 + right, 3 + right, 5]).astype(np.uint8)

###############################################################################
# A subject
# ---------
# Its anatomy is the template's, deformed by a smooth random field. The T1 image has its
# own grid of 3 mm; the b0 image has one of 3.5x3.5x4 mm, oblique, with the head in
# another pose, and is bright in fluid.

rng = np.random.default_rng(2)
field = np.stack([gaussian_filter(rng.standard_normal(t1.shape), 6) for _ in "xyz"])
field *= 8 / np.linalg.norm(field, axis=0)[brain].max()  # up to 8 mm


def anatomy(points, values, order=1):
    """Values of the template at points of the subject's T1 world."""
    inverse = np.linalg.inv(template.affine)
    voxels = np.moveaxis(apply_affine(inverse, points), -1, 0)
    moves = [map_coordinates(part, voxels, order=1) for part in field]
    voxels = apply_affine(inverse, points + np.moveaxis(moves, 0, -1))
    return map_coordinates(values, np.moveaxis(voxels, -1, 0), order=order)


def grid(spacing, shape, angle=0.0):
    """Affine of a grid around the middle of the brain."""
    turn = np.radians(angle)
    rotation = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    linear = rotation * spacing
    return nib.affines.from_matvec(linear, [0, -18, 8] - linear @ np.divide(shape, 2))


t1_shape, b0_shape = (54, 66, 56), (48, 58, 44)
t1_affine = grid([-3.0, 3.0, 3.0], t1_shape)
b0_affine = grid([3.5, 3.5, 4.0], b0_shape, angle=8)
pose = nib.affines.from_matvec(grid(1, (0, 0, 0), angle=-6)[:3, :3], [4, -3, 5])

t1_points = apply_affine(t1_affine, np.moveaxis(np.indices(t1_shape), 0, -1))
b0_points = apply_affine(
    np.linalg.inv(pose) @ b0_affine, np.moveaxis(np.indices(b0_shape), 0, -1)
)
subject_t1 = anatomy(t1_points, t1)
contrast = np.where(brain, 0.35 * white + 0.5 * grey + fluid, 0)
subject_b0 = anatomy(b0_points, contrast) + rng.normal(0, 0.02, b0_shape)
true_labels = anatomy(b0_points, labels, order=0)

###############################################################################
# Two registrations
# -----------------
# b0 to T1, and T1 to the template, as a pipeline of diffusion data has them.

_, b0_to_t1 = deep_registration(
    moving=np.where(true_labels > 0, subject_b0, 0).astype(np.float32),
    static=subject_t1,
    moving_affine=b0_affine,
    static_affine=t1_affine,
    pipeline=["rigid", "deform"],
    progress=False,
)
_, t1_to_template = deep_registration(
    moving=subject_t1,
    static=t1,
    moving_affine=t1_affine,
    static_affine=template.affine,
    pipeline=["affine", "deform"],
    progress=False,
)

###############################################################################
# One map
# -------
# The maps are given in the order in which images are transformed. The labels go in the
# opposite direction, from the template to the b0's grid.

b0_to_template = compose_mappings(b0_to_t1, t1_to_template)
once = apply_mapping(b0_to_template, labels, inverse=True, interpolation="nearest")

on_t1 = apply_mapping(t1_to_template, labels, inverse=True, interpolation="nearest")
twice = apply_mapping(b0_to_t1, on_t1, inverse=True, interpolation="nearest")

###############################################################################
# Dice's overlap with the true labels, for each label:

names = ["white, left", "white, right", "grey, left", "grey, right", "fluid"]


def overlap(found, label):
    """Dice's coefficient of one label."""
    a, b = found == label, true_labels == label
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


print(f"{'':14s}{'two maps':>10s}{'one map':>10s}")
for label, name in enumerate(names, start=1):
    print(f"{name:14s}{overlap(twice, label):10.3f}{overlap(once, label):10.3f}")
changed = np.count_nonzero((once != twice) & ((once > 0) | (twice > 0)))
print(f"{changed / np.count_nonzero(once):.0%} of the labelled voxels differ")

###############################################################################
# The labels on the b0 image: each interpolation of labels moves their borders by up to
# half a voxel, and breaks thin structures such as the cortex.

shown = np.clip(subject_b0, 0, None)
colours = ["black", "#E69F00", "#D55E00", "#56B4E9", "#0072B2", "#009E73"]
colours = {"cmap": ListedColormap(colours), "vmin": -0.5, "vmax": 5.5}
pictures = {
    "b0": (shown, {}),
    "true labels": (true_labels, colours),
    "two interpolations": (twice, colours),
    "one interpolation": (once, colours),
}
fig, axes = new_figure(
    "An axial slice of the b0 image, and its labels: the true ones, those of two "
    "interpolations, with ragged borders, and those of one interpolation, which are "
    "closer to the true ones.",
    rows=2,
    columns=2,
    aspect=1.2,
)
for ax, (title, (image, options)) in zip(axes.flat, pictures.items(), strict=True):
    draw_slice(ax, image, b0_affine, title=title, **options)

###############################################################################
# Streamlines and images take the same map
# ----------------------------------------
# ``b0_to_template.transform`` resamples the b0 image to the template's grid in one
# interpolation, and :func:`~dipy_dl_reg.transform_streamlines` takes streamlines of the
# diffusion space to the template. Points confirm that the map is the chain:

some = apply_affine(template.affine, np.argwhere(brain)[::500])
chain = b0_to_t1.transform_points(t1_to_template.transform_points(some))
difference = np.linalg.norm(b0_to_template.transform_points(some) - chain, axis=1)
print(f"Points differ by at most {difference.max():.1e} mm")

warped = b0_to_template.transform(np.clip(subject_b0, 0, None).astype(np.float32))
fig, axes = new_figure(
    "The template, and the b0 image resampled to it, with outlines of the template's "
    "white matter, which both follow.",
    columns=2,
    aspect=1.2,
)
for ax, image, title in zip(axes[0], (t1, warped), ("template", "b0 to template")):
    draw_slice(ax, image, template.affine, title=title, outlines=white)
plt.show()
