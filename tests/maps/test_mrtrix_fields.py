"""MRtrix3 and nitransforms read and apply what is written; MRtrix3's files are read."""

import shutil
import subprocess

from foreign_fields import both_directions, largest_difference, nifti
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose
import pytest
from scipy.ndimage import map_coordinates
from test_formats import GRIDS, map_on

from dipy_dl_reg import read_mapping, write_mapping
from dipy_dl_reg.maps.formats.dense_field import forward_field, grid_points, map_grids

KINDS = pytest.mark.parametrize("kind", GRIDS)
needs_mrtrix = pytest.mark.skipif(
    not shutil.which("mrtransform"), reason="needs MRtrix3"
)


def on_axes_of(image, grid):
    """The values of an image, whose axes a program may have exchanged, on a grid."""
    voxels = nib.affines.apply_affine(
        np.linalg.inv(image.affine), grid_points(grid)
    ).round()
    return map_coordinates(image.get_fdata(), np.moveaxis(voxels, -1, 0), order=0)


@needs_mrtrix
@KINDS
def test_mrtransform_warps_as_the_map(kind, tmp_path, rng):
    mapping = map_on(kind, 3, prealign=True)
    paths = tmp_path / "warp.nii", tmp_path / "inverse.nii"
    write_mapping(mapping, paths[0], inverse=paths[1], like="mrtrix")
    for direction, path in zip(both_directions(mapping, rng), paths):
        nib.save(nifti(direction.field.input_grid, direction.image), tmp_path / "i.nii")
        command = ["mrtransform", "i.nii", "o.nii", "-warp", path.name, "-force"]
        options = ["-interp", "linear", "-quiet"]
        subprocess.run([*command, *options], cwd=tmp_path, check=True)
        warped = on_axes_of(nib.load(tmp_path / "o.nii"), direction.field.grid)
        assert largest_difference(direction, warped) < 1e-3


@needs_mrtrix
@KINDS
def test_field_that_mrtrix_wrote_is_read(kind, tmp_path):
    """Converted to displacements and back by warpconvert."""
    mapping = map_on(kind, 3, prealign=True)
    write_mapping(mapping, tmp_path / "a.nii", like="mrtrix")
    for source, target, step in (
        ("a.nii", "b.nii", "deformation2displacement"),
        ("b.nii", "c.nii", "displacement2deformation"),
    ):
        command = ["warpconvert", source, step, target, "-quiet"]
        subprocess.run(command, cwd=tmp_path, check=True)
    found = read_mapping(tmp_path / "c.nii", prealign=mapping.prealign_inv)
    points = grid_points(map_grids(mapping)[0])[1:-1, 1:-1, 1:-1].reshape(-1, 3)
    wanted = mapping.transform_points(points)
    assert_allclose(found.transform_points(points), wanted, atol=1e-3)
    with pytest.raises(ValueError, match="got displacements|displacements"):
        read_mapping(tmp_path / "b.nii")


@KINDS
def test_nitransforms_warps_by_x5_as_the_map(kind, tmp_path, rng):
    nonlinear = pytest.importorskip("nitransforms.nonlinear")
    resampling = pytest.importorskip("nitransforms.resampling")
    mapping = map_on(kind, 3, prealign=True)
    paths = tmp_path / "warp.x5", tmp_path / "inverse.x5"
    write_mapping(mapping, paths[0], inverse=paths[1])
    for direction, path in zip(both_directions(mapping, rng), paths):
        field = direction.field
        transform = nonlinear.DenseFieldTransform.from_filename(path, fmt="X5")
        warped = resampling.apply(
            transform,
            nifti(field.input_grid, direction.image),
            reference=nifti(field.grid),
            order=1,
        )
        assert largest_difference(direction, warped.get_fdata()) < 1e-3


def test_field_that_nitransforms_wrote_is_read(tmp_path):
    nonlinear = pytest.importorskip("nitransforms.nonlinear")
    x5 = pytest.importorskip("nitransforms.io.x5")
    mapping = map_on("oblique", 3, prealign=True)
    field = forward_field(mapping)
    moves = field.positions - grid_points(field.grid)
    transform = nonlinear.DenseFieldTransform(
        nifti(field.grid, moves.astype(np.float32)), reference=nifti(field.grid)
    )
    x5.to_filename(tmp_path / "a.x5", [transform.to_x5()])
    found = forward_field(read_mapping(tmp_path / "a.x5"))
    assert_allclose(found.positions, field.positions, atol=1e-4)
