"""
Train a network on your own images
==================================

A folder of images is enough: :func:`~dipy_dl_reg.fit` reads them, brings them onto one
grid, and trains a network that registers others of their kind. It needs no labels, and
nothing that was registered before.

Here the images are slices, so that this page is built in a minute; volumes go the same
way. As a command it is ``dipy_train_deep images --network unet --validation 0.2 ...``.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
import time

from dipy.align.imaffine import AffineMap
from matplotlib import pyplot as plt
import nibabel as nib
from nilearn.datasets import load_mni152_template, load_mni152_wm_template
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import DeepRegistration, apply_mapping, fit, load_network

###############################################################################
# Images
# ------
# Thirty subjects, made of one: an axial slice of the MNI152 template
# :footcite:p:`Fonov2011`, bundled with nilearn, bent at random by about 4 mm along each
# axis. As with real images, no two have the same voxels: their size is 2.2 to 3 mm, and
# each head is turned a little. A white matter mask is bent along, to judge by.

PLANE = np.ix_([0, 1, 3], [0, 1, 3])  # of a 4x4 matrix, what a slice needs

template = load_mni152_template(resolution=2)
white_matter = load_mni152_wm_template(resolution=2)
level = round((np.linalg.inv(template.affine) @ [0, 0, 12, 1])[2])
slices = [image.get_fdata()[:, :, level] for image in (template, white_matter)]
world2slice = np.linalg.inv(template.affine[PLANE])


def subject(rng):
    """A bent slice and its white matter, as NIfTI images on a grid of their own."""
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


def draw(ax, picture, affine, title):
    """Draw a slice; its pixels need not be squares."""
    wide, high = nib.affines.voxel_sizes(affine)[:2]
    style = {"origin": "lower", "cmap": "gray", "vmin": 0, "vmax": 0.9}
    ax.imshow(picture.T, aspect=high / wide, **style)
    ax.set_title(title)
    ax.set_axis_off()


fig, axes = plt.subplots(1, 5, figsize=(10, 2.5), layout="constrained")
for ax, path in zip(axes, sorted(images.iterdir())):
    image = nib.load(path)
    draw(ax, image.get_fdata(), image.affine, "x".join(map(str, image.shape)))

###############################################################################
# Training
# --------
# The folder goes in as it is. All images come onto one grid of 2.5 mm, through their
# affines; ``prealign="affine"`` would register volumes by `deep_affine_registration`
# first. A fifth of the images is held out: the loss on them says when more training no
# longer helps, and the weights that did best on them are kept.
#
# What is minimised is the dissimilarity of the images, here one minus their
# correlation, and ``weight`` times the roughness of the field. If warped images look
# torn, there is too little of it; if they hardly move, too much.

path = Path(folder.name) / "model.npz"
start = time.perf_counter()
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
print(f"trained in {time.perf_counter() - start:.0f} s")

rows = network.history.rows
steps = [row["step"] for row in rows]
fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.plot(steps, [row["total"] for row in rows], label="training")
ax.plot(steps, [row["validation"] for row in rows], label="held out")
ax.set(xlabel="step", ylabel="loss", ylim=(0, None))
ax.legend()

###############################################################################
# Use
# ---
# The file holds the weights, and says what they are: how they were trained, and under
# which licence they may be used.

network = load_network(path)
recipe = network.card["recipe"]
print(network.name, "for", network.spacing, "mm; licence:", network.card["licence"])
print({name: recipe[name] for name in ("images", "validation", "steps", "metric")})

###############################################################################
# ``DeepRegistration`` takes the file as its ``model``. With ``level_iters=0`` the
# network's field is the answer; otherwise it is where refinement on the two images
# themselves begins. Images may have any grid: they are brought to the network's voxels,
# and its field to theirs. Six images that were never seen are registered, each to the
# next.

runs = {
    "network": DeepRegistration(model=path, level_iters=0),
    "network, then\n15 iterations": DeepRegistration(model=path, level_iters=[10, 5]),
    "15 iterations": DeepRegistration(model=None, level_iters=[10, 5]),
}


def overlap(first, second):
    """Dice overlap of two masks."""
    return 2 * np.sum(first & second) / (np.sum(first) + np.sum(second))


def register(static, moving, white):
    """Moving, and its white matter, as it lies and after each run, on static's grid."""
    grids = {"static": static.affine[PLANE], "moving": moving.affine[PLANE]}
    as_it_lies = AffineMap(
        np.eye(3),
        domain_grid_shape=static.shape,
        domain_grid2world=grids["static"],
        codomain_grid_shape=moving.shape,
        codomain_grid2world=grids["moving"],
    )
    moving, white = moving.get_fdata(), white.get_fdata()
    warped = {"before": [as_it_lies.transform(each) for each in (moving, white)]}
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
    print(f"{' '.join(name.split()):28} overlap of white matter {np.mean(values):.3f}")

###############################################################################
# The network looks once, after half a minute of training; what it leaves, refinement
# mends. On slices as alike as these refinement alone does nearly as well.
#
# The outlines of static over moving, as it lies and as each run brings it. Look at the
# ventricles in the middle.

fig, axes = plt.subplots(3, 5, figsize=(12, 9.5), layout="constrained")
for row, (static, warped) in zip(axes, shown):
    image = static.get_fdata()
    pictures = {"static": image} | {name: both[0] for name, both in warped.items()}
    for ax, (name, picture) in zip(row, pictures.items()):
        draw(ax, picture, static.affine, name)
        smooth = gaussian_filter(image, 0.7).T
        ax.contour(smooth, [0.25, 0.62], colors="C1", linewidths=0.7)

folder.cleanup()

###############################################################################
# With images of your own
# -----------------------
# - Volumes take longer, above all without a GPU: ``checkpoint="state.npz"`` with
#   ``resume=True`` survives interruptions, and several processes, each with its GPU,
#   share the work if the script is started by ``torchrun``.
# - ``labels="folder"`` and ``dice_weight=1`` make label maps overlap besides.
# - ``atlas="template.nii.gz"`` has all images registered to one.
# - A list with one pair, ``[(static, moving)]``, is enough to train on: that is how the
#   "selfsup-fcn" network was meant.
#
# References
# ----------
# .. footbibliography::
