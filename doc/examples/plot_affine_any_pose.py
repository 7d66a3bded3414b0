"""
Affine registration from any starting pose
==========================================

:func:`~dipy_dl_reg.deep_affine_registration` is called as DIPY's
:func:`~dipy.align.affine_registration` is, and returns the same. It takes about a
second. For images that show the same whole object the result does not depend on where
they start: upside down, back to front or far away. Here it brings a real b0, bundled
with DIPY :footcite:p:`Garyfallidis2014`, to the MNI152 T1 template
:footcite:p:`Fonov2011`, bundled with nilearn, by mutual information
:footcite:p:`Mattes2003`.
"""

import time

from dipy.align import affine_registration
from dipy.align.imaffine import AffineMap
from dipy.align.transforms import RigidIsoScalingTransform3D
from dipy.data import get_fnames
from dipy.segment.mask import median_otsu
from matplotlib import pyplot as plt
import nibabel as nib
from nilearn.datasets import load_mni152_template
import numpy as np

from dipy_dl_reg import DeepAffineRegistration, deep_affine_registration

###############################################################################
# Two images and their raw affines
# --------------------------------
# *static* is the template at 4 mm. *moving* is the b0 as it came from the scanner:
# 4x4x5 mm, on an oblique grid, its brain cut out as the template's is.

template = load_mni152_template(resolution=4)
static, static_affine = template.get_fdata(dtype=np.float32), template.affine

b0 = nib.load(get_fnames(name="aniso_vox"))
moving_affine = b0.affine
moving, _ = median_otsu(b0.get_fdata(dtype=np.float32), median_radius=2, numpass=1)

start = time.perf_counter()
resampled, affine = deep_affine_registration(
    moving=moving,
    static=static,
    moving_affine=moving_affine,
    static_affine=static_affine,
)
print(f"{time.perf_counter() - start:.1f} s")
print(affine.round(2))

###############################################################################
# The matrix takes points of the template's world to the b0's. Both worlds have the
# axes right, front, up, so that a glance at its columns tells whether anything is
# mirrored, back to front or upside down: what points right must go on pointing right.

for name, column in zip(("right", "front", "up"), affine[:3, :3].T):
    print(f"{name:5} goes to", (column / np.linalg.norm(column)).round(2))
print(f"determinant {np.linalg.det(affine[:3, :3]):.2f}: not mirrored")


def outlined(axes, image, title):
    """Draw the three middle slices with the outlines of the template on them."""
    for axis, ax in enumerate(axes):
        middle = static.shape[axis] // 2
        shown, lines = (np.take(x, middle, axis).T for x in (image, static))
        ax.imshow(shown, origin="lower", cmap="gray")
        ax.contour(lines, [0.2], colors="C1", linewidths=0.9)
        ax.set_axis_off()
    axes[1].set_title(title, fontsize=9)


def on_static(image, image_affine, matrix=None):
    """The image on the template's grid."""
    grids = (static.shape, static_affine, image.shape, image_affine)
    matrix = np.eye(4) if matrix is None else matrix
    return AffineMap(
        matrix,
        domain_grid_shape=grids[0],
        domain_grid2world=grids[1],
        codomain_grid_shape=grids[2],
        codomain_grid2world=grids[3],
    ).transform(image)


fig, axes = plt.subplots(1, 6, figsize=(12, 2.6), layout="constrained")
outlined(axes[:3], on_static(moving, moving_affine), "b0 as it came")
outlined(axes[3:], resampled, "registered")

###############################################################################
# In other poses
# --------------
# Headers are wrong at times, and animals lie as they like. The b0 is turned and moved
# by changing its affine, which is what a wrong header amounts to. DIPY's registration
# starts from the centres of mass and goes downhill from there.


def turn(axis, degrees, shift=(0, 0, 0)):
    """A rotation about an axis of the world, and a shift."""
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    pose = np.eye(4)
    pose[[i, i, j, j], [i, j, i, j]] = cos, -sin, sin, cos
    pose[:3, 3] = shift
    return pose


def distance(matrix, pose, wanted=affine):
    """Mean distance, mm over the brain, from where the b0 went as it came."""
    voxels = np.argwhere(static > 0.2)[::50]
    points = voxels @ static_affine[:3, :3].T + static_affine[:3, 3]
    gap = (np.linalg.inv(pose) @ matrix - wanted)[:3]
    return np.linalg.norm(points @ gap[:, :3].T + gap[:, 3], axis=1).mean()


def by_dipy(moving, static, **affines):
    """DIPY's registration, with fewer iterations than its own, to save time."""
    options = {"level_iters": [50, 20], "sigmas": [1.5, 0.5], "factors": [2, 1]}
    pipeline = ["center_of_mass", "rigid", "affine"]
    images = {"moving": moving, "static": static}
    return affine_registration(**images, pipeline=pipeline, **affines, **options)


poses = {
    "upside down": turn(0, 180, (0, 60, -90)),
    "back to front": turn(2, 180, (30, -20, 10)),
    "lying, far away": turn(1, 90, (250, 100, -180)),
}
methods = {"deep_affine_registration": deep_affine_registration, "DIPY": by_dipy}
fig, axes = plt.subplots(3, 6, figsize=(12, 8), layout="constrained")
for row, (name, pose) in zip(axes, poses.items()):
    affines = {"moving_affine": pose @ moving_affine, "static_affine": static_affine}
    for place, (label, method) in enumerate(methods.items()):
        start = time.perf_counter()
        found, matrix = method(moving, static, **affines)
        seconds = time.perf_counter() - start
        off = distance(matrix, pose)
        print(f"{name:15} {label:25} {off:6.1f} mm off, {seconds:4.1f} s")
        title = f"{label}\n{name}: {off:.1f} mm off"
        outlined(row[3 * place : 3 * place + 3], found, title)

###############################################################################
# How it works, and how far it reaches
# ------------------------------------
# With the centre of mass come 60 rotations, none of which leaves any other farther
# than 45 degrees away. All of them are fitted rigidly at once, on few points of coarse
# images; a dozen go on to a finer level, four to the last. The usual start is among
# them, and is kept unless another is clearly better, so that images in good order are
# registered as they ever were. ``starts="one"`` leaves the search out.
#
# The same through the class, which mirrors
# :class:`dipy.align.imaffine.AffineRegistration` and starts from one pose unless it is
# told otherwise:

angles = np.arange(0, 181, 30)
offs = {starts: [] for starts in ("one", "auto")}
wanted = None
for angle in angles:
    pose = turn(0, angle)
    for starts, kept in offs.items():
        found = DeepAffineRegistration(starts=starts).optimize(
            static=static,
            moving=moving,
            transform=RigidIsoScalingTransform3D(),
            params0=None,
            static_grid2world=static_affine,
            moving_grid2world=pose @ moving_affine,
            starting_affine="mass",
        )
        wanted = found.affine if wanted is None else wanted
        kept.append(distance(found.affine, pose, wanted))

fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
for starts, kept in offs.items():
    ax.plot(angles, kept, "o-", label=f'starts="{starts}"')
ax.set(xlabel="the b0 is turned about the ear-to-ear axis by (degrees)")
ax.set(ylabel="off by (mm)", yscale="symlog", ylim=(0, 200))
ax.legend()
plt.show()

###############################################################################
# .. footbibliography::
