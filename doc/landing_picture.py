"""Picture of the landing page and of the README: before and after a registration.

    python doc/landing_picture.py

The lines that register are those of the landing page, on images that come with the
dependencies: the b0 that is bundled with DIPY, and the MNI152 template that is bundled
with nilearn.
"""

from io import BytesIO
from pathlib import Path

from dipy.data import get_fnames
from matplotlib import pyplot as plt
import nibabel as nib
from nibabel.processing import resample_from_to
from nilearn.datasets import load_mni152_template
import numpy as np
from PIL import Image

from dipy_dl_reg import deep_registration

PICTURE = Path(__file__).parent / "_static" / "before_and_after.png"
STEPS = ["center_of_mass", "rigid", "affine", "deform"]
#: Axis of the slice, its place in mm, and the letters of the directions that it shows.
SLICES = ((2, 4, "LRPA"), (0, -4, "PAIS"))
#: Outlines of the template: the brain's surface and the ventricles.
LEVEL, COLOUR = 0.35, "#ff9f1c"


def slice_at(image, grid2world, axis, place):
    """Slice of an image in RAS orientation at a world coordinate, as it is drawn."""
    world = np.array([place if i == axis else 0 for i in range(3)])
    index = nib.affines.apply_affine(np.linalg.inv(grid2world), world)[axis]
    return np.take(image, int(round(index)), axis).T


def draw(ax, image, outlines, letters):
    """Draw a slice with the outlines of the template and letters of the directions."""
    inside = image[image > 0]
    ax.imshow(image, cmap="gray", origin="lower", vmax=np.percentile(inside, 99.5))
    if outlines is not None:
        ax.contour(outlines, [LEVEL], colors=COLOUR, linewidths=1.1)
    places = ((0.01, 0.5), (0.99, 0.5), (0.5, 0.01), (0.5, 0.99))
    aligned = (
        ("left", "center"),
        ("right", "center"),
        ("center", "bottom"),
        ("center", "top"),
    )
    for letter, place, (ha, va) in zip(letters, places, aligned, strict=True):
        style = {"ha": ha, "va": va, "color": "0.7", "fontsize": 12}
        ax.text(*place, letter, transform=ax.transAxes, **style)
    ax.axis("off")


def main():
    """Register, and write the picture."""
    template = load_mni152_template(resolution=2)
    subject = nib.load(get_fnames(name="aniso_vox"))
    warped, _ = deep_registration(moving=subject, static=template, pipeline=STEPS)

    fine = nib.as_closest_canonical(load_mni152_template(resolution=1))
    before = resample_from_to(subject, fine, order=1)
    after = resample_from_to(nib.Nifti1Image(warped, template.affine), fine, order=1)
    columns = {
        "template (T1)": fine.get_fdata(),
        "b0 before": before.get_fdata(),
        "b0 after": after.get_fdata(),
    }

    fig, axes = plt.subplots(
        2,
        3,
        figsize=(9, 6.3),
        facecolor="black",
        gridspec_kw={"height_ratios": (11, 9)},
    )
    for row, (axis, place, letters) in zip(axes, SLICES, strict=True):
        where = {"grid2world": fine.affine, "axis": axis, "place": place}
        outlines = slice_at(fine.get_fdata(), **where)
        for ax, (name, image) in zip(row, columns.items(), strict=True):
            drawn = outlines if name.startswith("b0") else None
            draw(ax, slice_at(image, **where), drawn, letters)
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name, color="white", fontsize=18)
    fig.subplots_adjust(0.005, 0.005, 0.995, 0.92, 0.02, 0.02)
    drawn = BytesIO()
    fig.savefig(drawn, dpi=120)
    # 64 colours make a file of half the size, and no difference that can be seen.
    Image.open(drawn).convert("RGB").quantize(64).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
