"""
What the default does on T1, b0 and FA
======================================

``DeepRegistration()`` needs no training and no options. It looks at the two images,
chooses how to compare them, and begins from the field of a network that comes with the
package where that helps. This page compares the default with its parts and with SyN
:footcite:p:`Avants2008` on three pairs of contrasts, and then on slices. The true
displacement is known, so the error can be measured in millimetres.
"""

# sphinx_gallery_thumbnail_number = 3

from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
from dipy.align.metrics import CCMetric, EMMetric
from dipy.data import get_fnames

# The first page of the tutorials links the file example_figures.py.
from example_figures import COLOURS, draw_slice, new_figure
from matplotlib import pyplot as plt
from nilearn.datasets import (
    load_mni152_gm_template,
    load_mni152_template,
    load_mni152_wm_template,
)
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import DeepRegistration, list_models, load_model

###############################################################################
# The trained networks
# --------------------
# Every network has a card with its licence and the command, data and settings of its
# training. :doc:`/model_cards` has its scores on real brains that were not used in
# training.

for name in list_models():
    card = load_model(name).card
    print(f"{name}: {card['licence']}")

###############################################################################
# One brain in three contrasts
# ----------------------------
# The MNI152 template :footcite:p:`Fonov2011`, bundled with nilearn, is a skull-stripped
# T1 image. The b0 and FA images are **simulated** from the template's maps of grey and
# white matter: cerebrospinal fluid is bright in the b0 and dark in the FA, and white
# matter is dark in the b0 and bright in the FA. The FA is lower in parts of the white
# matter, as it is where fibres cross. Real images are harder to register: they are
# distorted, have a lower resolution, and their brain masks have errors.
# :doc:`/auto_examples/first_steps/plot_syn_to_deep` uses a real b0.

SPACING = 4  # mm
loaders = load_mni152_template, load_mni152_gm_template, load_mni152_wm_template
template, *tissues = (load(resolution=SPACING) for load in loaders)
grid2world = template.affine
t1, grey, white = (x.get_fdata(dtype=np.float32) for x in (template, *tissues))

rng = np.random.default_rng(0)
brain = t1 > 0.05
fluid = np.clip(1 - grey - white, 0, 1) * brain
patches = gaussian_filter(rng.normal(size=t1.shape), 2)
coherent = 0.3 + 0.4 / (1 + np.exp(-1.5 * patches / patches.std()))
images = {
    "T1": t1 * brain,
    "b0": gaussian_filter(0.95 * fluid + 0.52 * grey + 0.36 * white, 0.4),
    "FA": gaussian_filter(0.06 * fluid + 0.16 * grey + coherent * white, 0.4),
}

###############################################################################
# A known deformation
# -------------------
# *static* is the T1 image, deformed by a smooth random field of up to a centimetre.
# Each image has its own noise, and *moving* has a bias field.


def random_field(inside, sigma, peak):
    """Smooth random displacement with a maximum, in voxels."""
    noise = rng.normal(size=(*inside.shape, inside.ndim))
    field = gaussian_filter(noise, (*[sigma] * inside.ndim, 0))
    return field * peak / np.linalg.norm(field, axis=-1)[inside].max()


def deform(image, field):
    """Interpolate an image at displaced voxels."""
    places = np.indices(image.shape) + np.moveaxis(field, -1, 0)
    return map_coordinates(image.astype(np.float32), places, order=1)


def add_noise(image, inside):
    """Add the noise of a magnitude image; 0 outside the brain."""
    noise = rng.normal(0, 0.03, image.shape)
    return np.where(inside, np.abs(image + noise), 0).astype(np.float32)


field = random_field(brain, 12 / SPACING, 10 / SPACING)
truth = field @ grid2world[:3, :3].T  # mm along the axes of the world
inside = deform(brain, field) > 0.5
static = add_noise(deform(images["T1"], field), inside)
bias = np.linspace(0.8, 1.2, t1.shape[1])[:, None]
moving = {kind: add_noise(image * bias, brain) for kind, image in images.items()}

fig, axes = new_figure(
    "The T1 image that is static, and the three moving images: T1, b0 with bright "
    "fluid, and FA with bright white matter.",
    rows=2,
    columns=2,
    aspect=1.2,
)
shown = {"static, T1": static, **{f"moving, {k}": v for k, v in moving.items()}}
for ax, (name, image) in zip(axes.flat, shown.items(), strict=True):
    draw_slice(ax, image, grid2world, at=12, title=name)

###############################################################################
# Three pairs, four ways
# ----------------------
# - **SyN**. For different contrasts, both of DIPY's metrics, local correlation and
#   ``EMMetric``, are tried, and the result with the smaller error is shown.
# - **Refinement alone**: ``model=None``, ``anatomy=False``.
# - **The network alone**: ``level_iters=0``.
# - **The default**.

grids = {"static_grid2world": grid2world, "moving_grid2world": grid2world}
ways = {
    "refinement alone": {"model": None, "anatomy": False},
    "network alone": {"level_iters": 0},
    "default": {},
}


def errors(mapping, truth):
    """Distance between a map and the true displacement at every voxel."""
    return np.linalg.norm(mapping.backward - truth, axis=-1)


def register_with_syn(static, moving, metrics, truth, inside, **grids):
    """SyN with each metric; the map with the smallest mean error."""
    maps = [
        SymmetricDiffeomorphicRegistration(metric, level_iters=[10, 10, 5]).optimize(
            static=static, moving=moving, **grids
        )
        for metric in metrics
    ]
    return min(maps, key=lambda mapping: errors(mapping, truth)[inside].mean())


results, chosen = {}, {}
for kind, image in moving.items():
    metrics = [CCMetric(3)] if kind == "T1" else [CCMetric(3), EMMetric(3)]
    found = register_with_syn(static, image, metrics, truth, inside, **grids)
    results[kind] = {"SyN": found}
    for name, options in ways.items():
        registration = DeepRegistration(progress=False, **options)
        results[kind][name] = registration.optimize(
            static=static, moving=image, **grids
        )
    begin = "the network" if registration.network_used else "no displacement"
    chosen[kind] = f"metric {registration.metric.name}, begins from {begin}"

###############################################################################
# What the default chose. Images of the same contrast are compared by local correlation.
# For different contrasts, the intensities of moving are first mapped to static's
# contrast. ``DeepRegistration("MI")``, or another name, sets the metric. The log states
# each choice and its reason.

for kind, words in chosen.items():
    print(f"{kind} to T1: {words}")

###############################################################################
# Mean distance to the true displacement over the brain. From b0 to T1, SyN ends further
# from the true displacement than it began, with either metric; more iterations do not
# help. From FA to T1, the network alone has the smallest error.

means = {
    kind: {
        name: errors(mapping, truth)[inside].mean() for name, mapping in maps.items()
    }
    for kind, maps in results.items()
}
before = np.linalg.norm(truth, axis=-1)[inside].mean()
print(f"before: {before:.2f} mm")
for kind, values in means.items():
    print(f"{kind} to T1:", {name: round(float(v), 2) for name, v in values.items()})

fig, axes = new_figure(
    "Bars of the mean error in mm of SyN, refinement alone, the network alone and the "
    "default, for T1, b0 and FA to T1. Only SyN from b0 to T1 is worse than before.",
    aspect=0.6,
)
for place, name in enumerate(next(iter(means.values()))):
    axes[0, 0].bar(
        np.arange(len(means)) + 0.2 * (place - 1.5),
        [values[name] for values in means.values()],
        width=0.18,
        color=COLOURS[name],
        label=name,
    )
axes[0, 0].set_xticks(range(len(means)), [f"{kind} to T1" for kind in means])
axes[0, 0].set(ylabel="mean error, mm")
axes[0, 0].axhline(before, color=COLOURS["before"], linestyle="--", label="before")
fig.legend(ncols=3, loc="outside lower center", fontsize=11)

###############################################################################
# The b0 image warped by four of them, with outlines of static's white matter and
# ventricles. The outlines were computed with the true displacement; after a correct
# registration they follow the edges of the image.

outlines = deform(white, field) + 2 * deform(gaussian_filter(fluid, 0.5), field)
fig, axes = new_figure(
    "The b0 image before and after registration to T1 by SyN, by the network alone "
    "and by the default, with the true outlines of white matter and ventricles.",
    rows=2,
    columns=2,
    aspect=1.2,
)
warped = {"before": moving["b0"]}
for name in ("SyN", "network alone", "default"):
    warped[name] = results["b0"][name].transform(moving["b0"])
for ax, (name, image) in zip(axes.flat, warped.items(), strict=True):
    place = {"at": 12, "outlines": outlines, "levels": (0.5, 1.5)}
    draw_slice(ax, image, grid2world, title=name, **place)

###############################################################################
# Slices
# ------
# For 2D images the same call uses the network ``"pyramid-slices"``. Here a real coronal
# slice bundled with DIPY :footcite:p:`Garyfallidis2014` is deformed. The moving image
# is the T1 slice, or the same slice with intensities remapped to look like a b0.

coronal = np.load(get_fnames(name="t1_coronal_slice"))[24:190, 38:220]
look = {"T1": coronal}
look["b0"] = np.interp(coronal, [0, 0.05, 0.3, 0.6, 0.8], [0, 0.95, 0.95, 0.52, 0.36])
tissue = coronal > 0.05
field = random_field(tissue, 16, 14)
within = deform(tissue, field) > 0.5
fixed = add_noise(deform(coronal, field), within)

print(f"before: {np.linalg.norm(field, axis=-1)[within].mean():.2f} voxels")
fig, axes = new_figure(
    "The coronal slice with the contrast of a b0 image, before and after registration "
    "to the T1 slice by SyN, the network alone and the default, with outlines of the "
    "T1 slice.",
    rows=2,
    columns=2,
)
for kind, image in look.items():
    image = add_noise(image, tissue)
    metrics = [CCMetric(2)] if kind == "T1" else [CCMetric(2), EMMetric(2)]
    maps = {"SyN": register_with_syn(fixed, image, metrics, field, within)}
    for name, options in ways.items():
        registration = DeepRegistration(progress=False, **options)
        maps[name] = registration.optimize(static=fixed, moving=image)
    for name, mapping in maps.items():
        error = errors(mapping, field)[within].mean()
        print(f"{kind} to T1: {name:17} {error:5.2f} voxels")
warped = {"before": image}
for name in ("SyN", "network alone", "default"):
    warped[name] = maps[name].transform(image)
for ax, (name, picture) in zip(axes.flat, warped.items(), strict=True):
    draw_slice(ax, picture, title=name, outlines=fixed, levels=(0.1, 0.55))
plt.show()

###############################################################################
# What to expect
# --------------
# - ``"pyramid-brain"`` is for **skull-stripped brains** after an affine registration
#   (:func:`~dipy_dl_reg.deep_registration` does both steps).
# - For images of the same contrast, refinement often gives the same result with and
#   without the network. ``registration.network_used`` states whether the network's
#   field was used; ``model=None`` does not apply the network.
# - For **different contrasts**, above all FA and T1, the two images have edges in
#   different places. Refinement aligns edges, so it does not always reduce the error of
#   the network. Where the figures above show this, ``level_iters=0`` is more accurate
#   and faster.
# - **Large deformations** exceed the range that the networks were trained for, above
#   all for slices. Use the search shown in
#   :doc:`/auto_examples/difficult/plot_large_deformation`.
# - Registering an image to a deformed copy of itself is easier than registering two
#   people. :doc:`/networks` has the overlap of labels for pairs of real brains, and
#   results for real b0 and FA images.
#
# References
# ----------
# .. footbibliography::
