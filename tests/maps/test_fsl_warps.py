"""FSL's warps: fslpy and Connectome Workbench read and apply what is written."""

import shutil
import subprocess

from foreign_fields import both_directions, largest_difference, nifti
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose
import pytest
from test_formats import GRIDS, map_on

from dipy_dl_reg.io.fsl_coordinates import flirt_matrix, fsl_coordinates
from dipy_dl_reg.maps.formats import fsl
from dipy_dl_reg.maps.formats.dense_field import grid_points, map_grids

needs_workbench = pytest.mark.skipif(
    not shutil.which("wb_command"), reason="needs Connectome Workbench"
)
KINDS = pytest.mark.parametrize("kind", GRIDS)
PREALIGN = pytest.mark.parametrize("prealign", [False, True], ids=["", "prealign"])


def fslpy_image(grid, data=None):
    fsl_image = pytest.importorskip("fsl.data.image")
    image = nifti(grid, data)
    return fsl_image.Image(np.asarray(image.dataobj), header=image.header)


@PREALIGN
@KINDS
def test_fslpy_warps_as_the_map(kind, prealign, tmp_path, rng):
    nonlinear = pytest.importorskip("fsl.transform.nonlinear")
    for direction in both_directions(map_on(kind, 3, prealign=prealign), rng):
        field = direction.field
        fsl.write(field, tmp_path / "warp.nii.gz")
        moving = fslpy_image(field.input_grid, direction.image)
        warp = nonlinear.DeformationField(
            tmp_path / "warp.nii.gz",
            moving,
            fslpy_image(field.grid),
            defType="relative",
        )
        warped = nonlinear.applyDeformation(moving, warp, mode="constant")
        assert largest_difference(direction, warped) < 1e-3


@KINDS
def test_fslpy_warps_with_premat_as_the_map(kind, tmp_path, rng):
    """The warp leads to moving aligned by the premat, on static's grid."""
    nonlinear = pytest.importorskip("fsl.transform.nonlinear")
    mapping = map_on(kind, 3, prealign=True)
    direction, _ = both_directions(mapping, rng)
    static, moving = map_grids(mapping)
    paths = tmp_path / "warp.nii.gz", tmp_path / "premat.mat"
    fsl.write_with_affine(direction.field, mapping.prealign_inv, *paths)
    aligned = fslpy_image(static)
    warp = nonlinear.DeformationField(paths[0], aligned, aligned, defType="relative")
    assert np.abs(warp.data).max() < 5  # the prealign alone moves by more
    premat = np.loadtxt(paths[1]) @ fsl_coordinates(moving)
    warped = nonlinear.applyDeformation(
        fslpy_image(moving, direction.image),
        warp,
        mode="constant",
        premat=np.linalg.inv(fsl_coordinates(static)) @ premat,
    )
    assert largest_difference(direction, warped) < 1e-3


@PREALIGN
@KINDS
def test_warp_of_fslpy_is_read(kind, prealign, tmp_path, rng):
    """fslpy converts displacements in the world to FSL's."""
    nonlinear = pytest.importorskip("fsl.transform.nonlinear")
    fnirt = pytest.importorskip("fsl.transform.fnirt")
    for direction in both_directions(map_on(kind, 3, prealign=prealign), rng):
        field = direction.field
        world = nonlinear.DeformationField(
            field.positions - grid_points(field.grid),
            fslpy_image(field.input_grid),
            header=nifti(field.grid).header,
            srcSpace="world",
            refSpace="world",
            defType="relative",
        )
        fnirt.toFnirt(world).save(str(tmp_path / "fslpy.nii.gz"))
        assert fsl.matches(nib.load(tmp_path / "fslpy.nii.gz"))
        found = fsl.read(tmp_path / "fslpy.nii.gz", field.input_grid)
        assert_allclose(found.positions, field.positions, atol=1e-4)


@needs_workbench
@pytest.mark.parametrize("kind", ["LAS", "oblique"])
def test_workbench_agrees(kind, tmp_path, rng):
    """It reads what is written here as the same displacement, and the other way."""

    def convert(*words):
        command = ["wb_command", "-convert-warpfield", *map(str, words)]
        subprocess.run(command, check=True, capture_output=True)

    direction = both_directions(map_on(kind, 3, prealign=True), rng)[0]
    field, moving = direction.field, tmp_path / "moving.nii.gz"
    nib.save(nifti(field.input_grid), moving)
    fsl.write(field, tmp_path / "warp.nii.gz")
    world = tmp_path / "world.nii.gz"
    convert("-from-fnirt", tmp_path / "warp.nii.gz", moving, "-to-world", world)
    displacement = field.positions - grid_points(field.grid)
    found = nib.load(world).get_fdata().reshape(displacement.shape)
    assert_allclose(found, displacement, atol=1e-4)
    convert("-from-world", world, "-to-fnirt", tmp_path / "back.nii.gz", moving)
    found = fsl.read(tmp_path / "back.nii.gz", field.input_grid)
    assert_allclose(found.positions, field.positions, atol=1e-4)


@needs_workbench
@pytest.mark.parametrize("kind", ["LAS", "oblique"])
def test_workbench_converts_the_premat_to_the_prealign(kind, tmp_path):
    mapping = map_on(kind, 3, prealign=True)
    for name, grid in zip(("static", "moving"), map_grids(mapping)):
        nib.save(nifti(grid), tmp_path / f"{name}.nii.gz")
    matrix = flirt_matrix(mapping.prealign_inv, *map_grids(mapping))
    np.savetxt(tmp_path / "premat.mat", matrix)
    files = [tmp_path / f"{name}.nii.gz" for name in ("moving", "static")]
    words = ["-from-flirt", tmp_path / "premat.mat", *files]
    words += ["-to-world", tmp_path / "world.txt", "-inverse"]
    command = ["wb_command", "-convert-affine", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True)
    found = np.loadtxt(tmp_path / "world.txt")
    assert_allclose(found, mapping.prealign_inv, atol=1e-4)


@pytest.mark.parametrize("kind", ["LAS", "oblique"])
def test_written_premat_is_read_as_the_prealign(kind, tmp_path, rng):
    mapping = map_on(kind, 3, prealign=True)
    direction, _ = both_directions(mapping, rng)
    paths = tmp_path / "warp.nii.gz", tmp_path / "premat.mat"
    fsl.write_with_affine(direction.field, mapping.prealign_inv, *paths)
    found, prealign = fsl.read_with_affine(*paths, direction.field.input_grid)
    assert_allclose(prealign, mapping.prealign_inv, atol=1e-5)
    assert_allclose(found.positions, direction.field.positions, atol=1e-4)


@KINDS
def test_absolute_field_is_an_error(kind, tmp_path, rng):
    for direction in both_directions(map_on(kind, 3, prealign=True), rng):
        fsl.write(direction.field, tmp_path / "warp.nii.gz")
        warp = nib.load(tmp_path / "warp.nii.gz")
        grid = direction.field.grid
        points = nib.affines.apply_affine(
            fsl_coordinates(grid), np.moveaxis(np.indices(grid.shape), 0, -1)
        )
        absolute = nib.Nifti1Image(warp.get_fdata() + points, None, warp.header)
        nib.save(absolute, tmp_path / "absolute.nii.gz")
        assert fsl.matches(absolute)
        with pytest.raises(ValueError, match="convertwarp --abs --relout"):
            fsl.read(tmp_path / "absolute.nii.gz", direction.field.input_grid)


def test_wrong_files_are_errors(tmp_path, rng):
    direction, _ = both_directions(map_on("oblique", 3, prealign=True), rng)
    path = tmp_path / "warp.nii.gz"
    fsl.write(direction.field, path)
    with pytest.raises(ValueError, match="static and moving must be given"):
        fsl.read(path)
    with pytest.raises(ValueError, match="static and moving must be given"):
        fsl.write(direction.field._replace(input_grid=None), path)
    warp = nib.load(path)
    for code in fsl.COEFFICIENTS:
        warp.header.set_intent(code, allow_unknown=True)
        nib.save(warp, tmp_path / "coefficients.nii.gz")
        assert fsl.matches(warp)
        with pytest.raises(ValueError, match="fnirtfileutils"):
            fsl.read(tmp_path / "coefficients.nii.gz", direction.field.input_grid)
    nib.save(nifti(direction.field.grid), tmp_path / "image.nii.gz")
    with pytest.raises(ValueError, match=r"must have the shape \(X, Y, Z, 3\)"):
        fsl.read(tmp_path / "image.nii.gz", direction.field.input_grid)
    with pytest.raises(FileNotFoundError):
        fsl.read(tmp_path / "none.nii.gz", direction.field.input_grid)
