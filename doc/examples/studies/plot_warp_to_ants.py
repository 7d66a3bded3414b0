"""
A warp handed to ANTs, and one taken back
=========================================

A map of this package is written in the files of ANTs :footcite:p:`Avants2008`; ITK, the
library that ANTs is built on, applies them and gives the same image as the map. Then
ITK registers two images itself, and its warp becomes a map that DIPY's and this
package's functions use. :doc:`/exchange` lists the files of other programs and their
commands.

The resampler is ITK's own, from SimpleITK. ``antsApplyTransforms`` calls the same code.
"""

# sphinx_gallery_thumbnail_number = 2

from pathlib import Path
import tempfile

from dipy.data import get_fnames
from dipy.segment.mask import median_otsu

# The first page of the tutorials links the file example_figures.py.
from example_figures import draw_slice, new_figure
from matplotlib import pyplot as plt
import nibabel as nib
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
import SimpleITK as sitk

from dipy_dl_reg import deep_registration, read_mapping, write_mapping

folder = Path(tempfile.mkdtemp())

###############################################################################
# A registration
# --------------
# A b0 image, bundled with DIPY, on an oblique grid of 4x4x5 mm, to the MNI152 template
# at 4 mm. Files are written, because ITK reads files.

template = load_mni152_template(resolution=4)
inside = load_mni152_brain_mask(resolution=4).get_fdata() > 0
static = np.where(inside, template.get_fdata(dtype=np.float32), 0)
nib.save(nib.Nifti1Image(static, template.affine), folder / "template.nii.gz")
b0 = nib.load(get_fnames(name="aniso_vox"))
brain, _ = median_otsu(b0.get_fdata(dtype=np.float32), median_radius=2, numpass=1)
nib.save(nib.Nifti1Image(brain, b0.affine), folder / "b0.nii.gz")

warped, mapping = deep_registration(
    moving=folder / "b0.nii.gz",
    static=folder / "template.nii.gz",
    pipeline=["center_of_mass", "rigid", "affine", "deform"],
    progress=False,
)

###############################################################################
# Handed to ANTs
# --------------
# The suffix names the format. Three files are written: the affine part, the warp, and
# the inverse warp.

write_mapping(mapping, folder / "b0_1Warp.nii.gz")
for file in sorted(folder.glob("b0_*")):
    print(file.name, file.stat().st_size // 1024, "kB")

###############################################################################
# ITK applies the warp to points of the template first, then the affine:
#
# .. code-block:: text
#
#    antsApplyTransforms -d 3 -i b0.nii.gz -r template.nii.gz -o warped.nii.gz \
#        -t b0_1Warp.nii.gz -t b0_0GenericAffine.mat
#    antsApplyTransforms -d 3 -i template.nii.gz -r b0.nii.gz -o back.nii.gz \
#        -t [b0_0GenericAffine.mat,1] -t b0_1InverseWarp.nii.gz


def read_warp(name):
    """A displacement field of ITK from a file."""
    image = sitk.ReadImage(str(folder / name), sitk.sitkVectorFloat64)
    return sitk.DisplacementFieldTransform(image)


def resample(image, reference, *transforms):
    """What ``antsApplyTransforms -t ... -t ...`` computes."""
    composite = sitk.CompositeTransform(3)
    for transform in transforms:
        composite.AddTransform(transform)
    images = [sitk.ReadImage(str(folder / n), sitk.sitkFloat32)
              for n in (image, reference)]  # fmt: skip
    resampled = sitk.Resample(*images, composite, sitk.sitkLinear, 0.0)
    return sitk.GetArrayFromImage(resampled).T


affine = sitk.ReadTransform(str(folder / "b0_0GenericAffine.mat"))
by_itk = resample("b0.nii.gz", "template.nii.gz", affine, read_warp("b0_1Warp.nii.gz"))
back_by_itk = resample(
    "template.nii.gz",
    "b0.nii.gz",
    read_warp("b0_1InverseWarp.nii.gz"),
    affine.GetInverse(),
)

###############################################################################
# Both programs give the same images, in both directions. Beyond the outermost voxels
# of an image DIPY fades it to 0 and ITK continues it by half a voxel; these voxels are
# left out of the comparison.

back = mapping.transform_inverse(static)
seen = mapping.transform(np.ones_like(brain)) > 0.99999
seen_back = mapping.transform_inverse(np.ones_like(static)) > 0.99999
for name, ours, theirs, where in (
    ("b0 on the template's grid", warped, by_itk, seen),
    ("template on the b0's grid", back, back_by_itk, seen_back),
):
    difference = np.abs(ours - theirs)[where].max() / np.ptp(ours)
    print(f"{name}: largest difference {difference:.1e} of the intensity range")

fig, axes = new_figure(
    "The b0 image on the template's grid and the template on the b0's grid, by the "
    "map and by ITK, and 1000 times their difference, which is nearly black.",
    rows=2,
    columns=3,
    aspect=1.2,
)
for row, ours, theirs, grid2world in (
    (axes[0], warped, by_itk, template.affine),
    (axes[1], back, back_by_itk, b0.affine),
):
    pictures = {
        "mapping": ours,
        "ITK": theirs,
        "1000 x difference": 1000 * np.abs(ours - theirs),
    }
    for ax, (title, image) in zip(row, pictures.items(), strict=True):
        top = np.percentile(ours, 99.5)
        draw_slice(ax, image, grid2world, title=title, vmin=0, vmax=top)

###############################################################################
# A warp of ITK
# -------------
# The other way: ITK's diffeomorphic demons register the template, deformed by a known
# smooth field, to the template. The result is a displacement field in ITK's own file.

rng = np.random.default_rng(5)
field = np.stack([gaussian_filter(rng.standard_normal(static.shape), 5) for _ in "xyz"])
field *= 2 / np.linalg.norm(field, axis=0)[inside].max()  # up to 2 voxels
deformed = map_coordinates(static, np.indices(static.shape) + field, order=1)
nib.save(nib.Nifti1Image(deformed, template.affine), folder / "subject.nii.gz")

fixed, floating = (
    sitk.ReadImage(str(folder / f"{name}.nii.gz"), sitk.sitkFloat64)
    for name in ("template", "subject")
)
demons = sitk.DiffeomorphicDemonsRegistrationFilter()
demons.SetNumberOfIterations(50)
demons.SetStandardDeviations(1.0)
sitk.WriteImage(demons.Execute(fixed, floating), str(folder / "demons.nii.gz"))

###############################################################################
# Taken back
# ----------
# ITK's filter gives no inverse: it is computed. The file contains the grid of the
# template; the subject's is given.

from_itk = read_mapping(folder / "demons.nii.gz", moving=folder / "subject.nii.gz")

by_map = from_itk.transform(deformed)
by_demons = resample("subject.nii.gz", "template.nii.gz", read_warp("demons.nii.gz"))
seen = from_itk.transform(np.ones_like(deformed)) > 0.99999
difference = np.abs(by_map - by_demons)[seen].max() / np.ptp(by_map)
print(f"subject on the template's grid: largest difference {difference:.1e}")

###############################################################################
# It is a map like any other: it has both directions, and its points, its inverse and
# its Jacobian can be computed. The points of the template's brain, mapped to the
# subject and back, return to where they were.

voxels = np.argwhere(inside)[::50]
points = nib.affines.apply_affine(template.affine, voxels)
there = from_itk.transform_points(points)
round_trip = np.linalg.norm(from_itk.transform_points_inverse(there) - points, axis=1)
truth = nib.affines.apply_affine(
    template.affine, voxels + field[:, *voxels.T].T
)  # where the subject's voxels were taken from
known = np.linalg.norm(from_itk.transform_points_inverse(points) - truth, axis=1)
moved = np.linalg.norm(truth - points, axis=1)
print(f"round trip: {round_trip.mean():.3f} mm on average")
print(f"distance to the known field: {known.mean():.2f} mm, of {moved.mean():.2f} mm")

fig, axes = new_figure(
    "The subject; the subject warped to the template by ITK's warp, with outlines of "
    "the template; and the template warped to the subject, with outlines of the "
    "subject.",
    columns=3,
    aspect=1.2,
)
pictures = {
    "subject": (deformed, deformed),
    "subject, warped": (by_map, static),
    "template, warped": (from_itk.transform_inverse(static), deformed),
}
for ax, (title, (image, other)) in zip(axes[0], pictures.items(), strict=True):
    lines = {"outlines": other, "levels": (0.45,)}
    draw_slice(ax, image, template.affine, title=title, **lines)

plt.show()

###############################################################################
# References
# ----------
# .. footbibliography::
