"""
A good and a failed registration
================================

After every registration, look at its picture and read its verdict. This example makes a
good result and a failed one, and shows how they differ in both. :doc:`/verdict` says
how often a verdict is wrong, and :doc:`/reading_a_report` explains the whole report.
"""

# sphinx_gallery_thumbnail_number = 1

from pathlib import Path
from tempfile import mkdtemp

# The first page of the tutorials links the file example_figures.py.
from example_figures import draw_slice, new_figure
from matplotlib import pyplot as plt
from nilearn.datasets import load_mni152_template
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import DeepRegistration, assess_mapping, plot_registration

###############################################################################
# A subject, and the same subject with a wrong header
# ---------------------------------------------------
# *Static* is the MNI152 template :footcite:p:`Fonov2011` at 4 mm, bundled with nilearn.
# The subject is the same brain, deformed by a smooth random field, with noise. In the
# second file the header is wrong: by it, the head lies on its back.

template = load_mni152_template(resolution=4)
static, grid2world = template.get_fdata(dtype=np.float32), template.affine
rng = np.random.default_rng(0)
field = gaussian_filter(rng.normal(size=(3, *static.shape)), (0, 4, 4, 4))
field *= 2.5 / np.linalg.norm(field, axis=0).max()  # 10 mm
moving = map_coordinates(static, np.indices(static.shape) + field, order=1)
moving = np.where(moving > 0.02, moving + rng.normal(0, 0.02, moving.shape), 0)

on_its_back = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
headers = {"right header": grid2world, "wrong header": on_its_back @ grid2world}

###############################################################################
# Two registrations
# -----------------
# Both without affine steps, which would have corrected the wrong header. The verdict is
# also logged.

verdicts, mappings = {}, {}
for name, header in headers.items():
    registration = DeepRegistration(progress=False)
    mappings[name] = registration.optimize(
        static=static,
        moving=moving,
        static_grid2world=grid2world,
        moving_grid2world=header,
    )
    verdicts[name] = registration.verdict
    print(f"{name}: {registration.verdict.grade}")
    for reason in registration.verdict.reasons:
        print("   ", reason)

###############################################################################
# The picture
# -----------
# Outlines of static on the warped image. On the left they follow the edges of the image
# everywhere. On the right the deformation has bent a brain in another pose towards the
# outline of the template: parts of its surface fit, the front does not, and the
# structures within are not where their outlines are.

fig, axes = new_figure(
    "Sagittal slices of the subject after registration, with outlines of the "
    "template: with the right header they follow the image; with the wrong header the "
    "image is distorted and its structures do not match them.",
    columns=2,
)
for ax, (name, mapping) in zip(axes[0], mappings.items(), strict=True):
    title = f"{name}: {verdicts[name].grade}"
    place = {"plane": "sagittal", "outlines": static, "levels": (0.4, 0.7)}
    draw_slice(ax, mapping.transform(moving), grid2world, title=title, **place)

###############################################################################
# The numbers
# -----------
# Some of the measures on which a verdict is based. Neither map has folds, and both are
# invertible: a map can be regular and wrong.

for name, verdict in verdicts.items():
    measures = verdict.measures
    print(
        f"{name}: mean squared local correlation {measures.similarity_before:.2f} "
        f"before, {measures.similarity:.2f} after; mean displacement "
        f"{measures.displacement:.1%} of the image's length"
    )

###############################################################################
# Maps from elsewhere
# -------------------
# :func:`~dipy_dl_reg.assess_mapping` judges a map of SyN, or one that was read from a
# file, in the same way; with ``anatomy=True`` it also compares structures that a
# network finds in both images. :func:`~dipy_dl_reg.plot_registration` draws one
# picture of any map.

mapping = mappings["right header"]
print(assess_mapping(mapping, static=static, moving=moving).grade)
path = Path(mkdtemp()) / "registration.png"
plot_registration(path, static, moving, mapping)

fig, axes = new_figure(
    "The picture that plot_registration draws: three planes of static, moving before "
    "and after, a checkerboard, the warped grid and the logarithm of the Jacobian "
    "determinant.",
    aspect=0.52,
)
axes[0, 0].imshow(plt.imread(path))
axes[0, 0].axis("off")
plt.show()

###############################################################################
# References
# ----------
# .. footbibliography::
