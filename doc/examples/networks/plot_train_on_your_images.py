"""
Train a network on your own images
==================================

:func:`~dipy_dl_reg.fit` reads the images of a folder, resamples them to one grid, and
trains a network that registers images of the same kind. It needs neither labels nor
registered images.

Here the images are slices, so that the training is short; volumes are used in the same
way. The corresponding command is ``dipy_train_deep images --network unet
--validation 0.2 ...``.
"""

# sphinx_gallery_thumbnail_number = 3

from pathlib import Path
from tempfile import TemporaryDirectory

from dipy.align.imaffine import AffineMap

# The first page of the tutorials links the file example_figures.py.
from example_figures import draw_slice, new_figure
from matplotlib import pyplot as plt
import nibabel as nib
from nilearn.datasets import load_mni152_template, load_mni152_wm_template
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import DeepRegistration, apply_mapping, fit, load_network

###############################################################################
# Images
# ------
# Thirty subjects are simulated from one image: an axial slice of the MNI152 template
# :footcite:p:`Fonov2011`, bundled with nilearn, is deformed randomly by about 4 mm
# along each axis. As in real data, the grids differ: the voxel size is 2.2 to 3 mm, and
# each head is rotated a little. A white matter mask is deformed in the same way for the
# evaluation.

PLANE = np.ix_([0, 1, 3], [0, 1, 3])  # the 2D part of a 4x4 matrix

template = load_mni152_template(resolution=2)
white_matter = load_mni152_wm_template(resolution=2)
level = round((np.linalg.inv(template.affine) @ [0, 0, 12, 1])[2])
slices = [image.get_fdata()[:, :, level] for image in (template, white_matter)]
world2slice = np.linalg.inv(template.affine[PLANE])


def subject(rng):
    """Make a deformed slice and its white matter, as NIfTI images on a random grid."""
    size, angle = rng.uniform(2.2, 3, 2), rng.normal(0, 0.1)
    shape = np.rint([190, 220] / size).astype(int)
    turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = np.eye(4)
    affine[:2, :2] = turn * size
    affine[:2, 3] = [0, -18] - affine[:2, :2] @ ((shape - 1) / 2)
    bend = [gaussian_filter(n, 14 / size) for n in rng.normal(size=(2, *shape))]
    world = np.einsum("ij,jkl->ikl", affine[:2, :2], np.indices(shape))
    world += affine[:2, 3, None, None] + 4 / np.std(bend) * np.stack(bend)
    at = np.einsum("ij,jkl->ikl", world2slice[:2, :2], world)
    at += world2slice[:2, 2, None, None]
    image, white = (map_coordinates(each, at, order=1) for each in slices)
    image += rng.normal(0, 0.02, shape)
    return nib.Nifti1Image(image, affine), nib.Nifti1Image(white, affine)


folder = TemporaryDirectory()
images, later, masks = (Path(folder.name) / name for name in ("images", "new", "white"))
for directory in (images, later, masks):
    directory.mkdir()
rng = np.random.default_rng(0)
for number in range(30):
    image, white = subject(rng)
    name = f"sub-{number:02}.nii.gz"
    nib.save(image, (images if number < 24 else later) / name)
    nib.save(white, masks / name)


fig, axes = new_figure(
    "Axial slices of four of the simulated subjects, on grids of different shapes.",
    columns=4,
    aspect=1.2,
)
for ax, path in zip(axes[0], sorted(images.iterdir())):
    image = nib.load(path)
    title = "x".join(map(str, image.shape))
    draw_slice(ax, image.get_fdata(), image.affine[PLANE], title=title)

###############################################################################
# Training
# --------
# All images are resampled to one grid of 2.5 mm through their affines. With
# ``prealign="affine"``, volumes would first be registered by
# :func:`~dipy_dl_reg.deep_affine_registration`. A fifth of the images is used for
# validation, and the weights with the lowest validation loss are returned.
#
# The loss is the dissimilarity of the images, here one minus their correlation, plus
# ``weight`` times the roughness of the field. If the warped images have irregular
# distortions, increase ``weight``; if they are hardly deformed, decrease it.

path = Path(folder.name) / "model.npz"
network = fit(
    "unet",
    images,
    spacing=2.5,
    validation=0.2,
    steps=300,
    batch_size=2,
    metric="NCC",
    weight=0.02,
    learning_rate=2e-3,
    schedule="cosine",
    validate_every=20,
    save=path,
    licence="that of the MNI152 template",
)
rows = network.history.rows
steps = [row["step"] for row in rows]
fig, axes = new_figure(
    "The loss of training and of validation against the step: both fall, and the "
    "validation loss levels off.",
    aspect=0.5,
)
ax = axes[0, 0]
ax.plot(steps, [row["total"] for row in rows], label="training")
ax.plot(steps, [row["validation"] for row in rows], label="validation")
ax.set(xlabel="step", ylabel="loss", ylim=(0, None))
ax.legend()

###############################################################################
# The file of the network
# -----------------------
# The file contains the weights, the settings of the training, and the licence.

network = load_network(path)
recipe = network.card["recipe"]
print(network.name, "for", network.spacing, "mm; licence:", network.card["licence"])
print({name: recipe[name] for name in ("images", "validation", "steps", "metric")})

###############################################################################
# Registration
# ------------
# ``DeepRegistration`` takes the file as its ``model``. With ``level_iters=0`` the
# result is the network's field; otherwise the field is refined for the given pair.
# Images may have any grid: they are resampled to the network's voxel size, and its
# field is resampled to static's grid. Six images that were not used in training are
# registered, each to the next one.

runs = {
    "network alone": DeepRegistration(model=path, level_iters=0),
    "network and refinement": DeepRegistration(model=path, level_iters=[10, 5]),
    "refinement alone": DeepRegistration(model=None, level_iters=[10, 5]),
}


def overlap(first, second):
    """Dice overlap of two masks."""
    return 2 * np.sum(first & second) / (np.sum(first) + np.sum(second))


def register(static, moving, white):
    """Warp moving and its white matter to static's grid, by each method."""
    grids = {"static": static.affine[PLANE], "moving": moving.affine[PLANE]}
    identity = AffineMap(
        np.eye(3),
        domain_grid_shape=static.shape,
        domain_grid2world=grids["static"],
        codomain_grid_shape=moving.shape,
        codomain_grid2world=grids["moving"],
    )
    moving, white = moving.get_fdata(), white.get_fdata()
    warped = {"before": [identity.transform(each) for each in (moving, white)]}
    for name, registration in runs.items():
        mapping = registration.optimize(
            static=static.get_fdata(),
            moving=moving,
            static_grid2world=grids["static"],
            moving_grid2world=grids["moving"],
        )
        warped[name] = [apply_mapping(mapping, each) for each in (moving, white)]
    return warped


new = sorted(later.iterdir())
overlaps, shown = {}, []
for one, other in zip(new, new[1:] + new[:1]):
    static = nib.load(one)
    warped = register(static, nib.load(other), nib.load(masks / other.name))
    shown.append((static, warped))
    mask = nib.load(masks / one.name).get_fdata() > 0.5
    for name, (_, white) in warped.items():
        overlaps.setdefault(name, []).append(overlap(mask, white > 0.5))

for name, values in overlaps.items():
    print(f"{name:28} overlap of white matter {np.mean(values):.3f}")

###############################################################################
# The network alone aligns most of the white matter. After refinement there is hardly a
# difference for slices as similar as these: refinement alone is as good. A network is
# worth its training where refinement alone does not find the way: for larger
# displacements, for other contrasts, or where its field without refinement is enough.
#
# Moving before registration and warped by each method, with outlines of static. Compare
# the ventricles in the middle.

static, warped = shown[0]
smooth = gaussian_filter(static.get_fdata(), 0.7)
fig, axes = new_figure(
    "A slice before registration, warped by the network alone, by the network and "
    "refinement, and by refinement alone, with outlines of static. The ventricles "
    "fill their outlines after refinement.",
    rows=2,
    columns=2,
    aspect=1.2,
)
for ax, (name, (picture, _)) in zip(axes.flat, warped.items(), strict=True):
    outlines = {"outlines": smooth, "levels": (0.25, 0.62)}
    draw_slice(ax, picture, static.affine[PLANE], title=name, **outlines)
plt.show()

folder.cleanup()

###############################################################################
# With images of your own
# -----------------------
# - Training on volumes takes longer, above all without a GPU. With
#   ``checkpoint="state.npz"`` and ``resume=True``, an interrupted training can be
#   continued. Several GPUs are used if the script is started with ``torchrun``.
# - ``labels="folder"`` and ``dice_weight=1`` add the overlap of label maps to the loss.
# - ``atlas="template.nii.gz"`` trains a network that registers all images to one image.
# - A list with one pair, ``[(static, moving)]``, is a valid training set; the network
#   "selfsup-fcn" was proposed for this use.
#
# References
# ----------
# .. footbibliography::
