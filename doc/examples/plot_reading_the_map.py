"""
Reading the map: directions, points, inverse, Jacobian
======================================================

A registration gives a :class:`dipy.align.imwarp.DiffeomorphicMap`. This page takes one
apart: what it does to images and to points, which way, and how to do the same by hand.
:doc:`../conventions` says it without the numbers.
"""

from dipy.align import affine_registration
from dipy.data import get_fnames
from dipy.segment.mask import median_otsu
from matplotlib import pyplot as plt
import nibabel as nib
from nibabel.affines import apply_affine
from nilearn.datasets import load_mni152_template
import numpy as np
from scipy.ndimage import map_coordinates

from dipy_dl_reg import DeepRegistration

###############################################################################
# A map to read
# -------------
# *static* is the MNI152 template at 4 mm, *moving* a real b0. Their grids have nothing
# in common, and there is an affine part: no number below can be right by accident.

template = load_mni152_template(resolution=4)
static, static_grid2world = template.get_fdata(dtype=np.float32), template.affine

b0 = nib.load(get_fnames(name="aniso_vox"))
moving_grid2world = b0.affine
moving, _ = median_otsu(b0.get_fdata(dtype=np.float32), median_radius=2, numpass=1)

_, prealign = affine_registration(
    moving=moving,
    static=static,
    moving_affine=moving_grid2world,
    static_affine=static_grid2world,
    pipeline=["center_of_mass", "rigid", "affine"],
    level_iters=[100, 30],
    sigmas=[1.5, 0.5],
    factors=[2, 1],
)

registration = DeepRegistration("MI")
mapping = registration.optimize(
    static=static,
    moving=moving,
    static_grid2world=static_grid2world,
    moving_grid2world=moving_grid2world,
    prealign=prealign,
)

###############################################################################
# Images, both ways
# -----------------
# ``transform`` brings moving to static's grid, ``transform_inverse`` static to
# moving's.

warped_moving = mapping.transform(moving)
warped_static = mapping.transform_inverse(static)
print("moving on static's grid:", warped_moving.shape, "as", static.shape)
print("static on moving's grid:", warped_static.shape, "as", moving.shape)


def show(ax, image, title, outlines=None, **options):
    """Draw the middle slice across the last axis, and another image's outlines."""
    options = {"cmap": "gray"} | options
    drawn = ax.imshow(image[:, :, image.shape[2] // 2].T, origin="lower", **options)
    if outlines is not None:
        middle = outlines[:, :, outlines.shape[2] // 2].T
        ax.contour(middle, [0.3, 0.6], colors="C1", linewidths=0.8)
    ax.set_title(title)
    ax.set_axis_off()
    return drawn


fig, axes = plt.subplots(1, 4, figsize=(12, 3.6), layout="constrained")
show(axes[0], static, "static")
show(axes[1], warped_moving, "moving, on static's grid", outlines=static)
show(axes[2], moving, "moving")
show(axes[3], moving, "static's outlines, on moving's", outlines=warped_static)

###############################################################################
# Points go the other way
# -----------------------
# To fill a voxel of static, ``transform`` asks where that voxel lies in moving, and
# reads the intensity there. So ``transform_points`` takes points of **static's** world
# to **moving's**:

voxels = np.array([[25, 30, 24], [18, 22, 27], [31, 40, 20]])
points = apply_affine(static_grid2world, voxels)
points_in_moving = mapping.transform_points(points)
for point, image_point in zip(points, points_in_moving, strict=True):
    print("static", point.round(1), "-> moving", image_point.round(1))

###############################################################################
# By hand, this is :math:`y = P\,(x + b(x))`: the displacement ``backward``, in mm along
# the world's axes, and then the ``prealign`` that was passed in. The map keeps its
# inverse.

by_hand = apply_affine(prealign, points + mapping.backward[tuple(voxels.T)])
print(f"Points differ by {np.abs(by_hand - points_in_moving).max():.1e} mm")
print(
    "mapping.prealign is inv(prealign):",
    np.allclose(mapping.prealign, np.linalg.inv(prealign)),
)

###############################################################################
# The image is then read where the points fall. DIPY's ``transform`` is nothing more,
# and SciPy gives the same image:

grid = np.moveaxis(np.indices(static.shape), 0, -1)
everywhere = apply_affine(static_grid2world, grid) + mapping.backward
read_at = apply_affine(np.linalg.inv(moving_grid2world) @ prealign, everywhere)
image_by_hand = map_coordinates(
    moving, np.moveaxis(read_at, -1, 0), order=1, mode="grid-constant"
)
difference = np.abs(image_by_hand - warped_moving).max() / np.ptp(moving)
print(f"Images differ by {difference:.1e} of the intensity range")

###############################################################################
# Points, and streamlines, that live in moving's world come to static's by
# ``transform_points_inverse``: :math:`x = z + f(z)` with :math:`z = P^{-1} y` and
# ``forward`` for :math:`f`. :func:`~dipy_dl_reg.transform_streamlines` takes that
# direction unless it is told otherwise.

back = mapping.transform_points_inverse(points_in_moving)
for point, there_and_back in zip(points, back, strict=True):
    print("static", point.round(1), "there and back", there_and_back.round(2))

###############################################################################
# The inverse
# -----------
# ``backward`` and ``forward`` are inverses of each other everywhere, not only at three
# points. Outside the field the displacement is 0, so the round trip counts where the
# image point stays inside. :attr:`quality` says the same from the check after the run,
# in voxels.

world = apply_affine(static_grid2world, grid).reshape(-1, 3)
image_points = mapping.transform_points(world)
landed = apply_affine(np.linalg.inv(static_grid2world) @ mapping.prealign, image_points)
stays = np.all((landed >= 0) & (landed <= np.array(static.shape) - 1), axis=1)
error = np.linalg.norm(mapping.transform_points_inverse(image_points) - world, axis=1)
voxel = 4  # mm
print(f"{stays.mean():.1%} of the voxels stay inside the field")
print(
    f"Round trip by hand: mean {error[stays].mean() / voxel:.4f} voxel, "
    f"at most {error[stays].max() / voxel:.4f}"
)
print(
    f"As reported:        mean {registration.quality.round_trip_mean:.4f} voxel, "
    f"at most {registration.quality.round_trip_max:.4f}"
)

###############################################################################
# .. warning::
#
#    ``mapping.inverse()`` is **not** the inverse: DIPY marks the map as inverse, which
#    this one is marked as already. The same map comes back. Use the ``..._inverse``
#    methods.

print(
    "inverse() changes nothing:",
    np.array_equal(mapping.inverse().transform(moving), warped_moving),
)

###############################################################################
# The Jacobian
# ------------
# The determinant of the Jacobian of :math:`x + b(x)` is the volume that a small cube of
# static has in moving, the affine part left aside: above 1 moving is larger there,
# below 1 smaller, and at 0 or less space is folded. By hand, with central differences:

gradient = np.stack(np.gradient(mapping.backward, axis=(0, 1, 2)), axis=-1)
per_mm = gradient @ np.linalg.inv(static_grid2world[:3, :3])
jacobian = np.linalg.det(np.eye(3) + per_mm)
print(
    f"Least determinant: {jacobian.min():.3f} by hand, "
    f"{registration.quality.minimum_jacobian:.3f} as reported"
)

fig, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
length = np.linalg.norm(mapping.backward, axis=-1)
drawn = show(axes[0], length, "length of the displacement", cmap="viridis")
fig.colorbar(drawn, ax=axes[0], label="mm", shrink=0.7)
drawn = show(
    axes[1],
    np.log2(jacobian),
    "Jacobian determinant",
    cmap="RdBu_r",
    vmin=-1,
    vmax=1,
    outlines=static,
)
bar = fig.colorbar(drawn, ax=axes[1], shrink=0.7, ticks=[-1, 0, 1])
bar.ax.set_yticklabels(["half", "same", "double"])
