"""
The default weights on T1, b0 and FA
====================================

``DeepRegistration()`` needs no training and no choices. It begins with the word of a
small network that comes with the package, trained on images drawn from label maps in
contrasts of every kind, chooses what to compare the two images by, and refines. This
page shows both steps on four pairs of contrasts, SyN :footcite:p:`Avants2008` beside
them, and then on slices. The displacement that is sought is known, so that the error is
one in millimetres.
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
# What comes with the package
# ---------------------------
# Every network has a card: the licence, the command, the data and the settings that it
# was trained with. What it scored on real brains that it has not seen stands in the
# table of weights.

print("comes with the package:", *list_models())
name = DEFAULT_MODELS[3]
card = load_model(name).card
print(f"{name}: {card['licence']}")
print("trained by:", card["recipe"]["command"])
print("drawn as:", card["recipe"]["synthesis"])
print("mean Dice, network alone:", WEIGHTS[name].scores)

###############################################################################
# One brain in three contrasts
# ----------------------------
# The MNI152 template :footcite:p:`Fonov2011`, as nilearn bundles it: a T1 image without
# a skull. No b0 and no FA come with it, so these two are **made**, out of the
# template's maps of grey and white matter: fluid is bright in the b0 and dark in the
# FA, white matter the other way round, and the FA is lower in parts of the white
# matter, as it is where fibres cross. Real ones are harder: distorted, coarser, and
# cut out of the skull less neatly. :doc:`plot_syn_to_deep` has a real b0.

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
# The flow of a smooth random velocity: broad, up to a centimetre, with finer detail
# on it. *static* is the deformed brain. Noise is drawn for each image anew, and over
# *moving* lies a bias field, so that no image is the copy of another.


def smooth_flow(inside, *waves):
    """Displacement in voxels: waves are (standard deviation, peak), in voxels."""
    velocity = 0
    for sigma, peak in waves:
        noise = rng.normal(size=(inside.ndim, *inside.shape))
        wave = np.stack([gaussian_filter(part, sigma) for part in noise])
        velocity += wave * peak / np.linalg.norm(wave, axis=0)[inside].max()
    return exp(torch.from_numpy(velocity).float()[None])


def deformed(image, u):
    """An image through a displacement."""
    return warp(torch.from_numpy(image).float()[None, None], u)[0, 0].numpy()


def noisy(image, inside):
    """An image with the noise of a magnitude, 0 outside the brain."""
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
# Four pairs, three ways
# ----------------------
# - **SyN** with few iterations. Of one contrast, by local correlation; across contrasts
#   by that and by ``EMMetric``, of which the one that ends nearer to the truth is kept.
# - **The network alone**: ``level_iters=0``.
# - **The default**: the network, then refinement. Where the network's field is no use,
#   refinement begins without it: *network set aside*.
#
# All are given the images and nothing else; the second and the third choose by
# themselves what to compare them by.

grids = {"static_grid2world": grid2world, "moving_grid2world": grid2world}
messages = BufferingHandler(capacity=10_000)
logger.addHandler(messages)


def timed(registration, static, moving, **options):
    """A map and the seconds that it took."""
    start = time.perf_counter()
    mapping = registration.optimize(static=static, moving=moving, **options)
    return mapping, time.perf_counter() - start


def distance(mapping, truth):
    """How far a map is from the truth at every voxel, mm."""
    return np.linalg.norm(mapping.backward - truth, axis=-1)


def syn(metric, static, moving):
    """SyN's map, the seconds, and the metric's name."""
    registration = SymmetricDiffeomorphicRegistration(metric, level_iters=[10, 10, 5])
    return *timed(registration, static, moving, **grids), type(metric).__name__


def deep(static, moving, **options):
    """The map of this package, the seconds, and the metric's name."""
    registration = DeepRegistration(progress=False, **options)
    done = timed(registration, static, moving, **grids)
    kept = "" if registration.network_used else ", network set aside"
    return *done, registration.metric.name + kept


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
# What the log said of the default's choice. In short: local correlation for images of
# one contrast; for opposite contrasts local correlation after the intensities of moving
# are mapped to static's contrast, if a mapping explains enough; else self-similarity
# (MIND). ``DeepRegistration("MI")``, or another name, overrules it.

for pair, line in chosen.items():
    print(f"{pair}: {line}")

###############################################################################
# The moving image as each way warps it. The outlines are those of static's white
# matter and fluid, from the truth: tissue should fill them.

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
# How far each map is from the truth, in the same slice.

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
# Over the whole brain. The first call of all loads the weights, too.

before = np.linalg.norm(truth, axis=-1)[inside].mean()
for pair, ways in results.items():
    print(f"{pair}: before {before:.2f} mm")
    for name, (mapping, seconds, metric) in ways.items():
        error = distance(mapping, truth)[inside].mean()
        print(f"    {name:13} {error:5.2f} mm  {seconds:5.1f} s  {metric}")

###############################################################################
# Slices
# ------
# The same call on images of two dimensions takes ``"pyramid-slices"``. Here a real
# coronal slice of DIPY's :footcite:p:`Garyfallidis2014` is deformed, as T1 and with its
# intensities turned round as in a b0; refinement without a network stands beside.

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
# - ``"pyramid-brain"`` knows **brains without their skulls**, roughly aligned: register
#   affinely first (:func:`~dipy_dl_reg.deep_registration` does both).
# - Within a contrast, refinement often ends in the same place with the network's start
#   and without. The network is then set aside: ``registration.network_used`` is false.
#   ``model=None`` does not ask it at all.
# - **Across contrasts**, and above all from FA to T1, the two images show different
#   edges, and refinement, which follows edges, need not come nearer to the truth than
#   the network did. Where the table says so, ``level_iters=0`` is both better and
#   sooner.
# - **Large deformations** are more than the networks were trained for, those of slices
#   above all. :doc:`plot_large_deformation` searches instead.
# - One brain and a flow of it are kinder than two people are. The overlap of labels on
#   pairs of real brains, and on real b0 and FA, stands in :doc:`/networks`.
#
# References
# ----------
# .. footbibliography::
