"""`dipy_apply_deep`: images transformed by a map in a file."""

import sys
from types import ModuleType

from dipy.align import write_mapping
from maps import oblique_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest
from workflow_files import fails, finer, names, save

from dipy_dl_reg.maps.apply import apply_mapping
from dipy_dl_reg.maps.dipy_map import make_mapping
from dipy_dl_reg.maps.formats.map_format import MapFormat
from dipy_dl_reg.maps.formats.table import FORMATS
from dipy_dl_reg.maps.storage import save_mapping
from dipy_dl_reg.workflows.apply import apply_deep


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.int64, np.float64])
def test_labels_on_another_grid(saved, tmp_path, rng, command, dtype):
    mapping, path = saved
    labels = rng.integers(0, 120, (20, 18, 25)).astype(dtype)
    own = finer(mapping)
    image = nib.Nifti1Image(labels, own, dtype=labels.dtype)
    nib.save(image, tmp_path / "labels.nii.gz")
    command(
        apply_deep,
        path,
        tmp_path / "labels.nii.gz",
        *("--interpolation", "nearest", "--out_dir", tmp_path / "out"),
        *("--out_file", "warped.nii.gz"),
    )
    warped = nib.load(tmp_path / "out" / "warped.nii.gz")
    assert warped.get_data_dtype().newbyteorder("=") == np.dtype(dtype).newbyteorder(
        "="
    )
    assert_allclose(warped.affine, mapping.codomain_grid2world, atol=1e-5)
    own = nib.load(tmp_path / "labels.nii.gz").affine
    wanted = apply_mapping(
        mapping, labels, image_grid2world=own, interpolation="nearest"
    )
    assert_array_equal(np.asanyarray(warped.dataobj), wanted)
    assert len(np.unique(wanted)) > 50


def labels_of(shape):
    """Blocks of whole numbers."""
    return (np.indices(shape) // 4).sum(0)


def test_labels_are_recognised(saved, tmp_path, rng, command, capsys):
    """A warning, or nearest neighbour where the file says what it is."""
    mapping, path = saved
    labels = labels_of(mapping.domain_shape).astype(np.int16)
    image = nib.Nifti1Image(labels, mapping.domain_grid2world)
    nib.save(image, tmp_path / "plain.nii.gz")
    image.header.set_intent("label")
    nib.save(image, tmp_path / "declared.nii.gz")
    t1 = rng.integers(0, 1000, labels.shape).astype(np.int16)
    save(tmp_path / "t1.nii.gz", t1, mapping.domain_grid2world)
    out = tmp_path / "out" / "transformed.nii.gz"
    for name, more, warned, kind in (
        ("plain", (), True, np.float32),
        ("plain", ("--interpolation", "linear"), False, np.float32),
        ("plain", ("--interpolation", "nearest"), False, np.int16),
        ("declared", (), False, np.int16),
        ("t1", (), False, np.float32),
    ):
        file = tmp_path / f"{name}.nii.gz"
        command(apply_deep, path, file, "--out_dir", out.parent, "--force", *more)
        shown = capsys.readouterr().out
        assert ("--interpolation nearest" in shown) == warned, (name, more)
        assert nib.load(out).get_data_dtype() == kind


def test_series_goes_volume_by_volume(saved, tmp_path, rng, command):
    mapping, path = saved
    series = rng.random((*mapping.domain_shape, 4)).astype(np.float32)
    image = nib.Nifti1Image(series, mapping.domain_grid2world)
    image.header.set_zooms((*image.header.get_zooms()[:3], 2.5))
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "fmri.nii")
    arguments = ["--out_dir", tmp_path / "out"]
    command(apply_deep, path, tmp_path / "fmri.nii", *arguments)
    warped = nib.load(tmp_path / "out" / "transformed.nii.gz")
    assert warped.shape == (*mapping.codomain_shape, 4)
    for k in range(4):
        wanted = mapping.transform(series[..., k])
        assert_allclose(warped.get_fdata()[..., k], wanted, atol=1e-4)
    assert warped.header.get_zooms()[3] == 2.5
    assert warped.header.get_xyzt_units() == ("mm", "sec")


def test_inverse_and_reference(saved, tmp_path, rng, command):
    mapping, path = saved
    grid = finer(mapping, "codomain")
    atlas = save(tmp_path / "atlas.nii", rng.random((15, 17, 12)), grid)
    target = save(tmp_path / "ref.nii", np.zeros((9, 8, 7, 2)), finer(mapping))
    arguments = ["--inverse", "--out_dir", tmp_path / "out"]
    command(apply_deep, path, atlas, *arguments)
    warped = nib.load(tmp_path / "out" / "transformed.nii.gz")
    assert_allclose(warped.affine, mapping.domain_grid2world, atol=1e-5)
    wanted = apply_mapping(mapping, nib.load(atlas), inverse=True)
    assert wanted.std() > 0.05
    assert_allclose(warped.get_fdata(), wanted, atol=1e-5)
    command(apply_deep, path, atlas, *arguments, "--reference", target, "--force")
    warped = nib.load(tmp_path / "out" / "transformed.nii.gz")
    assert warped.shape == (9, 8, 7)
    wanted = apply_mapping(
        mapping,
        nib.load(atlas),
        out_shape=(9, 8, 7),
        out_grid2world=nib.load(target).affine,
        inverse=True,
    )
    assert_allclose(warped.get_fdata(), wanted, atol=1e-5)


def test_fields_in_dipys_format(saved, tmp_path, rng, command, caplog):
    mapping, _ = saved
    field, matrix = tmp_path / "field.nii.gz", tmp_path / "prealign.txt"
    write_mapping(mapping, str(field))
    np.savetxt(matrix, mapping.prealign_inv)
    data = rng.random(mapping.domain_shape).astype(np.float32)
    image = save(tmp_path / "fa.nii.gz", data, mapping.domain_grid2world)
    out = tmp_path / "out" / "transformed.nii.gz"
    command(apply_deep, field, image, "--prealign", matrix, "--out_dir", out.parent)
    assert_allclose(nib.load(out).get_fdata(), mapping.transform(data), atol=1e-4)
    assert_allclose(nib.load(out).affine, mapping.codomain_grid2world, atol=1e-4)
    again = ["--out_dir", out.parent, "--force"]
    message = fails(command, apply_deep, field, image, "--inverse", *again)
    assert "--reference" in message
    atlas_data = rng.random(mapping.codomain_shape).astype(np.float32)
    atlas = save(tmp_path / "atlas.nii.gz", atlas_data, mapping.codomain_grid2world)
    options = ["--inverse", "--reference", image, "--prealign", matrix, *again]
    command(apply_deep, field, atlas, *options)
    wanted = mapping.transform_inverse(atlas_data)
    assert_allclose(nib.load(out).get_fdata(), wanted, atol=1e-4)
    command(apply_deep, field, image, *again)
    assert "contains no prealign" in caplog.text
    assert np.abs(nib.load(out).get_fdata() - mapping.transform(data)).max() > 0.1


def test_several_images(saved, tmp_path, rng, command):
    mapping, path = saved
    images = [
        save(tmp_path / f"{n}.nii", rng.random((8, 8, 8)), finer(mapping)) for n in "ab"
    ]
    out = tmp_path / "out"
    assert "--mix_names" in fails(command, apply_deep, path, *images, "--out_dir", out)
    assert not out.exists()
    command(apply_deep, path, *images, "--out_dir", out, "--mix_names")
    wanted = {f"mapping_{n}__transformed.nii.gz" for n in "ab"}
    assert names(out) == wanted


def test_nan_does_not_spread_in_files(saved, tmp_path, rng, command):
    mapping, path = saved
    data = 1 + rng.random(mapping.domain_shape).astype(np.float32)
    data[8, 8, 8] = np.nan
    image = save(tmp_path / "fa.nii", data, mapping.domain_grid2world)
    command(apply_deep, path, image, "--out_dir", tmp_path / "out")
    warped = nib.load(tmp_path / "out" / "transformed.nii.gz").get_fdata()
    spread = np.isnan(mapping.transform(data)).sum()
    assert np.isnan(warped).sum() < spread / 2


def test_apply_says_what_is_wrong(saved, tmp_path, pair, command):
    mapping, path = saved
    image = save(tmp_path / "fa.nii", np.ones((8, 8, 8)), finer(mapping))
    slice_ = save(tmp_path / "slice.nii", np.ones((8, 8)))
    rgb = np.zeros((8, 8, 8), np.dtype([(c, "u1") for c in "RGB"]))
    colours = save(tmp_path / "colours.nii", rgb)
    flat, plain = tmp_path / "flat.npz", tmp_path / "plain.npz"
    save_mapping(oblique_map(2), flat)
    bare = oblique_map()
    bare.domain_grid2world = None
    save_mapping(bare, plain)
    broken = tmp_path / "broken.npz"
    broken.write_bytes(path.read_bytes()[:5000])
    text = tmp_path / "text.nii.gz"
    text.write_text("not an image")
    many = save(tmp_path / "many.nii", np.ones((4, 4, 4, 1, 5)))
    for arguments, message in (
        ((broken, image), "damaged"),
        ((flat, image), "must be a slice"),
        ((flat, slice_, "--reference", image), "is 2D"),
        ((path, slice_), "a volume or a series"),
        ((path, image, "--reference", slice_), "is 3D"),
        ((path, colours), "colour image"),
        ((plain, image), "without affines"),
        ((text, image), "not an image file"),
        ((image, image), "must be a map, one of"),
        ((tmp_path / "none.npz", image), "File not found"),
        ((path, text), "not an image file"),
        ((path, tmp_path / "none.nii"), "File not found"),
        ((path, many), "a volume or a series"),
        ((path, image, "--interpolation", "cubic"), "interpolation must be"),
        ((path, image, "--prealign", pair["prealign"]), "contains it"),
        ((path, image, "--reference", text), "not an image file"),
        ((path, image, "--out_file", "a.png"), "out_file must end in"),
        ((path, image, "--out_dir", tmp_path, "--out_file", "fa.nii"), "is an input"),
    ):
        before = names(tmp_path)
        out = () if "--out_dir" in arguments else ("--out_dir", tmp_path / "out")
        said = fails(command, apply_deep, *arguments, *out)
        assert message in said, said
        assert names(tmp_path) == before


@pytest.fixture
def fields_alone(monkeypatch):
    """A format of the table that holds neither grids nor the prealign."""
    module = ModuleType("dipy_dl_reg.maps.formats.fields_alone")

    def read(path, static=None, moving=None, prealign=None):
        fields, grid = np.load(path), (static.shape[:3], static.affine)
        return make_mapping(*fields, *grid, *grid, prealign)

    module.read = read
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = MapFormat(
        "fields alone", (".npy",), "fields_alone", holds_static_grid=False
    )
    monkeypatch.setitem(FORMATS, "fields_alone", entry)


def test_format_without_grids(saved, fields_alone, tmp_path, rng, command):
    """The reference is static."""
    mapping, _ = saved
    field, matrix = tmp_path / "field.npy", tmp_path / "prealign.txt"
    np.save(field, np.stack([mapping.forward, mapping.backward]))
    np.savetxt(matrix, mapping.prealign_inv)
    data = rng.random(mapping.domain_shape).astype(np.float32)
    image = save(tmp_path / "fa.nii.gz", data, mapping.domain_grid2world)
    zeros = np.zeros(mapping.codomain_shape)
    static = save(tmp_path / "static.nii.gz", zeros, mapping.codomain_grid2world)
    options = ["--prealign", matrix, "--out_dir", tmp_path / "out"]
    message = fails(command, apply_deep, field, image, *options)
    assert "does not contain static's grid; give static as --reference" in message
    command(apply_deep, field, image, "--reference", static, *options)
    found = nib.load(tmp_path / "out" / "transformed.nii.gz")
    assert_allclose(found.get_fdata(), mapping.transform(data), atol=1e-4)
    options += ["--inverse", "--reference", image, "--force"]
    message = fails(command, apply_deep, field, static, *options)
    assert "inverse: " in message and "static's grid" in message
