"""
A cohort of brains to MNI, with its report index
================================================

:func:`~dipy_dl_reg.register_cohort` registers the subjects of a study to a template,
and writes a report for each and a page that lists them, the bad ones first.

The subjects of this example are simulated: the MNI152 template :footcite:p:`Fonov2011`,
bundled with nilearn, deformed by known random fields. One of them was stored in a wrong
pose, and the file of another is damaged.
"""

from pathlib import Path
import tempfile

# The first page of the tutorials links the file example_figures.py.
from example_figures import new_figure
from matplotlib import image as pictures
from matplotlib import pyplot as plt
import nibabel as nib
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import load_mapping, plot_registration, register_cohort

###############################################################################
# The subjects
# ------------
# Each has its own smooth field of up to 8 mm, and noise. They lie in one folder, with
# names as in BIDS.

folder = Path(tempfile.mkdtemp())
template = load_mni152_template(resolution=4)
brain = load_mni152_brain_mask(resolution=4).get_fdata() > 0
values = template.get_fdata(dtype=np.float32) * brain
nib.save(nib.Nifti1Image(values, template.affine), folder / "mni152.nii.gz")
rng = np.random.default_rng(0)
(folder / "images").mkdir()
for number in range(1, 4):
    field = np.stack(
        [gaussian_filter(rng.standard_normal(values.shape), 4) for _ in range(3)]
    )
    field *= 8 / 4 / np.linalg.norm(field, axis=0)[brain].max()
    moved = map_coordinates(values, np.indices(values.shape) + field, order=1)
    moved += (moved > 0) * rng.normal(0, 0.02 * values.max(), values.shape)
    affine = template.affine.copy()
    if number == 2:  # as if the head lay on its side
        affine = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
        affine = affine @ template.affine
    image = nib.Nifti1Image(moved.astype(np.float32), affine)
    nib.save(image, folder / "images" / f"sub-{number:02d}_T1w.nii.gz")
(folder / "images" / "sub-04_T1w.nii.gz").write_bytes(b"damaged")

###############################################################################
# The cohort
# ----------
# Here the pipeline has no search over rotations that could correct the wrong pose. The
# damaged file does not stop the others. A second call would do only what is missing.

result = register_cohort(
    str(folder / "images" / "*_T1w.nii.gz"),
    folder / "mni152.nii.gz",
    folder / "derivatives",
    pipeline=["deform"],
)
for row in result.rows:
    print(row["subject"], row["status"], row["grade"], "-", row["reason"][:90])

###############################################################################
# The index page
# --------------
# All measures of all subjects are in the rows, and in the table beside the page. The
# page sorts by each of them, and links to the reports of the subjects.

print(sorted(str(p.relative_to(folder)) for p in folder.rglob("*.html")))
for row in result.rows:
    if row["status"] == "done":
        print(
            f"{row['subject']}: similarity {row['similarity_raw']:.2f} (raw), "
            f"{row['similarity_deformed']:.2f} (deformed), folds "
            f"{row['folds_percent']:g} %, round trip {row['round_trip_mean_mm']:.3f} mm"
        )

###############################################################################
# The same slices as one picture
# ------------------------------
# A report has slices before and after, the warped grid, the Jacobian determinant and
# the reasons of the verdict. :func:`~dipy_dl_reg.plot_registration` draws the main
# parts of it as one picture, here for the first subject.

mapping_file = next(folder.rglob("sub-01*xfm.npz"))
plot_registration(
    folder / "sub-01.png",
    folder / "mni152.nii.gz",
    folder / "images" / "sub-01_T1w.nii.gz",
    load_mapping(mapping_file),
)
figure, axes = new_figure(
    "The picture that plot_registration draws for one subject: three planes of the "
    "template, the subject before and after, a checkerboard, the warped grid and the "
    "logarithm of the Jacobian determinant, with measures below.",
    aspect=0.55,
)
axes[0, 0].imshow(pictures.imread(folder / "sub-01.png"))
axes[0, 0].axis("off")
plt.show()

###############################################################################
# :doc:`/verdict` describes how to read a report.
#
# .. footbibliography::
