"""
Landmarks and thin-plate splines
================================

Landmarks are pairs of corresponding points of the two images, given in world
coordinates (mm), one point in each row.
:class:`~dipy_dl_reg.ThinPlateSplineRegistration` computes a map from landmarks alone,
by the interpolating spline of minimum bending energy :footcite:p:`Bookstein1989`.
:class:`~dipy_dl_reg.DeepRegistration` combines landmarks and images: it starts from the
map of the landmarks and penalizes deviations from them.

*Moving* is the MNI152 template :footcite:p:`Fonov2011`, bundled with nilearn. *Static*
is the same brain deformed by a known function, so that the correct position of every
point is known.
"""

# sphinx_gallery_thumbnail_number = 4

# The first page of the tutorials links the file example_figures.py.
from example_figures import OUTLINE, SECOND_OUTLINE, draw_slice, new_figure
from matplotlib import pyplot as plt
from nilearn.datasets import load_mni152_template
import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import map_coordinates

from dipy_dl_reg import DeepRegistration, ThinPlateSplineRegistration

template = load_mni152_template(resolution=3)
brain, grid2world = template.get_fdata(dtype=np.float32), template.affine


def truth(points, bend=8):
    """Map points of static to moving: a rotation and a smooth deformation, in mm."""
    turn = np.eye(points.shape[-1])
    turn[:2, :2] = [[0.97, -0.2], [0.2, 0.97]]
    waves = np.sin(np.roll(points, 1, axis=-1) / 30 + np.arange(points.shape[-1]))
    return points @ turn.T + bend * waves


###############################################################################
# A slice and twelve landmarks
# ----------------------------
# Landmarks are used in the same way in 2D and 3D; a slice is easier to display.

moving = brain[:, :, brain.shape[2] // 2]
slice2world = grid2world[np.ix_([0, 1, 3], [0, 1, 3])]


def world_of(shape, matrix):
    """World coordinates of all voxels."""
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return voxels @ matrix[:-1, :-1].T + matrix[:-1, -1]


def in_voxels(points, matrix):
    """World coordinates in voxels, along the first axis."""
    inverse = np.linalg.inv(matrix)
    return np.moveaxis(points @ inverse[:-1, :-1].T + inverse[:-1, -1], -1, 0)


world = world_of(moving.shape, slice2world)
static = map_coordinates(moving, in_voxels(truth(world), slice2world), order=1)
inside = static > 0.3

rng = np.random.default_rng(3)
static_points = rng.permutation(world[inside])[:12]
moving_points = truth(static_points)

registration = ThinPlateSplineRegistration()
mapping = registration.optimize(
    static_points,
    moving_points,
    static_shape=static.shape,
    moving_shape=moving.shape,
    static_grid2world=slice2world,
    moving_grid2world=slice2world,
)
warped = mapping.transform(moving)

###############################################################################
# The result is a :class:`dipy.align.imwarp.DiffeomorphicMap`, as for the other
# registrations of this package. The affine map that fits the landmarks best (least
# squares) is stored in its ``prealign``; the displacement fields contain the rest.


def in_mm(points):
    """Points where ``draw_slice`` draws them: mm from the lower left corner."""
    return (in_voxels(points, slice2world) + 0.5) * slice2world[0, 0]


def show(ax, image, title, points=None):
    """Draw a slice and points."""
    draw_slice(ax, image, slice2world, title=title)
    if points is not None:
        ax.plot(*in_mm(points), "o", color=OUTLINE, ms=4)


def lines(ax, mapping):
    """Draw the lines of static's grid mapped to moving."""
    x, y = in_mm(mapping.transform_points(world.reshape(-1, 2)).reshape(world.shape))
    for k in range(0, max(static.shape), 4):
        ax.plot(x[k : k + 1].T, y[k : k + 1].T, color=SECOND_OUTLINE, lw=0.6)
        ax.plot(x[:, k : k + 1], y[:, k : k + 1], color=SECOND_OUTLINE, lw=0.6)


fig, axes = new_figure(
    "An axial slice: static with twelve landmarks; moving with the same landmarks and "
    "the bent lines of static's grid; moving warped by the landmarks, which resembles "
    "static; and their difference.",
    rows=2,
    columns=2,
    aspect=1.2,
)
show(axes[0, 0], static, "static", static_points)
show(axes[0, 1], moving, "moving, static's grid", moving_points)
lines(axes[0, 1], mapping)
show(axes[1, 0], warped, "moving, warped", static_points)
draw_slice(
    axes[1, 1], np.abs(warped - static), slice2world, title="difference", vmax=0.9
)

###############################################################################
# Accuracy, and comparison with SciPy
# -----------------------------------
# :meth:`~dipy_dl_reg.ThinPlateSplineRegistration.transform_points` evaluates the spline
# exactly. The fields of the map contain its values at the voxels of static's grid, and
# are interpolated linearly between them.

by_spline = registration.transform_points(static_points)
error = np.abs(by_spline - moving_points).max()
print(f"Spline at the landmarks: maximum error {error:.0e} mm")
print(f"Map at the landmarks: maximum error {registration.distances.max():.2f} mm")

scipys = RBFInterpolator(static_points, moving_points, kernel="thin_plate_spline")
everywhere = world.reshape(-1, 2)
difference = registration.transform_points(everywhere) - scipys(everywhere)
print(f"Maximum difference from SciPy's spline: {np.abs(difference).max():.0e} mm")

back = mapping.transform_points_inverse(mapping.transform_points(static_points))
print(f"Maximum inversion error: {np.abs(back - static_points).max():.3f} mm")

###############################################################################
# Contradictory landmarks
# -----------------------
# Two neighbouring landmarks of moving are exchanged. The spline interpolates them and
# folds. The map is smoothed until it has no folds, and a warning states the distance
# by which each landmark is missed.

crossing = moving_points.copy()
pair = np.argsort(np.linalg.norm(static_points - static_points[0], axis=1))[:2]
crossing[pair] = crossing[pair[::-1]]
exchanged = ThinPlateSplineRegistration()
crossed = exchanged.optimize(
    static_points, crossing, static_shape=static.shape, static_grid2world=slice2world
)
print(f"Least Jacobian determinant: {exchanged.quality.minimum_jacobian:.3f}")
print("Error at the landmarks, mm:", exchanged.distances.round(1))

fig, axes = new_figure(
    "The lines of static's grid on moving: smooth for correct landmarks, squeezed but "
    "not crossing where two landmarks are exchanged.",
    columns=2,
    aspect=1.2,
)
for ax, drawn, title, points in (
    (axes[0, 0], mapping, "correct landmarks", moving_points),
    (axes[0, 1], crossed, "two exchanged", crossing),
):
    show(ax, moving, title, points)
    lines(ax, drawn)
    ax.plot(*in_mm(points[pair]), "o", color="#D55E00", ms=6)

###############################################################################
# Number of landmarks and accuracy
# --------------------------------
# Landmarks are distributed over the whole brain, and the error is measured at 5000
# other points. Landmarks placed by hand have errors of some mm, simulated here with a
# standard deviation of 1.5 mm along each axis. Then a spline with ``regularization`` is
# more accurate than an interpolating one. The kernel ``"biharmonic"`` (``-r``, the one
# of minimum bending energy in 3D) is less sensitive to such errors than ``r**2
# log(r)``.

everywhere = world_of(brain.shape, grid2world)
places = rng.permutation(everywhere[brain > 0.3])
others = places[-5000:]
noise = rng.normal(0, 1.5, places.shape)
coarse = load_mni152_template(resolution=4)
grid = {"static_shape": coarse.shape, "static_grid2world": coarse.affine}

counts = [10, 30, 100, 300, 1000]
methods = {
    "exact landmarks": (0, {}),
    "1.5 mm of noise": (1, {}),
    "1.5 mm of noise, biharmonic": (1, {"kernel": "biharmonic"}),
    "1.5 mm of noise, regularized": (1, {"regularization": 0.001}),
}
errors = {name: [] for name in methods}
for name, (noisy, options) in methods.items():
    for count in counts:
        spline = ThinPlateSplineRegistration(**options)
        targets = truth(places[:count]) + noisy * noise[:count]
        spline.optimize(places[:count], targets, **grid)
        error = spline.transform_points(others) - truth(others)
        errors[name].append(np.linalg.norm(error, axis=1).mean())

fig, axes = new_figure(
    "Mean error elsewhere against the number of landmarks. With exact landmarks it "
    "falls steadily. With noise it falls slowly with an interpolating spline, and "
    "fastest with regularization.",
    aspect=0.6,
)
ax = axes[0, 0]
for name, means in errors.items():
    ax.loglog(counts, means, "o-", label=name)
    print(f"{name:30}", " ".join(f"{mean:.2f}" for mean in means), "mm")
ax.set(xlabel="landmarks", ylabel="mean error elsewhere, mm")
ax.legend(fontsize=10)

###############################################################################
# Landmarks and images together
# -----------------------------
# Between landmarks the images determine the map, and landmarks prevent wrong matches.
# Here the deformation is too large for registration by the images alone, and six
# landmarks alone are too few.


def far(points):
    """Map points of static to moving, with displacements of up to 24 mm."""
    return truth(points, bend=24)


static = map_coordinates(moving, in_voxels(far(world), slice2world), order=1)
inside = static > 0.3
six = rng.permutation(world[inside])[:6]
grids = {"static_grid2world": slice2world, "moving_grid2world": slice2world}
landmarks = six, far(six)
images = {"static": static, "moving": moving}

maps = {
    "images": DeepRegistration().optimize(**images, **grids),
    "landmarks": ThinPlateSplineRegistration().optimize(
        *landmarks, static_shape=static.shape, moving_shape=moving.shape, **grids
    ),
    "both": DeepRegistration(landmarks=landmarks).optimize(**images, **grids),
}
fig, axes = new_figure(
    "Static, and moving warped by the images alone, which looks like static but is 6 "
    "mm off; by six landmarks alone, which does not look like it; and by both, with "
    "the smallest error.",
    rows=2,
    columns=2,
    aspect=1.2,
)
show(axes[0, 0], static, "static", six)
for ax, (name, mapping) in zip(axes.flat[1:], maps.items(), strict=True):
    error = mapping.transform_points(world[inside]) - far(world[inside])
    mean = np.linalg.norm(error, axis=1).mean()
    print(f"{name}: mean error {mean:.2f} mm")
    show(ax, mapping.transform(moving), f"{name}: {mean:.1f} mm off", six)
plt.show()

###############################################################################
# ``landmark_weight`` is the weight of the landmarks during refinement. With 1, the
# default, landmarks are matched to a fraction of a voxel. With 0, they only determine
# the start, and the images alone determine the refinement. The command is
# ``dipy_align_deep --static_landmarks static.csv --moving_landmarks moving.csv``.
#
# References
# ----------
# .. footbibliography::
