"""
Large deformations: search first, then refine
=============================================

Refinement goes downhill from where the images lie. Where anatomy has moved by more than
the width of what surrounds it, downhill leads to the wrong neighbour.
``initialization="discrete"`` tries all displacements of a wide window first.
"""

from dipy.data import get_fnames
from matplotlib import pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import DeepRegistration

###############################################################################
# A brain that is far off
# -----------------------
# DIPY's coronal slice, and the same pulled about by the flow of a smooth random
# velocity: up to 40 voxels. As the field is known, so is the error of what
# registration finds.

image = np.load(get_fnames(name="t1_coronal_slice")).astype(np.float32)
image = np.pad(image / image.max(), 24)
voxels = np.moveaxis(np.indices(image.shape), 0, -1)


def at(picture, points):
    """A picture at these voxels."""
    axes = np.moveaxis(points, -1, 0)
    return map_coordinates(picture, axes, order=1, mode="nearest")


noise = np.random.default_rng(0).normal(size=(*image.shape, 2))
velocity = gaussian_filter(noise, (28, 28, 0))
velocity *= 69 / np.linalg.norm(velocity, axis=-1).max()
field = velocity / 2**8
for _ in range(8):  # the flow, by composing a short one with itself
    field += np.stack(
        [at(part, voxels + field) for part in field.transpose(2, 0, 1)], -1
    )

moving, static = image, at(image, voxels + field)

###############################################################################
# Refinement alone, and after a search
# ------------------------------------
# The search describes every voxel by its self-similarity: how unlike the patches around
# it are to one another (MIND-SSC :footcite:p:`Heinrich2013`), which is much the same in
# any contrast. Every cell of a coarse grid compares itself with all cells up to a
# quarter of the image away. Many of them look alike; a smooth field out of all those
# likenesses comes from coupled convex optimisation :footcite:p:`Heinrich2014`, both
# ways and made consistent, as in ConvexAdam :footcite:p:`Siebert2024`.
#
# With ``level_iters=0`` the map is the search's own, fit to be refined.

ways = {
    "refinement alone": {},
    "search alone": {"initialization": "discrete", "level_iters": 0},
    "search, refinement": {"initialization": "discrete"},
}
maps = {
    name: DeepRegistration(model=None, progress=False, **how).optimize(
        static=static, moving=moving
    )
    for name, how in ways.items()
}

brain = static > 0.1
view = slice(30, 230), slice(60, 250)
for name, mapping in maps.items():
    error = np.linalg.norm(mapping.backward - field, axis=-1)[brain]
    print(f"{name:19} error {np.sqrt(np.square(error).mean()):5.2f} voxels (RMS)")

fig, rows = plt.subplots(2, 4, figsize=(12, 6.6), layout="constrained")
shown = {"before": moving, **{name: m.transform(moving) for name, m in maps.items()}}
for (name, warped), (above, below) in zip(shown.items(), rows.T):
    above.imshow(warped[view], cmap="gray", vmin=0, vmax=1)
    above.contour(static[view], [0.15, 0.6], colors="C1", linewidths=0.7)
    above.set_title(name)
    found = maps[name].backward if name in maps else np.zeros_like(field)
    error = np.where(brain, np.linalg.norm(found - field, axis=-1), np.nan)
    drawn = below.imshow(error[view], cmap="magma", vmin=0, vmax=20)
    for ax in (above, below):
        ax.set_axis_off()
fig.colorbar(drawn, ax=rows, label="distance to the true field, voxels")

###############################################################################
# Above, the moving slice as each map warps it, and the static one's outlines. Below,
# how far each is from the truth.
#
# Unlike contrasts
# ----------------
# Upside down and under a bias field, the slice has no intensity that means one tissue.
# The search does not mind, and ``"MIND"`` refines by the same descriptors.

ramp = np.linspace(0.5, 1.5, image.shape[1])
other = np.where(image > 0.05, 1.1 - image, 0) * ramp
unlike = {
    "MI": DeepRegistration("MI", initialization="discrete", progress=False),
    "MIND": DeepRegistration("MIND", initialization="discrete", progress=False),
}
fig, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
pictures = {"moving": other}
for name, registration in unlike.items():
    mapping = registration.optimize(static=static, moving=other)
    pictures[f"warped, {name}"] = mapping.transform(other)
    error = np.linalg.norm(mapping.backward - field, axis=-1)[brain]
    print(f"{name:4} error {np.sqrt(np.square(error).mean()):5.2f} voxels (RMS)")
for ax, (name, picture) in zip(axes, pictures.items()):
    ax.imshow(picture[view], cmap="gray")
    ax.contour(static[view], [0.15, 0.6], colors="C1", linewidths=0.7)
    ax.set_title(name)
    ax.set_axis_off()

###############################################################################
# When to use it
# --------------
# ``initialization="auto"`` keeps what the search finds only if a coarse refinement ends
# at a clearly lower energy from there than without. It is no default: it takes longer
# than refining two images that an affine registration has brought close.
#
# References
# ----------
# .. footbibliography::
