"""DeepAffineRegistration as a user calls it, on an object whose pose is known."""

import affine_views
from affine_views import GRIDS, NEAR, QUICK, TURN, call, scene
from dipy.align.imaffine import (
    AffineMap,
    MutualInformationMetric,
)
from dipy.align.transforms import RigidTransform2D, RigidTransform3D, regtransforms
import nibabel as nib
import numpy as np
from phantom import grid, image, misplacement, rigid, rotation
import pytest

from dipy_dl_reg import (
    CCMetric,
    DeepAffineRegistration,
    MINDMetric,
    deep_affine_registration,
)


@pytest.mark.parametrize("kind, dim", sorted(regtransforms))
def test_every_transform_is_found(kind, dim, rng):
    transform = regtransforms[kind, dim]
    count = transform.get_number_of_parameters()
    step = rng.uniform(-0.1, 0.1, count)
    truth = transform.param_to_matrix(transform.get_identity_parameters() + step)
    if "SCALING" not in kind and kind != "ROTATION":
        truth[:dim, dim] += 10 * rng.uniform(-1, 1, dim)
    # Not by MI, which is largest where there is more to see, not at the true scale.
    registration = DeepAffineRegistration(metric="NCC")
    affine_map, params, value = registration.optimize(
        **scene(dim, truth), transform=transform, params0=None, ret_metric=True
    )
    assert type(affine_map) is AffineMap
    assert misplacement(affine_map.affine, truth) < NEAR
    np.testing.assert_allclose(transform.param_to_matrix(params), affine_map.affine)
    assert isinstance(value, float) and 0 <= value < 0.1
    start = DeepAffineRegistration(metric="NCC", level_iters=[1])
    again = start.optimize(**scene(dim, truth), transform=transform, params0=params)
    np.testing.assert_allclose(again.affine, affine_map.affine, atol=1e-9)


@pytest.mark.parametrize("metric", ["MI", "ncc", "SSD", "CC", MutualInformationMetric])
@pytest.mark.parametrize("dim", [2, 3])
def test_metrics(metric, dim):
    pose = rigid(
        TURN if dim == 3 else rotation([0, 0, 1], 12)[:2, :2], [7, -9, 5][:dim]
    )
    metric = metric(nbins=24) if isinstance(metric, type) else metric
    transform = {2: RigidTransform2D(), 3: RigidTransform3D()}[dim]
    registration = DeepAffineRegistration(metric=metric)
    found = registration.optimize(**scene(dim, pose), transform=transform, params0=None)
    assert misplacement(found.affine, pose) < NEAR


def test_geometry_of_all_kinds():
    """Anisotropic voxels, an oblique grid and flipped axes: only the world counts."""
    pose = rigid(TURN, [8, 4, -6])
    flip = np.diag([-1, 1, -1]) @ rotation([0.2, 1, 0.4], 25)
    spacing = np.array([4.0, 6.5, 5.0])
    moving_grid = grid((48, 33, 46), spacing, [8, 4, -6], flip)
    views = scene(pose=pose)
    views |= {
        "moving": image((48, 33, 46), moving_grid, pose),
        "moving_grid2world": moving_grid,
    }
    affine_map = DeepAffineRegistration().optimize(
        **views, transform=RigidTransform3D(), params0=None
    )
    assert misplacement(affine_map.affine, pose) < NEAR
    warped = affine_map.transform(views["moving"])
    static = views["static"]
    assert np.abs(warped - static).mean() < 0.1 * static.mean()


@pytest.mark.parametrize("metric", ["MI", "CC"])
@pytest.mark.parametrize("missing", ["mask", "nan"])
def test_masks(missing, metric, rng):
    """Masked voxels and NaN have no influence."""
    pose = rigid(TURN, [6, -5, 8])
    views = scene(pose=pose)
    shape = views["static"].shape
    far = np.add.outer(np.arange(shape[0]), np.zeros(shape[1:])) < 12
    views["static"] = np.where(far, 2 * rng.random(shape), views["static"])
    views["moving"] = np.where(far, 2 * rng.random(shape), views["moving"])
    options = {"static_mask": ~far, "moving_mask": ~far}
    if missing == "nan":
        views |= {k: np.where(far, np.nan, views[k]) for k in ("static", "moving")}
        options = {}
    found = DeepAffineRegistration(metric=metric).optimize(
        **views, **options, transform=RigidTransform3D(), params0=None
    )
    assert misplacement(found.affine, pose) < 4 * NEAR


@pytest.mark.parametrize("pipeline", [["rigid"], ["translation"], None])
@pytest.mark.parametrize("far", [300, 500])
def test_a_start_without_overlap_is_said(pipeline, far, recwarn):
    pose = rigid(np.eye(3), [far, 0, 0])
    views = scene(pose=pose, moving_grid=grid(*GRIDS[3], pose[:3, 3]))
    call(views, pipeline=pipeline, **QUICK)
    starts = "all" if pipeline is None else "one"
    own = DeepAffineRegistration(starts=starts, **QUICK)
    own.optimize(**views, transform=RigidTransform3D(), params0=None)
    said = [w for w in recwarn if "hardly overlap" in str(w.message)]
    assert len(said) == (0 if pipeline is None else 2)
    assert all("starts='all'" in str(w.message) for w in said)
    # The lines of the two calls, of which `call` has the first.
    assert [w.filename for w in said] == [affine_views.__file__, __file__][: len(said)]


def test_called_by_position_as_dipys():
    views = scene(2, rigid(np.eye(2), [6, -4]))
    named = call(views, pipeline=["translation"])[1]
    given = (views["moving"], views["static"])
    affines = (views["moving_grid2world"], views["static_grid2world"])
    with pytest.warns(UserWarning, match="'moving_affine', 'static_affine'"):
        _, placed = deep_affine_registration(*given, *affines, pipeline=["translation"])
    np.testing.assert_array_equal(placed, named)


@pytest.mark.parametrize("what", ["arrays", "images"])
def test_a_slice_with_a_matrix_of_three_axes(what):
    views = scene(2, rigid(np.eye(2), [6, -4]))
    wanted, matrix = call(views, pipeline=["rigid"])
    for role in ("static", "moving"):
        whole = np.eye(4)
        whole[np.ix_([0, 1, 3], [0, 1, 3])] = views[f"{role}_grid2world"]
        views[f"{role}_grid2world"] = whole
    images = {
        role: nib.Nifti1Image(views[role], views[f"{role}_grid2world"])
        for role in ("static", "moving")
    }
    if what == "arrays":
        warped, found = call(views, pipeline=["rigid"])
    else:
        warped, found = deep_affine_registration(**images, pipeline=["rigid"])
    np.testing.assert_allclose(found, matrix, atol=1e-5)
    np.testing.assert_allclose(warped, wanted, atol=1e-3)


def test_one_missing_voxel_does_not_blank_its_neighbours():
    views = scene(pose=rigid(np.eye(3), [3, -2, 4]))
    holed = views["moving"].copy()
    holed[12, 20, 15] = np.nan
    options = {"pipeline": ["center_of_mass", "translation"], **QUICK}
    whole, _ = call(views, **options)
    warped, _ = call(views | {"moving": holed}, **options)
    assert np.isnan(warped).sum() <= 1
    assert np.nanmax(abs(warped - whole)) < 0.2


def test_options_of_the_metric():
    views = scene(2, rigid(np.eye(2), [6, -4]))
    options = {"pipeline": ["translation"], "ret_metric": True}
    few, many = (call(views, nbins=n, **options)[3] for n in (12, 48))
    assert many < few < 0  # more bins, more information
    _, found = call(views, sampling_proportion=0.3, metric=None, pipeline=["rigid"])
    assert misplacement(found, rigid(np.eye(2), [6, -4])) < 2 * NEAR


def test_options_of_local_correlation():
    views = scene(2, rigid(np.eye(2), [6, -4]))
    options = {"pipeline": ["translation"], "ret_metric": True}
    value = {}
    for metric in ("CC", "cc", *(CCMetric(radius=r) for r in (1, 2, 4))):
        value[str(metric)] = call(views, metric=metric, **options)[3]
    assert value["CC"] == value["cc"] == value[str(CCMetric(radius=2))]
    assert (
        call(views, metric="CC", radius=4, **options)[3]
        == value[str(CCMetric(radius=4))]
    )
    assert len(set(value.values())) == 3
    floored = call(views, metric=CCMetric(radius=2, variance_floor=1.0), **options)[3]
    assert floored < 0.1 * value["CC"]


@pytest.mark.parametrize("start", ["mass", "centers", "voxel-origin", "matrix"])
def test_starting_affine(start):
    pose = rigid(TURN, [60, -45, 70])
    moving_grid = grid(*GRIDS[3], pose[:3, 3])
    views = scene(pose=pose, moving_grid=moving_grid)
    registration = DeepAffineRegistration(**QUICK)
    near = (
        rigid(rotation([0, 1, 0], 5), pose[:3, 3] + 6) if start == "matrix" else start
    )
    found, params, _ = registration.optimize(
        **views,
        transform=RigidTransform3D(),
        params0=None,
        starting_affine=near,
        ret_metric=True,
    )
    assert misplacement(found.affine, pose) < NEAR
    whole = RigidTransform3D().param_to_matrix(params) @ registration.starting_affine
    np.testing.assert_allclose(whole, found.affine, atol=1e-9)


def test_files_images_and_arrays_give_the_same(tmp_path):
    views = scene(pose=rigid(TURN, [4, 9, -7]))
    images = {
        role: nib.Nifti1Image(views[role], views[f"{role}_grid2world"])
        for role in ("static", "moving")
    }
    paths = {role: tmp_path / f"{role}.nii.gz" for role in images}
    for role, path in paths.items():
        nib.save(images[role], path)
    options = {"pipeline": ["center_of_mass", "rigid"], "starts": "one", **QUICK}
    options["ret_metric"] = True
    first, *others = (
        call(views, **options),
        deep_affine_registration(**images, **options),
        deep_affine_registration(**paths, **options),
    )
    assert len(first) == 4
    for other in others:
        np.testing.assert_allclose(other[1], first[1], atol=1e-4)
        np.testing.assert_allclose(other[0], first[0], atol=1e-3)


def test_the_same_again():
    views = scene(pose=rigid(TURN, [4, 9, -7]))
    options = {"pipeline": ["center_of_mass", "rigid"], **QUICK}
    (_, first), (_, second) = (call(views, **options) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_stack_of_one_slice():
    """Parameters across a single slice do not change."""
    pose = rigid(rotation([0, 0, 1], 10), [9, -6, 0])
    shape, spacing = (48, 52, 1), 4.5
    views = scene(pose=pose, shape=(shape, spacing))
    found = DeepAffineRegistration(metric="NCC").optimize(
        **views, transform=regtransforms["AFFINE", 3], params0=None
    )
    in_plane = np.ix_([0, 1, 3], [0, 1, 3])
    assert misplacement(found.affine[in_plane], pose[in_plane]) < NEAR
    np.testing.assert_allclose(found.affine[2], [0, 0, 1, 0], atol=1e-6)


BAD_OPTIONS = [
    ({"metric": "CR"}, "metric must be one of"),
    ({"metric": MINDMetric()}, "metric must be one of"),
    ({"level_iters": []}, "level_iters, factors and sigmas"),
    ({"level_iters": [10, 10], "factors": [4, 2, 1]}, "one entry for each level"),
    ({"factors": [2, 0]}, r"factors\[1\] must be above 0"),
    ({"starts": "some"}, "starts must be one of"),
    ({"sampling_proportion": 1.5}, "above 0 and at most 1, got 1.5"),
    ({"sampling_proportion": 0}, "sampling_proportion must be above 0"),
    ({"sampling_proportion": "all"}, "sampling_proportion must be above 0"),
    ({"level_iters": 10}, "level_iters must be a list"),
    ({"level_iters": ["a"]}, r"level_iters\[0\] must be a whole number"),
    ({"level_iters": [10, -1]}, r"level_iters\[1\] must be a whole number"),
    ({"sigmas": [1, np.nan]}, r"sigmas\[1\] must be 0 or more and finite"),
    ({"factors": "421"}, "factors must be a list"),
    ({"ss_sigma_factor": -1}, "ss_sigma_factor must be 0 or more"),
    ({"verbosity": None}, "verbosity must be one of DIPY's"),
    ({"device": "abacus"}, "device"),
]


@pytest.mark.parametrize("options, message", BAD_OPTIONS)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        DeepAffineRegistration(**options)


BAD_CALLS = [
    ({"transform": "rigid"}, "transform must be one of dipy.align.transforms"),
    ({"transform": RigidTransform2D()}, "for 2D images, but the images are 3D"),
    ({"params0": [0, 0, 1]}, "params0 must be 6 finite numbers"),
    ({"starting_affine": "middle"}, "starting_affine must be one of"),
    ({"starting_affine": np.zeros((4, 4))}, "starting_affine must have"),
    ({"static_grid2world": np.eye(3)}, "static_grid2world must have the shape"),
    ({"static_mask": np.ones((3, 3, 3))}, "static_mask must have the shape"),
    ({"moving": np.zeros((9, 9, 9))}, "moving is constant"),
    ({"moving": np.ones((9, 9))}, "same number of dimensions"),
]


@pytest.mark.parametrize("given, message", BAD_CALLS)
def test_bad_calls(given, message):
    good = scene() | {"transform": RigidTransform3D(), "params0": None}
    with pytest.raises(ValueError, match=message):
        DeepAffineRegistration().optimize(**good | given)


def test_bad_pipelines():
    views = scene()
    for pipeline, message in (
        (["center_of_mass", "shear"], r"pipeline\[1\] must be one of"),
        ("rigid", "pipeline must be a list"),
        (3, "pipeline must be a list"),
        ([], "pipeline must have at least one step"),
    ):
        with pytest.raises(ValueError, match=message):
            call(views, pipeline=pipeline)
    with pytest.raises(ValueError, match="cannot return any quality"):
        call(views, pipeline=["center_of_mass"], ret_metric=True)
    with pytest.raises(ValueError, match="foo is not an option of metric 'MI'"):
        call(views, foo=3)
    with pytest.raises(ValueError, match="for 2D images, but the images are 3D"):
        call(views, metric=CCMetric(2))
    with pytest.raises(ValueError, match="moving_affine is required"):
        deep_affine_registration(views["moving"], views["static"])


def test_what_dipy_warns_of():
    views = scene() | {"transform": RigidTransform3D(), "params0": None}
    sparse = MutualInformationMetric(sampling_proportion=0.3)
    registration = DeepAffineRegistration(metric=sparse, level_iters=[2])
    mask = np.ones(views["static"].shape, dtype=int)
    with pytest.warns(UserWarning, match="DIPY ignores masks"):
        registration.optimize(**views, static_mask=mask)
    with pytest.warns(UserWarning, match="static_mask is all zeros"):
        DeepAffineRegistration(level_iters=[2]).optimize(**views, static_mask=0 * mask)


def test_levels_that_are_set_later_count():
    """Also where `ss_sigma_factor` had given the first ones."""

    def find(sigmas):
        registration = DeepAffineRegistration(
            metric="SSD", level_iters=[20, 20], ss_sigma_factor=0.5
        )
        registration.sigmas = sigmas or registration.sigmas
        found = registration.optimize(
            **scene(2, rigid(np.eye(2), [5, 3])),
            transform=RigidTransform2D(),
            params0=None,
        )
        return found.affine

    assert np.array_equal(find(None), find([0.5, 0.0]))
    assert not np.array_equal(find(None), find([4.0, 3.0]))
