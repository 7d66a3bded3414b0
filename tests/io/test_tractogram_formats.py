"""Tractogram files read in chunks, and written with other points."""

import json
import zipfile

import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest
from tractogram_files import (
    data_of,
    header_of,
    lines_in,
    make_example,
    save_any,
    save_tck,
    save_trk,
    save_trx,
)
import trx.trx_file_memmap as trx_python

from dipy_dl_reg.io.tractograms.table import FORMATS, open_tractogram

LENGTHS = (5, 2, 9, 1, 0, 0, 7, 30)


def copy(source, target, grid, n_points=8, move=lambda points: points):
    """Write a copy of a file, chunk by chunk; return the chunks."""
    file = open_tractogram(source)
    chunks = []
    with file.write_copy(target, grid) as write:
        for chunk in file.read_chunks(n_points):
            chunks.append(chunk)
            write(chunk, move(chunk.points))
    return chunks


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("n_points", [1, 8, 1000])
def test_chunks_are_whole_streamlines(suffix, n_points, tmp_path, rng):
    """Those of no point and of one point, and one longer than a chunk, are kept."""
    _, grid, _ = make_example(rng)
    lines = lines_in(grid, rng, LENGTHS)
    source = save_any(tmp_path / f"a{suffix}", lines, grid)
    chunks = copy(source, tmp_path / f"b{suffix}", grid, n_points)
    assert_array_equal(np.concatenate([c.lengths for c in chunks]), LENGTHS)
    points = np.concatenate([c.points for c in chunks])
    assert_allclose(points, np.concatenate(lines), atol=1e-4)
    assert (len(chunks) > 1) == (n_points < 1000)
    assert open_tractogram(source).n_streamlines == len(LENGTHS)


@pytest.mark.parametrize("order", "<>")
def test_trk_keeps_all_but_coordinates_and_grid(order, tmp_path, rng):
    _, moving, static = make_example(rng)
    lines = lines_in(moving, rng, (5, 1, 9))
    data = data_of(lines, rng)
    source = save_trk(tmp_path / "a.trk", lines, moving, data)
    if order == ">":  # all numbers have 4 bytes but three header fields of 2
        swap_bytes(source)
    before = nib.streamlines.load(source)
    copy(source, tmp_path / "b.trk", static, move=lambda points: points + [3, 4, -5])
    after = nib.streamlines.load(tmp_path / "b.trk")
    for new, old in zip(after.streamlines, lines, strict=True):
        assert_allclose(new, old + [3, 4, -5], atol=2e-5)
    for name, values in data[0].items():
        assert_array_equal(
            after.tractogram.data_per_point[name].get_data(), np.concatenate(values)
        )
    for name, values in data[1].items():
        assert_array_equal(after.tractogram.data_per_streamline[name], values)
    assert_array_equal(after.header["dimensions"], static.shape)
    assert_allclose(after.header["voxel_sizes"], static.spacing, rtol=1e-6)
    assert_allclose(after.header["voxel_to_rasmm"], static.affine, rtol=1e-6)
    wanted = "".join(nib.aff2axcodes(static.affine)).encode()
    assert after.header["voxel_order"] == wanted != before.header["voxel_order"]
    assert after.header["nb_streamlines"] == 3


def swap_bytes(path):
    """Change a .trk file from little-endian to big-endian."""
    content = path.read_bytes()
    dtype = nib.streamlines.trk.header_2_dtype
    header = np.frombuffer(content[:1000], dtype.newbyteorder("<"))
    swapped = header.astype(dtype.newbyteorder(">")).tobytes()
    numbers = np.frombuffer(content[1000:], "<u4").astype(">u4")
    path.write_bytes(swapped + numbers.tobytes())


def test_trk_whose_voxel_order_is_not_that_of_its_matrix(tmp_path, rng):
    """TrackVis flips the axes then, and so does nibabel, the reference here."""
    _, moving, static = make_example(rng)
    source = save_trk(tmp_path / "a.trk", lines_in(moving, rng), moving)
    content = bytearray(source.read_bytes())
    dtype = nib.streamlines.trk.header_2_dtype
    header = np.frombuffer(content, dtype, 1)
    header["voxel_order"] = b"LAI"
    source.write_bytes(content)
    wanted = nib.streamlines.load(source).streamlines.get_data()
    copy(source, tmp_path / "b.trk", static)
    found = nib.streamlines.load(tmp_path / "b.trk").streamlines.get_data()
    assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize("order", "<>")
def test_tck_keeps_its_header(order, tmp_path, rng):
    """The time stamp links MRtrix3's track scalars (.tsf) to the streamlines."""
    _, moving, static = make_example(rng)
    lines = lines_in(moving, rng, (5, 1, 9))
    source = save_tck(tmp_path / "a.tck", lines, order)
    copy(source, tmp_path / "b.tck", static, move=lambda points: points + 1)
    after = nib.streamlines.load(tmp_path / "b.tck")
    for new, old in zip(after.streamlines, lines, strict=True):
        assert_allclose(new, old + 1, rtol=1e-6)
    header = nib.streamlines.load(source).header
    assert after.header["timestamp"] == header["timestamp"]
    assert (tmp_path / "b.tck").stat().st_size == source.stat().st_size


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_trx_keeps_all_but_coordinates_and_grid(kind, compression, tmp_path, rng):
    _, moving, static = make_example(rng)
    lines = lines_in(moving, rng)
    data, groups = data_of(lines, rng), {"left": np.array([0, 3], dtype=np.uint32)}
    options = {"kind": kind, "compression": compression}
    source = save_trx(tmp_path / "a.trx", lines, moving, data, groups, **options)
    copy(source, tmp_path / "b.trx", static, move=lambda points: points + 1)
    after = trx_python.load(str(tmp_path / "b.trx"))
    wanted = np.concatenate(lines).astype(kind).astype(float) + 1
    assert after.streamlines._data.dtype == kind
    assert_allclose(
        after.streamlines._data, wanted, rtol=1e-3 if kind == "float16" else 1e-6
    )
    for name, values in data[0].items():
        assert_array_equal(after.data_per_vertex[name]._data, np.concatenate(values))
    for name, values in data[1].items():
        assert_array_equal(after.data_per_streamline[name], values)
    assert_array_equal(after.groups["left"], groups["left"])
    assert_array_equal(after.header["DIMENSIONS"], static.shape)
    assert_allclose(after.header["VOXEL_TO_RASMM"], static.affine, rtol=1e-6)
    after.close()


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_streamlines(suffix, tmp_path, rng):
    _, grid, _ = make_example(rng)
    path = tmp_path / f"a{suffix}"
    none = [np.zeros((0, 3), np.float32)]
    {
        ".trk": lambda: save_trk(path, [], grid),
        ".tck": lambda: save_tck(path, []),
        ".trx": lambda: save_trx(path, none, grid),
    }[suffix]()
    chunks = copy(path, tmp_path / f"b{suffix}", grid)
    assert sum(len(c.points) for c in chunks) == 0
    assert (tmp_path / f"b{suffix}").stat().st_size == path.stat().st_size


def test_header_that_describes_no_image(tmp_path, rng):
    _, grid, _ = make_example(rng)
    lines = lines_in(grid, rng)
    nib.streamlines.save(
        nib.streamlines.Tractogram(lines, affine_to_rasmm=np.eye(4)),
        str(tmp_path / "a.trk"),  # nibabel takes paths from 5.4 on
    )
    assert open_tractogram(tmp_path / "a.trk").grid is None
    assert open_tractogram(save_tck(tmp_path / "a.tck", lines)).grid is None


def read_all(path):
    return list(open_tractogram(path).read_chunks(8))


@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_files(suffix, tmp_path, rng):
    _, grid, _ = make_example(rng)
    path = save_any(tmp_path / f"a{suffix}", lines_in(grid, rng), grid)
    whole = path.read_bytes()
    for part in (whole[:-5], whole[:-60], whole[:40], whole[:-12], whole + b"1234"):
        if suffix == ".trx" and part.startswith(whole):
            continue  # ZIP archives may be followed by a comment
        path.write_bytes(part)
        with pytest.raises(ValueError, match="is damaged"):
            read_all(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        open_tractogram(path)


def test_wrong_contents(tmp_path, rng):
    _, grid, _ = make_example(rng)
    path = save_trk(tmp_path / "a.trk", lines_in(grid, rng), grid)
    whole = bytearray(path.read_bytes())
    negative = whole[:1000] + np.int32(-3).tobytes() + whole[1004:]
    path.write_bytes(negative)
    with pytest.raises(ValueError, match="is damaged"):
        read_all(path)
    header = np.frombuffer(whole, nib.streamlines.trk.header_2_dtype, 1)
    header["nb_streamlines"] = 77
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="declares 77 streamlines.* contains 5"):
        read_all(path)
    header["voxel_to_rasmm"] = 0
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="no matrix from voxels to world"):
        read_all(path)
    path = save_trx(tmp_path / "a.trx", lines_in(grid, rng), grid)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members["header.json"])
    for change in ({"NB_VERTICES": 7}, {"NB_STREAMLINES": 9}, {"DIMENSIONS": None}):
        with zipfile.ZipFile(path, "w") as archive:
            members["header.json"] = json.dumps(header | change).encode()
            for name, content in members.items():
                archive.writestr(name, content)
        with pytest.raises(ValueError, match="is damaged"):
            read_all(path)
    for name, error in (("a.vtk", ValueError), ("none.trk", FileNotFoundError)):
        with pytest.raises(error, match="tractogram"):
            open_tractogram(tmp_path / name)


def test_reference_header(rng):
    """What the tests write is what nibabel calls a header of this grid."""
    _, grid, _ = make_example(rng)
    assert header_of(grid)["voxel_order"] != b"RAS"
