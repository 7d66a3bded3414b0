"""
Tensors and FODs to a template, with and without reorientation
==============================================================

An image is transformed by reading its values elsewhere. That is not enough for images
of directions: where the map rotates or shears the anatomy, tensors and fibre
orientation distributions (FODs) must be rotated too, or they no longer lie along the
fibres. This example fits tensors and FODs to a simulated subject, registers it to the
MNI152 template and measures the angles between what is warped and the template's
fibres: without reorientation, with :func:`~dipy_dl_reg.transform_tensors`, with
:func:`~dipy_dl_reg.transform_vectors` for the first eigenvector alone, and with
:func:`~dipy_dl_reg.transform_fods`.
"""

# sphinx_gallery_thumbnail_number = 2

from dipy.core.gradients import gradient_table
from dipy.core.sphere import Sphere
from dipy.data import get_fnames
from dipy.io.gradients import read_bvals_bvecs
from dipy.reconst.csdeconv import ConstrainedSphericalDeconvModel
from dipy.reconst.dti import TensorModel
from dipy.reconst.shm import sh_to_sf

# The first page of the tutorials links the file example_figures.py.
from example_figures import draw_slice, new_figure
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection
from nilearn.datasets import load_mni152_wm_template
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import (
    apply_mapping,
    deep_registration,
    transform_fods,
    transform_tensors,
    transform_vectors,
)

###############################################################################
# Fibres in the template
# ----------------------
# The white matter of the template, bundled with nilearn, at 4 mm. Its fibres are a
# model: arcs in the coronal plane, as those of the corpus callosum.

template = load_mni152_wm_template(resolution=4)
white_matter = gaussian_filter(template.get_fdata(dtype=np.float32), 0.5)
template_fa = np.clip(0.75 * white_matter / white_matter.max(), 0, 0.75)
template_fa[template_fa < 0.1] = 0


def fibres(points):
    """Unit vectors along arcs around a point below the brain (mm, world axes)."""
    x, z = points[..., 0], points[..., 2] + 30
    vectors = np.stack([z, np.zeros_like(x), -x], axis=-1)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


###############################################################################
# A subject
# ---------
# Its head is tilted by 20 degrees, and deformed by waves. ``to_template`` takes points
# of the subject to the template, and ``jacobian`` is its derivative, by which fibres of
# the subject become those of the template.

tilt = np.radians(20)
turn = np.array(
    [[np.cos(tilt), 0, -np.sin(tilt)], [0, 1, 0], [np.sin(tilt), 0, np.cos(tilt)]]
)
amplitude, wave = 5.0, 2 * np.pi / 110


def to_template(points):
    """World points of the subject in the template's world."""
    turned = points @ turn.T
    return turned + amplitude * np.sin(wave * turned[..., [2, 0, 0]])


def jacobian(points):
    """Derivative of ``to_template``."""
    slopes = amplitude * wave * np.cos(wave * (points @ turn.T)[..., [2, 0, 0]])
    matrices = np.broadcast_to(np.eye(3), (*points.shape, 3)).copy()
    for row, column in enumerate((2, 0, 0)):
        matrices[..., row, column] += slopes[..., row]
    return matrices @ turn


shape = (52, 60, 52)
affine = np.diag([-4.0, 4.0, 4.0, 1.0])  # the first voxel axis points to the left
affine[:3, 3] = [104, -130, -92]
points = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
sources = to_template(points)
voxels = (sources - template.affine[:3, 3]) @ np.linalg.inv(template.affine[:3, :3]).T
fa = map_coordinates(template_fa, np.moveaxis(voxels, -1, 0), order=1)
directions = np.linalg.solve(jacobian(points), fibres(sources)[..., None])[..., 0]
directions /= np.linalg.norm(directions, axis=-1, keepdims=True)

###############################################################################
# The diffusion signal of these fibres, with noise, for a gradient table that DIPY
# bundles. b-vectors are given along voxel axes, so the fibres are, too.

_, bval_file, bvec_file = get_fnames(name="small_64D")
bvals, bvecs = read_bvals_bvecs(bval_file, bvec_file)
gtab = gradient_table(bvals, bvecs=bvecs)
along_voxels = directions * [-1, 1, 1]
ratio = fa / np.sqrt(3 - 2 * fa**2)
across, extra = 0.8e-3 * (1 - ratio), 2.4e-3 * ratio
squared = (along_voxels @ gtab.bvecs.T) ** 2
signal = np.exp(-gtab.bvals * (across[..., None] + extra[..., None] * squared))
signal += np.random.default_rng(0).normal(scale=0.02, size=signal.shape)
brain = fa > 0.1

###############################################################################
# From the series to the template
# -------------------------------
# DIPY fits the tensors; FA is registered to the template's; the map transforms the
# tensors. Before, the tensors are given along the voxel axes of the subject, and
# afterwards along those of the template.

fit = TensorModel(gtab).fit(signal, mask=brain)
_, mapping = deep_registration(
    moving=np.where(brain, fit.fa, 0).astype(np.float32),
    static=template_fa,
    moving_affine=affine,
    static_affine=template.affine,
    pipeline=["center_of_mass", "rigid", "affine", "deform"],
    progress=False,
)
tensors = fit.quadratic_form * brain[..., None, None]
warped = transform_tensors(mapping, tensors, frame="voxel")

###############################################################################
# Without reorientation, each component is an image like any other. The first voxel axes
# of the two images have opposite directions, which must not be forgotten either.

flat = (tensors * np.outer([-1, 1, 1], [-1, 1, 1])).reshape(*shape, 9)
as_images = apply_mapping(mapping, flat).reshape(*template_fa.shape, 3, 3)

###############################################################################
# The angle to the template's fibres
# ----------------------------------


def first_eigenvectors(matrices):
    """Eigenvectors of the largest eigenvalues."""
    return np.linalg.eigh(matrices)[1][..., -1]


def angles(vectors):
    """Angle to the template's fibres in each voxel, in degrees."""
    cosines = np.abs((vectors * truth).sum(-1))
    return np.degrees(np.arccos(np.clip(cosines, 0, 1)))


grid = np.moveaxis(np.indices(template_fa.shape), 0, -1)
truth = fibres(grid @ template.affine[:3, :3].T + template.affine[:3, 3])
inside = (template_fa > 0.35) & (warped != 0).any((-2, -1))
results = {
    "without reorientation": first_eigenvectors(as_images),
    "finite strain": first_eigenvectors(
        transform_tensors(mapping, tensors, method="finite_strain", frame="voxel")
    ),
    "principal direction preserved": first_eigenvectors(warped),
    "vectors": transform_vectors(mapping, fit.evecs[..., 0], mask=brain, frame="voxel"),
}
for name, vectors in results.items():
    off = angles(vectors)[inside]
    print(
        f"{name:30s} median {np.median(off):4.1f}, 90 % {np.percentile(off, 90):4.1f}"
    )

###############################################################################
# Lines along the first eigenvectors of one coronal slice, coloured by their angle to
# the template's fibres; those of the subject have one colour. Finite strain follows
# rotations alone; preservation of principal direction :footcite:p:`Alexander2001`
# follows shears and stretches, too.

section = 29
section_y = template.affine[1, 1] * section + template.affine[1, 3]


def draw(ax, vectors, background, grid2world, colours, chosen, title):
    """Draw lines along vectors, given along voxel axes, in a coronal slice."""
    y = grid2world[1, 1] * section + grid2world[1, 3]
    draw_slice(ax, background, grid2world, plane="coronal", at=y, title=title, vmax=1.2)
    i, k = np.nonzero(chosen[:, section])
    u, v = (vectors[i, section, k, axis] for axis in (0, 2))
    if grid2world[0, 0] < 0:  # left is drawn at the left
        shown, u = len(chosen) - 1 - i, -u
    else:
        shown = i
    return ax.quiver(
        *(4 * shown + 2, 4 * k + 2, u, v, colours[i, section, k]),
        **{"headaxislength": 0, "headlength": 0, "headwidth": 0, "pivot": "mid"},
        **{"scale": 0.25, "scale_units": "xy", "angles": "xy", "width": 0.008},
        **{"cmap": "cool", "clim": (0, 20)},
    )


figure, axes = new_figure(
    "Lines along fibres in a coronal slice: of the subject, whose head is tilted, and "
    "on the template without reorientation, with finite strain, and with preserved "
    "principal direction. The angles to the template's fibres become smaller in this "
    "order.",
    rows=2,
    columns=2,
    aspect=0.9,
    bar=True,
)
own, off = fit.evecs[..., 0], 20 + 0 * fa
draw(axes[0, 0], own, fit.fa * brain, affine, off, fa > 0.35, "subject, before")
for ax, name in zip(axes.flat[1:], list(results)[:3], strict=True):
    off, title = angles(results[name]), name.replace("principal direction", "direction")
    lines = draw(ax, results[name], template_fa, template.affine, off, inside, title)
figure.colorbar(lines, ax=axes, label="angle, degrees", location="bottom", shrink=0.6)

###############################################################################
# Fibre orientation distributions
# -------------------------------
# DIPY's spherical deconvolution of the same series, in a slab around the section, and
# :func:`~dipy_dl_reg.transform_fods`, which turns each part of an FOD
# :footcite:p:`Raffelt2012`. Without reorientation, the coefficients are interpolated as
# images; the mirrored circle is for the opposite voxel axes.

slab = (fa > 0.35) & (np.abs(sources[..., 1] - section_y) < 8)
response = np.array([1.68e-3, 0.36e-3, 0.36e-3]), 1.0
model = ConstrainedSphericalDeconvModel(gtab, response, sh_order_max=6)
fods = model.fit(signal, mask=slab).shm_coeff * slab[..., None]
circle = np.linspace(0, 2 * np.pi, 61)[:-1]
plane = np.stack([np.cos(circle), np.zeros(60), np.sin(circle)], axis=-1)
images = {
    "without reorientation": (apply_mapping(mapping, fods), plane * [-1, 1, 1]),
    "transform_fods": (transform_fods(mapping, fods, mask=slab, frame="voxel"), plane),
}


def draw_fods(ax, coefficients, directions, title):
    """Draw FODs of a coronal slice as outlines in its plane."""
    shown = coefficients[:, section]
    i, k = np.nonzero(inside[:, section] & (shown != 0).any(-1))
    radii = sh_to_sf(shown[i, k], Sphere(xyz=directions), sh_order_max=6).clip(0)
    radii *= 0.7 / radii.max(1, keepdims=True)
    outlines = np.stack([i, k], -1)[:, None] + radii[..., None] * plane[:, [0, 2]]
    outlines = 4 * outlines + 2  # mm, as the slice is drawn
    off = np.degrees(circle[radii[:, :30].argmax(1)])
    wanted = truth[i, section, k]
    off = np.abs((off - np.degrees(np.arctan2(wanted[:, 2], wanted[:, 0]))) % 180)
    off = np.minimum(off, 180 - off)
    print(f"{title:30s} median {np.median(off):4.1f} degrees in the plane")
    draw_slice(
        *(ax, template_fa, template.affine),
        **{"plane": "coronal", "at": section_y, "title": title, "vmax": 1.2},
        window=(52, 148, 80, 164),
    )
    glyphs = PolyCollection(outlines, array=off, cmap="cool", clim=(0, 20))
    ax.add_collection(glyphs)
    return glyphs


figure, axes = new_figure(
    "Outlines of FODs in the middle of a coronal slice: without reorientation they "
    "lie across the arcs of the template's fibres, with transform_fods along them.",
    columns=2,
    aspect=0.9,
    bar=True,
)
for ax, (name, (coefficients, directions)) in zip(axes[0], images.items(), strict=True):
    glyphs = draw_fods(ax, coefficients, directions, name)
figure.colorbar(glyphs, ax=axes, label="angle, degrees", location="bottom", shrink=0.6)
plt.show()

###############################################################################
# References
# ----------
# .. footbibliography::
