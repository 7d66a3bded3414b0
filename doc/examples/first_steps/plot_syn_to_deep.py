"""
From SyN to DeepRegistration in one line
========================================

A script that uses DIPY's SyN :footcite:p:`Avants2008`, the class
:class:`~dipy.align.imwarp.SymmetricDiffeomorphicRegistration`, can use
:class:`~dipy_dl_reg.DeepRegistration` after one line is replaced: the arguments of the
call and the type of the map are the same.

This example registers a real b0 image, bundled with DIPY
:footcite:p:`Garyfallidis2014`, to the MNI152 T1 template :footcite:p:`Fonov2011`,
bundled with nilearn. The two contrasts are opposite: tissue that is dark in one image
is bright in the other.
"""

# sphinx_gallery_thumbnail_number = 1

from dipy.align import affine_registration
from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
from dipy.align.metrics import CCMetric, EMMetric
from dipy.data import get_fnames
from dipy.segment.mask import median_otsu

# The first page of the tutorials links the file example_figures.py.
from example_figures import draw_slice, new_figure
from matplotlib import pyplot as plt
import nibabel as nib
from nilearn.datasets import load_mni152_template
import numpy as np

from dipy_dl_reg import DeepRegistration

###############################################################################
# The two images
# --------------
# *static* is the template at 3 mm. *moving* is the b0: 4x4x5 mm on an oblique grid,
# with the top and the bottom of the brain outside the field of view. The template is
# skull-stripped, so the brain of the b0 is extracted as well.

template = load_mni152_template(resolution=3)
static, static_grid2world = template.get_fdata(dtype=np.float32), template.affine

b0 = nib.load(get_fnames(name="aniso_vox"))
moving_grid2world = b0.affine
moving, _ = median_otsu(b0.get_fdata(dtype=np.float32), median_radius=2, numpass=1)
print("static", static.shape, "moving", moving.shape)

###############################################################################
# The affine part
# ---------------
# DIPY's affine registration by mutual information, with the template at 4 mm to save
# time. ``prealign`` maps the template's world to the b0's world.

coarse = load_mni152_template(resolution=4)
_, prealign = affine_registration(
    moving=moving,
    static=coarse.get_fdata(dtype=np.float32),
    moving_affine=moving_grid2world,
    static_affine=coarse.affine,
    pipeline=["center_of_mass", "rigid", "affine"],
    level_iters=[60, 20],
    sigmas=[1.5, 0.5],
    factors=[2, 1],
)

###############################################################################
# The script with SyN
# -------------------
# DIPY's metric for different contrasts is ``EMMetric``; ``CCMetric`` (local
# correlation) is DIPY's default.

images = {
    "static": static,
    "moving": moving,
    "static_grid2world": static_grid2world,
    "moving_grid2world": moving_grid2world,
    "prealign": prealign,
}
mappings = {}
for metric in (EMMetric(3), CCMetric(3)):
    registration = SymmetricDiffeomorphicRegistration(metric, level_iters=[20, 20, 10])
    mappings[f"SyN, {type(metric).__name__}"] = registration.optimize(**images)

###############################################################################
# The script with DeepRegistration
# --------------------------------
# One line is replaced. ``DeepRegistration()`` needs no metric and no iterations: it
# looks at the two images and logs what it chooses. Your metric objects and
# ``level_iters`` are accepted too, as in ``DeepRegistration(CCMetric(3))``.

registration = DeepRegistration()
mapping = mappings["default"] = registration.optimize(**images)

warped_b0 = mapping.transform(moving)  # as for SyN
print("Type of the map:", type(mapping).__module__, type(mapping).__name__)
print("Metric:", registration.metric.name)

###############################################################################
# Comparison of the results
# -------------------------
# The b0 warped to the template by the affine part alone and by each map, with outlines
# of the template. Compare the ventricles in the middle and the folds of the cortex.

affine_map = AffineMap(
    prealign,
    domain_grid_shape=static.shape,
    domain_grid2world=static_grid2world,
    codomain_grid_shape=moving.shape,
    codomain_grid2world=moving_grid2world,
)
warped = {"affine": affine_map.transform(moving)}
warped |= {name: mapping.transform(moving) for name, mapping in mappings.items()}

for plane, at in (("axial", 10), ("coronal", -20)):
    fig, axes = new_figure(
        f"The b0 image on the template's grid in {plane} slices: by the affine part, "
        "by SyN with two metrics, and by the default of this package, with outlines of "
        "the template. Only in the last one do the ventricles fill their outlines.",
        rows=2,
        columns=2,
        aspect=1.2 if plane == "axial" else 0.9,
    )
    for ax, (name, image) in zip(axes.flat, warped.items(), strict=True):
        place = {"plane": plane, "at": at, "outlines": static, "levels": (0.3, 0.6)}
        draw_slice(ax, image, static_grid2world, title=name, **place)

###############################################################################
# Mutual information :footcite:p:`Mattes2003` between the template and the warped b0
# within the template's brain; higher is better. None of the registrations maximized
# this measure. It shows that the intensities agree, not that the anatomy does: SyN with
# ``CCMetric`` has a higher value than the affine part, although its ventricles are in
# the wrong place. :doc:`/benchmark` compares overlaps of labels on many pairs.


def mutual_information(first, second):
    """Mutual information of two lists of intensities, in nats."""
    joint = np.histogram2d(first, second, bins=32)[0]
    joint /= joint.sum()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    some = joint > 0
    return np.sum(joint[some] * np.log(joint[some] / apart[some]))


brain = static > 0
for name, image in warped.items():
    print(f"{name:14} {mutual_information(static[brain], image[brain]):.3f}")

###############################################################################
# After each registration the map is checked: for folds and for its inversion error (in
# voxels), and whether the result is plausible.

for name, value in registration.quality._asdict().items():
    print(f"{name:24} {value:.3f}")
print("Verdict:", registration.verdict.grade)
plt.show()

###############################################################################
# A metric of your choice
# -----------------------
# :doc:`/auto_examples/first_steps/plot_default_weights` shows what the default chooses
# for other contrasts. ``DeepRegistration("CC")``, local correlation, is for two images
# of the same contrast. It does not depend on the sign of the correlation. For opposite
# contrasts, such as b0 and T1, it therefore aligns some tissue with the wrong tissue.
# ``"MI"`` and ``"MIND"`` can be used for different contrasts. DIPY's ``EMMetric`` has
# no counterpart here: the correlation ratio :footcite:p:`Roche1998` is used instead,
# and a message says so.
#
# References
# ----------
# .. footbibliography::
