"""
Large deformations: search, then refinement
===========================================

Refinement minimizes the metric by gradient descent and therefore finds the local
minimum next to its start. If a structure is displaced by more than its width, this may
match it to a neighbouring structure. ``initialization="discrete"`` first searches over
all displacements in a large window.
"""

# sphinx_gallery_thumbnail_number = 1

from dipy.data import get_fnames

# The first page of the tutorials links the file example_figures.py.
from example_figures import ERRORS, draw_slice, new_figure
from matplotlib import pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import DeepRegistration

###############################################################################
# A large known deformation
# -------------------------
# DIPY's coronal slice is deformed by the flow of a smooth random velocity field, with
# displacements of up to 40 voxels. Because this field is known, the error of each
# registration can be computed.

image = np.load(get_fnames(name="t1_coronal_slice")).astype(np.float32)
image = np.pad(image / image.max(), 24)
voxels = np.moveaxis(np.indices(image.shape), 0, -1)


def at(picture, points):
    """Interpolate a picture at points given in voxels."""
    axes = np.moveaxis(points, -1, 0)
    return map_coordinates(picture, axes, order=1, mode="nearest")


noise = np.random.default_rng(0).normal(size=(*image.shape, 2))
velocity = gaussian_filter(noise, (28, 28, 0))
velocity *= 69 / np.linalg.norm(velocity, axis=-1).max()
field = velocity / 2**8
for _ in range(8):  # scaling and squaring: the flow composed with itself
    field += np.stack(
        [at(part, voxels + field) for part in field.transpose(2, 0, 1)], -1
    )

moving, static = image, at(image, voxels + field)

###############################################################################
# Refinement alone, and after a search
# ------------------------------------
# The search describes every voxel by self-similarity descriptors: the dissimilarities
# of the patches around it (MIND-SSC :footcite:p:`Heinrich2013`), which depend little on
# the contrast. Every cell of a coarse grid is compared with all cells at a distance of
# up to a quarter of the image. A smooth field is then computed from these costs by
# coupled convex optimization :footcite:p:`Heinrich2014`, in both directions with
# inverse consistency, as in ConvexAdam :footcite:p:`Siebert2024`.
#
# With ``level_iters=0`` the map is the result of the search without refinement. After a
# search two levels of refinement are enough: on the coarse levels of the default, the
# images show too little to keep what the search has found.

ways = {
    "refinement alone": {},
    "search alone": {"initialization": "discrete", "level_iters": 0},
    "search, refinement": {"initialization": "discrete", "level_iters": [60, 40]},
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

fig, axes = new_figure(
    "The moving slice before registration and after refinement alone, search alone, "
    "and search and refinement, with outlines of the static slice. Only the last one "
    "follows them everywhere.",
    rows=2,
    columns=2,
)
warped = {"before": moving, **{name: m.transform(moving) for name, m in maps.items()}}
for ax, (name, picture) in zip(axes.flat, warped.items(), strict=True):
    outlines = {"outlines": static[view], "levels": (0.15, 0.6)}
    draw_slice(ax, picture[view], title=name, **outlines)

###############################################################################
# The error of each map. Refinement alone has found a local minimum: it matched parts of
# the cortex to their neighbours.

fig, axes = new_figure(
    "The distance to the true field, up to 20 voxels, of refinement alone, of the "
    "search alone, and of search and refinement.",
    columns=3,
    bar=True,
)
for ax, (name, mapping) in zip(axes[0], maps.items(), strict=True):
    error = np.where(brain, np.linalg.norm(mapping.backward - field, axis=-1), np.nan)
    options = {"cmap": ERRORS, "vmin": 0, "vmax": 20}
    drawn = draw_slice(ax, error[view], title=name, **options)
fig.colorbar(drawn, ax=axes, label="error, voxels", location="bottom", shrink=0.6)

###############################################################################
# Different contrasts
# -------------------
# With inverted intensities and a bias field, no intensity of the slice corresponds to a
# single tissue. The search works all the same, and the metric ``"MIND"`` uses the same
# descriptors in the refinement.

ramp = np.linspace(0.5, 1.5, image.shape[1])
other = np.where(image > 0.05, 1.1 - image, 0) * ramp
unlike = {
    metric: DeepRegistration(metric, progress=False, **ways["search, refinement"])
    for metric in ("MI", "MIND")
}
warped = {"moving": other}
for name, registration in unlike.items():
    mapping = registration.optimize(static=static, moving=other)
    warped[name] = mapping.transform(other)
    error = np.linalg.norm(mapping.backward - field, axis=-1)[brain]
    print(f"{name:4} error {np.sqrt(np.square(error).mean()):5.2f} voxels (RMS)")
fig, axes = new_figure(
    "The slice with inverted intensities and a bias field: before, and warped with "
    "the metrics MI and MIND, with outlines of the static slice.",
    columns=3,
)
for ax, (name, picture) in zip(axes[0], warped.items(), strict=True):
    outlines = {"outlines": static[view], "levels": (0.15, 0.6)}
    draw_slice(ax, picture[view], title=name, **outlines)
plt.show()

###############################################################################
# When to use it
# --------------
# ``initialization="auto"`` uses the result of the search only if a coarse refinement
# that starts from it reaches a clearly lower energy than one that does not. It is not
# the default, because the search takes longer than refining two images that are already
# close after an affine registration.
#
# References
# ----------
# .. footbibliography::
