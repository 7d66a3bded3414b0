"""Distinction of label images and intensity images."""

import nibabel as nib
import numpy as np
from numpy.testing import assert_array_equal
import pytest
from scipy.ndimage import gaussian_filter

from dipy_dl_reg.io.image_kinds import (
    declares_labels,
    looks_like_labels,
    match_dimensions,
)


def parcellation(rng, shape=(30, 32, 28), regions=25):
    """Regions that are nearest to random points, within a ball; 0 around it."""
    voxels = np.stack(np.indices(shape), axis=-1).astype(float)
    points = rng.uniform(0, 28, (regions, 3))
    distance = np.linalg.norm(voxels[..., None, :] - points, axis=-1)
    inside = np.linalg.norm(voxels - np.array(shape) / 2, axis=-1) < 13
    return inside * (1 + distance.argmin(-1))


def head(rng, *, noise=3.0, levels=250):
    """Tissue with smooth shading and noise, in whole numbers."""
    tissue = gaussian_filter((parcellation(rng) % 3).astype(float), 1)
    image = levels / 2 * tissue + rng.normal(0, noise, tissue.shape)
    return np.clip(np.rint(image), 0, levels)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.float32, np.float64])
def test_labels_and_masks_of_any_type(rng, dtype):
    labels = parcellation(rng)
    assert looks_like_labels(labels.astype(dtype))
    assert looks_like_labels((labels > 0).astype(dtype))
    assert looks_like_labels((7 * labels + 1000 * (labels > 9)).astype(">i2"))
    assert looks_like_labels(labels[:, :, 14].astype(dtype))
    assert not looks_like_labels(head(rng).astype(dtype))


def test_other_images_are_not_labels(rng):
    labels = parcellation(rng)
    assert looks_like_labels(labels > 0)
    assert looks_like_labels(np.where(labels > 0, labels, np.nan))
    assert not looks_like_labels(labels + 0.5)
    assert not looks_like_labels(rng.random((9, 8, 7)))
    assert not looks_like_labels(np.full((4, 4, 4), np.nan))
    assert not looks_like_labels(np.zeros((4, 4, 4), np.uint8))
    assert not looks_like_labels(np.zeros((0, 4, 4), np.uint8))
    assert not looks_like_labels(np.zeros((4, 4, 4), complex))
    # one value outside of the brain, as computed tomography has it
    assert not looks_like_labels((head(rng) - 1024).astype(np.int16))
    # few levels, but noise
    assert not looks_like_labels(head(rng, levels=40).astype(np.uint8))


def test_two_slices_are_2d_and_a_slice_of_a_volume_is_not(rng):
    one, flat, volume = rng.random((9, 8, 1)), rng.random((7, 6)), rng.random((5, 6, 7))
    axial, coronal = np.diag([2.0, 3, 4, 1]), np.eye(4)[:, [0, 2, 1, 3]]
    static, moving, *matrices = match_dimensions(one, flat, axial, np.eye(3))
    assert_array_equal(static, one[..., 0])
    assert moving is flat or np.array_equal(moving, flat)
    assert_array_equal(matrices[0], np.diag([2.0, 3, 1]))
    assert_array_equal(matrices[1], np.eye(3))
    assert match_dimensions(one, one)[2:] == (None, None)
    matrices = match_dimensions(one, one, coronal, coronal)[2:]
    assert_array_equal(matrices, [np.eye(3)] * 2)
    for pair in ((one, volume), (volume, one), (flat, volume), (volume, volume)):
        found = match_dimensions(*pair, axial, axial)
        assert [a is b for a, b in zip(found, (*pair, axial, axial))] == [True] * 4
    with pytest.raises(
        ValueError, match="static lies along the world's xy, moving .*xz"
    ):
        match_dimensions(one, flat, axial, coronal)


def test_intent_of_nifti():
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    assert not declares_labels(image)
    image.header.set_intent("label")
    assert declares_labels(image)
    assert not declares_labels(nib.MGHImage(np.zeros((4, 4, 4), np.int16), np.eye(4)))
    assert not declares_labels(np.zeros((4, 4, 4)))
