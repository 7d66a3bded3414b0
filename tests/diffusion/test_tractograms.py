"""Tractogram files transformed by a map; the direction, on real bundles."""

from copy import deepcopy
from pathlib import Path
import shutil
import subprocess
import zipfile

from dipy.align.imaffine import AffineMap
from dipy.data import get_fnames
from dipy.io.stateful_tractogram import Origin, Space, StatefulTractogram
from dipy.io.streamline import load_tractogram
from dipy.segment.bundles import bundle_adjacency
from dipy.tracking.streamline import set_number_of_points
from dipy.tracking.utils import density_map
from maps import affine, make_map, oblique_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest
from scipy.ndimage import gaussian_filter
from tractogram_files import (
    data_of,
    grid_of,
    header_of,
    lines_in,
    make_example,
    save_any,
    save_tck,
    save_trk,
)

from dipy_dl_reg.diffusion.streamlines import transform_streamlines
from dipy_dl_reg.diffusion.tractograms import transform_tractogram
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.tractograms.table import FORMATS, open_tractogram


def read_lines(path):
    """All streamlines of a file, read by nibabel or DIPY."""
    if path.suffix == ".trx":
        return load_tractogram(str(path), "same", bbox_valid_check=False).streamlines
    return nib.streamlines.load(path).streamlines


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("inverse", [False, True])
def test_file_as_in_memory(suffix, inverse, tmp_path, rng):
    """The file's streamlines are those of `transform_streamlines`, in any chunks."""
    mapping, own, other = make_example(rng)
    if inverse:
        own, other = other, own
    lines = lines_in(own, rng)
    source = save_any(tmp_path / f"a{suffix}", lines, own)
    out = tmp_path / f"b{suffix}"
    counts = transform_tractogram(mapping, source, out, inverse=inverse, chunk_size=6)
    assert counts[:2] == (5, 24)
    wanted = transform_streamlines(mapping, lines, inverse=inverse)
    for new, want in zip(read_lines(out), wanted, strict=True):
        assert_allclose(new, want, atol=1e-4)
    grid = open_tractogram(out).grid
    if suffix != ".tck":
        assert grid.shape == other.shape
        assert_allclose(grid.affine, other.affine, rtol=1e-6)
    transform_tractogram(mapping, out, source, inverse=not inverse, overwrite=True)
    for new, line in zip(read_lines(source), lines, strict=True):
        assert_allclose(new, line, atol=0.1)


def bundles(folder):
    """Two bundles of real people that DIPY contains."""
    with zipfile.ZipFile(get_fnames(name="minimal_bundles")) as archive:
        archive.extractall(folder, ["sub_1/AF_L.trk", "sub_1/CST_R.trk"])
    return sorted(Path(folder, "sub_1").iterdir())


@pytest.fixture(scope="module")
def head_map():
    """A map between grids that hold a head, shifted, turned and deformed."""
    moving = affine([4.0, 4, 4], (0.1,), [-90.0, -110, -110])
    static = affine([-5.0, 5, 5], (0, 0.1, 0), [110.0, -120, -100])
    prealign = affine([1.05, 0.95, 1.0], (0.0, 0.1, 0.05), [6.0, -8, 4])
    grids = {"static_grid2world": static, "moving_grid2world": moving}
    return make_map((42, 45, 44), (50, 55, 52), prealign=prealign, amplitude=6, **grids)


def test_direction_on_real_bundles(head_map, tmp_path):
    """Bundles go where the image of the bundle goes, in both directions.

    The reference is DIPY's own interpolation of the image of each bundle's density.
    """
    mapping = head_map
    for path in bundles(tmp_path):
        for inverse in (False, True):
            out = tmp_path / f"{inverse}.trk"
            transform_tractogram(mapping, path, out, inverse=inverse, overwrite=True)
            density = mapping.transform_inverse if inverse else mapping.transform
            sides = ("codomain", "domain") if inverse else ("domain", "codomain")
            own, other = (grid_of(mapping, side) for side in sides)
            image = density(count_tracks(read_lines(path), own))
            right = overlap(image, count_tracks(read_lines(out), other))
            assert right > 0.85
            transform_tractogram(
                mapping, path, out, inverse=not inverse, overwrite=True
            )
            assert overlap(image, count_tracks(read_lines(out), other)) < right / 2


@pytest.mark.skipif(not shutil.which("tcktransform"), reason="needs MRtrix3")
def test_direction_as_mrtrix(head_map, tmp_path):
    """MRtrix3 transforms tracks by an image of the new position of each voxel."""
    grid = grid_of(head_map, "domain")
    voxels = np.moveaxis(np.indices(grid.shape), 0, -1).reshape(-1, 3)
    points = nib.affines.apply_affine(grid.affine, voxels)
    positions = head_map.transform_points_inverse(points).reshape(*grid.shape, 3)
    warp = tmp_path / "warp.nii"
    nib.save(nib.Nifti1Image(positions.astype(np.float32), grid.affine), warp)
    for path in bundles(tmp_path):
        source, ours, theirs = (tmp_path / f"{n}.tck" for n in ("in", "a", "b"))
        nib.streamlines.save(nib.streamlines.load(path).tractogram, source)
        transform_tractogram(head_map, source, ours, overwrite=True)
        command = ["tcktransform", "-quiet", "-force", source, warp, theirs]
        subprocess.run(command, check=True)
        found, wanted = (read_lines(p).get_data() for p in (ours, theirs))
        # Positions are interpolated between voxels of 4 mm, displacements of 5 mm.
        assert_allclose(found, wanted, atol=0.5)
        assert np.abs(found - read_lines(source).get_data()).max() > 10


def count_tracks(lines, grid):
    """The number of streamlines in each voxel, smoothed a little."""
    lines = set_number_of_points(lines, nb_points=200)
    voxels = np.rint(nib.affines.apply_affine(grid.inverse, lines.get_data()))
    image = np.zeros(grid.shape, dtype=np.float32)
    inside = ((voxels >= 0) & (voxels < grid.shape)).all(1)
    np.add.at(image, tuple(voxels[inside].astype(int).T), 1)
    return image


def overlap(first, second):
    """Correlation of two images after smoothing."""
    first, second = (gaussian_filter(image, 1).ravel() for image in (first, second))
    return np.corrcoef(first, second)[0, 1]


def test_bundle_returns(head_map, tmp_path):
    """Overlap and distance after a known warp and back (DIPY's own measures)."""
    mapping = head_map
    grid = grid_of(mapping, "domain")
    for path in bundles(tmp_path):
        there, back = tmp_path / "there.trk", tmp_path / "back.trk"
        transform_tractogram(mapping, path, there, overwrite=True)
        transform_tractogram(mapping, there, back, inverse=True, overwrite=True)
        old, new = read_lines(path), read_lines(back)
        shift = np.linalg.norm(old.get_data() - new.get_data(), axis=1)
        moved = np.linalg.norm(old.get_data() - read_lines(there).get_data(), axis=1)
        assert shift.max() < 0.1 and moved.mean() > 5
        masks = [density_map(s, grid.affine, grid.shape) > 0 for s in (old, new)]
        assert 2 * (masks[0] & masks[1]).sum() > 0.99 * sum(m.sum() for m in masks)
        old, new = (list(set_number_of_points(s, nb_points=20)) for s in (old, new))
        assert bundle_adjacency(old, new, 1) == 1


def test_points_outside_the_field_are_counted(tmp_path, rng, caplog):
    mapping, moving, static = make_example(rng)
    lines = lines_in(static, rng, (4, 6, 3))
    corner = static.affine @ [*np.array(static.shape) - 0.6, 1]
    lines[1][2:4] = corner[:3]  # inside by a tenth of a voxel
    lines[2][1] = corner[:3] + 20
    counts = transform_tractogram(
        mapping,
        save_trk(tmp_path / "a.trk", lines, static),
        tmp_path / "b.trk",
        inverse=True,
    )
    assert counts == (3, 13, 1, 1)
    assert "1 points (7.69%) of 1 streamlines lie outside" in caplog.text
    wanted = nib.affines.apply_affine(mapping.prealign_inv, lines[2][1])
    found = read_lines(tmp_path / "b.trk")[2][1]
    assert_allclose(found, wanted, atol=1e-4)
    # From moving to static, the prealign comes first.
    lines = transform_streamlines(mapping, lines, inverse=True)
    counts = transform_tractogram(
        mapping, save_trk(tmp_path / "c.trk", lines, moving), tmp_path / "d.trk"
    )
    assert counts == (3, 13, 1, 1)


def test_reference_grid(tmp_path, rng):
    mapping, moving, _ = make_example(rng)
    source = save_trk(tmp_path / "a.trk", lines_in(moving, rng), moving)
    matrix = affine([1.0, -2, 3], (0.2,), [7.0, 8, 9])
    image = nib.Nifti1Image(np.zeros((5, 6, 7, 2)), matrix)
    transform_tractogram(mapping, source, tmp_path / "b.trk")
    transform_tractogram(mapping, source, tmp_path / "c.trk", reference=image)
    found = open_tractogram(tmp_path / "c.trk").grid
    assert found.shape == (5, 6, 7)
    assert_allclose(found.affine, matrix, rtol=1e-6)
    first, second = (read_lines(tmp_path / f"{n}.trk") for n in "bc")
    assert_allclose(first.get_data(), second.get_data(), atol=2e-5)


@pytest.mark.parametrize("space", Space)
@pytest.mark.parametrize("origin", Origin)
def test_stateful_tractogram(space, origin, rng):
    mapping, moving, static = make_example(rng)
    lines = lines_in(moving, rng)
    data = dict(zip(("data_per_point", "data_per_streamline"), data_of(lines, rng)))
    header = header_of(moving)
    header["voxel_order"] = header["voxel_order"].decode()
    given = StatefulTractogram(lines, header, Space.RASMM, **data)
    given.to_space(space)
    given.to_origin(origin)
    before = deepcopy(given)
    found = transform_streamlines(mapping, given[1:])
    assert given == before
    assert found.space == space and found.origin == origin
    assert_array_equal(found.dimensions, static.shape)
    assert_allclose(found.affine, static.affine)
    assert found.voxel_order == "".join(nib.aff2axcodes(static.affine))
    for name, values in data["data_per_point"].items():
        kept = found.data_per_point[name].get_data()
        assert_array_equal(kept, np.concatenate(values[1:]))
    for name, values in data["data_per_streamline"].items():
        assert_array_equal(found.data_per_streamline[name], values[1:])
    found.to_rasmm()
    found.to_origin(Origin.NIFTI)
    wanted = transform_streamlines(mapping, lines[1:])
    assert_allclose(found.streamlines.get_data(), np.concatenate(wanted), atol=1e-4)
    with pytest.raises(ValueError, match="space of static.* grid of moving"):
        transform_streamlines(mapping, given, inverse=True)


def test_tractogram_in_another_space(tmp_path, rng, caplog):
    mapping, moving, static = make_example(rng)
    lines = lines_in(moving, rng)
    out = tmp_path / "out.trk"
    wrong = save_trk(tmp_path / "a.trk", lines_in(static, rng), static)
    with pytest.raises(ValueError, match="space of moving.* grid of static"):
        transform_tractogram(mapping, wrong, out)
    wrong = save_trk(tmp_path / "a.trk", lines, moving)
    with pytest.raises(ValueError, match="space of static.* grid of moving"):
        transform_tractogram(mapping, wrong, out, inverse=True)
    far = save_tck(tmp_path / "far.tck", [line + 200 for line in lines])
    with pytest.raises(ValueError, match="100% of its first 24 points lie outside"):
        transform_tractogram(mapping, far, tmp_path / "out.tck")
    assert not out.exists()
    other = Grid((40, 40, 40), moving.affine)
    assert "describes another grid" not in caplog.text
    transform_tractogram(mapping, save_trk(tmp_path / "a.trk", lines, other), out)
    assert "describes another grid than that of moving" in caplog.text


def test_wrong_arguments(tmp_path, rng):
    mapping, moving, _ = make_example(rng)
    lines = lines_in(moving, rng)
    source = save_trk(tmp_path / "a.trk", lines, moving)
    lines[1][0] = np.nan
    unknown = save_trk(tmp_path / "nan.trk", lines, moving)
    bare = oblique_map()
    bare.domain_grid2world = None
    right = {"mapping": mapping, "in_file": source, "out_file": tmp_path / "b.trk"}
    flat = nib.Nifti1Image(np.zeros((3, 4)), np.eye(4))
    for wrong, error, message in (
        ({"in_file": tmp_path / "none.trk"}, FileNotFoundError, "in_file: no such"),
        ({"in_file": tmp_path / "a.vtk"}, ValueError, "in_file must be a tractogram"),
        ({"in_file": lines}, ValueError, "in_file must be the path"),
        ({"in_file": unknown}, ValueError, "coordinates must be finite"),
        ({"out_file": tmp_path / "b.tck"}, ValueError, "out_file must be a .trk"),
        ({"out_file": source}, FileExistsError, "exists already"),
        ({"chunk_size": 0}, ValueError, "chunk_size must be"),
        ({"mapping": np.eye(4)}, ValueError, "mapping must be a DiffeomorphicMap"),
        ({"mapping": oblique_map(2)}, ValueError, "mapping must be 3D"),
        ({"mapping": bare}, ValueError, "mapping must have affines"),
        ({"reference": flat}, ValueError, "reference must be 3D"),
    ):
        with pytest.raises(error, match=message):
            transform_tractogram(**right | wrong)
        assert not (tmp_path / "b.trk").exists()


def test_affine_map(tmp_path, rng):
    """An affine map moves a tractogram as its matrix does; none lies outside."""
    moving = Grid((20, 22, 24), affine([2.0, 2, 2], (0.2,), [3.0, 4, 5]))
    static = Grid((21, 20, 19), affine([2.0, -2, 2], (0.1,), [2.0, 40, 1]))
    matrix = np.linalg.inv(np.diag([1.05, 0.9, 1, 1]) + 0.5 * np.eye(4, k=3))
    affine_map = AffineMap(
        matrix,
        domain_grid_shape=static.shape,
        domain_grid2world=static.affine,
        codomain_grid_shape=moving.shape,
        codomain_grid2world=moving.affine,
    )
    lines = lines_in(moving, rng)
    back = np.linalg.inv(matrix)
    wanted = [line @ back[:3, :3].T + back[:3, 3] for line in lines]
    source = save_trk(tmp_path / "a.trk", lines, moving)
    transform_tractogram(affine_map, source, tmp_path / "b.trk")
    found = read_lines(tmp_path / "b.trk")
    assert_allclose(found.get_data(), np.concatenate(wanted), atol=1e-3)
    moved = transform_streamlines(affine_map, lines)
    assert_allclose(np.concatenate(moved), np.concatenate(wanted), atol=1e-3)
    middle = static.affine @ [10, 10, 9, 1]
    tck = save_tck(tmp_path / "in.tck", [(matrix @ middle)[None, :3].repeat(3, 0)])
    counts = transform_tractogram(affine_map, tck, tmp_path / "out.tck")
    assert counts.points == 3 and counts.points_outside == 0
