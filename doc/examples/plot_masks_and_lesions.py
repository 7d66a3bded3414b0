"""
Masks and lesions
=================

A lesion, a tumour or an implant is in one image and not in the other. Registration
then pulls healthy tissue towards what is missing there, and the map is wrong in and
around the lesion. A mask leaves those voxels out of the comparison; there the map
is interpolated smoothly from its surroundings. This is cost function masking
:footcite:p:`Brett2001`.

Here a lesion is drawn into a brain that was deformed by a known field, so that the
error of the map can be measured, with and without the mask.
"""

from matplotlib import pyplot as plt
from nilearn.datasets import load_mni152_template
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import DeepRegistration

###############################################################################
# Two images, and a lesion in one
# -------------------------------
# *moving* is the MNI152 template :footcite:p:`Fonov2011`, bundled with nilearn, at
# 4 mm. *static* is the same brain deformed by a smooth random field. Both get some
# noise.

template = load_mni152_template(resolution=4)
healthy, grid2world = template.get_fdata(dtype=np.float32), template.affine
healthy = np.where(healthy > 0.1, healthy / healthy.max(), 0)  # nothing around it
size = 4.0  # mm

rng = np.random.default_rng(0)
voxels = np.moveaxis(np.indices(healthy.shape, dtype=np.float32), 0, -1)
truth = gaussian_filter(rng.normal(size=(*healthy.shape, 3)), (5, 5, 5, 0))
truth *= 12 / np.linalg.norm(truth, axis=-1).max()  # at most 12 mm


def at(image, points, order=1):
    """An image's values at these voxels."""
    return map_coordinates(image, np.moveaxis(points, -1, 0), order=order)


def noisy(image):
    """With noise inside the brain."""
    noise = rng.normal(size=image.shape)
    return np.where(image > 0, image + 0.02 * noise, 0).clip(0).astype(np.float32)


static = noisy(at(healthy, voxels + truth / size))

###############################################################################
# The lesion is a dark ball of 18 mm radius in the white matter of *moving*, with an
# irregular edge. The mask of it is drawn a little larger, as by hand.

centre = np.array([33, 28, 26])
ragged = gaussian_filter(rng.normal(size=healthy.shape), 2)
away = np.linalg.norm(voxels - centre, axis=-1) + ragged / ragged.std()
lesion = (away * size < 18) & (healthy > 0)
drawn = (away * size < 21) & (healthy > 0)
diseased = noisy(np.where(lesion, 0.15, healthy))

###############################################################################
# With and without the mask
# -------------------------
# ``moving_mask`` is an image on moving's grid: only voxels where it is not 0 are
# compared, so it is 0 in the lesion. For a lesion in static there is ``static_mask``.
# The pair without a lesion shows how small the error can be.

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
# The error is the distance between where a map takes a voxel of static and where it
# belongs. ``backward`` holds the displacement of each voxel in mm. The true field
# says where the lesion would lie in static.

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
# Above, the moving image as each map warps it, with the lesion's outline where it
# belongs. Below, the error of the map.

view = slice(3, -3), slice(5, -5)
middle = int(np.argwhere(there)[:, 2].mean())
fig, rows = plt.subplots(2, 3, figsize=(9, 6.6), layout="constrained")
for (name, mapping), (above, below) in zip(maps.items(), rows.T, strict=True):
    image = healthy if name == "no lesion" else diseased
    warped = mapping.transform(image)[:, :, middle].T
    distance = np.linalg.norm(mapping.backward - world_truth, axis=-1)
    distance = np.where(brain, distance, np.nan)[:, :, middle].T
    above.imshow(warped[view], origin="lower", cmap="gray", vmin=0, vmax=1)
    shown = below.imshow(distance[view], origin="lower", cmap="magma", vmin=0, vmax=6)
    for ax in (above, below):
        ax.contour(there[:, :, middle].T[view], [0.5], colors="C1", linewidths=1)
        ax.set_axis_off()
    above.set_title(name)
fig.colorbar(shown, ax=rows[1], label="error, mm")

###############################################################################
# What else masks are for
# -----------------------
# - **A whole head and a skull-stripped brain.** This is usually detected, and the brain
#   masked. Where it is not, pass the brain of the stripped image as its mask,
#   ``static_mask=static > 0`` where that is static. The images are then compared only
#   there, and the scalp of the other is not pulled into the brain.
# - **A slab and a whole brain.** A mask of what both images show.
# - **Signal loss, implants, the edge of the field of view.** A mask without them.
#   Voxels that are NaN are left out without a mask.
#
# :func:`~dipy_dl_reg.deep_registration` passes both masks to its affine steps, too.
# ``dipy_align_deep`` takes files that are above 0 where the image counts:
# ``--static_mask FILE``, ``--moving_mask FILE``.
#
# References
# ----------
# .. footbibliography::
