"""
Four networks, one call
=======================

:func:`dipy_dl_reg.fit` trains a network on a list of images;
:class:`~dipy_dl_reg.DeepRegistration` uses it, as ``model``, on two new ones. Here four
networks from the literature learn to register handwritten digits, and are looked at
side by side on digits that none has seen. The same lines, with volumes in place of the
digits, train on brains: every network works in 2D and in 3D.

:doc:`plot_learned_registration` shows what happens inside.
"""

import time

from dipy.align import VerbosityLevels
from matplotlib import pyplot as plt
import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

from dipy_dl_reg import DeepRegistration, fit

###############################################################################
# Images
# ------
# Handwritten threes, 8x8 pixels, enlarged to 24x24, with a margin of 4 pixels. Images
# of one hand stand together in the data set: the first ones are put aside, so that the
# test is on other hands.

digits = load_digits()
smooth = {"order": 3, "mode": "grid-constant", "grid_mode": True}
threes = [
    np.pad(zoom(image / 16, 3, **smooth).clip(0, 1), 4)
    for image in digits.images[digits.target == 3]
]
held_out, training = threes[:20], threes[20:]
print(f"{len(training)} digits to train with, {len(held_out)} held out")

###############################################################################
# Training
# --------
# - **VoxelMorph** :footcite:p:`Balakrishnan2018` is a U-Net that halves the image four
#   times; in its diffeomorphic form :footcite:p:`Dalca2018`, the default here, it
#   predicts a velocity, whose flow is the field.
# - The **U-Net** :footcite:p:`Ronneberger2015` is the plain form of that.
# - **DIRNet** :footcite:p:`deVos2017` moves the control points of a B-spline. They
#   stand 8 pixels apart here, and bounded as they are they cannot fold the field; but
#   16 of them cannot follow every detail either.
# - The **self-supervised FCN** :footcite:p:`Li2017` predicts fields at three
#   resolutions, and compares the images at each.
#
# All learn from the images alone, by their correlation, with a penalty on rough fields.

recipes = {
    "voxelmorph": ({}, {"steps": 200, "learning_rate": 2e-3}),
    "unet": ({"output": "velocity"}, {"steps": 150, "learning_rate": 2e-3}),
    "dirnet": (
        {"grid_spacing": 8, "bounded": True},
        {"steps": 300, "learning_rate": 5e-3, "regularizer": None},
    ),
    "selfsup-fcn": (
        {"output": "velocity"},
        {"steps": 100, "learning_rate": 2e-3, "regularizer": "tv"},
    ),
}
common = {"batch_size": 16, "metric": "NCC", "weight": 0.03, "schedule": "cosine"}

networks = {}
for name, (arguments, options) in recipes.items():
    start = time.perf_counter()
    networks[name] = fit(
        name,
        training,
        network_arguments=arguments,
        **(common | options),
        progress=False,
    )
    weights = sum(w.numel() for w in networks[name].parameters())
    seconds = time.perf_counter() - start
    print(f"{name:12} {weights:7} weights, trained in {seconds:4.1f} s")

###############################################################################
# Registration
# ------------
# ``level_iters=0`` leaves it to the network alone; with iterations, its field would be
# the start of a refinement on this very pair. Whatever a network says, the map that
# comes back has an inverse and does not fold: that is checked, and repaired where need
# be.

static, moving = held_out, held_out[10:] + held_out[:10]
warped, fields, jacobians = {}, {}, {}
for name, network in networks.items():
    registration = DeepRegistration("NCC", model=network, level_iters=0)
    registration.verbosity = VerbosityLevels.NONE
    warped[name], fields[name], jacobians[name] = [], [], []
    for s, m in zip(static, moving):
        mapping = registration.optimize(static=s, moving=m)
        warped[name].append(mapping.transform(m))
        fields[name].append(mapping.backward)
        jacobians[name].append(registration.quality.minimum_jacobian)


def correlation(first, second):
    """Mean correlation of the images of two lists."""
    pairs = zip(first, second, strict=True)
    return np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])


print(f"{'before':12} correlation {correlation(static, moving):.3f}")
for name, images in warped.items():
    print(
        f"{name:12} correlation {correlation(static, images):.3f}, "
        f"least Jacobian determinant {min(jacobians[name]):.2f}"
    )

###############################################################################
# The first pairs. All networks bend *moving* into *static*; they differ in how freely.


def show(row, images, titles=None):
    """Draw images in a row."""
    for column, (ax, image) in enumerate(zip(row, images, strict=True)):
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        ax.set_axis_off()
        if titles:
            ax.set_title(titles[column])


fig, rows = plt.subplots(5, 6, figsize=(10, 8.5), layout="constrained")
for index, row in enumerate(rows):
    images = [static[index], moving[index], *(warped[name][index] for name in warped)]
    show(row, images, ["static", "moving", *warped] if index == 0 else None)

###############################################################################
# Where the rows and columns of the first *static*'s pixels come to lie in its *moving*.

pixels = np.moveaxis(np.indices((32, 32)), 0, -1)
fig, row = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
for ax, (name, all_fields) in zip(row, fields.items(), strict=True):
    y, x = np.moveaxis(pixels + all_fields[0], -1, 0)
    ax.plot(x[::2].T, y[::2].T, color="C0", linewidth=0.6)
    ax.plot(x[:, ::2], y[:, ::2], color="C0", linewidth=0.6)
    ax.set(xlim=(-2, 33), ylim=(33, -2), aspect="equal", title=name)
    ax.set_axis_off()

###############################################################################
# One pair is enough
# ------------------
# The self-supervised FCN was made for this: no data set, no training beforehand.
# Training on a single pair *is* its registration. It takes longer, and nothing is
# learned for the next pair.

pair = static[0], moving[0]
start = time.perf_counter()
network = fit(
    "selfsup-fcn",
    [pair],
    network_arguments={"output": "velocity"},
    steps=80,
    learning_rate=1e-3,
    metric="NCC",
    regularizer="tv",
    weight=0.03,
    progress=False,
)
registration = DeepRegistration("NCC", model=network, level_iters=0)
mapping = registration.optimize(static=pair[0], moving=pair[1])
alone = mapping.transform(pair[1])
print(
    f"correlation {correlation([pair[0]], [pair[1]]):.3f}, after "
    f"{time.perf_counter() - start:.1f} s {correlation([pair[0]], [alone]):.3f}"
)

fig, row = plt.subplots(1, 3, figsize=(7, 2.6), layout="constrained")
show(row, [*pair, alone], ["static", "moving", "warped"])

###############################################################################
# References
# ----------
# .. footbibliography::
