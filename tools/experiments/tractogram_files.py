"""Tractograms of any size from DIPY's bundles, and other ways to transform them.

The files are written for tools/experiments/tractograms.py.  Bundles are those of
``minimal_bundles.zip`` in DIPY.
"""

from itertools import islice
import json
import zipfile

from dipy.data import get_fnames
from dipy.tracking.streamline import set_number_of_points
import nibabel as nib
from nibabel.streamlines import ArraySequence, LazyTractogram, Tractogram
from nibabel.streamlines.tractogram import TractogramItem
from nibabel.streamlines.trk import TrkFile
import numpy as np

#: Number of different streamlines in a large file, which repeats them.
TILE = 10_000


def read_bundles(folder):
    """Extract DIPY's bundles; their paths."""
    with zipfile.ZipFile(get_fnames(name="minimal_bundles")) as archive:
        archive.extractall(folder)
    return sorted(folder.glob("sub_*/*.trk"))


def make_tile(bundles, rng):
    """Streamlines of 30 to 70 points: those of the bundles, shifted at random."""
    files = [nib.streamlines.load(path) for path in bundles]
    lines = [line for file in files for line in file.streamlines]
    made = []
    for k in range(TILE):
        n_points = int(rng.integers(30, 71))
        line = set_number_of_points(lines[k % len(lines)], nb_points=n_points)
        made.append((line + rng.normal(0, 2, 3)).astype(np.float32))
    return ArraySequence(made)


def write_large(path, tile, repeats, grid):
    """Write a file of many streamlines, with one value per point and streamline."""
    values = [np.full((len(line), 1), k, np.float32) for k, line in enumerate(tile)]
    {".trk": _write_trk, ".tck": _write_tck, ".trx": _write_trx}[path.suffix](
        path, tile, repeats, grid, values
    )


def _write_trk(path, tile, repeats, grid, values):
    """Write a TrackVis file: that of nibabel, with its records repeated."""
    header = TrkFile.create_empty_header()
    header["dimensions"], header["voxel_to_rasmm"] = grid.shape, grid.affine
    header["voxel_sizes"] = grid.spacing
    header["voxel_order"] = "".join(nib.aff2axcodes(grid.affine)).encode()
    each = {"cluster": np.arange(len(tile), dtype=np.float32)[:, None]}
    tractogram = Tractogram(tile, each, {"fa": values}, np.eye(4))
    nib.streamlines.save(TrkFile(tractogram, header), path)
    content = bytearray(path.read_bytes())
    fields = np.frombuffer(content, nib.streamlines.trk.header_2_dtype, 1)
    fields["nb_streamlines"] = len(tile) * repeats
    with open(path, "wb") as file:
        file.write(content[:1000])
        for _ in range(repeats):
            file.write(content[1000:])


def _write_tck(path, tile, repeats, grid, values):
    """Write a file of MRtrix3: that of nibabel, with its triplets repeated."""
    nib.streamlines.save(Tractogram(tile, affine_to_rasmm=np.eye(4)), path)
    offset = int(nib.streamlines.load(path, lazy_load=True).header["_offset_data"])
    content = path.read_bytes()
    with open(path, "wb") as file:
        file.write(content[:offset])
        for _ in range(repeats):
            file.write(content[offset:-12])
        file.write(content[-12:])


def _write_trx(path, tile, repeats, grid, values):
    """Write a TRX file."""
    lengths = np.tile([len(line) for line in tile], repeats)
    header = {
        "DIMENSIONS": list(grid.shape),
        "VOXEL_TO_RASMM": grid.affine.tolist(),
        "NB_VERTICES": int(lengths.sum()),
        "NB_STREAMLINES": len(lengths),
    }
    each = np.arange(len(tile), dtype=np.float32)
    members = {
        "positions.3.float32": (tile.get_data(), repeats),
        "offsets.uint64": (np.append(0, np.cumsum(lengths)).astype(np.uint64), 1),
        "dpv/fa.float32": (np.concatenate(values), repeats),
        "dps/cluster.float32": (each, repeats),
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps(header))
        for name, (content, times) in members.items():
            with archive.open(name, "w", force_zip64=True) as file:
                for _ in range(times):
                    file.write(content.tobytes())


def transform_by_nibabel(mapping, source, target):
    """Transform a .trk or .tck file by nibabel's lazy reader and its writer."""
    file = nib.streamlines.load(source, lazy_load=True)

    def transformed():
        items = iter(file.tractogram)
        while batch := list(islice(items, TILE)):
            lines = [item.streamline for item in batch]
            points = np.concatenate(lines).astype(np.float64)
            points = mapping.transform_points_inverse(points)
            ends = np.cumsum([len(line) for line in lines])[:-1]
            for item, line in zip(batch, np.split(points, ends)):
                yield TractogramItem(
                    line, item.data_for_streamline, item.data_for_points
                )

    tractogram = LazyTractogram.from_data_func(transformed)
    tractogram.affine_to_rasmm = np.eye(4)
    nib.streamlines.save(type(file)(tractogram, header=file.header), target)


def transform_by_trx(mapping, source, target):
    """Transform a .trx file by trx-python's memory maps."""
    import trx.trx_file_memmap as trx_python

    file = trx_python.load(str(source))
    copied = file.deepcopy()
    points = copied.streamlines._data
    for start in range(0, len(points), 500_000):
        part = points[start : start + 500_000].astype(np.float64)
        points[start : start + 500_000] = mapping.transform_points_inverse(part)
    trx_python.save(copied, str(target))
    copied.close()
    file.close()
