"""
From SyN to DeepRegistration in one line
========================================

A script written for DIPY's SyN :footcite:p:`Avants2008`, that is for
:class:`~dipy.align.imwarp.SymmetricDiffeomorphicRegistration`, runs with
:class:`~dipy_dl_reg.DeepRegistration` when one name in it is replaced: the arguments,
the call and the map are the same.

Here it brings a real b0, bundled with DIPY :footcite:p:`Garyfallidis2014`, to the
MNI152 T1 template :footcite:p:`Fonov2011`, bundled with nilearn. The two contrasts are
opposite: what is dark in the one is bright in the other.
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
# *static* is the template, at 2 mm; *moving* is the b0: 4x4x5 mm, oblique, its top and
# bottom cut off. The template is a brain without a skull, so the b0's brain is cut out
# too.

template = load_mni152_template(resolution=2)
static, static_grid2world = template.get_fdata(dtype=np.float32), template.affine

b0 = nib.load(get_fnames(name="aniso_vox"))
moving_grid2world = b0.affine
moving, _ = median_otsu(b0.get_fdata(dtype=np.float32), median_radius=2, numpass=1)
print("static", static.shape, "moving", moving.shape)

###############################################################################
# The affine part
# ---------------
# DIPY does this, by mutual information, here on a 4 mm template, which is as fine as
# the b0. ``prealign`` takes the template's world to the b0's.

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
# The script as it was. DIPY's metric for two contrasts is ``EMMetric``; ``CCMetric``,
# local correlation, is run too.

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
# One name replaced. DIPY's own metric is taken as it is; for ``EMMetric`` this package
# has the correlation ratio :footcite:p:`Roche1998`, and says so. Then the metric that
# suits these two contrasts best here, mutual information :footcite:p:`Mattes2003`,
# by its name.

for metric in (EMMetric(3), "MI"):
    start = time.perf_counter()
    registration = DeepRegistration(metric, level_iters=level_iters)
    name = f"Deep, {metric if isinstance(metric, str) else type(metric).__name__}"
    mappings[name] = registration.optimize(static=static, moving=moving, **grids)
    print(f"{name}: {time.perf_counter() - start:.1f} s")

mapping = mappings["Deep, MI"]
print("The map is DIPY's own:", type(mapping).__module__, type(mapping).__name__)

###############################################################################
# What they give
# --------------
# The template's outlines over the b0, warped to it by the affine part alone and by each
# map. Look at the ventricles and at the folds of the cortex.

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
# In numbers: mutual information between the template and the warped b0, within the
# template's brain. Higher is better; but it is what the last one was asked for, so the
# picture is the fairer judge.


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
# After each run the map is checked for folds, and that its two directions undo each
# other (in voxels).

for name, value in registration.quality._asdict().items():
    print(f"{name:24} {value:.3f}")

###############################################################################
# Which metric
# ------------
# ``DeepRegistration()`` chooses it for the pair, and the log says what it chose: see
# :doc:`plot_default_weights`. ``DeepRegistration("CC")``, local correlation, is for two
# images of one contrast. On two contrasts, such as b0 and T1, it pulls tissue onto the
# wrong tissue, because it takes dark on bright for as good a match as bright on bright;
# ``"MI"`` and ``"MIND"`` do not.
#
# References
# ----------
# .. footbibliography::
