"""Tractogram files transformed by a map: time, memory, and bundles in the right place.

    python -m tools.experiments.tractograms [--streamlines 1000000] [--folder FOLDER]

First, files of many streamlines (bundles that DIPY contains, repeated with random
shifts; 30 to 70 points each, one value per point and one per streamline) are
transformed in a process of their own: processor time, points per second, and peak
memory (resident set, MB) of the process, beside nibabel's lazy reader and writer and
trx-python's memory maps.

Then the MNI152 template that nilearn contains is deformed by a known map, the two
images are registered, and DIPY's bundles are transformed to the template's space by the
known map and by the map of the registration.  Columns: distance of corresponding points
(mean and 95th percentile, mm), mean MDF distance (mm) and bundle adjacency (threshold 2
mm) by DIPY, and the Dice overlap of the masks of the voxels (2 mm) that streamlines
pass.  Rows: not transformed, transformed by the registration's map, and transformed in
the wrong direction.  Round trip: distance of points that are transformed there and
back.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from importlib.metadata import version
import json
from pathlib import Path
import platform
import re
import subprocess
import sys
import tempfile
import time

from dipy.segment.bundles import bundle_adjacency
from dipy.tracking.distances import bundles_distances_mdf
from dipy.tracking.streamline import set_number_of_points
from dipy.tracking.utils import density_map
import nibabel as nib
import numpy as np
from scipy.ndimage import map_coordinates

from dipy_dl_reg.diffusion.streamlines import transform_streamlines
from dipy_dl_reg.diffusion.tractograms import transform_tractogram
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.dipy_map import make_mapping
from dipy_dl_reg.maps.storage import load_mapping, save_mapping
from tools.experiments.tractogram_files import (
    TILE,
    make_tile,
    read_bundles,
    transform_by_nibabel,
    transform_by_trx,
    write_large,
)

#: The other way for each format.
OTHERS = {".trk": "nibabel", ".tck": "nibabel", ".trx": "trx-python"}
#: mm; the largest displacement of the known map, and the width of its bumps.
AMPLITUDE, WIDTH = 8.0, 28.0
#: The grid of both images, for the files of many streamlines.
GRID = Grid((99, 117, 95), nib.affines.from_matvec(2 * np.eye(3), [-98, -134, -72]))


def known_map(grid, amplitude=AMPLITUDE):
    """A map with a smooth displacement of bumps, inverted by iteration."""
    rng = np.random.default_rng(0)
    voxels = np.indices(grid.shape)
    world = nib.affines.apply_affine(grid.affine, np.moveaxis(voxels, 0, -1))
    low, high = world.reshape(-1, 3).min(0) + 40, world.reshape(-1, 3).max(0) - 40
    backward = np.zeros(world.shape)
    for _ in range(12):
        square = ((world - rng.uniform(low, high)) ** 2).sum(-1)
        backward += np.exp(-square / (2 * WIDTH**2))[..., None] * rng.normal(0, 1, 3)
    backward *= amplitude / np.linalg.norm(backward, axis=-1).max()
    forward = np.zeros_like(backward)
    for _ in range(25):
        at = voxels + np.moveaxis(forward @ grid.inverse[:3, :3].T, -1, 0)
        found = [map_coordinates(backward[..., d], at, order=1) for d in range(3)]
        forward = -np.stack(found, axis=-1)
    sides = (grid.shape, grid.affine, grid.shape, grid.affine)
    return make_mapping(forward, backward, *sides)


def transform_alone(way, mapping, source, target):
    """Transform a file; report what this process used."""
    mapping = load_mapping(mapping)
    start, wall = time.process_time(), time.perf_counter()
    {
        "package": transform_tractogram,
        "nibabel": transform_by_nibabel,
        "trx-python": transform_by_trx,
    }[way](mapping, source, target)
    used = {"cpu": time.process_time() - start, "wall": time.perf_counter() - wall}
    # The resident set of Linux's getrusage begins with that of the parent process.
    status = Path("/proc/self/status").read_text()
    used["peak"] = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**10
    print(json.dumps(used))


def measure_files(folder, n_streamlines):
    """Print time and memory for a small and a large file of each format."""
    mapping = folder / "mapping.npz"
    save_mapping(known_map(GRID), mapping)
    tile = make_tile(read_bundles(folder), np.random.default_rng(1))
    print(
        "file  streamlines     points    MB  way          "
        "CPU s  wall s  Mpoints/s  peak"
    )
    for suffix, other in OTHERS.items():
        for n in (n_streamlines // 10, n_streamlines):
            source, target = folder / f"large{suffix}", folder / f"out{suffix}"
            write_large(source, tile, n // TILE, GRID)
            points = len(tile.get_data()) * (n // TILE)
            # The other ways need not be waited for on the large file.
            for way in ("package", other) if n < n_streamlines else ("package",):
                used = run_alone(way, mapping, source, target)
                size = source.stat().st_size >> 20
                print(
                    f"{suffix}  {n:11d}  {points:9d} {size:5d}  {way:10s}  "
                    f"{used['cpu']:6.1f}  {used['wall']:6.1f}  "
                    f"{points / used['cpu'] / 1e6:9.2f} {used['peak']:5.0f}",
                    flush=True,
                )
                target.unlink()
            source.unlink()


def run_alone(way, *paths):
    """Transform a file in a process of its own; what it used."""
    command = [sys.executable, "-m", "tools.experiments.tractograms", "--alone", way]
    done = subprocess.run(
        [*command, *paths], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(lines, wanted, grid):
    """Distances and overlap of two bundles whose points correspond."""
    distance = np.linalg.norm(lines.get_data() - wanted.get_data(), axis=1)
    few = [list(set_number_of_points(s, nb_points=20)) for s in (lines, wanted)]
    masks = [density_map(s, grid.affine, grid.shape) > 0 for s in (lines, wanted)]
    dice = 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum())
    return (
        distance.mean(),
        np.percentile(distance, 95),
        bundles_distances_mdf(*few).min(axis=1).mean(),
        bundle_adjacency(*few, 2),
        dice,
    )


def measure_bundles(folder):
    """Print distances and overlaps after a known warp, and round trips."""
    from nilearn.datasets import load_mni152_template

    from dipy_dl_reg.registration.deformable import DeepRegistration

    template = load_mni152_template(resolution=2)
    grid = Grid(template.shape, template.affine)
    known = known_map(grid)
    static = template.get_fdata(dtype=np.float32)
    moving = known.transform_inverse(static)
    found = DeepRegistration(progress=False).optimize(
        static, moving, static_grid2world=grid.affine, moving_grid2world=grid.affine
    )
    rows = {"not transformed": [], "registration": [], "wrong direction": []}
    trips = {"known map": [], "registration": []}
    for path in read_bundles(folder):
        lines = nib.streamlines.load(path).streamlines
        lines = set_number_of_points(lines, nb_points=100)
        inside = grid.contains(lines.get_data())
        if not inside.all():
            continue
        wanted = transform_streamlines(known, lines)
        rows["not transformed"].append(compare(lines, wanted, grid))
        rows["registration"].append(
            compare(transform_streamlines(found, lines), wanted, grid)
        )
        wrong = transform_streamlines(found, lines, inverse=True)
        rows["wrong direction"].append(compare(wrong, wanted, grid))
        for name, mapping in zip(trips, (known, found)):
            trips[name].append(round_trip(mapping, path, folder))
    n = len(rows["registration"])
    print(f"\n{n} bundles that lie inside the template's field of view (mean)")
    print("                  mean mm  95 % mm  MDF mm  adjacency   Dice")
    for name, values in rows.items():
        row = "{:17s} {:7.2f}  {:7.2f} {:7.2f}  {:9.3f}  {:5.3f}"
        print(row.format(name, *np.mean(values, 0)))
    print("\nround trip of .trk files       mean mm   99 % mm    max mm   Dice")
    for name, values in trips.items():
        mean, most, _, dice = np.mean(values, 0)
        largest = max(value[2] for value in values)
        print(f"{name:28s}  {mean:8.4f}  {most:8.4f}  {largest:8.4f}  {dice:5.3f}")


def round_trip(mapping, path, folder):
    """Distances after there and back, mm (mean, 99 %, maximum), and overlap."""
    there, back = folder / "there.trk", folder / "back.trk"
    transform_tractogram(mapping, path, there, overwrite=True)
    transform_tractogram(mapping, there, back, inverse=True, overwrite=True)
    lines, again = (nib.streamlines.load(p).streamlines for p in (path, back))
    grid = Grid(tuple(mapping.codomain_shape), mapping.codomain_grid2world)
    distance = np.linalg.norm(lines.get_data() - again.get_data(), axis=1)
    most = np.percentile(distance, 99)
    return distance.mean(), most, distance.max(), compare(again, lines, grid)[-1]


def main():
    """Print both tables."""
    from dipy.utils.logging import logger

    logger.setLevel("ERROR")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streamlines", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="for large temporary files")
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        way, *paths = arguments.alone
        transform_alone(way, *map(Path, paths))
        return
    names = ("dipy", "nibabel", "trx-python", "numpy")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, one used; Python "
        f"{platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in names)
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measure_files(Path(folder), arguments.streamlines)
        measure_bundles(Path(folder))


if __name__ == "__main__":
    main()
