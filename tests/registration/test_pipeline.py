"""From raw images to a map in one call."""

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
import nibabel as nib
import numpy as np
import phantom
from poses import SHORT, TRUTH, WHOLE
import pytest

from dipy_dl_reg import (
    DeepRegistration,
    deep_affine_registration,
    deep_registration,
)


@pytest.fixture(scope="module")
def aligned(pair):
    """The pair, aligned by the affine steps."""
    return deep_affine_registration(**pair, pipeline=WHOLE[:-1])


def test_whole_pipeline_is_its_steps_in_turn(pair, aligned):
    warped, mapping = deep_registration(**pair, pipeline=WHOLE, **SHORT)
    prealign = aligned[1]
    assert phantom.misplacement(prealign, TRUTH) < 2
    by_hand = DeepRegistration(**SHORT).optimize(
        pair["static"],
        pair["moving"],
        static_grid2world=pair["static_affine"],
        moving_grid2world=pair["moving_affine"],
        prealign=prealign,
    )
    assert np.array_equal(mapping.backward, by_hand.backward)
    np.testing.assert_allclose(warped, by_hand.transform(pair["moving"]), atol=1e-5)
    # It was turned by 50 degrees, and shifted by half its length.
    assert np.abs(warped - pair["static"]).mean() < 0.1 * pair["static"].mean()


def test_without_deform_nothing_is_deformed(pair, aligned):
    warped, mapping = deep_registration(**pair, pipeline=WHOLE[:-1])
    wanted, affine = aligned
    assert isinstance(mapping, DiffeomorphicMap)
    assert not mapping.forward.any() and not mapping.backward.any()
    np.testing.assert_allclose(mapping.prealign, np.linalg.inv(affine), atol=1e-6)
    np.testing.assert_allclose(warped, wanted, atol=1e-4)


def test_a_prealign_is_where_the_steps_begin(pair):
    near = AffineMap(phantom.rigid(phantom.rotation((1, 2, 3), 45), [28.0, -18, 8]))
    _, mapping = deep_registration(**pair, prealign=near, pipeline=["rigid"])
    assert phantom.misplacement(np.linalg.inv(mapping.prealign), TRUTH) < 2


def test_slices_without_affines():
    """2D arrays have the identity for an affine, as SyN takes them."""
    static = phantom.image((80, 90), phantom.grid((80, 90), 2.0))
    moving = phantom.image(
        (80, 90),
        phantom.grid((80, 90), 2.0),
        phantom.rigid(phantom.rotation((0, 0, 1), 20)[:2, :2], [6.0, -8]),
    )
    warped, _ = deep_registration(moving, static, pipeline=WHOLE, **SHORT)
    before = np.abs(moving - static).mean()
    assert np.abs(warped - static).mean() < 0.25 * before


def test_affine_options_are_passed_on(pair):
    with pytest.raises(ValueError, match="starts"):
        deep_registration(**pair, pipeline=WHOLE, affine_options={"starts": "many"})


@pytest.mark.parametrize(
    "option",
    [
        {"landmarks": (np.eye(4)[:, :3], np.eye(4)[:, :3])},
        {"initialization": "discrete"},
        {"level_iters": [2]},
        {"model": "voxelmorph-t1"},
    ],
)
def test_options_that_need_deform(pair, option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} requires 'deform'"):
        deep_registration(**pair, pipeline=["rigid"], **option)


@pytest.mark.parametrize(
    "options, steps",
    [({"starts": "all"}, ["deform"]), ({"pipeline": ["rigid"]}, WHOLE), ("all", WHOLE)],
)
def test_affine_options_that_do_not_go(pair, options, steps):
    with pytest.raises(ValueError, match="affine_options"):
        deep_registration(**pair, pipeline=steps, affine_options=options)


@pytest.mark.parametrize(
    "pipeline, message",
    [
        (["deform", "affine"], "as the last"),
        (["deform", "deform"], "as the last"),
        (["afine", "deform"], "'afine'; the last step may be 'deform'"),
        ([], "must have at least one step"),
    ],
)
def test_pipelines_that_are_none(pair, pipeline, message):
    with pytest.raises(ValueError, match=message):
        deep_registration(**pair, pipeline=pipeline)


def test_two_files_of_one_slice_are_registered_in_2d():
    """With affine steps, too: in 3D nothing held the slice in its plane."""
    shape, matrix = (56, 60), phantom.grid((56, 60), 3.0)
    pose = phantom.rigid(
        np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]), [5.0, -4]
    )
    whole = np.eye(4)
    whole[np.ix_([0, 1, 3], [0, 1, 3])] = matrix
    static, moving = (phantom.image(shape, matrix, p) for p in (None, pose))
    steps = ["center_of_mass", "rigid", "deform"]
    flat, _ = deep_registration(
        moving=moving,
        static=static,
        moving_affine=matrix,
        static_affine=matrix,
        pipeline=steps,
    )
    files = (nib.Nifti1Image(x[..., None], whole) for x in (moving, static))
    moving, static = files
    warped, mapping = deep_registration(moving=moving, static=static, pipeline=steps)
    assert mapping.dim == 2 and warped.shape == (*shape, 1)
    np.testing.assert_array_equal(warped[..., 0], flat)
    solid = np.eye(4)
    solid[:2, 3] = 3.0, -2
    warped, mapping = deep_registration(moving=moving, static=static, prealign=solid)
    assert mapping.dim == 2 and warped.shape == (*shape, 1)
    np.testing.assert_allclose(np.linalg.inv(mapping.prealign)[:2, 2], [3.0, -2])
