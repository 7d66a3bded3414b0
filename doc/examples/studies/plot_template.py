"""
A template growing sharper
==========================

A template is the average of many subjects, in the shape that lies in the middle of all
of them. :func:`dipy_dl_reg.build_template` aligns the subjects affinely with their
mean, registers each to the average, changes the average's shape so that the mean
displacement is 0, averages anew, and repeats.

Here five subjects are made from the MNI152 template that nilearn bundles: each is
deformed by its own smooth field, turned and scaled. The fields cancel each other on
average, so that the shape of the template is known: that of the MNI152 template.
"""

# sphinx_gallery_thumbnail_number = 1

from pathlib import Path
from tempfile import mkdtemp

from dipy.align.imaffine import AffineMap

# The first page of the tutorials links the file example_figures.py.
from example_figures import draw_slice, new_figure
from matplotlib import pyplot as plt
import nibabel as nib
from nilearn.datasets import load_mni152_template
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import build_template

##############################################################################
# The subjects: images of 5 mm, with noise. A field and its opposite are given to two
# subjects each, and none to the fifth.

mni = load_mni152_template(resolution=5)
image = mni.get_fdata(dtype=np.float32)
rng = np.random.default_rng(5)
waves = [
    gaussian_filter(rng.normal(size=(3, *image.shape)), (0, 3, 3, 3)) for _ in "ab"
]
fields = [2.4 * w / np.abs(w).max() * np.sqrt(3) for w in waves]
fields = [fields[0], -fields[0], fields[1], -fields[1], 0 * fields[0]]


def make_subject(field, angle, scale):
    """Deform the template by a field in voxels; turn and scale it by its affine."""
    places = np.indices(image.shape) + field
    values = map_coordinates(image, places, order=1)
    values += rng.normal(0, 0.02 * image.max(), image.shape) * (
        values > 0.1 * image.max()
    )
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ np.diag([scale] * 3 + [1.0]) @ mni.affine
    return nib.Nifti1Image(values.astype(np.float32), affine)


poses = [(0.10, 1.05), (-0.15, 0.95), (0.2, 1.0), (-0.2, 1.03), (0.05, 0.97)]
subjects = [make_subject(field, *pose) for field, pose in zip(fields, poses)]

##############################################################################
# One call builds the template. If the computation is interrupted, the same call
# continues it.

folder = Path(mkdtemp())
template = build_template(
    subjects, folder, iterations=2, affine_iterations=0, device="cpu"
)

##############################################################################
# The mean of the subjects after their affine alignment, and the template after two
# iterations.

grid = template.grid
aligned = [
    AffineMap(
        affine,
        domain_grid_shape=grid.shape,
        domain_grid2world=grid.affine,
        codomain_grid_shape=subject.shape,
        codomain_grid2world=subject.affine,
    ).transform(subject.get_fdata())
    for subject, affine in zip(subjects, template.affines, strict=True)
]
figure, axes = new_figure(
    "An axial slice of one subject, of the mean after affine alignment, which is "
    "blurred, and of the template, whose ventricles and cortex are sharper.",
    columns=3,
    aspect=1.2,
)
pictures = {
    "one subject": aligned[0],
    "affine mean": np.mean(aligned, axis=0),
    "template": template.values[..., 0],
}
for ax, (title, values) in zip(axes[0], pictures.items(), strict=True):
    draw_slice(ax, values, grid.affine, title=title)
plt.show()

##############################################################################
# The measures of the iterations are also in ``iterations.tsv`` and ``iterations.png``.
# *Spread* is the standard deviation over the subjects in a voxel. *Shape update* is the
# length of the mean displacement that the registrations of this iteration found, and
# by which the template's shape was changed. The *mean displacement* that is left in the
# maps is far below a tenth of a voxel.

for measures in template.history:
    print(
        f"iteration {measures.iteration}: sharpness {measures.sharpness:.4f} /mm, "
        f"spread {measures.spread:.3f}, shape update {measures.shape_update:.3f} "
        f"voxel, mean displacement {measures.mean_displacement:.4f} voxel"
    )

##############################################################################
# The affine maps have no mean, either: the template has the mean size and pose of the
# subjects. Here are the scales of the five affine maps; their product is 1.

scales = [np.linalg.det(affine[:3, :3]) ** (1 / 3) for affine in template.affines]
print("scales:", np.round(scales, 3), "product:", np.round(np.prod(scales), 3))

##############################################################################
# The visits of one subject are averaged in the same way, with
# ``build_template(visits, folder, transform="rigid")``: no visit is treated differently
# from the others, and each is interpolated once. From the command line:
#
# .. code-block:: bash
#
#    dipy_template_deep "subjects/*.nii.gz" --out_dir template
#    dipy_template_deep "visits/*.nii.gz" --transform rigid --out_dir halfway
