"""
The map: directions, points, inverse, Jacobian
==============================================

A registration returns a :class:`dipy.align.imwarp.DiffeomorphicMap`. This page shows
how it transforms images and points, in which direction, and how to compute the same
results from its fields. :doc:`/conventions` has the definitions.
"""

# sphinx_gallery_thumbnail_number = 2

from dipy.data import get_fnames
from dipy.segment.mask import median_otsu

# The first page of the tutorials links the file example_figures.py.
from example_figures import SIGNED, draw_slice, new_figure
from matplotlib import pyplot as plt
import nibabel as nib
from nibabel.affines import apply_affine
from nilearn.datasets import load_mni152_template
import numpy as np
from scipy.ndimage import map_coordinates

from dipy_dl_reg import DeepRegistration, deep_affine_registration

###############################################################################
# Two images and their map
# ------------------------
# *static* is the MNI152 template at 4 mm, and *moving* is a real b0 image. Their grids
# differ in shape, voxel size and orientation, and the map has an affine part.

template = load_mni152_template(resolution=4)
static, static_grid2world = template.get_fdata(dtype=np.float32), template.affine

b0 = nib.load(get_fnames(name="aniso_vox"))
moving_grid2world = b0.affine
moving, _ = median_otsu(b0.get_fdata(dtype=np.float32), median_radius=2, numpass=1)

_, prealign = deep_affine_registration(
    moving=moving,
    static=static,
    moving_affine=moving_grid2world,
    static_affine=static_grid2world,
)

registration = DeepRegistration()
mapping = registration.optimize(
    static=static,
    moving=moving,
    static_grid2world=static_grid2world,
    moving_grid2world=moving_grid2world,
    prealign=prealign,
)

###############################################################################
# Images in both directions
# -------------------------
# ``transform`` resamples moving to static's grid, and ``transform_inverse`` resamples
# static to moving's grid.

warped_moving = mapping.transform(moving)
warped_static = mapping.transform_inverse(static)
print("moving on static's grid:", warped_moving.shape, "as", static.shape)
print("static on moving's grid:", warped_static.shape, "as", moving.shape)

fig, axes = new_figure(
    "Four slices. The template; the b0 image warped to the template's grid; the b0 "
    "image on its own grid, where the head is tilted; and the same with outlines of "
    "the template that was warped to it. The outlines follow the image in both "
    "spaces.",
    rows=2,
    columns=2,
    aspect=1.2,
)
levels = {"levels": (0.3, 0.6)}
draw_slice(axes[0, 0], static, static_grid2world, title="static")
outlines = {"outlines": static, **levels}
draw_slice(
    axes[0, 1], warped_moving, static_grid2world, title="moving, warped", **outlines
)
draw_slice(axes[1, 0], moving, moving_grid2world, title="moving")
outlines = {"outlines": warped_static, **levels}
draw_slice(
    axes[1, 1], moving, moving_grid2world, title="moving, static's outlines", **outlines
)

###############################################################################
# Points are mapped in the opposite direction
# -------------------------------------------
# For each voxel of static, ``transform`` computes the corresponding point of moving and
# interpolates the intensity there. ``transform_points`` is this map of points, from
# **static's** world to **moving's** world:

voxels = np.array([[25, 30, 24], [18, 22, 27], [31, 40, 20]])
points = apply_affine(static_grid2world, voxels)
points_in_moving = mapping.transform_points(points)
for point, image_point in zip(points, points_in_moving, strict=True):
    print("static", point.round(1), "-> moving", image_point.round(1))

###############################################################################
# The formula is :math:`y = P\,(x + b(x))`: :math:`b` is the displacement field
# ``backward``, in mm along the world axes, and :math:`P` is the ``prealign`` that was
# passed to the registration. The map stores the inverse of this matrix.

by_hand = apply_affine(prealign, points + mapping.backward[tuple(voxels.T)])
print(f"Points differ by {np.abs(by_hand - points_in_moving).max():.1e} mm")
print(
    "mapping.prealign is inv(prealign):",
    np.allclose(mapping.prealign, np.linalg.inv(prealign)),
)

###############################################################################
# Interpolating moving at these points gives the warped image. SciPy gives the same
# image as DIPY's ``transform``:

grid = np.moveaxis(np.indices(static.shape), 0, -1)
everywhere = apply_affine(static_grid2world, grid) + mapping.backward
read_at = apply_affine(np.linalg.inv(moving_grid2world) @ prealign, everywhere)
image_by_hand = map_coordinates(
    moving, np.moveaxis(read_at, -1, 0), order=1, mode="grid-constant"
)
difference = np.abs(image_by_hand - warped_moving).max() / np.ptp(moving)
print(f"Images differ by {difference:.1e} of the intensity range")

###############################################################################
# ``transform_points_inverse`` maps points or streamlines from moving's world to
# static's world: :math:`x = z + f(z)` with :math:`z = P^{-1} y` and :math:`f` the field
# ``forward``. :func:`~dipy_dl_reg.transform_streamlines` uses this direction by
# default.

back = mapping.transform_points_inverse(points_in_moving)
for point, there_and_back in zip(points, back, strict=True):
    print("static", point.round(1), "after both maps", there_and_back.round(2))

###############################################################################
# The inverse
# -----------
# ``backward`` and ``forward`` are inverses of each other at all voxels. The
# displacement is 0 outside the field, so the inversion error is computed for the voxels
# that are mapped to points inside the field. The attribute ``quality`` contains the
# same value in voxels, from the check after the registration.

world = apply_affine(static_grid2world, grid).reshape(-1, 3)
image_points = mapping.transform_points(world)
landed = apply_affine(np.linalg.inv(static_grid2world) @ mapping.prealign, image_points)
stays = np.all((landed >= 0) & (landed <= np.array(static.shape) - 1), axis=1)
error = np.linalg.norm(mapping.transform_points_inverse(image_points) - world, axis=1)
voxel = 4  # mm
print(f"{stays.mean():.1%} of the voxels are mapped to points inside the field")
print(
    f"Inversion error: mean {error[stays].mean() / voxel:.4f} voxel, "
    f"at most {error[stays].max() / voxel:.4f}"
)
print(
    f"From quality:    mean {registration.quality.round_trip_mean:.4f} voxel, "
    f"at most {registration.quality.round_trip_max:.4f}"
)

###############################################################################
# .. warning::
#
#    ``mapping.inverse()`` does **not** return the inverse map. DIPY sets the flag
#    ``is_inverse``, which is already set in a map of this form, so the same map is
#    returned. Use ``transform_inverse`` and ``transform_points_inverse``.

print(
    "inverse() returns the same map:",
    np.array_equal(mapping.inverse().transform(moving), warped_moving),
)

###############################################################################
# The Jacobian
# ------------
# The Jacobian determinant of :math:`x + b(x)` is the relative change of volume from
# static to moving, without the affine part: it is above 1 where moving is larger and
# below 1 where it is smaller. Where it is 0 or negative, the map folds. Here it is
# computed by central differences:

gradient = np.stack(np.gradient(mapping.backward, axis=(0, 1, 2)), axis=-1)
per_mm = gradient @ np.linalg.inv(static_grid2world[:3, :3])
jacobian = np.linalg.det(np.eye(3) + per_mm)
print(
    f"Minimum of the Jacobian determinant: {jacobian.min():.3f}, "
    f"from quality: {registration.quality.minimum_jacobian:.3f}"
)

fig, axes = new_figure(
    "Two axial slices of the map on the template's grid: the length of the "
    "displacement in mm, and the Jacobian determinant, from half to double, which "
    "varies smoothly within the brain.",
    columns=2,
    aspect=1.2,
    bar=True,
)
length = np.linalg.norm(mapping.backward, axis=-1)
drawn = draw_slice(
    axes[0, 0], length, static_grid2world, title="displacement", cmap="cividis"
)
fig.colorbar(drawn, ax=axes[0, 0], label="mm", location="bottom")
drawn = draw_slice(
    axes[0, 1],
    np.log2(jacobian),
    static_grid2world,
    title="Jacobian determinant",
    **{"cmap": SIGNED, "vmin": -1, "vmax": 1, "outlines": static, "colour": "black"},
)
bar = fig.colorbar(drawn, ax=axes[0, 1], location="bottom", ticks=[-1, 0, 1])
bar.ax.set_xticklabels(["half", "same", "double"])
plt.show()
