"""Tractograms in all formats, for tests: written by nibabel, MRtrix3's rules, trx."""

import json
import zipfile

from maps import oblique_map
import nibabel as nib
from nibabel.streamlines import ArraySequence, Tractogram
from nibabel.streamlines.trk import TrkFile, get_affine_rasmm_to_trackvis
import numpy as np

from dipy_dl_reg.grid import Grid


def grid_of(mapping, side):
    """Grid of the moving ("domain") or static ("codomain") image of a map."""
    shape = tuple(int(n) for n in getattr(mapping, f"{side}_shape"))
    return Grid(shape, getattr(mapping, f"{side}_grid2world"))


def lines_in(grid, rng, lengths=(5, 2, 9, 1, 7)):
    """Streamlines of given lengths inside a grid, in world coordinates."""
    lines = []
    for n in lengths:
        voxels = rng.uniform(0.25, 0.75, (n, 3)) * (np.array(grid.shape) - 1)
        world = voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        lines.append(world.astype(np.float32))
    return lines


def header_of(grid):
    """A .trk header for a grid."""
    header = TrkFile.create_empty_header()
    header["dimensions"], header["voxel_sizes"] = grid.shape, grid.spacing
    header["voxel_to_rasmm"] = grid.affine
    header["voxel_order"] = "".join(nib.aff2axcodes(grid.affine)).encode()
    return header


def data_of(lines, rng):
    """Data per point and per streamline."""
    per_point = {
        "fa": [rng.random((len(line), 1), np.float32) for line in lines],
        "rgb": [rng.random((len(line), 3), np.float32) for line in lines],
    }
    per_streamline = {
        "cluster": rng.random((len(lines), 1), np.float32),
        "ends": rng.random((len(lines), 2), np.float32),
    }
    return per_point, per_streamline


def save_trk(path, lines, grid, data=({}, {})):
    """Write a .trk file by nibabel."""
    per_point, per_streamline = data
    tractogram = Tractogram(
        ArraySequence(lines),
        data_per_streamline=per_streamline,
        data_per_point=per_point,
        affine_to_rasmm=np.eye(4),
    )
    nib.streamlines.save(TrkFile(tractogram, header_of(grid)), path)
    return path


def save_bare_trk(path, lines, grid):
    """Write a .trk file with empty streamlines, which nibabel leaves out."""
    save_trk(path, lines[:1], grid)
    header = bytearray(path.read_bytes()[:1000])
    fields = np.frombuffer(header, nib.streamlines.trk.header_2_dtype)
    fields["nb_streamlines"] = len(lines)
    matrix = get_affine_rasmm_to_trackvis(header_of(grid))
    records = [
        np.int32(len(line)).tobytes()
        + nib.affines.apply_affine(matrix, line).astype("<f4").tobytes()
        for line in lines
    ]
    path.write_bytes(header + b"".join(records))
    return path


def save_tck(path, lines, order="<", extra="timestamp: 1700000000.25\n"):
    """Write a .tck file as MRtrix3 does; an empty streamline is two NaN triplets."""
    rows = [np.append(line, [[np.nan] * 3], 0) for line in lines]
    rows = np.concatenate([*rows, [[np.inf] * 3]]).astype(f"{order}f4")
    kind = {"<": "LE", ">": "BE"}[order]
    text = f"mrtrix tracks\n{extra}datatype: Float32{kind}\ncount: {len(lines):010d}\n"
    offset = len(text) + len("file: . 0000\nEND\n")
    text += f"file: . {offset:04d}\nEND\n"
    path.write_bytes(text.encode() + rows.tobytes())
    return path


def save_trx(
    path, lines, grid, data=({}, {}), groups=None, *, kind="float32", **zipped
):
    """Write a .trx file by the format's specification."""
    per_point, per_streamline = data
    lengths = np.array([len(line) for line in lines])
    offsets = np.append(0, np.cumsum(lengths)).astype(np.uint64)
    header = {
        "DIMENSIONS": list(grid.shape),
        "VOXEL_TO_RASMM": grid.affine.tolist(),
        "NB_VERTICES": int(lengths.sum()),
        "NB_STREAMLINES": len(lines),
    }
    members = {
        f"positions.3.{kind}": np.concatenate(lines).astype(kind),
        "offsets.uint64": offsets,
        **{
            f"dpv/{k}.{v[0].shape[1]}.float32": np.concatenate(v)
            for k, v in per_point.items()
        },
        **{f"dps/{k}.{v.shape[1]}.float32": v for k, v in per_streamline.items()},
        **{f"groups/{k}.uint32": v for k, v in (groups or {}).items()},
    }
    with zipfile.ZipFile(path, "w", **zipped) as archive:
        archive.writestr("header.json", json.dumps(header))
        for name, values in members.items():
            archive.writestr(name, values.tobytes())
    return path


def save_any(path, lines, grid):
    """Write streamlines in the format of a suffix."""
    if path.suffix == ".tck":
        return save_tck(path, lines)
    return {".trk": save_bare_trk, ".trx": save_trx}[path.suffix](path, lines, grid)


def make_example(rng):
    """A map between unlike grids, with moving's grid and static's."""
    mapping = oblique_map()
    return mapping, grid_of(mapping, "domain"), grid_of(mapping, "codomain")
