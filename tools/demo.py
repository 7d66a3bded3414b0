"""Register a real b0 image to the MNI152 template, and write all results.

    tools/demo.sh [output folder]

The b0 (58x58x24 voxels of 4x4x5 mm on an oblique grid, without the top and the bottom
of the brain) is bundled with DIPY, and the template (skull-stripped T1, here at 2 mm)
with nilearn. No data are downloaded.
"""

import argparse
from contextlib import contextmanager
import logging
from pathlib import Path
import time
from typing import NamedTuple

from dipy.align.imaffine import AffineMap
from dipy.data import get_fnames
from dipy.segment.mask import median_otsu
import nibabel as nib
from nilearn.datasets import load_mni152_template
import numpy as np

from dipy_dl_reg import (
    DeepRegistration,
    apply_mapping,
    deep_affine_registration,
    save_mapping,
)
from dipy_dl_reg.maps.report import plot_registration


class Image(NamedTuple):
    """Voxels, and the matrix from voxel indices to world coordinates."""

    data: np.ndarray
    grid2world: np.ndarray

    def __str__(self):
        """Describe shape and voxel size."""
        sizes = nib.affines.voxel_sizes(self.grid2world)
        return "x".join(map(str, self.data.shape)) + " voxels of {}x{}x{} mm".format(
            *sizes.round(1)
        )


@contextmanager
def step(text):
    """Print a description of a step, and its time."""
    print(f"{text} ...", flush=True)
    start = time.perf_counter()
    yield
    print(f"    {time.perf_counter() - start:.1f} s", flush=True)


def read(nifti):
    """Return the voxels and the affine of a nibabel image."""
    return Image(nifti.get_fdata(dtype=np.float32), nifti.affine)


def mutual_information(static, warped):
    """Mutual information of two images within static's brain, in nats."""
    inside = static > 0
    joint, _, _ = np.histogram2d(static[inside], warped[inside], bins=32)
    joint /= joint.sum()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    some = joint > 0
    return np.sum(joint[some] * np.log(joint[some] / apart[some]))


def write(folder, static, moving, prealign, mapping, verdict):
    """Write both warped images, the map, the affine part and a figure."""
    warped = apply_mapping(mapping, moving.data)
    nib.save(
        nib.Nifti1Image(warped, static.grid2world), folder / "warped_moving.nii.gz"
    )
    warped = apply_mapping(mapping, static.data, inverse=True)
    nib.save(
        nib.Nifti1Image(warped, moving.grid2world),
        folder / "inverse_warped_static.nii.gz",
    )
    save_mapping(mapping, folder / "mapping.npz", overwrite=True)
    np.savetxt(folder / "prealign.txt", prealign)
    plot_registration(
        folder / "registration.png",
        static.data,
        moving.data,
        mapping,
        static_grid2world=static.grid2world,
        moving_grid2world=moving.grid2world,
        title="b0 (moving) to MNI152 T1 (static)",
        verdict=verdict,
        overwrite=True,
    )


def report(registration, static, brain, prealign, mapping):
    """Print the similarity before and after, the regularity, and the verdict."""
    quality = registration.quality
    affine_map = AffineMap(
        prealign,
        domain_grid_shape=static.data.shape,
        domain_grid2world=static.grid2world,
        codomain_grid_shape=brain.data.shape,
        codomain_grid2world=brain.grid2world,
    )
    before = mutual_information(static.data, affine_map.transform(brain.data))
    after = mutual_information(static.data, mapping.transform(brain.data))
    print(
        "\nMutual information within the template's brain: "
        f"{before:.3f} after the affine part, {after:.3f} after the deformation\n"
        "Minimum of the Jacobian determinant (no folds if above 0): "
        f"{quality.minimum_jacobian:.2f}, "
        f"of the inverse {quality.minimum_jacobian_inverse:.2f}\n"
        f"Inversion error: {quality.round_trip_mean:.3f} voxel on average, "
        f"{quality.round_trip_max:.3f} voxel at most\n"
        f"Verdict: {registration.verdict}"
    )


def main(folder):
    """Run the whole registration and write its results to a folder."""
    start = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("dipy").setLevel(logging.WARNING)

    with step(
        "Loading the template (static) and the b0 (moving), extracting its brain"
    ):
        static = read(load_mni152_template(resolution=2))
        moving = read(nib.load(get_fnames(name="aniso_vox")))
        masked, _ = median_otsu(moving.data, median_radius=2, numpass=1)
        brain = Image(masked, moving.grid2world)
        print(f"    static: {static}\n    moving: {moving}")

    with step("Affine registration from scanner coordinates (mutual information)"):
        _, prealign = deep_affine_registration(
            moving=brain.data,
            static=static.data,
            moving_affine=brain.grid2world,
            static_affine=static.grid2world,
        )

    with step("Deformable registration by DeepRegistration (MIND)"):
        registration = DeepRegistration("MIND")
        mapping = registration.optimize(
            static=static.data,
            moving=brain.data,
            static_grid2world=static.grid2world,
            moving_grid2world=brain.grid2world,
            prealign=prealign,
        )

    with step(f"Writing images, map and figure to {folder}"):
        write(folder, static, moving, prealign, mapping, registration.verdict)

    report(registration, static, brain, prealign, mapping)
    print("\nWritten:")
    for path in sorted(folder.iterdir()):
        print(f"    {path}")
    print(f"Done in {time.perf_counter() - start:.0f} s; see registration.png.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("demo_output"),
        help="output folder (default: %(default)s in the current folder)",
    )
    main(parser.parse_args().folder)
