"""
Bundles to the template and back
================================

Streamlines of a subject are transformed to the space of a template by the map of a
registration, and back. Images and points are mapped in opposite directions by one map,
and streamlines in the wrong direction look plausible: this page shows both, and where
the functions of this package prevent it.

*Static* is the MNI152 template :footcite:p:`Fonov2011`, bundled with nilearn. *Moving*
is a simulated subject, the same brain deformed by a known function, so that the correct
position of every point is known. The bundles are real: DIPY contains three of each of
five people.
"""

# sphinx_gallery_thumbnail_number = 1

from pathlib import Path
from tempfile import mkdtemp
import zipfile

from dipy.data import get_fnames
from dipy.io.stateful_tractogram import Space, StatefulTractogram
from dipy.io.streamline import save_tractogram
from dipy.tracking.streamline import set_number_of_points

# The first page of the tutorials links the file example_figures.py.
from example_figures import draw_slice, new_figure
from matplotlib import pyplot as plt
import nibabel as nib
from nibabel.affines import apply_affine
from nilearn.datasets import load_mni152_template
import numpy as np
from scipy.ndimage import map_coordinates

from dipy_dl_reg import DeepRegistration, transform_tractogram

###############################################################################
# A subject and its bundles
# -------------------------
# The known function maps points of the subject to the template. The subject's image
# reads the template at these points; the subject's grid differs from the template's.

template = load_mni152_template(resolution=3)
static, static_grid2world = template.get_fdata(dtype=np.float32), template.affine


def truth(points):
    """Map points of the subject to the template, in mm."""
    waves = np.sin(np.roll(points, 1, axis=-1) / 28 + np.arange(3))
    return points + 9 * waves


def inverse_of_truth(points):
    """Solve truth(y) = x by iteration."""
    found = points.copy()
    for _ in range(100):
        found += 0.5 * (points - truth(found))
    return found


moving_shape = (76, 84, 72)
moving_grid2world = nib.affines.from_matvec(np.diag([-3.0, 3, 3]), [112, -145, -90])
voxels = np.moveaxis(np.indices(moving_shape), 0, -1)
at = truth(apply_affine(moving_grid2world, voxels))
at = apply_affine(np.linalg.inv(static_grid2world), at)
moving = map_coordinates(static, np.moveaxis(at, -1, 0), order=1)

###############################################################################
# The bundles of DIPY are stored without their image. A translation puts them in the
# template, approximately; the inverse of the known function puts them in the subject.

folder = Path(mkdtemp())
with zipfile.ZipFile(get_fnames(name="minimal_bundles")) as archive:
    archive.extractall(folder)

subject_image = nib.Nifti1Image(moving, moving_grid2world)
names = ("AF_L", "CST_R", "CC_ForcepsMajor")
for name in names:
    bundle = nib.streamlines.load(folder / "sub_4" / f"{name}.trk").streamlines
    bundle = set_number_of_points(bundle, nb_points=80)
    lines = [inverse_of_truth(line + [0, -42, -12]) for line in bundle]
    tractogram = StatefulTractogram(lines, subject_image, Space.RASMM)
    save_tractogram(tractogram, str(folder / f"{name}.trk"))

###############################################################################
# The map, and the tractograms in the template
# --------------------------------------------
# :func:`~dipy_dl_reg.transform_tractogram` reads and writes tractogram files of any
# size in chunks. By default the streamlines of moving come to lie where
# ``mapping.transform`` puts the image of moving: in static's space. The header of the
# new file describes the template's grid, and data stored for points and streamlines are
# kept.

mapping = DeepRegistration().optimize(
    static=static,
    moving=moving,
    static_grid2world=static_grid2world,
    moving_grid2world=moving_grid2world,
)
for name in names:
    counts = transform_tractogram(
        mapping, folder / f"{name}.trk", folder / f"{name}_in_template.trk"
    )
    print(name, counts)

###############################################################################
# The command does the same; it recognizes tractograms by their suffix:
#
# .. code-block:: bash
#
#    dipy_apply_deep mapping.npz AF_L.trk --out_file AF_L_in_template.trk
#
# The distance of the bundles from their correct position, in mm, is a fraction of a
# voxel (3 mm):


def read(name):
    """Streamlines of a file, in world coordinates."""
    return nib.streamlines.load(folder / f"{name}.trk").streamlines


for name in names:
    correct = truth(read(name).get_data())
    before = np.linalg.norm(read(name).get_data() - correct, axis=1)
    found = read(f"{name}_in_template").get_data()
    after = np.linalg.norm(found - correct, axis=1)
    print(f"{name}: {before.mean():.2f} mm before, {after.mean():.2f} mm after")

###############################################################################
# And back
# --------
# ``inverse=True`` transforms streamlines of static to moving's space. After there and
# back, each point is where it was, within a small part of a voxel:

for name in names:
    transform_tractogram(
        mapping,
        folder / f"{name}_in_template.trk",
        folder / f"{name}_again.trk",
        inverse=True,
    )
    distance = np.linalg.norm(
        read(f"{name}_again").get_data() - read(name).get_data(), axis=1
    )
    print(f"{name}: {distance.mean():.4f} mm, at most {distance.max():.3f} mm")

###############################################################################
# The wrong direction
# -------------------
# ``mapping.transform`` maps images from moving to static; ``mapping.transform_points``
# maps points from static to moving. Streamlines of the subject that are passed to
# ``transform_points`` therefore move **away** from the template. They still look like
# bundles, and are wrong by twice the deformation:

wrong = {name: read(name).copy() for name in names}
for lines in wrong.values():
    lines._data = mapping.transform_points(lines.get_data().astype(float))
for name in names:
    correct = truth(read(name).get_data())
    distance = np.linalg.norm(wrong[name].get_data() - correct, axis=1)
    print(f"{name}: {distance.mean():.2f} mm from the correct position")


PLACES = {"sagittal": (-20, [1, 2]), "coronal": (-15, [0, 2])}


def draw(row, image, grid2world, bundles, title):
    """A sagittal and a coronal slice, with bundles projected on them."""
    canonical = nib.as_closest_canonical(nib.Nifti1Image(image, grid2world)).affine
    corner = canonical[:3, 3] - np.diag(canonical)[:3] / 2
    for ax, (plane, (at, axes)) in zip(row, PLACES.items(), strict=True):
        draw_slice(ax, image, grid2world, plane=plane, at=at, title=title)
        for colour, lines in zip(("#E69F00", "#009E73", "#56B4E9"), bundles):
            for line in lines[::3]:
                ax.plot(*(line - corner)[:, axes].T, color=colour, linewidth=0.6)


# Arcuate fascicle (left, orange), corticospinal tract (right, green) and forceps major
# (blue), on a sagittal and a coronal slice.
fig, axes = new_figure(
    "Three bundles on sagittal and coronal slices: of the subject; transformed to the "
    "template, where they lie at the same anatomy; and transformed in the wrong "
    "direction, where they are shifted but still look like bundles.",
    rows=3,
    columns=2,
    aspect=0.9,
)
subject = [read(name) for name in names]
draw(axes[0], moving, moving_grid2world, subject, "subject")
in_template = [read(f"{name}_in_template") for name in names]
draw(axes[1], static, static_grid2world, in_template, "template")
draw(axes[2], static, static_grid2world, wrong.values(), "template, WRONG direction")
plt.show()

###############################################################################
# The functions of this package notice a tractogram in the wrong space, if its header
# describes the other image's grid:

try:
    transform_tractogram(
        mapping, folder / "AF_L_in_template.trk", folder / "AF_L_moved_twice.trk"
    )
except ValueError as error:
    print(error)

###############################################################################
#
# References
# ----------
#
# .. footbibliography::
