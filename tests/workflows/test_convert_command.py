"""The command dipy_convert_deep, and dipy_apply_deep with maps of other programs."""

from maps import affine, make_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose
import pytest
from workflow_files import fails

from dipy_dl_reg import load_mapping, read_mapping, save_mapping, write_affine
from dipy_dl_reg.maps.formats.dense_field import forward_field, inverse_field, map_grids
from dipy_dl_reg.workflows import apply_deep, convert_deep


@pytest.fixture
def mapping():
    return make_map(
        (12, 14, 10),
        (11, 10, 13),
        static_grid2world=affine([2, -2, 2.5], (0.1, -0.1, 0), [3, 20, -5]),
        moving_grid2world=affine([2, 2, 2], (), [1, -8, -6]),
        prealign=affine([1.05, 0.95, 1.0], (0.05, 0, 0), [1, 0, 1]),
    )


@pytest.fixture
def path(mapping, tmp_path):
    save_mapping(mapping, tmp_path / "map.npz")
    static, moving = map_grids(mapping)
    for grid, name in ((static, "static.nii.gz"), (moving, "moving.nii.gz")):
        values = np.random.default_rng(0).random(grid.shape).astype(np.float32)
        nib.save(nib.Nifti1Image(values, grid.affine), tmp_path / name)
    return tmp_path / "map.npz"


@pytest.mark.parametrize(
    "name, options",
    [
        ("warp.nii.gz", ["--like", "itk"]),
        ("warp.nii.gz", ["--like", "mrtrix"]),
        ("warp.nii.gz", ["--like", "fsl", "--out_affine", "premat.mat"]),
        ("warp.x5", []),
    ],
)
def test_map_is_converted_there_and_back(
    name, options, mapping, path, tmp_path, command
):
    out = tmp_path / "out"
    arguments = [
        "--out_dir",
        out,
        "--out_mapping",
        name,
        "--out_inverse",
        f"back_{name}",
    ]
    command(convert_deep, path, *arguments, *options)
    files = ["--inverse", out / f"back_{name}", "--moving", tmp_path / "moving.nii.gz"]
    files += ["--static", tmp_path / "static.nii.gz", "--out_dir", out]
    if "--out_affine" in options:
        files += ["--affine", out / "premat.mat"]
    command(convert_deep, out / name, *files)
    found = load_mapping(out / "mapping.npz")
    for evaluate in (forward_field, inverse_field):
        wanted = evaluate(mapping).positions
        assert_allclose(evaluate(found).positions, wanted, atol=1e-4)


def test_several_maps_are_combined(mapping, path, tmp_path, command):
    static = map_grids(mapping)[0]
    second = make_map(
        static.shape,
        static.shape,
        static_grid2world=static.affine,
        moving_grid2world=static.affine,
    )
    save_mapping(second, tmp_path / "second.npz")
    command(convert_deep, path, tmp_path / "second.npz", "--out_dir", tmp_path)
    found = load_mapping(tmp_path / "mapping.npz")
    points = forward_field(second).positions.reshape(-1, 3)
    moved = forward_field(found).positions.reshape(-1, 3)
    assert_allclose(moved, mapping.transform_points(points), atol=1e-4)


def test_prealign_of_another_program(mapping, path, tmp_path, command):
    """A file of DIPY, whose prealign is in FLIRT's format."""
    static, moving = map_grids(mapping)
    bare = nib.Nifti1Image(
        np.stack([mapping.forward, mapping.backward], -1), mapping.codomain_world2grid
    )
    nib.save(bare, tmp_path / "dipy.nii.gz")
    premat = tmp_path / "flirt.mat"
    write_affine(mapping.prealign_inv, premat, static=static, moving=moving, like="fsl")
    images = [
        *("--static", tmp_path / "static.nii.gz"),
        *("--moving", tmp_path / "moving.nii.gz"),
    ]
    command(
        convert_deep,
        tmp_path / "dipy.nii.gz",
        *("--prealign", premat, "--out_dir", tmp_path, *images),
    )
    found = load_mapping(tmp_path / "mapping.npz")
    assert_allclose(found.prealign, mapping.prealign, atol=1e-4)


def test_files_are_checked_first(path, tmp_path, command):
    out = ["--out_dir", tmp_path / "out"]
    for arguments, message in (
        ((path, "--out_mapping", "w.nii.gz"), "like must name the format"),
        ((path, "--out_mapping", "w.txt"), "path must be a file of a map"),
        ((path, "--like", "elastix"), "like must be one of"),
        ((path, path, "--prealign", path), "prealign can only be given for one map"),
        ((path, "--inverse", path), "inverse must not be given"),
    ):
        said = fails(command, convert_deep, *arguments, *out)
        assert message in said, said
    assert not (tmp_path / "out").exists()
    command(convert_deep, path, "--out_mapping", "a_1Warp.nii.gz", *out)
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    start = "a_0GenericAffine.mat a_1InverseWarp.nii.gz a_1Warp.nii.gz"
    assert names == start.split()
    said = fails(command, convert_deep, path, "--out_mapping", "a_1Warp.nii.gz", *out)
    assert "add --force" in said


def test_apply_takes_the_files_of_other_programs(mapping, path, tmp_path, command):
    image = nib.load(tmp_path / "moving.nii.gz")
    wanted = mapping.transform(image.get_fdata(dtype=np.float32))
    for name, options in (
        ("a_1Warp.nii.gz", []),
        ("warp.nii.gz", ["--like", "fsl", "--force"]),
    ):
        arguments = ["--out_dir", tmp_path, "--out_mapping", name]
        command(convert_deep, path, *arguments, *options)
        moving = ["--moving", tmp_path / "moving.nii.gz"] if "fsl" in options else []
        target = tmp_path / f"by_{name}"
        command(
            apply_deep,
            *(tmp_path / name, tmp_path / "moving.nii.gz", *moving),
            *("--out_dir", tmp_path, "--out_file", target.name),
        )
        assert_allclose(nib.load(target).get_fdata(), wanted, atol=1e-4)
    assert read_mapping(tmp_path / "a_1Warp.nii.gz").dim == 3
