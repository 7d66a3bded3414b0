"""
Affine registration from any starting pose
==========================================

:func:`~dipy_dl_reg.deep_affine_registration` takes the same arguments as DIPY's
:func:`~dipy.align.affine_registration` and returns the same values. It takes about a
second. If both images show the same whole object, the result does not depend on the
starting pose: an image may be upside down, back to front or far away. This example
registers a real b0 image, bundled with DIPY :footcite:p:`Garyfallidis2014`, to the
MNI152 T1 template :footcite:p:`Fonov2011`, bundled with nilearn, by mutual information
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
# Two images and the affines of their headers
# -------------------------------------------
# *static* is the template at 4 mm. *moving* is the b0 with the affine from the scanner:
# 4x4x5 mm on an oblique grid. The brain is extracted, since the template shows a brain
# without skull.

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
# The matrix maps points from the template's world to the b0's world. Both worlds have
# the axes right, anterior, superior. The columns of the matrix therefore show whether
# the image is mirrored, back to front or upside down: the first column must point to
# the right, the second one forward, the third one up.

for name, column in zip(("right", "front", "up"), affine[:3, :3].T):
    print(f"{name:5} is mapped to", (column / np.linalg.norm(column)).round(2))
print(f"determinant {np.linalg.det(affine[:3, :3]):.2f}: not mirrored")


def draw_slices(axes, image, title):
    """Draw the three middle slices with the contours of the template."""
    for axis, ax in enumerate(axes):
        middle = static.shape[axis] // 2
        shown, lines = (np.take(x, middle, axis).T for x in (image, static))
        ax.imshow(shown, origin="lower", cmap="gray")
        ax.contour(lines, [0.2], colors="C1", linewidths=0.9)
        ax.set_axis_off()
    axes[1].set_title(title, fontsize=9)


def resample_to_static(image, image_affine, matrix=None):
    """Resample an image to the template's grid."""
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
draw_slices(axes[:3], resample_to_static(moving, moving_affine), "b0, header's affine")
draw_slices(axes[3:], resampled, "registered")

###############################################################################
# Other starting poses
# --------------------
# The pose in the header may be wrong, and animals are scanned in many positions. Here
# the b0 is rotated and shifted by changing its affine, as a wrong header would. DIPY's
# registration starts with aligned centres of mass and without rotation.


def rotation_and_shift(axis, degrees, shift=(0, 0, 0)):
    """Matrix of a rotation about a world axis and a shift."""
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    pose = np.eye(4)
    pose[[i, i, j, j], [i, j, i, j]] = cos, -sin, sin, cos
    pose[:3, 3] = shift
    return pose


def distance(matrix, pose, reference=affine):
    """Mean distance, mm over the brain, from the result for the original header."""
    voxels = np.argwhere(static > 0.2)[::50]
    points = voxels @ static_affine[:3, :3].T + static_affine[:3, 3]
    gap = (np.linalg.inv(pose) @ matrix - reference)[:3]
    return np.linalg.norm(points @ gap[:, :3].T + gap[:, 3], axis=1).mean()


def register_with_dipy(moving, static, **affines):
    """DIPY's registration with fewer iterations than its default, to save time."""
    options = {"level_iters": [50, 20], "sigmas": [1.5, 0.5], "factors": [2, 1]}
    pipeline = ["center_of_mass", "rigid", "affine"]
    images = {"moving": moving, "static": static}
    return affine_registration(**images, pipeline=pipeline, **affines, **options)


poses = {
    "upside down": rotation_and_shift(0, 180, (0, 60, -90)),
    "back to front": rotation_and_shift(2, 180, (30, -20, 10)),
    "lying, far away": rotation_and_shift(1, 90, (250, 100, -180)),
}
methods = {
    "deep_affine_registration": deep_affine_registration,
    "DIPY": register_with_dipy,
}
fig, axes = plt.subplots(3, 6, figsize=(12, 8), layout="constrained")
for row, (name, pose) in zip(axes, poses.items()):
    affines = {"moving_affine": pose @ moving_affine, "static_affine": static_affine}
    for place, (label, method) in enumerate(methods.items()):
        start = time.perf_counter()
        found, matrix = method(moving, static, **affines)
        seconds = time.perf_counter() - start
        error = distance(matrix, pose)
        print(f"{name:15} {label:25} error {error:6.1f} mm, {seconds:4.1f} s")
        title = f"{label}\n{name}: error {error:.1f} mm"
        draw_slices(row[3 * place : 3 * place + 3], found, title)

###############################################################################
# How the search works
# --------------------
# The search starts from 60 rotations about the centre of mass. They are chosen such
# that every rotation is within 45 degrees of one of them. All are refined rigidly in
# one batch, on a few points of coarse images; a dozen of them are refined on a finer
# level, and four on the last one. No rotation is among the 60 starts, and its result is
# values unless another one is clearly better, so that images with a correct header are
# registered as without the search. ``starts="one"`` disables the search.
#
# The class :class:`~dipy_dl_reg.DeepAffineRegistration` corresponds to
# :class:`dipy.align.imaffine.AffineRegistration` and starts from one pose by default:

angles = np.arange(0, 181, 30)
errors = {starts: [] for starts in ("one", "auto")}
reference = None
for angle in angles:
    pose = rotation_and_shift(0, angle)
    for starts, values in errors.items():
        found = DeepAffineRegistration(starts=starts).optimize(
            static=static,
            moving=moving,
            transform=RigidIsoScalingTransform3D(),
            params0=None,
            static_grid2world=static_affine,
            moving_grid2world=pose @ moving_affine,
            starting_affine="mass",
        )
        reference = found.affine if reference is None else reference
        values.append(distance(found.affine, pose, reference))

fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
for starts, values in errors.items():
    ax.plot(angles, values, "o-", label=f'starts="{starts}"')
ax.set(xlabel="rotation of the b0 about the left-right axis (degrees)")
ax.set(ylabel="mean error (mm)", yscale="symlog", ylim=(0, 200))
ax.legend()
plt.show()

###############################################################################
# .. footbibliography::
