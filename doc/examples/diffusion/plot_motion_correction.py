"""
Motion correction of a diffusion series
=======================================

The head moves while a diffusion series is measured.
:func:`~dipy_dl_reg.deep_motion_correction` aligns the volumes, and
:func:`~dipy_dl_reg.rotate_gradients` rotates the b-vectors with them. This example
simulates a series with known motion, corrects it, draws the motion, and shows what
b-vectors that are not rotated do to the directions of fibres.
"""

# sphinx_gallery_thumbnail_number = 2

from pathlib import Path
import tempfile

from dipy.core.gradients import gradient_table
from dipy.core.sphere import HemiSphere, disperse_charges
from dipy.reconst.dti import TensorModel

# The first page of the tutorials links the file example_figures.py.
from example_figures import draw_slice, new_figure
from matplotlib import pyplot as plt
from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template
import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

from dipy_dl_reg import (
    deep_motion_correction,
    measure_motion,
    plot_motion,
    rotate_gradients,
    write_motion_table,
)

###############################################################################
# A head
# ------
# Grey and white matter of the MNI152 template, bundled with nilearn, at 4 mm; the rest
# of the brain is fluid. In white matter, a tensor lies along arcs in the coronal plane.

white = load_mni152_wm_template(resolution=4)
grid2world = white.affine
white, grey = (
    image.get_fdata(dtype=np.float32)
    for image in (white, load_mni152_gm_template(resolution=4))
)
white, grey = white / white.max(), grey / grey.max()
brain = gaussian_filter(white + grey, 1) > 0.25
fluid = np.clip(brain - white - grey, 0, 1)
b0 = 350 * white + 450 * grey + 1100 * fluid
diffusivity = 0.7e-3 * white + 0.8e-3 * grey + 2.8e-3 * fluid

voxels = np.moveaxis(np.indices(white.shape), 0, -1)
x, _, z = np.moveaxis(voxels @ grid2world[:3, :3].T + grid2world[:3, 3], -1, 0)
fibres = np.stack([z + 30, 0 * x, -x], axis=-1)
fibres /= np.linalg.norm(fibres, axis=-1, keepdims=True)

###############################################################################
# A series
# --------
# Two b0 volumes and 14 directions at b = 1000. From the sixth volume on, the head is
# turned, by more and more: 12 degrees at the end. The affine of a volume takes a point
# of the still head to where it was when the volume was measured.

rng = np.random.default_rng(0)
start = HemiSphere(
    theta=np.arccos(rng.uniform(-1, 1, 14)), phi=rng.uniform(0, 2 * np.pi, 14)
)
directions = disperse_charges(start, 300)[0].vertices
bvecs = np.insert(directions, [0, 7], 0, axis=0)
bvals = np.where(np.linalg.norm(bvecs, axis=1) > 0, 1000, 0)
gtab = gradient_table(bvals, bvecs=bvecs)

degrees = np.clip(np.arange(16) - 5, 0, None)[:, None] * [0.3, 1.1, 0.4]
motion = np.repeat(np.eye(4)[None], 16, axis=0)
motion[:, :3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
motion[:, :3, 3] = rng.normal(0, 0.5, (16, 3)) * (np.arange(16) > 0)[:, None]

world2grid = np.linalg.inv(grid2world)
volumes = []
for affine, bval, bvec in zip(motion, bvals, bvecs):
    # The gradient in the axes of the head, which has turned below it.
    along = fibres @ (affine[:3, :3].T @ bvec)
    signal = b0 * np.exp(-bval * (diffusivity + 0.8e-3 * white * (along**2 - 1 / 3)))
    matrix = world2grid @ np.linalg.inv(affine) @ grid2world
    moved = affine_transform(signal, matrix[:3, :3], matrix[:3, 3], order=1)
    noise = rng.normal(0, 12, (2, *moved.shape))
    volumes.append(np.hypot(moved + noise[0], noise[1]))
series = np.stack(volumes, axis=-1).astype(np.float32)

###############################################################################
# Correction
# ----------
# The call is that of DIPY's ``motion_correction``, and so are the affines, (4, 4, N).
# These b-vectors lie along the voxel axes; ``frame="fsl"`` is for FSL's.

corrected, affines = deep_motion_correction(series, gtab, grid2world, frame="voxel")
corrected = corrected.get_fdata(dtype=np.float32)

found = measure_motion(affines, series.shape, grid2world)
known = measure_motion(np.moveaxis(motion, 0, -1), series.shape, grid2world)
angle = np.abs(found.rotations - known.rotations).max()
shift = np.abs(found.translations - known.translations).max()
print(f"largest errors: {angle:.2f} degrees and {shift:.2f} mm")

###############################################################################
# The motion as a table and as a figure. Framewise displacement is the distance that the
# head moved since the volume before.

folder = Path(tempfile.mkdtemp())
write_motion_table(folder / "motion.tsv", found, bvals=bvals)
print("\n".join((folder / "motion.tsv").read_text().splitlines()[:4]))

plot_motion(folder / "motion.png", found, bvals=bvals)
figure, axes = new_figure(
    "The motion of the head against the number of the volume, as the package draws "
    "it: translations, rotations, which grow from the sixth volume on, and framewise "
    "displacement.",
    aspect=0.78,
)
axes[0, 0].imshow(plt.imread(folder / "motion.png"))
axes[0, 0].axis("off")

###############################################################################
# The last volume and the first, before and after. The outlines are those of the first
# b0 volume.

figure, axes = new_figure(
    "The first b0 volume; the last volume as measured, turned out of the outline of "
    "the first; and the last volume corrected, within the outline.",
    columns=3,
    aspect=1.2,
)
images = (series[..., 0], series[..., -1], corrected[..., -1])
titles = ("first b0", "last, measured", "last, corrected")
for ax, image, title in zip(axes[0], images, titles, strict=True):
    draw_slice(ax, image, grid2world, title=title, outlines=brain)

###############################################################################
# Directions of fibres
# --------------------
# Tensors are fitted to the series as measured, to the corrected series with the
# b-vectors of the measurement, and to the corrected series with rotated b-vectors.

rotated = rotate_gradients(gtab, affines, grid2world=grid2world, frame="voxel")
core = white > 0.7
cases = {
    "measured": (series, gtab),
    "corrected, b-vectors as they were": (corrected, gtab),
    "corrected, b-vectors rotated": (corrected, rotated),
}
figure, axes = new_figure(
    "Histograms of the angle between fitted and true fibres: smallest after "
    "correction with rotated b-vectors; larger for the series as measured, and "
    "largest after correction with the b-vectors as they were.",
    aspect=0.6,
)
panel = axes[0, 0]
for name, (data, table) in cases.items():
    fit = TensorModel(table).fit(np.maximum(data[core], 1))
    cosine = np.abs((fit.evecs[..., 0] * fibres[core]).sum(-1)).clip(0, 1)
    angle = np.degrees(np.arccos(cosine))
    panel.hist(angle, np.arange(0, 31), histtype="step", linewidth=2, label=name)
    print(f"{name}: median angle to the fibres {np.median(angle):.1f} degrees")
panel.set(xlabel="angle to the fibre (degrees)", ylabel="voxels of white matter")
panel.legend()
plt.show()

###############################################################################
# With files, ``dipy_motion_deep dwi.nii.gz dwi.bval dwi.bvec --plot`` writes the
# corrected series, the rotated b-vectors, the affines, the table and the figure; the
# series is read and written volume by volume.
