"""Resampling through a matrix, and masks on other grids."""

from maps import affine
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.masks import fill_masked, read_mask
from dipy_dl_reg.io.resampling import resample_array


@pytest.mark.parametrize("dim", [2, 3])
def test_linear_image_is_resampled_exactly(rng, dim):
    """A ramp along world axes has the same value at the same point of any grid."""
    own = Grid((20, 22, 18)[:dim], affine([1.5, -2.0, 1.2][:dim], (0.2, 0.1)))
    other = own.affine @ affine([0.7, 1.2, -0.9][:dim], (0.1,), [4.0, 3.0, 12.0][:dim])
    grid = Grid((7, 6, 8)[:dim], other)
    slope = rng.normal(size=dim)

    def ramp(grid):
        voxels = np.moveaxis(np.indices(grid.shape), 0, -1)
        return (voxels @ grid.affine[:-1, :-1].T + grid.affine[:-1, -1]) @ slope

    found = resample_array(ramp(own), grid.to(own), grid.shape)
    inside = own.contains(
        (np.indices(grid.shape).reshape(dim, -1).T @ other[:-1, :-1].T) + other[:-1, -1]
    ).reshape(grid.shape)
    assert inside.mean() > 0.5
    assert_allclose(found[inside], ramp(grid)[inside], atol=1e-10)


def test_values_beyond_the_image():
    image, shifted = np.arange(1.0, 6), np.array([[1.0, 3.0], [0.0, 1.0]])
    assert_array_equal(resample_array(image, shifted, (5,)), [4, 5, 5, 5, 5])
    zero = resample_array(image, shifted, (5,), order=0, mode="grid-constant")
    assert_array_equal(zero, [4, 5, 0, 0, 0])


def test_mask_is_resampled_where_grids_differ(tmp_path):
    matrix = affine([2.0, 2.0, 2.0], origin=[1.0, 2, 3])
    image = nib.Nifti1Image(np.zeros((8, 9, 7)), matrix)
    values = np.zeros((16, 18, 14), np.uint8)
    values[4:10, 4:12, 4:8] = 1
    fine = affine([1.0, 1.0, 1.0], origin=[0.5, 1.5, 2.5])
    nib.save(nib.Nifti1Image(values, fine), tmp_path / "mask.nii")
    found = read_mask(
        tmp_path / "mask.nii", image, image.shape, matrix, name="static_mask"
    )
    wanted = np.zeros(image.shape, bool)
    wanted[2:5, 2:6, 2:4] = True
    assert_array_equal(found, wanted)
    coarse = nib.Nifti1Image(wanted.astype(np.uint8), matrix)
    same = read_mask(coarse, image, image.shape, matrix, name="static_mask")
    assert_array_equal(same, wanted)
    away = nib.Nifti1Image(values, affine([1.0, 1, 1], origin=[500.0, 0, 0]))
    with pytest.raises(ValueError, match="static_mask does not cover the image"):
        read_mask(away, image, image.shape, matrix, name="static_mask")
    assert read_mask(None, image, image.shape, matrix, name="static_mask") is None


def test_masked_elements_become_nan():
    image = np.ma.masked_equal(np.arange(4, dtype=np.int16), 2)
    assert_array_equal(fill_masked(image), [0, 1, np.nan, 3])
    plain = np.arange(4)
    assert fill_masked(plain) is plain
