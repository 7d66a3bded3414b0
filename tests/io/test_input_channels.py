"""Channels of an image, read and resampled to the grid of the first."""

import nibabel as nib
import numpy as np
import pytest

from dipy_dl_reg.io.input_channels import read_input_channels

SHAPE = (8, 9, 7)
AFFINE = np.diag([2.0, 2, 2, 1])


def ramp(shape, affine):
    """World x + 2 y + 3 z at the voxels of a grid."""
    points = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    return points @ [1.0, 2, 3]


def test_channel_of_another_grid_is_resampled_through_the_affines():
    other = np.diag([-3.0, 1.5, 2.5, 1])
    other[:3, 3] = [20, -2, -3]
    image = nib.Nifti1Image(ramp((9, 14, 9), other), other)
    mask = nib.Nifti1Image(np.ones((9, 14, 9), np.uint8), other)
    first = nib.Nifti1Image(np.zeros(SHAPE), AFFINE)
    _, second = read_input_channels([first, image], None, [None, mask], name="static")
    inside = np.isfinite(second.values)
    assert inside.mean() > 0.8
    wanted = ramp(SHAPE, AFFINE)[inside]
    np.testing.assert_allclose(second.values[inside], wanted, atol=1e-9)
    assert np.array_equal(second.grid2world, AFFINE)
    assert second.mask.shape == SHAPE


def test_outside_the_field_of_view_values_are_missing():
    small = nib.Nifti1Image(np.ones((4, 9, 7)), AFFINE)
    first = nib.Nifti1Image(np.zeros(SHAPE), AFFINE)
    _, second = read_input_channels([first, small], name="static")
    assert (second.values[:4] == 1).all() and np.isnan(second.values[4:]).all()


def test_missing_values_do_not_spread():
    values = np.ones(SHAPE)
    values[3] = np.nan
    other = AFFINE.copy()
    other[0, 3] = 0.5
    first = nib.Nifti1Image(np.zeros(SHAPE), AFFINE)
    _, second = read_input_channels(
        [first, nib.Nifti1Image(values, other)], name="static"
    )
    assert (second.values[np.isfinite(second.values)] == 1).all()
    assert np.isnan(second.values[3]).all()
    assert np.isfinite(second.values[4:7]).all()


def test_one_mask_for_all_channels():
    mask = np.zeros(SHAPE, bool)
    mask[2:] = True
    read = read_input_channels([np.ones(SHAPE)] * 2, AFFINE, mask, name="static")
    assert all(np.array_equal(channel.mask, mask) for channel in read)


@pytest.mark.parametrize(
    "images, affine, masks, words",
    [
        ([], None, None, "at least one"),
        ([np.ones(SHAPE), np.ones((3, 3, 3))], None, None, "channel 2.*first channel"),
        ([np.ones(SHAPE)] * 2, [AFFINE], None, "static_affine.*got 1"),
        ([np.ones(SHAPE)] * 2, None, [None] * 3, "static_mask.*got 3"),
    ],
)
def test_bad_channels(images, affine, masks, words):
    with pytest.raises(ValueError, match=words):
        read_input_channels(images, affine, masks, name="static")
