"""Steps of an affine registration are functions of values, without side effects."""

import inspect

from dipy.align.transforms import RigidTransform3D
import numpy as np
from phantom import grid, image, rigid, rotation
import pytest

from dipy_dl_reg import DeepAffineRegistration, deep_affine_registration
from dipy_dl_reg.geometry.affine_transforms.registry import make_transform
from dipy_dl_reg.io.input_image import InputImage, read_input_image
from dipy_dl_reg.registration.affine.call import make_call_options
from dipy_dl_reg.registration.affine.options import AffineOptions
from dipy_dl_reg.registration.affine.poses import choose_starting_pose, make_affine_pair
from dipy_dl_reg.registration.affine.steps import FitStep, StartStep, run_steps

SHAPE, SPACING = (24, 28, 22), 8.0
POSE = rigid(rotation([1, 1, 1], 120), [90, -50, 120])


@pytest.fixture(scope="module")
def images():
    """Static, and the same turned and far away."""
    grids = grid(SHAPE, SPACING), grid(SHAPE, SPACING, POSE[:3, 3] + 5)
    return (
        InputImage(image(SHAPE, grids[0]), grids[0]),
        InputImage(image(SHAPE, grids[1], POSE), grids[1]),
    )


def fit(kind="rigid", parameters=None):
    transform = make_transform(kind, 3)
    return FitStep(transform, transform.numpy_matrix, parameters)


def test_steps_change_neither_images_nor_options(images):
    options = AffineOptions(level_iters=[4])
    pair = make_affine_pair(*images, "mass", options)
    static, start = pair.static.clone(), pair.prealign.copy()
    first, second = (
        run_steps(pair, start, [StartStep(start, "auto"), fit()], options)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.matrix, second.matrix)
    assert (pair.static == static).all()
    np.testing.assert_array_equal(pair.prealign, start)
    assert options == AffineOptions(metric=options.metric, level_iters=[4])


def test_the_class_runs_the_same_steps(images):
    static, moving = images
    registration = DeepAffineRegistration(starts="auto", level_iters=[6, 4])
    affine_map, params, value = registration.optimize(
        static.values,
        moving.values,
        RigidTransform3D(),
        None,
        static_grid2world=static.grid2world,
        moving_grid2world=moving.grid2world,
        starting_affine="mass",
        ret_metric=True,
    )
    options = AffineOptions(starts="auto", level_iters=[6, 4])
    pair = make_affine_pair(*images, "mass", options)
    steps = [StartStep(pair.prealign, "auto"), fit()]
    result = run_steps(pair, pair.prealign, steps, options)
    np.testing.assert_array_equal(result.parameters, params)
    np.testing.assert_array_equal(result.starting_affine, registration.starting_affine)
    np.testing.assert_allclose(result.matrix, affine_map.affine, atol=1e-12)
    assert result.value == value and result.poses == registration.poses
    assert result.verdict == registration.verdict
    assert ["starting pose was" in message for message in result.messages] == [True]


def test_a_start_alone_is_not_judged(images):
    options = AffineOptions()
    pair = make_affine_pair(*images, "mass", options)
    start = np.eye(4)
    result = run_steps(pair, start, [StartStep(pair.prealign, "one")], options)
    np.testing.assert_array_equal(result.matrix, pair.prealign)
    assert result[3:8] == (None,) * 5 and result.messages == ()


def test_no_search_without_need(images):
    pair = make_affine_pair(*images, "mass", AffineOptions())
    pose = choose_starting_pose(pair, pair.prealign, "one")
    assert pose.matrix is pair.prealign and pose[1:] == (None, None)
    pose = choose_starting_pose(pair, pair.prealign, "all")
    assert pose.poses is not None and "starting pose was rotated by" in pose.message


def test_options_set_later_are_used_and_checked(images):
    static, moving = images
    registration = DeepAffineRegistration(level_iters=[1])
    registration.starts = "some"
    with pytest.raises(ValueError, match="starts must be one of"):
        registration.optimize(static.values, moving.values, RigidTransform3D(), None)


def test_options_of_the_call():
    options = make_call_options(nbins=20, level_iters=[3], optimizer_options={"a": 1})
    assert options.metric.nbins == 20 and options.starts == "auto"
    assert options.level_iters == [3] and options.options == {"a": 1}
    assert options.method == "L-BFGS-B"
    assert make_call_options(optimizer_method="CG").method == "CG"


def test_options_are_described_once():
    for documented in (DeepAffineRegistration, deep_affine_registration):
        text = inspect.getdoc(documented)  # Python 3.13 removes the indentation
        assert text.count("in windows of radius 2") == 1
        assert text.count("\ndevice : str or torch.device") == 1
        assert ": AffineOptions\n" not in text


def test_an_input_image_has_nan_for_what_is_masked():
    masked = np.ma.MaskedArray([[1, 2], [3, 4]], [[0, 0], [0, 1]])
    read = read_input_image(masked, np.eye(3), [[1, 1], [0, 1]], name="static")
    np.testing.assert_array_equal(read.values, [[1, 2], [3, np.nan]])
    np.testing.assert_array_equal(read.mask, [[1, 1], [0, 1]])
    np.testing.assert_array_equal(read.grid2world, np.eye(3))
