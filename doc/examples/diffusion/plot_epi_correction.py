"""
Correcting the distortion of echo-planar images
===============================================

Diffusion images are distorted along one axis, that of phase encoding, where the
magnetic field is inhomogeneous: above the sinuses and the ears by several mm. The
signal is also compressed into bright spots, or stretched.

The distortion can be corrected with a second b0 image of the opposite direction of
phase encoding (:func:`~dipy_dl_reg.deep_epi_correction`) or, if there is none, with the
T1 image of the same head (:func:`~dipy_dl_reg.deep_epi_to_t1`). Here a b0 image is
distorted by a known field, so that the error of both can be measured.
"""

# sphinx_gallery_thumbnail_number = 1

# The first page of the tutorials links the file example_figures.py.
from example_figures import SIGNED, draw_slice, new_figure
from matplotlib import pyplot as plt
from nilearn.datasets import (
    load_mni152_gm_template,
    load_mni152_template,
    load_mni152_wm_template,
)
import numpy as np
from scipy.ndimage import gaussian_filter

from dipy_dl_reg import (
    DeepRegistration,
    apply_epi_correction,
    deep_epi_correction,
    deep_epi_to_t1,
)

###############################################################################
# A b0 image with a known distortion
# ----------------------------------
# The T1 image is the MNI152 template :footcite:p:`Fonov2011`, bundled with nilearn, at
# 3 mm. The b0 image is made from its tissue maps: cerebrospinal fluid is bright, white
# matter is dark.

template = load_mni152_template(resolution=3)
t1, affine = template.get_fdata(dtype=np.float32), template.affine
brain = t1 > 0.15 * t1.max()
t1 = np.where(brain, t1, 0)
grey = load_mni152_gm_template(resolution=3).get_fdata(dtype=np.float32)
white = load_mni152_wm_template(resolution=3).get_fdata(dtype=np.float32)
fluid = np.where(brain, (1 - grey - white).clip(0, 1), 0)
b0 = gaussian_filter(brain * (0.7 * grey + 0.45 * white + 1.4 * fluid), 0.5)

###############################################################################
# The field displaces the signal by up to 13 mm along ``"j"``, the second axis of the
# array (BIDS' name of the direction of phase encoding; ``"j-"`` is the opposite one).

x, y, z = np.einsum("ij,j...->i...", affine[:3, :3], np.indices(b0.shape))
x, y, z = (c + o for c, o in zip((x, y, z), affine[:3, 3], strict=True))
rng = np.random.default_rng(0)
field = gaussian_filter(rng.normal(size=b0.shape), 8)
field *= 8 / abs(field).max()  # mm
for centre, width, height in (
    ((0, 50, -25), 14, 11),
    ((48, -20, -30), 10, -6),
    ((-48, -20, -30), 10, -6),
):
    away = sum((c - o) ** 2 for c, o in zip((x, y, z), centre, strict=True))
    field += height * np.exp(-away / (2 * width**2))
shift = field / 3  # voxels


def distort(image, shift):
    """Displace the signal along the second axis without loss, and add noise."""
    lines, moves = np.moveaxis(image, 1, -1), np.moveaxis(shift, 1, -1)
    faces = np.arange(image.shape[1] + 1) - 0.5
    moves = np.concatenate(
        [moves[..., :1], (moves[..., 1:] + moves[..., :-1]) / 2, moves[..., -1:]], -1
    )
    totals = np.insert(np.cumsum(lines, -1), 0, 0, axis=-1)
    shown = np.empty_like(lines)
    for place in np.ndindex(lines.shape[:-1]):
        shown[place] = np.diff(np.interp(faces, faces + moves[place], totals[place]))
    real, imaginary = 0.02 * rng.normal(size=(2, *image.shape))
    return np.hypot(np.moveaxis(shown, -1, 1) + real, imaginary).astype(np.float32)


first, second = distort(b0, shift), distort(b0, -shift)

###############################################################################
# Two opposite encodings
# ----------------------
# Both images are corrected halfway; the rigid motion of the head between them is
# estimated, too. ``field`` is in voxels along the direction of encoding of the first
# image, ``field_mm`` in mm.

pair = deep_epi_correction(first, second, affine=affine, phase_encoding="j")

###############################################################################
# One image and a T1 image
# ------------------------
# The T1 image is aligned rigidly and given the contrast of the b0 image; the b0 image
# is then registered to it with displacements on the axis of phase encoding only.

single = deep_epi_to_t1(first, t1, affine=affine, t1_affine=affine, phase_encoding="j")

###############################################################################
# For comparison, an unconstrained registration to the T1 image: its displacements lie
# on all axes, and it does not know that the signal was compressed.

free = DeepRegistration(progress=False).optimize(
    static=t1, moving=first, static_grid2world=affine, moving_grid2world=affine
)

found = {
    "opposite pair": pair.field_mm,
    "T1": single.field_mm,
    "T1, unconstrained": free.backward[..., 1],
}
print(f"{'error along the axis, mm':26}{'mean':>6}{'95 %':>6}")
for name, millimetres in {"no correction": 0 * field, **found}.items():
    error = abs(millimetres - field)[brain]
    print(f"{name:26}{error.mean():6.2f}{np.percentile(error, 95):6.2f}")
across = np.linalg.norm(free.backward[..., [0, 2]], axis=-1)[brain]
print(f"unconstrained: {across.mean():.2f} mm on the other axes")
print(f"pair: {abs(pair.first_mapping.backward[..., [0, 2]]).max():.0f} mm")

###############################################################################
# The pair determines the field most accurately. With the T1 image, whose contrast
# differs, the unconstrained registration is closer to the true field along the axis
# here than the constrained one. But it also displaces along the other axes, where there
# is no distortion, and it leaves compressed signal as bright as it is. Acquire the pair
# if you can.
#
# The images, with the outline of the brain without distortion. Above the frontal sinus
# the distorted image leaves it. The pair corrects this, the T1 image does not.

images = {
    "without distortion": b0,
    "encoded along j": first,
    "corrected, pair": pair.corrected,
    "corrected, T1": single.corrected,
}
fig, axes = new_figure(
    "Low axial slices of the b0 image with the true outline of the brain: without "
    "distortion; encoded along j, where the front leaves the outline; corrected by "
    "the pair, within the outline; and by the T1 image, where the front still leaves "
    "it.",
    rows=2,
    columns=2,
    aspect=1.2,
)
place = {"at": -30, "outlines": brain, "vmin": 0, "vmax": 1.5}
for ax, (name, image) in zip(axes.flat, images.items(), strict=True):
    draw_slice(ax, image, affine, title=name, **place)

###############################################################################
# The fields.

fig, axes = new_figure(
    "The displacement along the axis of phase encoding, from -10 to 10 mm: the true "
    "one; that of the pair, which looks the same; and those of the T1 image and of an "
    "unconstrained registration, which are smaller in front.",
    rows=2,
    columns=2,
    aspect=1.2,
)
for ax, (name, image) in zip(axes.flat, {"true": field, **found}.items(), strict=True):
    shown = draw_slice(
        *(ax, np.where(brain, image, np.nan), affine),
        **{"at": -30, "title": name, "cmap": SIGNED, "vmin": -10, "vmax": 10},
    )
fig.colorbar(shown, ax=axes, label="displacement, mm", shrink=0.6)
plt.show()

###############################################################################
# All other volumes
# -----------------
# The map of the first image applies to all volumes of its acquisition.
# :func:`~dipy_dl_reg.apply_epi_correction` interpolates each once and multiplies it by
# the Jacobian determinant, which restores the density of the signal.

series = np.stack([first, 0.5 * first], axis=-1)
corrected = apply_epi_correction(pair.first_mapping, series)
print(corrected.shape)

###############################################################################
# From the shell::
#
#     dipy_epi_deep b0.nii.gz --opposite b0_opposite.nii.gz --phase_encoding j \
#         --dwi dwi.nii.gz --out_dir out
#     dipy_epi_deep b0.nii.gz --t1 t1.nii.gz --phase_encoding j --out_dir out
#
# The signal of points that were compressed into one voxel cannot be separated again:
# there, also the corrected images are only similar to the truth.
#
# References
# ----------
# .. footbibliography::
