"""
From SyN to DeepRegistration in one line
========================================

A script that uses DIPY's SyN :footcite:p:`Avants2008`, the class
:class:`~dipy.align.imwarp.SymmetricDiffeomorphicRegistration`, can use
:class:`~dipy_dl_reg.DeepRegistration` after one name is replaced: the arguments, the
call and the type of the map are the same.

This example registers a real b0 image, bundled with DIPY
:footcite:p:`Garyfallidis2014`, to the MNI152 T1 template :footcite:p:`Fonov2011`,
bundled with nilearn. The two contrasts are opposite: tissue that is dark in one image
is bright in the other.
"""

import time

from dipy.align import affine_registration
from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
from dipy.align.metrics import CCMetric, EMMetric
from dipy.data import get_fnames
from dipy.segment.mask import median_otsu
from matplotlib import pyplot as plt
import nibabel as nib
from nilearn.datasets import load_mni152_template
import numpy as np

from dipy_dl_reg import DeepRegistration

###############################################################################
# The two images
# --------------
# *static* is the template at 2 mm. *moving* is the b0: 4x4x5 mm on an oblique grid,
# with the top and the bottom of the brain outside the field of view. The template is
# skull-stripped, so the brain of the b0 is extracted as well.

template = load_mni152_template(resolution=2)
static, static_grid2world = template.get_fdata(dtype=np.float32), template.affine

b0 = nib.load(get_fnames(name="aniso_vox"))
moving_grid2world = b0.affine
moving, _ = median_otsu(b0.get_fdata(dtype=np.float32), median_radius=2, numpass=1)
print("static", static.shape, "moving", moving.shape)

###############################################################################
# The affine part
# ---------------
# DIPY's affine registration by mutual information. The template at 4 mm is enough,
# since the voxels of the b0 are not smaller. ``prealign`` maps the template's world to
# the b0's world.

coarse = load_mni152_template(resolution=4)
_, prealign = affine_registration(
    moving=moving,
    static=coarse.get_fdata(dtype=np.float32),
    moving_affine=moving_grid2world,
    static_affine=coarse.affine,
    pipeline=["center_of_mass", "rigid", "affine"],
    level_iters=[100, 30],
    sigmas=[1.5, 0.5],
    factors=[2, 1],
)

###############################################################################
# SyN
# ---
# The original script. DIPY's metric for different contrasts is ``EMMetric``;
# ``CCMetric`` (local correlation) is shown for comparison.

grids = {
    "static_grid2world": static_grid2world,
    "moving_grid2world": moving_grid2world,
    "prealign": prealign,
}
level_iters = [10, 10, 5]

mappings = {}
for metric in (EMMetric(3), CCMetric(3)):
    start = time.perf_counter()
    registration = SymmetricDiffeomorphicRegistration(metric, level_iters=level_iters)
    name = f"SyN, {type(metric).__name__}"
    mappings[name] = registration.optimize(static=static, moving=moving, **grids)
    print(f"{name}: {time.perf_counter() - start:.1f} s")

###############################################################################
# DeepRegistration
# ----------------
# The same script with one name replaced. DIPY's metric objects are accepted; instead of
# ``EMMetric`` this package uses the correlation ratio :footcite:p:`Roche1998` and logs
# a message about it. The second run uses the metric that works best for these two
# contrasts, mutual information :footcite:p:`Mattes2003`, given by its name.

for metric in (EMMetric(3), "MI"):
    start = time.perf_counter()
    registration = DeepRegistration(metric, level_iters=level_iters)
    name = f"Deep, {metric if isinstance(metric, str) else type(metric).__name__}"
    mappings[name] = registration.optimize(static=static, moving=moving, **grids)
    print(f"{name}: {time.perf_counter() - start:.1f} s")

mapping = mappings["Deep, MI"]
print("Type of the map:", type(mapping).__module__, type(mapping).__name__)

###############################################################################
# Comparison of the results
# -------------------------
# The b0 warped to the template by the affine part alone and by each map, with contours
# of the template. Compare the ventricles and the folds of the cortex.

affine_map = AffineMap(
    prealign,
    domain_grid_shape=static.shape,
    domain_grid2world=static_grid2world,
    codomain_grid_shape=moving.shape,
    codomain_grid2world=moving_grid2world,
)
warped = {"affine": affine_map.transform(moving)}
warped |= {name: mapping.transform(moving) for name, mapping in mappings.items()}

middle = [size // 2 for size in static.shape]
bright = np.percentile(moving[moving > 0], 99)
fig, rows = plt.subplots(5, 3, figsize=(9, 15), layout="constrained")
for row, (name, image) in zip(rows, warped.items(), strict=True):
    for axis, ax in enumerate(row):
        ax.imshow(
            image.take(middle[axis], axis).T, origin="lower", cmap="gray", vmax=bright
        )
        ax.contour(
            static.take(middle[axis], axis).T, [0.3, 0.6], colors="C1", linewidths=0.7
        )
        ax.set_axis_off()
    row[1].set_title(name)

###############################################################################
# Mutual information between the template and the warped b0 within the template's brain;
# higher is better. The last registration maximized this measure itself, so the figure
# above is the better comparison.


def mutual_information(first, second):
    """Mutual information of two lists of intensities, in nats."""
    joint = np.histogram2d(first, second, bins=32)[0]
    joint /= joint.sum()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    some = joint > 0
    return np.sum(joint[some] * np.log(joint[some] / apart[some]))


brain = static > 0
for name, image in warped.items():
    print(f"{name:17} {mutual_information(static[brain], image[brain]):.3f}")

###############################################################################
# After each registration the map is checked for folds and for its inversion error (in
# voxels).

for name, value in registration.quality._asdict().items():
    print(f"{name:24} {value:.3f}")

###############################################################################
# Which metric
# ------------
# ``DeepRegistration()`` chooses a metric for the pair and logs its choice: see
# :doc:`/auto_examples/first_steps/plot_default_weights`.
# ``DeepRegistration("CC")``, local correlation, is for two
# images of the same contrast. It does not depend on the sign of the correlation. For
# opposite contrasts, such as b0 and T1, it therefore aligns some tissue with the wrong
# tissue. ``"MI"`` and ``"MIND"`` can be used for different contrasts.
#
# References
# ----------
# .. footbibliography::
