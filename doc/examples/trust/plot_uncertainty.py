"""
=========================
How large is the error?
=========================

The MNI152 template is deformed by a known field, and gets noise, another bias field and
other intensities. It is registered to itself, and the expected error is compared with
the true error. :doc:`/uncertainty` has the measurements on real images.
"""

# sphinx_gallery_thumbnail_number = 1

from dipy.tracking.streamline import Streamlines

# The first page of the tutorials links the file example_figures.py.
from example_figures import ERRORS, draw_slice, new_figure
import matplotlib.pyplot as plt
from nilearn.datasets import load_mni152_template
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import (
    DeepRegistration,
    mapping_uncertainty,
    uncertainty_along_streamlines,
)

###############################################################################
# A brain, and the same deformed
# ------------------------------
# ``static(x) = moving(x + field(x))``, in mm. Both images then get noise of their own.

nifti = load_mni152_template(resolution=3)
moving, grid2world = nifti.get_fdata(dtype=np.float32), nifti.affine
random = np.random.default_rng(0)
field = np.stack(
    [gaussian_filter(random.normal(size=moving.shape), 4) for _ in range(3)], axis=-1
)
field *= 8 / np.linalg.norm(field, axis=-1).max()
voxels = np.indices(moving.shape) + np.moveaxis(
    field @ np.linalg.inv(grid2world[:3, :3]).T, -1, 0
)
static = map_coordinates(moving, voxels, order=3)


def scan(image, gamma):
    """Change the intensities, and add a bias field and noise."""
    bias = gaussian_filter(random.normal(size=image.shape), 10)
    seen = np.clip(image / image.max(), 0, 1) ** gamma * np.exp(0.1 * bias / bias.std())
    noise = random.normal(0, 0.03, image.shape)
    return np.where(image > 0.02 * image.max(), seen + noise, 0).astype(np.float32)


static, moving = scan(static, 1.0), scan(moving, 0.8)
registration = DeepRegistration()
mapping = registration.optimize(
    static=static,
    moving=moving,
    static_grid2world=grid2world,
    moving_grid2world=grid2world,
)

###############################################################################
# The expected error
# ------------------
# Both images show the same brain. The pair is registered once more, under changes.
# The factors from disagreement to error were found on images of single people. For this
# template, a mean of many people, the intervals are wider than necessary. Its weaker
# texture may be the reason, as noise then changes maps more; this was not tested.

found = mapping_uncertainty(mapping, static=static, moving=moving, subjects="same")
error = np.linalg.norm(mapping.backward - field, axis=-1)
inside = found.inside
print(
    f"mean error {error[inside].mean():.2f} mm, "
    f"expected {found.expected_error[inside].mean():.2f} mm"
)
for level in (0.5, 0.8, 0.95):
    radius = found.radius(level)
    covered = (error <= radius)[inside].mean()
    print(
        f"{level:.0%}: the error is within the radius at {covered:.0%} of the voxels; "
        f"median radius {np.median(radius[inside]):.2f} mm"
    )

###############################################################################
# Where the error is large
# ------------------------
# A single error is one draw from a distribution: compare the pictures by regions, not
# by voxels. The last one shows where an error is above the radius of 95 %.

panels = {
    "static": (static, {}),
    "error": (np.where(inside, error, np.nan), {"cmap": ERRORS, "vmin": 0, "vmax": 2}),
    "expected error": (
        np.where(inside, found.expected_error, np.nan),
        {"cmap": ERRORS, "vmin": 0, "vmax": 2},
    ),
    "above 95 % radius": (inside & (error > found.radius(0.95)), {"vmax": 1}),
}
figure, axes = new_figure(
    "Four axial slices: static; the true error of the map, up to 2 mm; the expected "
    "error, which is large in the same regions; and the few voxels at which the error "
    "is above the radius of 95 %.",
    rows=2,
    columns=2,
    aspect=1.2,
    bar=True,
)
for ax, (title, (image, options)) in zip(axes.flat, panels.items(), strict=True):
    drawn = draw_slice(ax, image, grid2world, title=title, **options)
    if "error" in title:
        figure.colorbar(drawn, ax=ax, label="mm", location="bottom", shrink=0.8)

###############################################################################
# Along streamlines
# -----------------
# Arcs through the brain stand for a bundle in static's space. ``values`` has one number
# for each point, as ``data_per_point`` of a tractogram wants it.

angles = np.linspace(0, np.pi, 60)
arcs = [
    np.column_stack([r * np.cos(angles), np.full(60, y), 5 + 0.8 * r * np.sin(angles)])
    for r in (25.0, 30.0, 35.0)
    for y in (-30.0, -20.0, -10.0)
]
values = uncertainty_along_streamlines(found, Streamlines(arcs))
figure, axes = new_figure(
    "Arcs through the brain, coloured by the expected error at each of their points.",
    aspect=0.55,
)
axis = axes[0, 0]
for arc, value in zip(arcs, values, strict=True):
    shown = axis.scatter(
        arc[:, 0], arc[:, 2], c=value[:, 0], s=9, vmin=0, vmax=2, cmap=ERRORS
    )
axis.set(xlabel="x (left to right), mm", ylabel="z, mm", aspect="equal")
axis.set_title("expected error along arcs")
figure.colorbar(shown, ax=axis, label="mm", shrink=0.7)
plt.show()
