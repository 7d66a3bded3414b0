"""Images as they are read from files and arguments."""

import warnings

from maps import affine
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest

from dipy_dl_reg.io.image_kinds import match_dimensions
from dipy_dl_reg.io.images import open_image, read_image


def slice_across(axis):
    """A slice's 4x4 matrix and that of its plane."""
    kept = [a for a in range(3) if a != axis]
    grid = np.zeros((4, 4))
    grid[kept[0], 0], grid[kept[1], 1], grid[axis, 2] = 2, -3, 4
    grid[:, 3] = 5, 6, 7, 1
    return grid, grid[np.ix_([*kept, 3], [0, 1, 3])]


def read_to_register(image, matrix):
    """An image and its matrix, as two of the kind are registered."""
    data, grid = read_image(image, matrix)
    return match_dimensions(data, data, grid, grid)[::2]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_comes_back_in_2d(tmp_path, rng, axis):
    grid, flat = slice_across(axis)
    data = rng.random((9, 8)).astype(np.float32)
    for shape in ((9, 8), (9, 8, 1)):
        path = tmp_path / "slice.nii"
        nib.save(nib.Nifti1Image(data.reshape(shape), grid), path)
        for image, matrix in (
            (path, None),
            (nib.load(path), None),
            (data.reshape(shape), grid),
            (data.reshape(shape), flat),
        ):
            found, found_matrix = read_to_register(image, matrix)
            assert_array_equal(found, data)
            assert_allclose(found_matrix, flat)
    tilted = affine([1.0, 1, 1], (0.1, 0.1, 0.1)) @ grid
    found_matrix = read_to_register(data[..., None], tilted)[1]
    kept = [a for a in range(3) if a != axis]
    assert_allclose(found_matrix, tilted[np.ix_([*kept, 3], [0, 1, 3])])


def test_volumes_stay_volumes(rng):
    for shape in ((5, 6, 7), (5, 1, 7)):
        data = rng.random(shape)
        found, matrix = read_to_register(data, np.eye(4))
        assert found.ndim == 3 and matrix.shape == (4, 4)
    assert read_to_register(data, None)[1] is None
    # a single slice for registration in 3D
    assert read_image(np.zeros((5, 6, 1)), np.eye(4))[0].ndim == 3


def test_colours_are_refused(tmp_path):
    for channels in ("RGB", "RGBA"):
        data = np.zeros((5, 6, 4), [(c, "u1") for c in channels])
        image = nib.Nifti1Image(data, np.eye(4))
        nib.save(image, tmp_path / "colours.nii")
        for given in (data, image, tmp_path / "colours.nii"):
            with pytest.raises(ValueError, match=rf"it:.*colour.*\({channels}\)"):
                read_image(given, name="it:")


def test_a_picture_is_told_what_can_be_read(tmp_path):
    path = tmp_path / "slice.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(ValueError, match=r"moving: .*slice.png .*NIfTI \(\.nii"):
        open_image(path, name="moving")


@pytest.mark.parametrize("dtype", [None, np.float32])
def test_signalling_nan_become_ordinary_ones(tmp_path, dtype):
    data = np.ones((4, 5, 6))
    data[1] = np.array([0x7FF0000000000001], np.uint64).view(np.float64)
    image = nib.Nifti1Image(data, np.eye(4))
    nib.save(image, tmp_path / "fa.nii")
    with warnings.catch_warnings(), np.errstate(invalid="warn"):
        warnings.simplefilter("error")
        for given in (image, tmp_path / "fa.nii"):
            read, _ = read_image(given, dtype=dtype)
            assert_array_equal(np.isnan(read), np.isnan(data))
            read.astype(np.float32)
    bits = np.asanyarray(image.dataobj)[1].view(np.uint64)
    assert (bits == 0x7FF0000000000001).all()  # the user's own are left alone
