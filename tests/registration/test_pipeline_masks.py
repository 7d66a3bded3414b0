"""Masks on grids of their own, masked arrays and extreme values in the calls."""

import nibabel as nib
import numpy as np
import phantom
from poses import TRUTH
import pytest

from dipy_dl_reg import (
    deep_affine_registration,
    deep_registration,
)


def reoriented(mask, affine):
    """A mask's image with its voxels stored from the other end of two axes."""
    flip = np.diag([-1.0, 1, -1, 1])
    flip[[0, 2], 3] = mask.shape[0] - 1, mask.shape[2] - 1
    return nib.Nifti1Image(mask[::-1, :, ::-1].astype(np.uint8), affine @ flip)


def half(image):
    """A mask of one side: that it is read from the wrong end shows."""
    return np.indices(image.shape)[0] < 0.55 * image.shape[0]


def registered(given, masks, call):
    """The map found with masks, as an array."""
    if call == "affine":
        options = {"pipeline": ["rigid"], "starting_affine": TRUTH}
        return deep_affine_registration(**given, **masks, **options)[1]
    near = TRUTH @ phantom.rigid(np.eye(3), [6.0, -4, 5])
    options = {"prealign": near, "level_iters": [4, 4], "model": None}
    return deep_registration(**given, **masks, **options)[1].backward


@pytest.mark.parametrize("call", ["affine", "deform"])
@pytest.mark.parametrize("role", ["static", "moving"])
def test_a_masks_own_affine_counts(pair, tmp_path, role, call):
    """Stored in whatever order, a mask masks the same part of the world."""
    mask, affine = half(pair[role]), pair[f"{role}_affine"]
    name = f"{role}_mask"
    wanted = registered(pair, {name: mask}, call)
    assert not np.array_equal(wanted, registered(pair, {name: mask[::-1]}, call))
    stored = reoriented(mask, affine)
    path = tmp_path / "mask.nii.gz"
    nib.save(stored, path)
    wide = np.pad(mask, 3, mode="edge")
    shift = np.eye(4)
    shift[:3, 3] = -3
    for given in (
        stored,
        path,
        nib.Nifti1Image(mask.astype(np.int16), affine),
        nib.Nifti1Image(mask.astype(np.float32)[..., None], affine),
        nib.Nifti1Image(wide.astype(np.uint8), affine @ shift),
    ):
        assert np.array_equal(registered(pair, {name: given}, call), wanted)


def test_a_mask_of_finer_voxels(pair):
    """Each voxel of the image takes the nearest of the mask."""
    mask, affine = half(pair["static"]), pair["static_affine"]
    finer = np.repeat(np.repeat(mask, 2, 0), 2, 2).astype(np.uint8)
    step = np.diag([0.5, 1, 0.5, 1])
    step[[0, 2], 3] = -0.25
    # Midway between two voxels of the mask, which are alike.
    stored = nib.Nifti1Image(finer, affine @ step)
    found = registered(pair, {"static_mask": stored}, "deform")
    assert np.array_equal(found, registered(pair, {"static_mask": mask}, "deform"))


def test_a_mask_in_2d():
    affine = phantom.grid((40, 44), 2.0)
    image = phantom.image((40, 44), affine)
    pair = {"static": image, "moving": np.roll(image, 1, axis=1)}
    affines = {"static_affine": affine, "moving_affine": affine}
    mask, options = half(image), {"level_iters": [4], "model": None}
    _, wanted = deep_registration(**pair, **affines, static_mask=mask, **options)
    whole = np.eye(4)
    whole[np.ix_([0, 1, 3], [0, 1, 3])] = affine @ [[-1, 0, 39], [0, 1, 0], [0, 0, 1]]
    stored = nib.Nifti1Image(mask[::-1].astype(np.uint8), whole)
    for given in (stored, nib.Nifti1Image(stored.dataobj[..., None], whole)):
        _, found = deep_registration(**pair, **affines, static_mask=given, **options)
        assert np.array_equal(found.backward, wanted.backward)


@pytest.mark.parametrize("plane", [[0, 1], [0, 2], [1, 2]])
def test_a_mask_of_a_slice_of_any_orientation(plane):
    affine = phantom.grid((40, 44), 2.0)
    image, whole = phantom.image((40, 44), affine), np.zeros((4, 4))
    whole[np.ix_([*plane, 3], [0, 1, 3])] = affine
    whole[({0, 1, 2} - set(plane)).pop(), 2] = 2.0
    pair = {
        "static": nib.Nifti1Image(image, whole),
        "moving": nib.Nifti1Image(np.roll(image, 1, axis=1), whole),
    }
    mask, options = half(image), {"level_iters": [4], "model": None}
    _, wanted = deep_registration(**pair, static_mask=mask, **options)
    turned = whole @ np.array(
        [[-1, 0, 0, 39], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]
    )
    stored = nib.Nifti1Image(mask[::-1, :, None].astype(np.uint8), turned)
    _, found = deep_registration(**pair, static_mask=stored, **options)
    assert np.array_equal(found.backward, wanted.backward)


def test_a_mask_on_the_grid_of_a_file_whose_affine_is_overruled(pair, tmp_path):
    """Its voxels are the image's, whatever both headers say of the world."""
    other = nib.Nifti1Image(pair["static"], np.diag([3.0, 3, 3, 1]))
    mask = half(pair["static"])
    stored = nib.Nifti1Image(mask.astype(np.uint8), other.affine)
    path = tmp_path / "static.nii.gz"
    nib.save(other, path)
    wanted = registered(pair, {"static_mask": mask}, "deform")
    for static in (other, path):
        given = pair | {"static": static}
        found = registered(given, {"static_mask": stored}, "deform")
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("call", ["affine", "deform"])
@pytest.mark.parametrize("role", ["static", "moving"])
def test_masked_arrays_are_missing_data(pair, role, call, rng):
    """Masked values have no influence."""
    image, mask = pair[role], half(pair[role])
    holed = pair | {role: np.where(mask, image, np.nan)}
    wanted = registered(holed, {}, call)
    junk = np.where(mask, image, 5 * rng.random(image.shape).astype(np.float32))
    masked = pair | {role: np.ma.MaskedArray(junk, ~mask)}
    assert np.array_equal(registered(masked, {}, call), wanted)
    assert not np.array_equal(registered(pair | {role: junk}, {}, call), wanted)
    # A mask beside it: both hold.
    side = np.indices(image.shape)[1] > 0.3 * image.shape[1]
    wanted = registered(pair, {f"{role}_mask": mask & side}, call)
    found = registered(masked, {f"{role}_mask": side}, call)
    both = registered(pair, {f"{role}_mask": np.ma.MaskedArray(side, ~mask)}, call)
    assert np.array_equal(both, wanted)
    scale = 0.2 if call == "affine" else 0.5
    assert np.abs(found - wanted).mean() < scale


def test_a_masked_array_is_warped_as_one_with_nan(pair):
    """Integers too; and the array itself stays as it is."""
    image = (1000 * pair["moving"]).astype(np.int16)
    hole = image > 900
    masked = np.ma.MaskedArray(image, hole)
    options = {"prealign": TRUTH, "level_iters": [2], "model": None}
    wanted = np.where(hole, np.nan, image)
    expected, _ = deep_registration(**pair | {"moving": wanted}, **options)
    found, _ = deep_registration(**pair | {"moving": masked}, **options)
    assert np.isnan(expected).any()
    np.testing.assert_array_equal(found, expected)
    assert masked.dtype == np.int16 and masked.mask.sum() == hole.sum()


@pytest.mark.parametrize("value", [1e6, 1e10, 1e60, -1e8])
@pytest.mark.parametrize("role", ["static", "moving"])
@pytest.mark.parametrize("call", ["affine", "deform"])
def test_extreme_voxels_change_little(pair, call, role, value):
    """As a ratio or T2* may have: the map is that of the image without them."""
    image = pair[role].astype(np.float64)
    image[7, 8, 9] = image[20, 25, 16] = value
    found = registered(pair | {role: image}, {}, call)
    wanted = registered(pair, {}, call)
    if call == "affine":
        assert phantom.misplacement(found, wanted) < 1
        return
    away = np.linalg.norm(found - wanted, axis=-1)
    assert away.mean() < 0.1 * np.linalg.norm(wanted, axis=-1).mean()


@pytest.mark.parametrize("role", ["static", "moving"])
def test_an_extreme_voxel_is_not_the_centre_of_mass(pair, role):
    image = pair[role].copy()
    image[1, 2, 3] = 1e6
    steps = {"pipeline": ["center_of_mass"]}
    _, wanted = deep_affine_registration(**pair, **steps)
    _, found = deep_affine_registration(**pair | {role: image}, **steps)
    assert np.abs(found - wanted).max() < 0.5
