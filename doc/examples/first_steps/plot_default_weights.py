"""
The default network on T1, b0 and FA
====================================

``DeepRegistration()`` needs no training and no options. It first applies a small
network that comes with the package and was trained on synthetic images of many
contrasts. It then chooses a metric for the pair and refines the network's field. This
page compares the network alone, the default and SyN :footcite:p:`Avants2008` on four
pairs of contrasts, and then on slices. The true displacement is known, so the error can
be measured in millimetres.
"""

from logging.handlers import BufferingHandler
import time

from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
from dipy.align.metrics import CCMetric, EMMetric
from dipy.data import get_fnames
from dipy.utils.logging import logger
from matplotlib import pyplot as plt
from nilearn.datasets import (
    load_mni152_gm_template,
    load_mni152_template,
    load_mni152_wm_template,
)
import numpy as np
from scipy.ndimage import gaussian_filter
import torch

from dipy_dl_reg import DeepRegistration, list_models, load_model
from dipy_dl_reg.geometry.fields import exp, warp
from dipy_dl_reg.networks.pretrained import DEFAULT_MODELS, WEIGHTS

###############################################################################
# The trained networks
# --------------------
# Every network has a card with its licence and the command, data and settings of its
# training. ``WEIGHTS`` also contains its scores on real brains that were not used in
# training.

print("networks of the package:", *list_models())
name = DEFAULT_MODELS[3]
card = load_model(name).card
print(f"{name}: {card['licence']}")
print("trained by:", card["recipe"]["command"])
print("training images:", card["recipe"]["synthesis"])
print("mean Dice, network alone:", WEIGHTS[name].scores)

###############################################################################
# One brain in three contrasts
# ----------------------------
# The MNI152 template :footcite:p:`Fonov2011`, bundled with nilearn, is a skull-stripped
# T1 image. The b0 and FA images are **simulated** from the template's maps of grey and
# white matter: cerebrospinal fluid is bright in the b0 and dark in the FA, and white
# matter is dark in the b0 and bright in the FA. The FA is lower in parts of the white
# matter, as it is where fibres cross. Real images are harder to register: they are
# distorted, have a lower resolution, and their brain masks have errors.
# :doc:`/auto_examples/first_steps/plot_syn_to_deep` uses a real b0.

SPACING = 2
view = slice(10, 89), slice(11, 107), slice(0, 81)
template, *tissues = (
    load(resolution=SPACING)
    for load in (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
)
t1, grey, white = (x.get_fdata(dtype=np.float32)[view] for x in (template, *tissues))
grid2world = template.slicer[view].affine

rng = np.random.default_rng(0)
brain = t1 > 0.05
fluid = np.clip(1 - grey - white, 0, 1) * brain
patches = gaussian_filter(rng.normal(size=t1.shape), 3)
coherent = 0.3 + 0.4 / (1 + np.exp(-1.5 * patches / patches.std()))
images = {
    "T1": t1,
    "b0": gaussian_filter(0.95 * fluid + 0.52 * grey + 0.36 * white, 0.5),
    "FA": gaussian_filter(0.06 * fluid + 0.16 * grey + coherent * white, 0.5),
}

###############################################################################
# A known deformation
# -------------------
# The deformation is the exponential map of a random velocity field: a smooth part of up
# to a centimetre, and a part with finer detail. *static* is the deformed brain. Each
# image has its own noise, and *moving* has a bias field.


def smooth_flow(inside, *waves):
    """Random displacement; waves are (standard deviation, maximum), in voxels."""
    velocity = 0
    for sigma, peak in waves:
        noise = rng.normal(size=(inside.ndim, *inside.shape))
        wave = np.stack([gaussian_filter(part, sigma) for part in noise])
        velocity += wave * peak / np.linalg.norm(wave, axis=0)[inside].max()
    return exp(torch.from_numpy(velocity).float()[None])


def deformed(image, u):
    """Warp an image by a displacement."""
    return warp(torch.from_numpy(image).float()[None, None], u)[0, 0].numpy()


def noisy(image, inside):
    """Add the noise of a magnitude image; 0 outside the brain."""
    noise = rng.normal(0, 0.03, image.shape)
    return np.where(inside, np.abs(image + noise), 0).astype(np.float32)


u = smooth_flow(brain, (15 / SPACING, 10 / SPACING), (6 / SPACING, 4 / SPACING))
truth = SPACING * np.moveaxis(u[0].numpy(), 0, -1)
inside = deformed(brain, u) > 0.5
bias = np.linspace(0.8, 1.2, t1.shape[1])[:, None]
static = {kind: noisy(deformed(image, u), inside) for kind, image in images.items()}
moving = {kind: noisy(image * bias, brain) for kind, image in images.items()}

fig, rows = plt.subplots(2, 3, figsize=(8, 6.6), layout="constrained")
for row, pair in zip(rows, (static, moving), strict=True):
    for ax, kind in zip(row, images, strict=True):
        ax.imshow(pair[kind][:, :, 44].T, origin="lower", cmap="gray")
        ax.set_title(f"{kind}, {'static' if pair is static else 'moving'}")
        ax.set_axis_off()

###############################################################################
# Four pairs, three methods
# -------------------------
# - **SyN** with few iterations. Images of the same contrast are compared by local
#   correlation. For different contrasts, both local correlation and ``EMMetric`` are
#   tried, and the result with the smaller error is shown.
# - **The network alone**: ``level_iters=0``.
# - **The default**: the network, then refinement. If the network's field does not align
#   the images better than no displacement, refinement begins without it (*network not
#   used*).
#
# The network alone and the default choose the metric themselves.

grids = {"static_grid2world": grid2world, "moving_grid2world": grid2world}
messages = BufferingHandler(capacity=10_000)
logger.addHandler(messages)


def timed(registration, static, moving, **options):
    """Register; return the map and the time in seconds."""
    start = time.perf_counter()
    mapping = registration.optimize(static=static, moving=moving, **options)
    return mapping, time.perf_counter() - start


def distance(mapping, truth):
    """Distance between a map and the true displacement at every voxel, mm."""
    return np.linalg.norm(mapping.backward - truth, axis=-1)


def syn(metric, static, moving):
    """Run SyN; return the map, the time, and the metric's name."""
    registration = SymmetricDiffeomorphicRegistration(metric, level_iters=[10, 10, 5])
    return *timed(registration, static, moving, **grids), type(metric).__name__


def deep(static, moving, **options):
    """Run this package; return the map, the time, and the metric's name."""
    registration = DeepRegistration(progress=False, **options)
    done = timed(registration, static, moving, **grids)
    note = "" if registration.network_used else ", network not used"
    return *done, registration.metric.name + note


pairs = {
    "T1 to T1": ("T1", "T1"),
    "b0 to T1": ("b0", "T1"),
    "FA to FA": ("FA", "FA"),
    "FA to T1": ("FA", "T1"),
}
results, chosen = {}, {}
for pair, (kind, other) in pairs.items():
    two = static[other], moving[kind]
    metrics = [CCMetric(3)] if kind == other else [CCMetric(3), EMMetric(3)]
    maps = [syn(metric, *two) for metric in metrics]
    best = min(maps, key=lambda result: distance(result[0], truth)[inside].mean())
    alone, default = deep(*two, level_iters=0), deep(*two)
    results[pair] = {"SyN": best, "network alone": alone, "default": default}
    said = [record.getMessage() for record in messages.buffer]
    chosen[pair] = next(line for line in said[::-1] if line.startswith("Metric"))

###############################################################################
# The log states which metric was chosen and why. Images of the same contrast are
# compared by local correlation. For different contrasts, the intensities of moving are
# first mapped to static's contrast; if such a mapping explains too little of static's
# variance, self-similarity (MIND) is used instead. ``DeepRegistration("MI")``, or
# another name, sets the metric.

for pair, line in chosen.items():
    print(f"{pair}: {line}")

###############################################################################
# The moving image warped by each method, with contours of static's white matter and
# cerebrospinal fluid. The contours were computed with the true displacement; after a
# correct registration they follow the edges of the image.

level = 44
ventricles = gaussian_filter(fluid, 0.7)  # and not the thin fluid at the brain's rim
outlines = [deformed(tissue, u)[:, :, level].T for tissue in (white, ventricles)]
columns = ["before", "SyN", "network alone", "default"]
fig, rows = plt.subplots(4, 4, figsize=(10, 12.4), layout="constrained")
for row, (pair, (kind, _)) in zip(rows, pairs.items(), strict=True):
    for ax, name in zip(row, columns, strict=True):
        title, image = f"{pair}: {name}", moving[kind]
        if name != "before":
            mapping, _, metric = results[pair][name]
            title, image = f"{name} ({metric})", mapping.transform(image)
        ax.imshow(image[:, :, level].T, origin="lower", cmap="gray")
        for outline, color in zip(outlines, ("C1", "C9"), strict=True):
            ax.contour(outline, [0.5], colors=color, linewidths=0.7)
        ax.set_title(title, fontsize="medium")
        ax.set_axis_off()

###############################################################################
# Error of each map in the same slice.

fig, rows = plt.subplots(4, 4, figsize=(10.6, 12), layout="constrained")
for row, pair in zip(rows, pairs, strict=True):
    for ax, name in zip(row, columns, strict=True):
        found = results[pair].get(name)
        error = distance(found[0], truth) if found else np.linalg.norm(truth, axis=-1)
        error = np.where(inside, error, np.nan)[:, :, level]
        drawn = ax.imshow(error.T, origin="lower", cmap="magma", vmin=0, vmax=5)
        ax.set_title(f"{pair}: {name}", fontsize="medium")
        ax.set_axis_off()
fig.colorbar(drawn, ax=rows, label="distance to the true displacement, mm", shrink=0.5)

###############################################################################
# Mean error over the whole brain. The time of the first call includes loading the
# weights.

before = np.linalg.norm(truth, axis=-1)[inside].mean()
for pair, ways in results.items():
    print(f"{pair}: before {before:.2f} mm")
    for name, (mapping, seconds, metric) in ways.items():
        error = distance(mapping, truth)[inside].mean()
        print(f"    {name:13} {error:5.2f} mm  {seconds:5.1f} s  {metric}")

###############################################################################
# Slices
# ------
# For 2D images the same call uses the network ``"pyramid-slices"``. Here a real coronal
# slice bundled with DIPY :footcite:p:`Garyfallidis2014` is deformed. The moving image
# is the T1 slice, or the same slice with intensities remapped to look like a b0.
# Refinement without a network is shown for comparison.

coronal = np.load(get_fnames(name="t1_coronal_slice"))[24:190, 38:220]
look = {"T1": coronal}
look["b0"] = np.interp(coronal, [0, 0.05, 0.3, 0.6, 0.8], [0, 0.95, 0.95, 0.52, 0.36])
tissue = coronal > 0.05
u = smooth_flow(tissue, (20, 20))
truth, within = np.moveaxis(u[0].numpy(), 0, -1), deformed(tissue, u) > 0.5
fixed = noisy(deformed(coronal, u), within)
ways = {
    "no network": {"model": None},
    "network alone": {"level_iters": 0},
    "default": {},
}

fig, rows = plt.subplots(2, 4, figsize=(11, 5.6), layout="constrained")
for row, (kind, image) in zip(rows, look.items(), strict=True):
    image = noisy(image, tissue)
    shown = {f"{kind} to T1: before": image}
    before = np.linalg.norm(truth, axis=-1)[within].mean()
    print(f"{kind} to T1: before {before:.2f} voxels")
    for name, options in ways.items():
        registration = DeepRegistration(progress=False, **options)
        mapping, seconds = timed(registration, fixed, image)
        error = distance(mapping, truth)[within].mean()
        print(f"    {name:13} {error:5.2f} voxels  {seconds:5.1f} s")
        shown[f"{name}: {error:.1f} voxels off"] = mapping.transform(image)
    for ax, (title, picture) in zip(row, shown.items(), strict=True):
        ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
        ax.contour(fixed * within, [0.1, 0.55], colors="C1", linewidths=0.6)
        ax.set_title(title, fontsize="medium")
        ax.set_axis_off()
logger.removeHandler(messages)

###############################################################################
# What to expect
# --------------
# - ``"pyramid-brain"`` is for **skull-stripped brains** after an affine registration
#   (:func:`~dipy_dl_reg.deep_registration` does both steps).
# - For images of the same contrast, refinement often gives the same result with and
#   without the network. ``registration.network_used`` states whether the network's
#   field was used; ``model=None`` does not apply the network.
# - For **different contrasts**, above all FA and T1, the two images have edges in
#   different places. Refinement aligns edges, so it does not always reduce the error of
#   the network. Where the table shows this, ``level_iters=0`` is more accurate and
#   faster.
# - **Large deformations** exceed the range that the networks were trained for, above
#   all for slices. Use the search shown in
#   :doc:`/auto_examples/difficult/plot_large_deformation`.
# - Registering an image to a deformed copy of itself is easier than registering two
#   people. :doc:`/networks` has the overlap of labels for pairs of real brains, and
#   results for real b0 and FA images.
#
# References
# ----------
# .. footbibliography::
