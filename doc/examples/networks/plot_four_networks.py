"""
Four networks, one call
=======================

:func:`dipy_dl_reg.fit` trains a network on a list of images, and
:class:`~dipy_dl_reg.DeepRegistration` applies it to two new images (argument
``model``). Here four networks from the literature are trained to register handwritten
digits and are compared on digits that were not used in training. The same code trains
networks for volumes: every network works in 2D and in 3D.

:doc:`/auto_examples/method/plot_learned_registration` explains how such networks work.
"""

# sphinx_gallery_thumbnail_number = 2

# The first page of the tutorials links the file example_figures.py.
from example_figures import new_figure
from matplotlib import pyplot as plt
import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

from dipy_dl_reg import DeepRegistration, fit

###############################################################################
# Images
# ------
# Handwritten threes of 8x8 pixels, upsampled to 24x24, with a margin of 4 pixels.
# Images by the same writer follow each other in the data set. The first images are held
# out, so that the test images are by other writers than the training images.

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
#   times. In its diffeomorphic form :footcite:p:`Dalca2018`, the default here, it
#   predicts a stationary velocity field whose exponential map is the deformation.
# - The **U-Net** :footcite:p:`Ronneberger2015` is the basic architecture of this kind.
# - **DIRNet** :footcite:p:`deVos2017` predicts the displacements of the control points
#   of a B-spline. Here they are 8 pixels apart. Their displacements are bounded, so
#   that the field cannot fold, but 16 control points cannot represent fine detail.
# - The **self-supervised FCN** :footcite:p:`Li2017` predicts fields at three
#   resolutions, and the images are compared at each of them.
#
# All are trained without labels: the loss is the dissimilarity of the images (one minus
# their correlation) plus a penalty on rough fields.

recipes = {
    "voxelmorph": ({}, {"steps": 120, "learning_rate": 3e-3}),
    "unet": ({"output": "velocity"}, {"steps": 100, "learning_rate": 3e-3}),
    "dirnet": (
        {"grid_spacing": 8, "bounded": True},
        {"steps": 200, "learning_rate": 5e-3, "regularizer": None},
    ),
    "selfsup-fcn": (
        {"output": "velocity"},
        {"steps": 80, "learning_rate": 2e-3, "regularizer": "tv"},
    ),
}
common = {"batch_size": 16, "metric": "NCC", "weight": 0.03, "schedule": "cosine"}

networks = {}
for name, (arguments, options) in recipes.items():
    networks[name] = fit(
        name,
        training,
        network_arguments=arguments,
        **(common | options),
        progress=False,
    )
    weights = sum(w.numel() for w in networks[name].parameters())
    print(f"{name:12} {weights:7} weights")

###############################################################################
# Registration
# ------------
# With ``level_iters=0`` the result is the network's field; with iterations, that field
# would be refined for the given pair. For every network, the returned map has an
# inverse and no folds: this is checked, and repaired where necessary.

static, moving = held_out, held_out[10:] + held_out[:10]
warped, fields, jacobians = {}, {}, {}
for name, network in networks.items():
    registration = DeepRegistration("NCC", model=network, level_iters=0)
    registration.verbosity = 0  # no log
    warped[name], fields[name], jacobians[name] = [], [], []
    for s, m in zip(static, moving):
        mapping = registration.optimize(static=s, moving=m)
        warped[name].append(mapping.transform(m))
        fields[name].append(mapping.backward)
        jacobians[name].append(registration.quality.minimum_jacobian)


def correlation(first, second):
    """Mean correlation of corresponding images of two lists."""
    pairs = zip(first, second, strict=True)
    return np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])


print(f"{'before':12} correlation {correlation(static, moving):.3f}")
for name, images in warped.items():
    print(
        f"{name:12} correlation {correlation(static, images):.3f}, "
        f"least Jacobian determinant {min(jacobians[name]):.2f}"
    )

###############################################################################
# The first pairs. All networks deform *moving* to resemble *static*; the fields differ
# in their smoothness.


def show(row, images, titles=None):
    """Draw images in a row."""
    for column, (ax, image) in enumerate(zip(row, images, strict=True)):
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        ax.set_axis_off()
        if titles:
            ax.set_title(titles[column], fontsize=11)


fig, rows = new_figure(
    "Four pairs of handwritten threes: static, moving, and moving warped by each of "
    "the four networks. The warped digits resemble static.",
    rows=4,
    columns=6,
)
for index, row in enumerate(rows):
    images = [static[index], moving[index], *(warped[name][index] for name in warped)]
    show(row, images, ["static", "moving", *warped] if index == 0 else None)

###############################################################################
# The pixel grid of the first *static* image, mapped to *moving* by each network.

pixels = np.moveaxis(np.indices((32, 32)), 0, -1)
fig, axes = new_figure(
    "The bent pixel grid of one pair by each network. DIRNet's grid is the smoothest.",
    columns=4,
    aspect=1.1,
)
for ax, (name, all_fields) in zip(axes[0], fields.items(), strict=True):
    y, x = np.moveaxis(pixels + all_fields[0], -1, 0)
    ax.plot(x[::2].T, y[::2].T, color="#0072B2", linewidth=0.6)
    ax.plot(x[:, ::2], y[:, ::2], color="#0072B2", linewidth=0.6)
    ax.set(xlim=(-2, 33), ylim=(33, -2), aspect="equal", title=name)
    ax.set_axis_off()

###############################################################################
# Training on one pair
# --------------------
# The self-supervised FCN was proposed for registration without a training set: it is
# trained on the pair that is to be registered. This takes longer than applying a
# trained network, and the training must be repeated for every pair.

pair = static[0], moving[0]
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
before, after = (correlation([pair[0]], [image]) for image in (pair[1], alone))
print(f"correlation {before:.3f}, after the training on this pair {after:.3f}")

fig, axes = new_figure(
    "One pair of threes, and the moving one warped by the network that was trained on "
    "this pair, which looks like the static one.",
    columns=3,
)
show(axes[0], [*pair, alone], ["static", "moving", "warped"])
plt.show()

###############################################################################
# References
# ----------
# .. footbibliography::
