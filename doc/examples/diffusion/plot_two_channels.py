"""
b0 and FA together to T1 and FA
===============================

A b0 image shows the ventricles and the surface of the brain, but hardly the white
matter; FA shows the white matter and nothing else. A template often has T1 and FA.
:func:`~dipy_dl_reg.deep_registration` takes several images a side: one map is found for
all of them, and each is compared with its counterpart by a metric of its own.

The images of this example are simulated from the tissue maps of the MNI152 template
:footcite:p:`Fonov2011`, bundled with nilearn, so that the correct map is known.
"""

# sphinx_gallery_thumbnail_number = 1

from dipy.align.imwarp import DiffeomorphicMap

# The first page of the tutorials links the file example_figures.py.
from example_figures import ERRORS, draw_slice, new_figure
from matplotlib import pyplot as plt
from nilearn.datasets import (
    load_mni152_brain_mask,
    load_mni152_gm_template,
    load_mni152_template,
    load_mni152_wm_template,
)
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import DeepRegistration, deep_registration

###############################################################################
# The images
# ----------
# Static is the T1 template and an image with the contrast of FA: .5 in white matter,
# .15 in grey matter, .05 in fluid. The moving images, with the contrasts of b0 and of
# FA, are deformed by a smooth random field of up to 10 mm. All simulated images have
# noise, which in FA is as strong as in a short acquisition.

t1_image = load_mni152_template(resolution=3)
affine = t1_image.affine
t1, white, grey, brain = (
    image.get_fdata(dtype=np.float32)
    for image in (
        t1_image,
        load_mni152_wm_template(resolution=3),
        load_mni152_gm_template(resolution=3),
        load_mni152_brain_mask(resolution=3),
    )
)
brain = brain > 0
fluid = np.clip(1 - white - grey, 0, 1)
fa = np.where(brain, 0.5 * white + 0.15 * grey + 0.05 * fluid, 0)
b0 = np.where(brain, 0.35 * white + 0.5 * grey + 1.0 * fluid, 0)

rng = np.random.default_rng(3)
field = np.stack([gaussian_filter(rng.standard_normal(t1.shape), 5) for _ in range(3)])
field *= 10 / 3 / np.linalg.norm(field, axis=0)[brain].max()
places = np.indices(t1.shape) + field


def deform(image, sigma):
    """Deform an image by the field, and add noise inside the brain."""
    moved = map_coordinates(image, places, order=1)
    noise = rng.normal(0, sigma, image.shape)
    return np.where(moved > 0.02, np.abs(moved + noise), 0).astype(np.float32)


moving = {"b0": deform(b0, 0.03), "FA": deform(fa, 0.06)}
noise = rng.normal(0, 0.06, fa.shape)
static = {"T1": t1, "FA": np.where(fa > 0, np.abs(fa + noise), 0).astype(np.float32)}

###############################################################################
# Three registrations
# -------------------
# By b0 alone, by FA alone, and by both. The metrics are chosen for each channel: the
# intensities of b0 are mapped to the contrast of T1, which is possible because FA has
# aligned the images coarsely before. The weights of the channels are estimated from the
# images, too; ``channel_weights=[1, 1]`` would set them.

options = {"static_affine": affine, "moving_affine": affine, "progress": False}
maps = {}
for name, (moved, fixed) in {
    "b0 alone": (moving["b0"], static["T1"]),
    "FA alone": (moving["FA"], static["FA"]),
    "b0 and FA": ([moving["b0"], moving["FA"]], [static["T1"], static["FA"]]),
}.items():
    _, maps[name] = deep_registration(moving=moved, static=fixed, **options)

###############################################################################
# Distance from the known field
# -----------------------------
# Each point of the moving images lies where the field has moved it: the map from static
# to moving, followed by the field, must return to the same point.

points = np.argwhere(brain)
world = points @ affine[:3, :3].T + affine[:3, 3]
errors = {}
for name, mapping in maps.items():
    found = (mapping.transform_points(world) - affine[:3, 3]) / np.diag(affine)[:3]
    back = found + np.stack(
        [map_coordinates(part, found.T, order=1, mode="nearest") for part in field], -1
    )
    errors[name] = np.full(t1.shape, np.nan)
    errors[name][tuple(points.T)] = 3 * np.linalg.norm(back - points, axis=1)
    rms = np.sqrt(np.nanmean(errors[name] ** 2))
    print(f"{name:10} root mean square error {rms:.2f} mm")

###############################################################################
# Here the map of b0 alone is the closest to the known field: its noise is weak, and the
# anatomy maps of both images give the function from the contrast of b0 to that of T1.
# The map of both is between that and the map of the noisy FA. A second image helps
# where it shows what the first does not, and costs where it is noisier: compare maps of
# your data with and without it.

shown = {"static T1": static["T1"], "static FA": static["FA"]}
shown |= {"moving b0": moving["b0"], "moving FA": moving["FA"]}
fig, axes = new_figure(
    "The four images in an axial slice: T1 and FA of static; b0 and FA of moving, "
    "which are deformed and noisy.",
    rows=2,
    columns=2,
    aspect=1.2,
)
for ax, (name, image) in zip(axes.flat, shown.items(), strict=True):
    draw_slice(ax, image, affine, at=9, title=name)

fig, axes = new_figure(
    "The error of the three maps in the same slice, up to 5 mm: by b0 alone, by FA "
    "alone, and by both.",
    columns=3,
    aspect=1.2,
    bar=True,
)
for ax, (name, error) in zip(axes[0], errors.items(), strict=True):
    options = {"cmap": ERRORS, "vmin": 0, "vmax": 5}
    drawn = draw_slice(ax, error, affine, at=9, title=name, **options)
fig.colorbar(drawn, ax=axes, label="error, mm", location="bottom", shrink=0.6)
plt.show()

###############################################################################
# The class
# ---------
# :class:`~dipy_dl_reg.DeepRegistration` takes arrays with the channels on their last
# axis, and a metric for each channel. The map is an ordinary map of DIPY, which
# transforms any image of the moving subject.

registration = DeepRegistration(["auto", "CC"], level_iters=[20, 10], progress=False)
mapping = registration.optimize(
    static=np.stack(list(static.values()), -1),
    moving=np.stack(list(moving.values()), -1),
    static_grid2world=affine,
    moving_grid2world=affine,
)
print(registration.metric.name, np.round(registration.metric.weights, 2))
assert isinstance(mapping, DiffeomorphicMap)

###############################################################################
# References
# ----------
# .. footbibliography::
