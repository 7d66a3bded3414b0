"""
Affine registration from any starting pose
==========================================

:func:`~dipy_dl_reg.deep_affine_registration` takes the same arguments as DIPY's
:func:`~dipy.align.affine_registration` and returns the same values. If both images show
the same whole object, the result hardly depends on the starting pose: an image may be
upside down, back to front or far away. This example registers a real b0 image, bundled
with DIPY :footcite:p:`Garyfallidis2014`, to the MNI152 T1 template
:footcite:p:`Fonov2011`, bundled with nilearn, by mutual information
:footcite:p:`Mattes2003`.
"""

# sphinx_gallery_thumbnail_number = 2

from dipy.align import affine_registration
from dipy.align.imaffine import AffineMap
from dipy.align.transforms import RigidIsoScalingTransform3D
from dipy.data import get_fnames
from dipy.segment.mask import median_otsu

# The first page of the tutorials links the file example_figures.py.
from example_figures import COLOURS, draw_slice, new_figure
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

resampled, affine = deep_affine_registration(
    moving=moving,
    static=static,
    moving_affine=moving_affine,
    static_affine=static_affine,
)
print(affine.round(2))

###############################################################################
# The matrix maps points from the template's world to the b0's world. Both worlds have
# the axes right, anterior, superior. The columns of the matrix therefore show whether
# the image is mirrored, back to front or upside down: the first column must point to
# the right, the second one forward, the third one up.

for name, column in zip(("right", "front", "up"), affine[:3, :3].T):
    print(f"{name:5} is mapped to", (column / np.linalg.norm(column)).round(2))
print(f"determinant {np.linalg.det(affine[:3, :3]):.2f}: not mirrored")


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


fig, axes = new_figure(
    "The b0 image with the affine of its header, and registered, with outlines of the "
    "template, in a sagittal slice. Before, the head is tilted out of its outlines.",
    columns=2,
)
by_header = resample_to_static(moving, moving_affine)
for ax, title, image in (
    (axes[0, 0], "header's affine", by_header),
    (axes[0, 1], "registered", resampled),
):
    place = {"plane": "sagittal", "outlines": static, "levels": (0.2,)}
    draw_slice(ax, image, static_affine, title=title, **place)

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
    """DIPY's registration on a coarse level only, to save time."""
    options = {"level_iters": [50], "sigmas": [1.5], "factors": [2]}
    pipeline = ["center_of_mass", "rigid", "affine"]
    images = {"moving": moving, "static": static}
    return affine_registration(**images, pipeline=pipeline, **affines, **options)


poses = {
    "upside down": rotation_and_shift(0, 180, (0, 60, -90)),
    "lying, far away": rotation_and_shift(1, 90, (250, 100, -180)),
}
methods = {
    "deep_affine_registration": deep_affine_registration,
    "DIPY": register_with_dipy,
}
fig, axes = new_figure(
    "Sagittal slices of the b0 image registered from two wrong poses, with outlines "
    "of the template: in the upper row by deep_affine_registration, in place each "
    "time; in the lower row by DIPY, in wrong poses.",
    rows=2,
    columns=2,
)
for column, (name, pose) in zip(axes.T, poses.items(), strict=True):
    affines = {"moving_affine": pose @ moving_affine, "static_affine": static_affine}
    for ax, (label, method) in zip(column, methods.items(), strict=True):
        found, matrix = method(moving, static, **affines)
        error = distance(matrix, pose)
        print(f"{name:15} {label:25} error {error:6.1f} mm")
        place = {"plane": "sagittal", "outlines": static, "levels": (0.2,)}
        draw_slice(ax, found, static_affine, title=name, **place)
        ax.set_xlabel(f"{error:.1f} mm off")

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

angles = np.arange(0, 181, 60)
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

fig, axes = new_figure(
    "Mean error against the rotation of the b0 image. From one start the error is "
    "large for large rotations; with the search it stays small for all of them.",
    aspect=0.5,
)
ax = axes[0, 0]
for (starts, values), name in zip(errors.items(), ("before", "default"), strict=True):
    ax.plot(angles, values, "o-", color=COLOURS[name], label=f'starts="{starts}"')
ax.set(xlabel="rotation about the left-right axis, degrees")
ax.set(ylabel="mean error, mm", yscale="symlog", ylim=(0, 200))
ax.legend()
plt.show()

###############################################################################
# .. footbibliography::
