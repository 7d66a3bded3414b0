"""SPM's deformation fields, resampled as SPM's *Pullback* does."""

from foreign_fields import both_directions, largest_difference, nifti
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest
from scipy.ndimage import map_coordinates
from test_formats import GRIDS, map_on

from dipy_dl_reg.maps.formats import spm


def pull(path, image, grid):
    """SPM's pull: ``M = inv(NI.mat)``, the image sampled at ``M y``, trilinear."""
    positions = np.squeeze(nib.load(path).get_fdata())
    to_voxels = np.linalg.inv(grid.affine)
    voxels = positions @ to_voxels[:3, :3].T + to_voxels[:3, 3]
    return map_coordinates(image, np.moveaxis(voxels, -1, 0), order=1)


@pytest.mark.parametrize("prealign", [False, True], ids=["", "prealign"])
@pytest.mark.parametrize("kind", GRIDS)
def test_pull_warps_as_the_map(kind, prealign, tmp_path, rng):
    path = tmp_path / "y_map.nii"
    for direction in both_directions(map_on(kind, 3, prealign=prealign), rng):
        spm.write(direction.field, path)
        warped = pull(path, direction.image, direction.field.input_grid)
        assert largest_difference(direction, warped) < 1e-3
        found = spm.read(path, direction.field.input_grid)
        assert_allclose(found.positions, direction.field.positions, atol=1e-4)
        assert_allclose(found.grid.affine, direction.field.grid.affine, atol=1e-5)
        spm.write(found, path)
        again = spm.read(path, direction.field.input_grid)
        assert_array_equal(again.positions, found.positions)


def save_as(path, field, **header):
    """A field with the header of one of SPM's programs."""
    image = nib.Nifti1Image(
        field.positions[:, :, :, None].astype(np.float32), field.grid.affine
    )
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return nib.load(path)


@pytest.mark.parametrize(
    "header",
    [
        {"descrip": b"Deformation"},  # y_* of Segment
        {"descrip": b"Inverse Deformation"},  # iy_*
        {
            "descrip": b"Deformation field",  # the utility Deformations
            "intent_code": 1007,
            "intent_name": b"Mapping",
        },
    ],
    ids=["segment", "inverse", "deformations"],
)
def test_headers_of_spm_are_recognised(header, tmp_path, rng):
    direction, _ = both_directions(map_on("LAS", 3, prealign=True), rng)
    image = save_as(tmp_path / "y_map.nii", direction.field, **header)
    assert spm.matches(image)
    found = spm.read(tmp_path / "y_map.nii", direction.field.input_grid)
    assert_allclose(found.positions, direction.field.positions, atol=1e-4)


def test_displacement_of_itk_is_not_recognised(tmp_path, rng):
    direction, _ = both_directions(map_on("LAS", 3, prealign=True), rng)
    image = save_as(tmp_path / "warp.nii.gz", direction.field, intent_code=1007)
    assert not spm.matches(image)
    assert not spm.matches(nifti(direction.field.grid))


def test_unknown_positions_are_read_as_unknown(tmp_path, rng):
    direction, _ = both_directions(map_on("LAS", 3, prealign=True), rng)
    direction.field.positions[0, :2, 3, 1] = np.nan
    spm.write(direction.field, tmp_path / "y_map.nii")
    unknown = np.isnan(spm.read(tmp_path / "y_map.nii").positions)
    assert unknown.sum() == 6 and unknown[0, :2, 3].all()
