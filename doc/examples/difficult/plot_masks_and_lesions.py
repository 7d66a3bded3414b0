"""
Masks and lesions
=================

If only one of the images shows a lesion, a tumour or an implant, registration deforms
the healthy tissue of the other image to match it, and the map is wrong in and around
the lesion. A mask excludes those voxels from the comparison; the map is then
interpolated smoothly from the surrounding tissue. This is called cost function masking
:footcite:p:`Brett2001`.

Here a lesion is added to a brain that was deformed by a known field, so that the error
of the map can be measured with and without the mask.
"""

# sphinx_gallery_thumbnail_number = 1

# The first page of the tutorials links the file example_figures.py.
from example_figures import ERRORS, OUTLINE, draw_contour, draw_slice, new_figure
from matplotlib import pyplot as plt
from nilearn.datasets import load_mni152_template
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import DeepRegistration

###############################################################################
# Two images, one with a lesion
# -----------------------------
# *moving* is the MNI152 template :footcite:p:`Fonov2011`, bundled with nilearn, at
# 4 mm. *static* is the same brain deformed by a smooth random field. Noise is added to
# both.

template = load_mni152_template(resolution=4)
healthy, grid2world = template.get_fdata(dtype=np.float32), template.affine
healthy = np.where(healthy > 0.1, healthy / healthy.max(), 0)  # zero background
size = 4.0  # mm

rng = np.random.default_rng(0)
voxels = np.moveaxis(np.indices(healthy.shape, dtype=np.float32), 0, -1)
truth = gaussian_filter(rng.normal(size=(*healthy.shape, 3)), (5, 5, 5, 0))
truth *= 12 / np.linalg.norm(truth, axis=-1).max()  # at most 12 mm


def at(image, points, order=1):
    """Interpolate an image at points given in voxels."""
    return map_coordinates(image, np.moveaxis(points, -1, 0), order=order)


def noisy(image):
    """Add noise inside the brain."""
    noise = rng.normal(size=image.shape)
    return np.where(image > 0, image + 0.02 * noise, 0).clip(0).astype(np.float32)


static = noisy(at(healthy, voxels + truth / size))

###############################################################################
# The lesion is a dark ball of 18 mm radius with an irregular surface in the white
# matter of *moving*. Its mask is a little larger, as one drawn by hand would be.

centre = np.array([33, 28, 26])
ragged = gaussian_filter(rng.normal(size=healthy.shape), 2)
away = np.linalg.norm(voxels - centre, axis=-1) + ragged / ragged.std()
lesion = (away * size < 18) & (healthy > 0)
drawn = (away * size < 21) & (healthy > 0)
diseased = noisy(np.where(lesion, 0.15, healthy))

###############################################################################
# With and without the mask
# -------------------------
# ``moving_mask`` is an image on moving's grid. Only voxels where it is not 0 are
# compared, so it must be 0 in the lesion. ``static_mask`` is used for a lesion in
# static. For comparison, the pair without a lesion is registered too.

options = {"static_grid2world": grid2world, "moving_grid2world": grid2world}
maps = {
    "no lesion": DeepRegistration(progress=False).optimize(
        static=static, moving=noisy(healthy), **options
    ),
    "lesion, no mask": DeepRegistration(progress=False).optimize(
        static=static, moving=diseased, **options
    ),
    "lesion, moving_mask": DeepRegistration(progress=False).optimize(
        static=static, moving=diseased, moving_mask=~drawn, **options
    ),
}

###############################################################################
# The error is the distance between the mapped and the true position of each voxel of
# static. ``backward`` contains the displacement of each voxel in mm. The true field
# also gives the position of the lesion in static.

there = at(lesion.astype(np.uint8), voxels + truth / size, order=0) > 0
near = at((away * size < 30).astype(np.uint8), voxels + truth / size, order=0) > 0
brain = static > 0.1
world_truth = truth @ (grid2world[:3, :3] / size).T
regions = {"lesion": there, "around it": near & ~there & brain, "rest": brain & ~near}


def errors(mapping):
    """Mean distance to the true field in each region, mm."""
    distance = np.linalg.norm(mapping.backward - world_truth, axis=-1)
    return {name: distance[region].mean() for name, region in regions.items()}


none = np.linalg.norm(world_truth, axis=-1)
print(f"{'mean error, mm':22}" + "".join(f"{name:>11}" for name in regions))
print(f"{'before':22}" + "".join(f"{none[r].mean():11.2f}" for r in regions.values()))
for name, mapping in maps.items():
    print(f"{name:22}" + "".join(f"{e:11.2f}" for e in errors(mapping).values()))

###############################################################################
# Top: the moving image warped by each map, with the contour of the lesion's true
# position. Bottom: the error of each map.

middle = np.argwhere(there)[:, 2].mean()
middle = grid2world[2, 2] * middle + grid2world[2, 3]  # mm
fig, axes = new_figure(
    "Above, the warped moving image without a lesion, with a lesion, and with a "
    "lesion and its mask; below, the error of each map. Without the mask the error is "
    "large in and around the lesion, with it as small as without a lesion.",
    rows=2,
    columns=3,
    aspect=1.2,
    bar=True,
)
for (name, mapping), (above, below) in zip(maps.items(), axes.T, strict=True):
    image = healthy if name == "no lesion" else diseased
    distance = np.linalg.norm(mapping.backward - world_truth, axis=-1)
    distance = np.where(brain, distance, np.nan)
    draw_slice(above, mapping.transform(image), grid2world, at=middle, title=name)
    options = {"cmap": ERRORS, "vmin": 0, "vmax": 6}
    shown = draw_slice(below, distance, grid2world, at=middle, **options)
    for ax in (above, below):
        draw_contour(ax, there, grid2world, at=middle, colour=OUTLINE)
fig.colorbar(shown, ax=axes[1], label="error, mm", location="bottom", shrink=0.6)
plt.show()

###############################################################################
# Other uses of masks
# -------------------
# - **A whole head and a skull-stripped brain.** This is usually detected, and a brain
#   mask is made. If it is not detected, pass a brain mask of the stripped image, for
#   example ``static_mask=static > 0``. The images are then compared within the brain
#   only, and the scalp of the other image is not deformed into the brain.
# - **A slab and a whole brain.** Pass a mask of the part that both images show.
# - **Signal loss, implants, the edge of the field of view.** Pass a mask that excludes
#   them. Voxels that are NaN are excluded without a mask.
#
# :func:`~dipy_dl_reg.deep_registration` also uses both masks in its affine steps.
# ``dipy_align_deep`` reads masks from files; voxels above 0 are compared:
# ``--static_mask FILE``, ``--moving_mask FILE``.
#
# References
# ----------
# .. footbibliography::
