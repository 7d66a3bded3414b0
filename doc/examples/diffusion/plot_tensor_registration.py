"""
Registration by the directions of fibres
========================================

FA shows where white matter is, but not which bundle: where a bundle borders on another
one, FA is the same on both sides. :func:`~dipy_dl_reg.register_tensors` compares the
tensors themselves, and rotates them with the anatomy in every iteration. This example
registers a simulated subject to a template by FA and by tensors, and compares both maps
with the true one. :func:`~dipy_dl_reg.register_fods` does the same for fibre
orientation distributions.
"""

# sphinx_gallery_thumbnail_number = 1

from dipy.reconst.dti import color_fa, decompose_tensor, fractional_anisotropy

# The first page of the tutorials links the file example_figures.py.
from example_figures import ERRORS, draw_slice, new_figure
from matplotlib import pyplot as plt
from nibabel.affines import apply_affine
from nilearn.datasets import load_mni152_wm_template
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import deep_registration, register_tensors, transform_tensors

###############################################################################
# A template of three bundles
# ---------------------------
# The white matter of the MNI152 template, bundled with nilearn, at 4 mm. In this model,
# fibres near the middle plane are arcs from left to right, fibres further out fan
# upwards, and the outermost fibres are arcs from front to back. FA shows the white
# matter as a whole, not the bundles.

template = load_mni152_wm_template(resolution=4)
affine = template.affine
probability = gaussian_filter(template.get_fdata(dtype=np.float32), 0.5)
rng = np.random.default_rng(0)


def tensors_at(points):
    """Tensors of the template at world points (mm), along the world's axes."""
    voxels = np.moveaxis(apply_affine(np.linalg.inv(affine), points), -1, 0)
    white = np.clip(2 * sample(probability, voxels) / probability.max(), 0, 1)
    x, y, z = np.moveaxis(points, -1, 0)
    none = np.zeros_like(x)
    arcs = np.stack([z + 30, none, -x], -1)
    fans = np.stack([x, y + 20, z + 60], -1)
    outer = np.stack([none, z + 40, -(y + 20)], -1)
    lateral = np.abs(x)[..., None]
    stick = np.where(lateral < 17, arcs, np.where(lateral < 30, fans, outer))
    stick = stick / np.linalg.norm(stick, axis=-1, keepdims=True)
    stick = stick[..., :, None] * stick[..., None, :]
    anisotropic = 0.3e-3 * np.eye(3) + 1.4e-3 * stick
    share = white[..., None, None]
    tensors = share * anisotropic + (1 - share) * 0.8e-3 * np.eye(3)
    tensors[white < 0.05] = 0
    return tensors


def sample(image, voxels):
    """Linear interpolation of an image at voxel coordinates."""
    return map_coordinates(image, voxels, order=1)


def add_noise(tensors):
    """Tensors with errors as of a fit to noisy signals."""
    errors = rng.normal(0, 4e-5, tensors.shape)
    return tensors + (errors + errors.swapaxes(-1, -2)) * (tensors != 0).any(
        (-2, -1), keepdims=True
    )


grid = apply_affine(affine, np.moveaxis(np.indices(template.shape), 0, -1))
static = add_noise(tensors_at(grid))

###############################################################################
# A subject
# ---------
# Its anatomy is that of the template, moved by waves of up to 7 mm. The tensors of the
# subject are those of the template, turned by the rotation of the map.

AMPLITUDE, WAVE = 7.0, 2 * np.pi / 90


def to_template(points):
    """Points of the subject in the template (mm)."""
    return points + AMPLITUDE * np.sin(WAVE * points[..., [1, 2, 0]])


def rotations(points):
    """Rotation by which directions of the template become those of the subject."""
    matrices = np.broadcast_to(np.eye(3), (*points.shape, 3)).copy()
    for row, column in enumerate((1, 2, 0)):
        slope = AMPLITUDE * WAVE * np.cos(WAVE * points[..., column])
        matrices[..., row, column] += slope
    left, _, right = np.linalg.svd(np.linalg.inv(matrices))
    return left @ right


turn = rotations(grid)
moving = add_noise(turn @ tensors_at(to_template(grid)) @ turn.swapaxes(-1, -2))

###############################################################################
# Two registrations
# -----------------
# The tensors are given along the axes of the world here: ``frame="world"``. Tensors
# that DIPY fits are along the axes of the voxels, which is the default. A wrong frame
# is not detected, so compare the directions with the anatomy first.


def fa_of(tensors):
    """FA of tensors, 0 in the background."""
    evals = np.linalg.eigvalsh(tensors)
    return np.nan_to_num(fractional_anisotropy(evals)).astype(np.float32)


options = {"moving_affine": affine, "static_affine": affine, "progress": False}
_, by_fa = deep_registration(
    moving=fa_of(moving), static=fa_of(static), model=None, **options
)
warped, by_tensors = register_tensors(
    moving=moving, static=static, frame="world", **options
)

###############################################################################
# Angles between corresponding fibres
# -----------------------------------
# The tensors of the subject are transformed by both maps with the same reorientation.
# In the white matter, the angle between their principal directions and those of the
# template is measured, and the distance between each map and the true one.

results = {
    "not registered": moving,
    "by FA": transform_tensors(by_fa, moving, frame="world"),
    "by tensors": warped,
}
white = fa_of(static) > 0.4


def angles(tensors):
    """Angles of principal directions to those of the template (degrees)."""
    first, second = (np.linalg.eigh(t)[1][..., 2] for t in (tensors, static))
    return np.degrees(np.arccos(np.clip(np.abs((first * second).sum(-1)), 0, 1)))


for name, tensors in results.items():
    print(f"{name:15s} mean angle {angles(tensors)[white].mean():5.1f} degrees")
for name, mapping in (("by FA", by_fa), ("by tensors", by_tensors)):
    found = to_template(grid + mapping.backward)
    error = np.linalg.norm(found - grid, axis=-1)[white]
    print(f"{name:15s} mean error of the map {error.mean():5.2f} mm")

###############################################################################
# Where bundles border on each other, FA does not show the border, and the tensors do:
# the angle is much smaller. Elsewhere both maps are about equally far from the true
# one here, because the simulated tensors of a bundle are all alike and do not show how
# far it moved along itself. Real tensors differ: there, the map is closer to the true
# one, too (``doc/benchmark/orientation.txt``).


def directions(tensors):
    """Directions in colours: red left-right, green front-back, blue up-down."""
    evals, evecs = decompose_tensor(tensors)
    return color_fa(np.nan_to_num(fractional_anisotropy(evals)), evecs)


figure, axes = new_figure(
    "Directions of fibres in colours in a coronal slice: the template, the subject "
    "before registration, and the subject registered by FA and by tensors. By tensors "
    "the borders between the colours lie as in the template.",
    rows=2,
    columns=2,
    aspect=0.9,
)
shown = {"template": static, **results}
for ax, (name, tensors) in zip(axes.flat, shown.items(), strict=True):
    place = {"plane": "coronal", "at": -20, "title": name}
    draw_slice(ax, directions(tensors), affine, **place)

###############################################################################
# The angle to the fibres of the template in the same slice.

figure, axes = new_figure(
    "The angle to the template's fibres, from 0 to 60 degrees: large along the "
    "borders of bundles before registration and by FA, and small there by tensors.",
    columns=3,
    aspect=0.9,
    bar=True,
)
for ax, (name, tensors) in zip(axes[0], results.items(), strict=True):
    apart = np.where(white, angles(tensors), np.nan)
    place = {"plane": "coronal", "at": -20, "title": name}
    drawn = draw_slice(ax, apart, affine, cmap=ERRORS, vmin=0, vmax=60, **place)
figure.colorbar(drawn, ax=axes, label="angle, degrees", location="bottom", shrink=0.6)
plt.show()
