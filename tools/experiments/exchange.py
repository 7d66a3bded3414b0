r"""Maps in the files of other programs, resampled by these programs.

    export DIPY_DL_REG_DATA=FOLDER
    python -m tools.experiments.exchange --output doc/benchmark/exchange.txt

FOLDER holds ``diffusion/subject_a`` (b0.nii.gz, t1.nii.gz); without the variable the
registered pair is left out.

Maps: smooth fields of up to 1.5 mm, with a prealign that scales and shears, between two
grids of unequal shapes and voxel sizes that are RAS, LAS, LPS, anisotropic or oblique
(those of tests/maps/test_formats.py), and noise as images; and the map of a
registration of a real b0 to a T1 image (rigid, affine, deformable).

there, back    largest difference between the other program's image and
               ``mapping.transform`` or ``mapping.transform_inverse``, over the range of
               intensities, where the map leads at least .001 voxel into the image:
               beyond the outermost voxels programs continue an image differently
positions      largest difference between the map and the map that is read back from
               both files, in mm, at the voxels of the output images: static's, and
               moving's, if they lead at least a voxel into static, before and after the
               deformation: beyond, DIPY's map is affine, and the affine that is
               separated from the file depends on it
computed       mean and largest difference at the same voxels of moving, if the first
               file alone is read and the inverse is computed

Programs that are not installed are left out.
"""

import argparse
from importlib import metadata
import logging
import os
from pathlib import Path
import platform
import shutil
import subprocess
import sys
import tempfile

import dipy
import nibabel as nib
from nibabel.affines import apply_affine
import numpy as np

from dipy_dl_reg import deep_registration, read_mapping, write_mapping
from dipy_dl_reg.maps.formats.dense_field import (
    DenseField,
    forward_field,
    grid_points,
    inverse_field,
    map_grids,
    user_prealign,
)
from tools.experiments.foreign_resamplers import RESAMPLERS, Resampler

ROOT = Path(__file__).parents[2]
#: Modules and programs that a resampler needs, by a part of its name.
NEEDS = {
    "SimpleITK": ["SimpleITK"],
    "nitransforms": ["nitransforms"],
    "fslpy": ["fslpy"],
    "surfa": ["surfa"],
    "Workbench": ["wb_command"],
    "mrtransform": ["mrtransform"],
}
HEADER = f"{'map':12s} {'format: resampler':26s} {'there':>8s} {'back':>8s}" + (
    f" {'positions, mm':>17s} {'computed, mm':>17s}"
)


def make_cases():
    """Names, maps and images of both sides.

    Yields
    ------
    name : str
        The kind of grids.
    mapping : DiffeomorphicMap
        The map.
    moving, static : ndarray
        The images.
    """
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "maps")]
    from test_formats import GRIDS, map_on

    rng = np.random.default_rng(0)
    for kind in GRIDS:
        mapping = map_on(kind, 3, prealign=True)
        shapes = mapping.domain_shape, mapping.codomain_shape
        yield kind, mapping, *(rng.random(s, dtype=np.float32) for s in shapes)
    if "DIPY_DL_REG_DATA" not in os.environ:
        return
    folder = Path(os.environ["DIPY_DL_REG_DATA"]) / "diffusion" / "subject_a"
    b0, t1 = (nib.load(folder / f"{name}.nii.gz") for name in ("b0", "t1"))
    steps = ["rigid", "affine", "deform"]
    _, mapping = deep_registration(moving=b0, static=t1, pipeline=steps, progress=False)
    yield "b0 to T1", mapping, *(i.get_fdata(dtype=np.float32) for i in (b0, t1))


def is_installed(label):
    """Whether the programs that a resampler needs are there."""
    for part, needed in NEEDS.items():
        for name in needed if part in label else ():
            try:
                found = shutil.which(name) or metadata.version(name)
            except metadata.PackageNotFoundError:
                found = None
            if not found:
                return False
    return True


def largest_difference(field: DenseField, image, ours, theirs):
    """Largest difference of two images, over the range, within the input image."""
    grid = field.input_grid
    voxels = apply_affine(grid.inverse, field.positions)
    last = np.array(grid.shape) - 1
    inside = ((voxels >= 1e-3) & (voxels <= last - 1e-3)).all(axis=-1)
    return np.abs(ours - theirs)[inside].max() / np.ptp(image)


def name_files(folder: Path, entry: Resampler):
    """Names of the files of both directions, and of the affine part."""
    if entry.like == "ants":
        return folder / "map_1Warp.nii.gz", folder / "map_1InverseWarp.nii.gz", None
    there, back = (folder / f"{name}{entry.suffix}" for name in ("map", "inverse"))
    return there, back, folder / f"premat{entry.affine}" if entry.affine else None


def measure(mapping, images, entry: Resampler, folder: Path):
    """Write a map, resample both images by the other program, and read it back.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    images : tuple of ndarray
        Moving and static.
    entry : Resampler
        The format and the program.
    folder : Path
        An empty folder.

    Returns
    -------
    figures : list of float
        Differences of the images there and back, of the positions there and back, and,
        with the inverse computed, mean and largest.
    """
    static, moving = map_grids(mapping)
    paths = folder / "moving.nii.gz", folder / "static.nii.gz"
    for path, image, grid in zip(paths, images, (moving, static), strict=True):
        nib.save(nib.Nifti1Image(image, grid.affine), path)
    there, back, affine = name_files(folder, entry)
    write_mapping(mapping, there, inverse=back, affine=affine, like=entry.like)
    fields = forward_field(mapping), inverse_field(mapping)
    figures = []
    for k, (file, transform) in enumerate(
        ((there, mapping.transform), (back, mapping.transform_inverse))
    ):
        theirs = entry.resample(file, paths[k], paths[1 - k], None if k else affine)
        ours = transform(images[k])
        figures.append(largest_difference(fields[k], images[k], ours, theirs))
    given = {"like": entry.like, "static": paths[1], "moving": paths[0]}
    found = read_mapping(there, inverse=back, affine=affine, **given)
    figures.append(distances(fields[0], forward_field(found)).max())
    inside = lead_inside(mapping)
    figures.append(distances(fields[1], inverse_field(found))[inside].max())
    if entry.like == "ants":  # its inverse warp is always beside the warp
        return [*figures, np.nan, np.nan]
    alone = inverse_field(read_mapping(there, affine=affine, **given))
    errors = distances(fields[1], alone)[inside]
    return [*figures, errors.mean(), errors.max()]


def distances(field: DenseField, other: DenseField):
    """Distances of the positions of two fields on one grid, in mm."""
    return np.linalg.norm(field.positions - other.positions, axis=-1)


def lead_inside(mapping):
    """Voxels of moving that lead at least a voxel into static."""
    static, moving = map_grids(mapping)
    back = np.linalg.inv(user_prealign(mapping))
    inside = np.ones(moving.shape, bool)
    for points in (
        apply_affine(back, grid_points(moving)),
        inverse_field(mapping).positions,
    ):
        contained = static.contains(points.reshape(-1, 3), margin=-1)
        inside &= contained.reshape(moving.shape)
    return inside


def describe():
    """Machine and versions."""
    names = ["SimpleITK", "fslpy", "nitransforms", "surfa", "nibabel", "numpy"]
    versions = [f"dipy {dipy.__version__}"]
    for name in names:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} not installed")
    for command in (["mrtransform", "-version"], ["wb_command", "-version"]):
        if shutil.which(command[0]):
            text = subprocess.run(command, capture_output=True, text=True).stdout
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            found = [x for x in lines if "mrtransform" in x or x.startswith("Version")]
            versions.append(f"{command[0]}: {found[0].strip('= ')}" if found else "")
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    return f"{machine}; {', '.join(filter(None, versions))}"


def main():
    """Print the table, and write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, help="file of the table")
    options = parser.parse_args()
    logging.getLogger("dipy").setLevel(logging.ERROR)
    lines = [describe(), "", HEADER]
    print(*lines, sep="\n")
    for kind, mapping, *images in make_cases():
        for label, entry in RESAMPLERS.items():
            if not is_installed(label):
                continue
            with tempfile.TemporaryDirectory() as folder:
                figures = measure(mapping, images, entry, Path(folder))
            columns = ["-" if np.isnan(f) else f"{f:.1e}" for f in figures]
            row = " ".join(f"{column:>8s}" for column in columns)
            lines.append(f"{kind:12s} {label:26s} {row}")
            print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
