"""FreeSurfer's warps and morphs: surfa and a second reader apply what is written."""

import gzip
import struct

from foreign_fields import both_directions, largest_difference, nifti
import nibabel as nib
from nibabel.affines import apply_affine
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest
from scipy.ndimage import map_coordinates
from test_formats import GRIDS, map_on

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.formats import freesurfer_morph, freesurfer_warp

KINDS = pytest.mark.parametrize("kind", GRIDS)
PREALIGN = pytest.mark.parametrize("prealign", [False, True], ids=["", "prealign"])
WARPS = pytest.mark.parametrize("suffix", [".nii.gz", ".mgz"])


@pytest.fixture
def surfa(monkeypatch):
    """FreeSurfer's Python library."""
    module = pytest.importorskip("surfa")
    # surfa 0.6 calls this function, which NumPy 2.3 has dropped for bytes.
    monkeypatch.setattr(np, "fromstring", np.frombuffer)
    return module


def surfa_volume(surfa, grid, image):
    geometry = surfa.ImageGeometry(grid.shape, vox2world=grid.affine)
    return surfa.Volume(image, geometry=geometry)


@WARPS
@PREALIGN
@KINDS
def test_surfa_warps_as_the_map(surfa, kind, prealign, suffix, tmp_path, rng):
    path = tmp_path / f"warp{suffix}"
    for direction in both_directions(map_on(kind, 3, prealign=prealign), rng):
        field = direction.field
        freesurfer_warp.write(field, path)
        image = surfa_volume(surfa, field.input_grid, direction.image)
        warped = surfa.load_warp(str(path))(image)
        assert_allclose(warped.geom.vox2world.matrix, field.grid.affine, atol=1e-4)
        assert largest_difference(direction, warped.data) < 1e-3


@WARPS
@KINDS
def test_warp_of_surfa_is_read(surfa, kind, suffix, tmp_path, rng):
    """In all kinds of vectors, which are displacements in RAS in NIfTI files."""
    path = tmp_path / f"warp{suffix}"
    field = both_directions(map_on(kind, 3, prealign=True), rng)[0].field
    voxels = apply_affine(field.input_grid.inverse, field.positions)
    source, target = (
        surfa.ImageGeometry(grid.shape, vox2world=grid.affine)
        for grid in (field.input_grid, field.grid)
    )
    warp = surfa.Warp(voxels.astype(np.float32), source, target, format=0)
    for kind_of_vectors in range(4):
        warp.convert(kind_of_vectors).save(str(path))
        if suffix != ".mgz":
            assert freesurfer_warp.matches(nib.load(path))
        found = freesurfer_warp.read(path)
        assert_allclose(found.positions, field.positions, atol=1e-4)
        for grid, wanted in zip(found[1:], field[1:]):
            assert grid.shape == wanted.shape
            assert_allclose(grid.affine, wanted.affine, atol=1e-4)


@WARPS
@pytest.mark.parametrize("kind", ["LAS", "oblique"])
def test_written_warp_is_read_as_the_same(kind, suffix, tmp_path, rng):
    path = tmp_path / f"warp{suffix}"
    for direction in both_directions(map_on(kind, 3, prealign=True), rng):
        freesurfer_warp.write(direction.field, path)
        found = freesurfer_warp.read(path)
        assert_allclose(found.positions, direction.field.positions, atol=1e-4)
        assert found.input_grid.shape == direction.field.input_grid.shape
        freesurfer_warp.write(found, path)
        again = freesurfer_warp.read(path)
        assert_allclose(again.positions, found.positions, atol=1e-5)


# --- morphs


def read_nodes(path):
    """A second reader, node by node, as FreeSurfer's GCAMread reads."""
    with gzip.open(path) as file:
        version, width, height, depth, spacing, _ = struct.unpack(
            ">f4if", file.read(24)
        )
        assert version == 1
        voxels = np.zeros((width, height, depth, 3))
        for x in range(width):
            for y in range(height):
                for z in range(depth):
                    node = struct.unpack(">6f3i", file.read(36))
                    voxels[x, y, z] = node[3:6]
                    assert node[6:] == (x, y, z)
        assert struct.unpack(">i", file.read(4)) == (10,)
        geometries = [read_geometry(file) for _ in range(2)]
        assert struct.unpack(">2i", file.read(8)) == (11, 2)  # in voxels
        assert not file.read()
    return voxels, spacing, geometries


def read_geometry(file):
    """Shape and affine; the centre is that of voxel ``shape / 2``."""
    valid, *shape = struct.unpack(">4i", file.read(16))
    size, x, y, z, centre = struct.iter_unpack(">3f", file.read(60))
    file.read(512)
    assert valid == 1
    linear = np.column_stack([np.multiply(p, axis) for p, axis in zip(size, (x, y, z))])
    origin = centre - linear @ (np.array(shape) / 2)
    return tuple(shape), nib.affines.from_matvec(linear, origin)


@PREALIGN
@KINDS
def test_nodes_warp_as_the_map(kind, prealign, tmp_path, rng):
    """FreeSurfer samples the source image at the voxel of each node."""
    path = tmp_path / "map.m3z"
    for direction in both_directions(map_on(kind, 3, prealign=prealign), rng):
        field = direction.field
        freesurfer_morph.write(field, path)
        voxels, spacing, geometries = read_nodes(path)
        assert spacing == 1
        for (shape, affine), grid in zip(geometries, (field.input_grid, field.grid)):
            assert shape == grid.shape
            assert_allclose(affine, grid.affine, atol=1e-4)
        at = np.moveaxis(voxels, -1, 0)
        warped = map_coordinates(direction.image, at, order=1)
        assert largest_difference(direction, warped) < 1e-3


@pytest.mark.parametrize("kind", ["LAS", "oblique"])
def test_written_morph_is_read_as_the_same(kind, tmp_path, rng):
    path = tmp_path / "map.m3z"
    for direction in both_directions(map_on(kind, 3, prealign=True), rng):
        freesurfer_morph.write(direction.field, path)
        found = freesurfer_morph.read(path)
        assert_allclose(found.positions, direction.field.positions, atol=1e-4)
        for grid, wanted in zip(found[1:], direction.field[1:]):
            assert grid.shape == wanted.shape
            assert_allclose(grid.affine, wanted.affine, atol=1e-4)
        freesurfer_morph.write(found, path)
        again = freesurfer_morph.read(path)
        assert_allclose(again.positions, found.positions, atol=1e-5)


def pack_morph(nodes, spacing, grids, tags=b""):
    """A morph of any spacing; `nodes` are positions in voxels of the first grid."""
    content = struct.pack(">f4if", 1, *nodes.shape[:3], spacing, 20)
    for node in nodes.reshape(-1, 3):
        content += struct.pack(">6f3i", *(node + 0.1), *node, 0, 0, 0)
    content += struct.pack(">i", 10)
    for grid in grids:
        size = np.linalg.norm(grid.affine[:3, :3], axis=0)
        axes = (grid.affine[:3, :3] / size).T.ravel()
        centre = apply_affine(grid.affine, np.array(grid.shape) / 2)
        content += struct.pack(">4i15f", 1, *grid.shape, *size, *axes, *centre)
        content += b"orig.mgz".ljust(512, b"\0")
    return gzip.compress(content + tags)


@pytest.mark.parametrize("shape", [(12, 14, 10), (13, 14, 11)], ids=["even", "odd"])
def test_nodes_of_every_second_voxel_are_interpolated(shape, tmp_path):
    """As `mri_ca_register` writes them; an affine map is then exact."""
    static = Grid(shape, np.diag([-1.0, 1, 1, 1]))
    moving = Grid((20, 22, 24), np.diag([-0.7, 0.6, 0.5, 1]))
    matrix = np.array([[1.1, 0.1, 0, 1], [0, 0.9, 0.1, 2], [0, 0, 1, 1], [0, 0, 0, 1]])
    count = np.array(shape) // 2
    voxels = 2 * np.moveaxis(np.indices(count), 0, -1)
    to_moving = moving.inverse @ matrix @ static.affine
    nodes = apply_affine(to_moving, voxels)
    labels = struct.pack(">i", 12) + bytes(4 * int(count.prod()))
    tags = struct.pack(">2i", 11, 2) + labels
    (tmp_path / "map.m3z").write_bytes(pack_morph(nodes, 2, (moving, static), tags))
    found = freesurfer_morph.read(tmp_path / "map.m3z")
    everywhere = np.moveaxis(np.indices(shape), 0, -1)
    wanted = apply_affine(matrix @ static.affine, everywhere)
    assert_allclose(found.positions, wanted, atol=1e-4)
    assert_allclose(found.grid.affine, static.affine, atol=1e-5)


def test_positions_of_nodes_may_be_in_mm(tmp_path):
    static = Grid((6, 5, 4), np.diag([-1.0, 1, 1, 1]))
    moving = Grid((7, 6, 5), np.diag([-2.0, 2, 2, 1]))
    points = apply_affine(static.affine, np.moveaxis(np.indices(static.shape), 0, -1))
    content = pack_morph(points + 3, 1, (moving, static), struct.pack(">2i", 11, 1))
    (tmp_path / "map.m3z").write_bytes(content)
    found = freesurfer_morph.read(tmp_path / "map.m3z")
    assert_allclose(found.positions, points + 3, atol=1e-5)


def test_invalid_nodes_are_unknown(tmp_path, rng):
    field = both_directions(map_on("RAS", 3, prealign=True), rng)[0].field
    path = tmp_path / "map.m3z"
    freesurfer_morph.write(field, path)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[24 : 24 + 24] = bytes(24)
    path.write_bytes(gzip.compress(content))
    unknown = np.isnan(freesurfer_morph.read(path).positions)
    assert unknown[0, 0, 0].all() and unknown.sum() == 3


# --- what is refused


@pytest.mark.parametrize("module", [freesurfer_morph, freesurfer_warp])
def test_grids_must_be_known_and_perpendicular(module, tmp_path, rng):
    field = both_directions(map_on("RAS", 3, prealign=True), rng)[0].field
    path = tmp_path / ("map.m3z" if module is freesurfer_morph else "map.nii.gz")
    with pytest.raises(ValueError, match="static and moving must be given"):
        module.write(field._replace(input_grid=None), path)
    sheared = field.input_grid.affine.copy()
    sheared[0, 1] = 0.1
    grid = Grid(field.input_grid.shape, sheared)
    with pytest.raises(ValueError, match="perpendicular axes"):
        module.write(field._replace(input_grid=grid), path)
    assert not path.exists()


def test_damaged_morphs_are_errors(tmp_path, rng):
    field = both_directions(map_on("RAS", 3, prealign=True), rng)[0].field
    path = tmp_path / "map.m3z"
    freesurfer_morph.write(field, path)
    packed = path.read_bytes()
    content = gzip.decompress(packed)
    invalid = bytearray(content)
    at = len(content) - 8 - 2 * 588
    invalid[at : at + 4] = bytes(4)
    cases = {
        "is damaged": [packed[:-50], gzip.compress(content[:-600]), content[:500]],
        "must contain the grids": [gzip.compress(bytes(invalid))],
        "is no morph": [b"no map", gzip.compress(b"no map"), b""],
    }
    for message, files in cases.items():
        for damaged in files:
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=message):
                freesurfer_morph.read(path)
    with pytest.raises(FileNotFoundError):
        freesurfer_morph.read(tmp_path / "none.m3z")


def test_damaged_warps_are_errors(tmp_path, rng):
    field = both_directions(map_on("RAS", 3, prealign=True), rng)[0].field
    path = tmp_path / "warp.mgz"
    freesurfer_warp.write(field, path)
    content = gzip.decompress(path.read_bytes())
    for damaged in (b"no map", gzip.compress(content[:3000]), gzip.compress(b"")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="path: "):
            freesurfer_warp.read(path)
    nib.save(nib.MGHImage(np.zeros((4, 5, 6, 3), np.float32), np.eye(4)), path)
    with pytest.raises(ValueError, match="must be a warp of FreeSurfer"):
        freesurfer_warp.read(path)
    nib.save(nifti(field.grid), tmp_path / "image.nii.gz")
    assert not freesurfer_warp.matches(nib.load(tmp_path / "image.nii.gz"))
    with pytest.raises(ValueError, match=r"\(X, Y, Z, 1, 3\)"):
        freesurfer_warp.read(tmp_path / "image.nii.gz")


def test_warp_without_extension_is_read(tmp_path, rng):
    """Then only the output image's grid is in the file."""
    field = both_directions(map_on("LPS", 3, prealign=True), rng)[0].field
    freesurfer_warp.write(field, tmp_path / "warp.nii.gz")
    image = nib.load(tmp_path / "warp.nii.gz")
    image.header.extensions.clear()
    nib.save(image, tmp_path / "plain.nii.gz")
    found = freesurfer_warp.read(tmp_path / "plain.nii.gz")
    assert found.input_grid is None
    assert_allclose(found.positions, field.positions, atol=1e-4)
    with_extension = freesurfer_warp.read(tmp_path / "warp.nii.gz")
    assert_array_equal(found.positions, with_extension.positions)
