"""read_mapping and write_mapping: choice of the format, missing parts, bad input."""

import logging
from pathlib import Path

import dipy.align
from dipy.align.imaffine import AffineMap
from foreign_fields import both_directions, largest_difference
from itk_resampling import read_field, resample
from maps import affine, make_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose
import pytest
from test_formats import GRIDS, image_of, map_on

from dipy_dl_reg import (
    load_mapping,
    read_dipy_mapping,
    read_mapping,
    save_mapping,
    write_dipy_mapping,
    write_mapping,
)
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.dipy_map import as_mapping
from dipy_dl_reg.maps.formats.dense_field import (
    forward_field,
    inverse_field,
    map_grids,
    nearest_affine,
)
from dipy_dl_reg.maps.formats.table import FORMATS

DENSE = [name for name, entry in FORMATS.items() if entry.kind == "dense"]


def write_pair(mapping, folder, name="itk", suffix=None):
    """Write both directions; return their files."""
    suffix = suffix or FORMATS[name].suffixes[0]
    paths = folder / f"there{suffix}", folder / f"back{suffix}"
    write_mapping(mapping, paths[0], inverse=paths[1], like=name, overwrite=True)
    return paths


def largest_distance(field, other):
    """Largest distance between the positions of two fields, mm."""
    return np.linalg.norm(field.positions - other.positions, axis=-1).max()


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("name", DENSE)
def test_map_is_written_again_as_it_was(name, kind, tmp_path):
    """Both directions, to 1e-4 mm, without the prealign, which is separated."""
    mapping = map_on(kind, 3, prealign=True)
    there, back = write_pair(mapping, tmp_path, name)
    found = read_mapping(there, inverse=back, moving=image_of(mapping, "domain"))
    assert_allclose(found.prealign, mapping.prealign, atol=1e-4)
    for evaluate in (forward_field, inverse_field):
        assert largest_distance(evaluate(found), evaluate(mapping)) < 1e-4


@pytest.mark.parametrize("suffixes", [("_1Warp.nii.gz",), (".h5", ".h5"), (".npz",)])
def test_parts_are_written_again_as_they_were(suffixes, tmp_path):
    """Affine and displacements stay apart: the arrays are the same."""
    mapping = map_on("oblique", 3, prealign=True)
    for step in ("first", "second"):
        (tmp_path / step).mkdir()
        paths = [
            tmp_path / step / f"{side}{suffix}"
            for side, suffix in zip(("there", "back"), suffixes)
        ]
        inverse = dict(zip(("inverse",), paths[1:]))
        write_mapping(mapping, paths[0], **inverse)
        mapping = read_mapping(paths[0], moving=image_or_none(suffixes), **inverse)
    first, second = (sorted((tmp_path / s).iterdir()) for s in ("first", "second"))
    for one, other in zip(first, second, strict=True):
        if one.suffix == ".npz":
            assert one.read_bytes() == other.read_bytes()
    wanted = map_on("oblique", 3, prealign=True)
    assert_allclose(mapping.backward, wanted.backward, atol=1e-6)
    assert_allclose(mapping.forward, wanted.forward, atol=1e-6)


def image_or_none(suffixes):
    """Moving, for formats without its grid."""
    whole = suffixes == (".npz",)
    return None if whole else image_of(map_on("oblique", 3, prealign=True), "domain")


@pytest.mark.parametrize("far", [0, 1e4])
@pytest.mark.parametrize("turn", [0.0, 0.6])
def test_missing_inverse_is_computed(far, turn, tmp_path, caplog):
    """The prealign is not known: it may be large, and its world far away."""
    static = affine([2, -2, 2.5], (0.1, -0.2, 0.05), [5, -9, 3])
    moving = affine([-1.8, 2.2, 1.6], (-0.15, 0.1, 0.2), [far, -20, 5])
    shapes = (17, 20, 15), (24, 21, 26)
    prealign = affine([1.3, 0.8, 1.1], (turn, 0.1, -turn))
    middles = [
        (m @ [*(np.array(s) - 1) / 2, 1])[:3] for m, s in zip((static, moving), shapes)
    ]
    prealign[:3, 3] = middles[1] - prealign[:3, :3] @ middles[0]
    mapping = make_map(
        *shapes,
        static_grid2world=static,
        moving_grid2world=moving,
        prealign=prealign,
        amplitude=2.0,
    )
    path = tmp_path / "warp.nii.gz"
    write_mapping(mapping, path, like="itk")
    with caplog.at_level(logging.INFO, "dipy"):
        found = read_mapping(path, moving=image_of(mapping, "domain"))
    assert "inverse direction is not in the file: it was computed" in caplog.text
    assert largest_distance(forward_field(found), forward_field(mapping)) < 1e-3
    # `make_map` inverts by fixed-point iterations, to about 1e-3 mm.
    assert largest_distance(inverse_field(found), inverse_field(mapping)) < 5e-3


def test_affine_of_a_field_that_reaches_the_border():
    """It is fitted to all positions, and the map is the same on static's grid."""
    mapping = map_on("oblique", 3, prealign=True)
    bend = 0.02 * np.arange(mapping.backward.shape[1]) ** 2
    mapping.backward[..., 0] += bend[:, None]
    field = forward_field(mapping)
    matrix = nearest_affine(field)
    assert np.isfinite(matrix).all() and np.linalg.det(matrix) > 0


def test_itk_applies_an_affine_map(tmp_path, rng):
    """Whose displacement is a single voxel, so that it is converted."""
    grid = Grid((12, 10, 9), affine([2, -1.5, 2.5], (0.1, -0.2, 0.05), [5, -9, 3]))
    matrix = affine([1.05, 0.95, 1.02], (0.05, 0.1, -0.05), [1, 2, -1])
    affine_map = AffineMap(
        matrix,
        domain_grid_shape=grid.shape,
        domain_grid2world=grid.affine,
        codomain_grid_shape=grid.shape,
        codomain_grid2world=grid.affine,
    )
    direction, _ = both_directions(as_mapping(affine_map), rng)
    for name in ("itk", "ants"):
        path = tmp_path / f"{name}1Warp.nii.gz"
        write_mapping(affine_map, path, like=name)
    warped = resample(
        direction.image, grid, grid, read_field(tmp_path / "itk1Warp.nii.gz")
    )
    assert largest_difference(direction, warped) < 1e-3
    found = read_mapping(path)
    assert_allclose(found.prealign_inv, matrix, atol=1e-9)
    assert abs(found.backward).max() < 1e-9
    assert tuple(found.disp_shape) == grid.shape


def test_missing_inverse_of_a_writer_is_said(tmp_path, caplog):
    mapping = map_on("RAS", 3, prealign=False)
    with caplog.at_level(logging.INFO, "dipy"):
        write_mapping(mapping, tmp_path / "warp.x5")
    assert "give inverse for a file of the other" in caplog.text


def test_dipys_file_keeps_the_prealign(tmp_path):
    """And moving's grid; DIPY's own function reads the file as before."""
    mapping = map_on("oblique", 3, prealign=True)
    path = tmp_path / "map.nii.gz"
    with pytest.warns(UserWarning, match="prealign"):
        write_dipy_mapping(mapping, path)
    for found in (
        read_mapping(path),
        read_dipy_mapping(
            path, image_of(mapping, "codomain"), image_of(mapping, "domain")
        ),
    ):
        assert_allclose(found.prealign, mapping.prealign, atol=1e-6)
        assert tuple(found.domain_shape) == tuple(mapping.domain_shape)
    with pytest.raises(ValueError, match="prealign must be that in"):
        read_mapping(path, prealign=np.eye(4))
    images = [image_of(mapping, s) for s in ("domain", "codomain")]
    theirs = dipy.align.read_mapping(str(path), *images, prealign=mapping.prealign)
    assert_allclose(theirs.backward, mapping.backward)


def test_several_programs_have_a_suffix(tmp_path):
    mapping = map_on("RAS", 3, prealign=False)
    with pytest.raises(ValueError, match="like must name the format of .*mrtrix"):
        write_mapping(mapping, tmp_path / "warp.nii.gz")
    with pytest.raises(ValueError, match="like must be one of .*'ants'"):
        write_mapping(mapping, tmp_path / "warp.nii.gz", like="elastix")
    with pytest.raises(ValueError, match="path must be a file of a map"):
        write_mapping(mapping, tmp_path / "warp.txt")
    save_mapping(mapping, tmp_path / "map.npz")
    with pytest.raises(ValueError, match="inverse must not be given"):
        read_mapping(tmp_path / "map.npz", inverse=tmp_path / "map.npz")
    with pytest.raises(ValueError, match="affine must not be given"):
        write_mapping(mapping, tmp_path / "w.x5", affine=tmp_path / "a.mat")
    with pytest.raises(ValueError, match="must be different files"):
        write_mapping(mapping, tmp_path / "w.x5", inverse=tmp_path / "w.x5")
    assert load_mapping(tmp_path / "map.npz").dim == 3


def test_existing_files_are_kept(tmp_path):
    mapping = map_on("RAS", 3, prealign=False)
    there = tmp_path / "a_1Warp.nii.gz"
    (tmp_path / "a_0GenericAffine.mat").write_text("mine")
    with pytest.raises(FileExistsError):
        write_mapping(mapping, there)
    assert [path.name for path in tmp_path.iterdir()] == ["a_0GenericAffine.mat"]
    write_mapping(mapping, there, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 3


def test_affine_of_ants_is_found_or_named(tmp_path):
    mapping = map_on("oblique", 3, prealign=True)
    path = tmp_path / "a_1Warp.nii.gz"
    write_mapping(mapping, path)
    affine_file = (tmp_path / "a_0GenericAffine.mat").rename(tmp_path / "b.mat")
    with pytest.raises(FileNotFoundError, match="the warp of ANTs does not contain"):
        read_mapping(path)
    for given in ({"affine": affine_file}, {"prealign": mapping.prealign_inv}):
        found = read_mapping(path, **given)
        assert_allclose(found.prealign, mapping.prealign, atol=1e-9)
        assert_allclose(found.forward, mapping.forward, atol=1e-6)
    with pytest.raises(ValueError, match="prealign must not be given beside affine"):
        read_mapping(path, affine=affine_file, prealign=np.eye(4))
    (tmp_path / "a_1InverseWarp.nii.gz").unlink()
    found = read_mapping(path, affine=affine_file)
    assert_allclose(found.forward, mapping.forward, atol=5e-3)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
class TestNamesOfAnts:
    """A warp is never read without the affine, or the warps, that belong to it."""

    @pytest.fixture
    def mapping(self):
        return map_on("oblique", 3, prealign=True)

    def test_affine_is_found(self, mapping, suffix, tmp_path):
        path = tmp_path / f"a_1Warp{suffix}"
        write_mapping(mapping, path)
        assert (tmp_path / f"a_1InverseWarp{suffix}").is_file()
        assert_allclose(read_mapping(path).prealign, mapping.prealign, atol=1e-9)
        (tmp_path / "a_0GenericAffine.mat").unlink()
        with pytest.raises(FileNotFoundError, match="does not contain the affine"):
            read_mapping(path)

    def test_inverse_warp_is_an_error(self, mapping, suffix, tmp_path):
        write_mapping(mapping, tmp_path / f"a_1Warp{suffix}")
        inverse = tmp_path / f"a_1InverseWarp{suffix}"
        for like in (None, "ants"):
            with pytest.raises(ValueError, match="its inverse warp.*give it as inv"):
                read_mapping(inverse, like=like)
        with pytest.raises(ValueError, match="its inverse warp"):
            write_mapping(mapping, inverse, like="ants", overwrite=True)
        assert read_mapping(inverse, like="itk").dim == 3

    def test_later_warp_is_an_error(self, mapping, suffix, tmp_path):
        write_mapping(mapping, tmp_path / f"a_1Warp{suffix}")
        later = (tmp_path / f"a_1Warp{suffix}").rename(tmp_path / f"a_2Warp{suffix}")
        for like in (None, "ants"):
            with pytest.raises(ValueError, match="the stages before it: .*composite"):
                read_mapping(later, like=like)
        write_mapping(mapping, tmp_path / f"a_1Warp{suffix}", overwrite=True)
        with pytest.raises(ValueError, match="one of several warps .*a_2Warp"):
            read_mapping(tmp_path / f"a_1Warp{suffix}")

    def test_first_warp_may_have_no_affine(self, mapping, suffix, tmp_path):
        """But not that of stage 10, or of a subject's name with a number."""
        for name in ("a_0Warp", "a_10Warp"):
            path = tmp_path / f"{name}{suffix}"
            write_mapping(mapping, path)
        for file in tmp_path.glob("*.mat"):
            file.unlink()
        assert read_mapping(tmp_path / f"a_0Warp{suffix}").dim == 3
        with pytest.raises(FileNotFoundError, match="does not contain the affine"):
            read_mapping(path)

    def test_other_formats_may_have_these_names(self, mapping, suffix, tmp_path):
        path = tmp_path / f"a_2Warp{suffix}"
        write_mapping(mapping, path, like="mrtrix")
        assert read_mapping(path).dim == 3


class TestBadInput:
    """One clear error for each."""

    @pytest.fixture
    def mapping(self):
        return map_on("oblique", 3, prealign=True)

    @pytest.fixture
    def files(self, mapping, tmp_path):
        return write_pair(mapping, tmp_path)

    def test_another_grid(self, mapping, files):
        with pytest.raises(ValueError, match="on a grid of .* and static has"):
            read_mapping(files[0], static=image_of(mapping, "domain"))
        shifted = image_of(mapping, "codomain")
        shifted.affine[0, 3] += 1
        with pytest.raises(ValueError, match="another grid than static's"):
            read_mapping(files[0], static=shifted)

    def test_whole_map_on_another_grid(self, mapping, tmp_path):
        path = tmp_path / "map.npz"
        save_mapping(mapping, path)
        static, moving = (image_of(mapping, side) for side in ("codomain", "domain"))
        assert read_mapping(path, static=static, moving=moving).dim == 3
        for name, image, other in (
            ("static", static, moving),
            ("moving", moving, static),
        ):
            with pytest.raises(ValueError, match=f"on a grid of .* and {name} has"):
                read_mapping(path, **{name: other})
            image.affine[0, 3] += 1
            with pytest.raises(ValueError, match=f"another grid than {name}'s"):
                read_mapping(path, **{name: image})
        with pytest.raises(FileNotFoundError, match="static"):
            read_mapping(path, static=tmp_path / "none.nii.gz")
        save_mapping(make_map((9, 8, 7), (9, 8, 7)), tmp_path / "voxels.npz")
        with pytest.raises(ValueError, match="without affines"):
            read_mapping(tmp_path / "voxels.npz", static=static)

    def test_another_world(self, mapping, files):
        far = image_of(mapping, "domain")
        far.affine[1, 3] += 500
        with pytest.raises(ValueError, match="only 0.0% of its positions lie in it"):
            read_mapping(files[0], moving=far)

    def test_another_map_as_inverse(self, mapping, files, tmp_path):
        other = map_on("RAS", 3, prealign=True)
        path = tmp_path / "other.nii.gz"
        write_mapping(other, path, like="itk")
        for wrong in (path, files[0]):
            with pytest.raises(ValueError, match="inverse must hold the other direct"):
                read_mapping(files[0], inverse=wrong)

    def test_prealign_that_is_not_in_the_file(self, files):
        shift = affine([1.0, 1, 1], origin=[90, 0, 0])
        with pytest.raises(ValueError, match="prealign must be part of the map"):
            read_mapping(files[0], prealign=shift)

    def test_two_affines_that_disagree(self, files):
        image = nib.load(files[0])
        turned = image.affine.copy()
        turned[:3, 0] *= -1
        image.set_qform(turned, 1)
        changed = files[0].with_name("changed.nii.gz")
        nib.save(image, changed)
        with pytest.raises(ValueError, match="sform and qform, disagree"):
            read_mapping(changed)

    def test_no_affine(self, files):
        image = nib.load(files[0])
        image.set_sform(None, 0)
        image.set_qform(None, 0)
        changed = files[0].with_name("changed.nii.gz")
        nib.save(image, changed)
        with pytest.raises(ValueError, match="must have a position in the world"):
            read_mapping(changed)

    def test_vectors_along_other_axes(self, mapping, tmp_path):
        """Positions in LPS, in a file that must hold them in RAS."""
        path = tmp_path / "warp.nii.gz"
        write_mapping(mapping, path, like="mrtrix")
        image = nib.load(path)
        data = image.get_fdata(dtype=np.float32) * np.float32([-1, -1, 1])
        nib.save(nib.Nifti1Image(data, image.affine, image.header), path)
        with pytest.raises(ValueError, match="LPS"):
            read_mapping(path, like="mrtrix")

    def test_positions_in_voxels(self, mapping, tmp_path):
        static, moving = map_grids(mapping)
        field = forward_field(mapping)
        voxels = nib.affines.apply_affine(moving.inverse, field.positions)
        path = tmp_path / "warp.nii.gz"
        image = nib.Nifti1Image(voxels.astype(np.float32), static.affine)
        nib.save(image, path)
        with pytest.raises(ValueError, match="voxels"):
            read_mapping(path, moving=image_of(mapping, "domain"))

    def test_displacements_in_place_of_positions(self, mapping, tmp_path):
        path = tmp_path / "warp.nii.gz"
        nib.save(nib.Nifti1Image(mapping.backward, mapping.codomain_grid2world), path)
        with pytest.raises(ValueError, match="must hold positions"):
            read_mapping(path)

    @pytest.mark.parametrize("name", [*DENSE, "ants", "itk_composite"])
    def test_truncated_files(self, name, mapping, tmp_path):
        suffix = FORMATS[name].suffixes[0]
        path, _ = write_pair(mapping, tmp_path, name)
        content = path.read_bytes()
        for length in (len(content) // 2, 400, 0):
            cut = tmp_path / f"cut{suffix}"
            cut.write_bytes(content[:length])
            (tmp_path / "cut_0GenericAffine.mat").write_bytes(b"")
            with pytest.raises((ValueError, OSError), match="path|affine"):
                moving = image_of(mapping, "domain")
                read_mapping(cut, like=name, moving=moving)

    @pytest.mark.parametrize("name", ["itk", "mrtrix", "fsl", "spm", "dipy", "x5"])
    def test_wrong_like(self, name, mapping, tmp_path):
        """A file of another shape or kind."""
        path = tmp_path / "map.npz"
        save_mapping(mapping, path)
        image = tmp_path / "image.nii.gz"
        nib.save(image_of(mapping, "domain"), image)
        for file in (path, image):
            with pytest.raises(ValueError, match=Path(file).name):
                read_mapping(file, like=name, moving=image)

    def test_slices(self, tmp_path):
        for name in DENSE:
            if 2 not in FORMATS[name].dimensions:
                with pytest.raises(ValueError, match="mapping must be 3D"):
                    write_pair(map_on("RAS", 2, prealign=True), tmp_path, name)

    def test_sheared_grid_of_itk(self, mapping, tmp_path):
        mapping.codomain_grid2world[0, 1] += 0.3
        with pytest.raises(ValueError, match="perpendicular axes"):
            write_pair(mapping, tmp_path)

    def test_map_without_affines(self, tmp_path):
        with pytest.raises(ValueError, match="must have the affines of both images"):
            write_pair(make_map((9, 8, 7), (9, 8, 7)), tmp_path)

    def test_order_of_composites(self, mapping, tmp_path):
        pytest.importorskip("h5py")
        there, back = write_pair(mapping, tmp_path, "itk_composite")
        with pytest.raises(ValueError, match="give it as inverse"):
            read_mapping(back)
        with pytest.raises(ValueError, match="other order"):
            read_mapping(there, inverse=there)

    def test_unknown_image(self, mapping, tmp_path):
        path = tmp_path / "t1.nii.gz"
        nib.save(image_of(mapping, "domain"), path)
        with pytest.raises(ValueError, match=r"must be a map, one of: .*FSL"):
            read_mapping(path)
        with pytest.raises(FileNotFoundError):
            read_mapping(tmp_path / "none.nii.gz")
