"""DeepAffineRegistration as a user calls it, on an object whose pose is known."""

from dipy.align.imaffine import (
    AffineMap,
    MutualInformationMetric,
    transform_centers_of_mass,
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
from dipy_dl_reg.initialization.rotation_search import Candidate, Poses
from dipy_dl_reg.registration.affine.poses import choose_pose, compare_poses

#: Errors allowed, in mm; voxels are 6 mm.
NEAR = 0.5
GRIDS = {2: ((48, 52), 4.5), 3: ((34, 38, 32), 6.0)}
TURN = rotation([1, -2, 0.5], 12)


def scene(dim=3, pose=None, shape=None, moving_grid=None):
    """Keywords of two views, before and after a move."""
    shape, spacing = GRIDS[dim] if shape is None else shape
    static_grid = grid(shape, spacing)
    moving_grid = static_grid if moving_grid is None else moving_grid
    return {
        "static": image(shape, static_grid),
        "moving": image(shape, moving_grid, pose),
        "static_grid2world": static_grid,
        "moving_grid2world": moving_grid,
    }


def call(views, **options):
    """The one call, by the names that it has for its arguments."""
    names = {"static_grid2world": "static_affine", "moving_grid2world": "moving_affine"}
    return deep_affine_registration(
        **{names.get(key, key): value for key, value in views.items()}, **options
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


@pytest.mark.parametrize(
    "axis, degrees, contrast",
    [
        ([1, 0, 0], 180, "same"),
        ([0, 1, 0], 180, "other"),
        ([0, 0, 1], 180, "same"),
        ([1, -2, 0.7], 75, "same"),
        ([-1, 0.3, 2], 150, "other"),
    ],
)
def test_any_pose(axis, degrees, contrast):
    pose = rigid(rotation(axis, degrees), [150, -80, 190])
    moving_grid = grid(*GRIDS[3], pose[:3, 3] + 5)
    views = scene(pose=pose, moving_grid=moving_grid)
    if contrast == "other":
        moving = views["moving"]
        views["moving"] = np.where(moving > 0.05, 1.2 - moving, 0)
    warped, found = call(views, pipeline=["center_of_mass", "rigid"])
    assert misplacement(found, pose) < 2 * NEAR
    assert warped.shape == views["static"].shape


@pytest.mark.parametrize("starts", ["auto", "all"])
def test_any_pose_by_the_class(starts):
    pose = rigid(rotation([1, 1, 1], 120), [150, -80, 190])
    views = scene(pose=pose, moving_grid=grid(*GRIDS[3], pose[:3, 3] + 5))
    near = rigid(np.eye(3), pose[:3, 3] + 12)
    affine_map = DeepAffineRegistration(starts=starts).optimize(
        **views, transform=RigidTransform3D(), params0=None, starting_affine=near
    )
    assert misplacement(affine_map.affine, pose) < 2 * NEAR


def test_a_failure_leaves_nothing_of_an_earlier_pair():
    views = scene(2)
    registration = DeepAffineRegistration(starts="all")
    registration.optimize(**views, transform=RigidTransform2D(), params0=None)
    assert registration.verdict is not None and registration.poses is not None
    views["moving"] = np.ones_like(views["moving"])
    with pytest.raises(ValueError, match="moving is constant"):
        registration.optimize(**views, transform=RigidTransform2D(), params0=None)
    assert registration.verdict is None and registration.poses is None


def test_any_pose_2d():
    turn = rotation([0, 0, 1], 165)[:2, :2]
    pose = rigid(turn, [90, -40])
    views = scene(2, pose, moving_grid=grid(*GRIDS[2], [93, -42]))
    _, found = call(views, pipeline=["center_of_mass", "rigid"])
    assert misplacement(found, pose) < NEAR


def test_never_a_mirror_image():
    views = scene()
    views["moving"] = views["moving"][::-1].copy()
    for pipeline in (None, ["affine"]):
        _, found = call(views, pipeline=pipeline)
        assert np.linalg.det(found[:3, :3]) > 0.1


@pytest.mark.parametrize("part", ["static", "moving"])
def test_slab(part):
    """A third of the object, cut through on both sides, and turned upside down."""
    pose = rigid(rotation([1, 0.2, 0], 170), [40, -20, 60])
    views = scene(pose=pose, moving_grid=grid(*GRIDS[3], pose[:3, 3]))
    matrix = views[f"{part}_grid2world"].copy()
    matrix[:, 3] += 10 * matrix[:, 2]
    views |= {part: views[part][:, :, 10:21], f"{part}_grid2world": matrix}
    _, found = call(views, pipeline=["center_of_mass", "rigid"])
    assert misplacement(found, pose) < 2 * NEAR


@pytest.mark.parametrize("metric", ["MI", "CC"])
@pytest.mark.parametrize("missing", ["mask", "nan"])
def test_masks(missing, metric, rng):
    """What is masked out, or NaN, has no say."""
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


def test_centre_of_mass_alone_is_dipys():
    views = scene(pose=rigid(rotation([1, 0, 0], 100), [30, 5, -9]))
    _, found = call(views, pipeline=["center_of_mass"])
    wanted = transform_centers_of_mass(
        views["static"].astype(float),  # else DIPY sums in single precision
        views["static_grid2world"],
        views["moving"].astype(float),
        views["moving_grid2world"],
    )
    np.testing.assert_allclose(found, wanted.affine)


def test_centre_of_mass_of_any_numbers():
    """Masks of all kinds, small floats, and images that were brought to mean 0."""
    pose = rigid(np.eye(3), [30, 5, -9])
    views = scene(pose=pose)
    parts = {role: views[role] > 0.2 for role in ("static", "moving")}
    options = {"pipeline": ["center_of_mass"]}

    def centre(change=lambda image: image, **masks):
        changed = {role: change(views[role]) for role in parts}
        return call(views | changed, **options, **masks)[1]

    plain, masks = centre(), {f"{role}_mask": x for role, x in parts.items()}
    inside = centre(**masks)
    wanted = centre(lambda image: np.where(image > 0.2, image, 0).astype(float))
    np.testing.assert_allclose(inside, wanted, atol=1e-6)
    lists = {name: mask.tolist() for name, mask in masks.items()}
    holed = {name: np.where(mask, 1, np.nan) for name, mask in masks.items()}
    for other in (lists, holed):
        np.testing.assert_array_equal(centre(**other), inside)
    small = centre(lambda image: (3000 * image).astype(np.float16))
    np.testing.assert_allclose(small, plain, atol=0.05)
    score = centre(lambda image: (image - image.mean()) / image.std())
    np.testing.assert_allclose(score, plain, atol=0.5)

    def dent(image):  # a few negative values, as interpolation leaves them
        return image - 0.01 * (image < 0.02).astype(float)

    grids = {role: views[f"{role}_grid2world"] for role in parts}
    wanted = transform_centers_of_mass(
        *(dent(views["static"]), grids["static"]),
        *(dent(views["moving"]), grids["moving"]),
    )
    np.testing.assert_allclose(centre(dent), wanted.affine)


@pytest.mark.parametrize("pipeline", [["rigid"], ["translation"], None])
@pytest.mark.parametrize("far", [300, 500])
def test_a_start_without_overlap_is_said(pipeline, far, recwarn):
    pose = rigid(np.eye(3), [far, 0, 0])
    views = scene(pose=pose, moving_grid=grid(*GRIDS[3], pose[:3, 3]))
    call(views, pipeline=pipeline)
    own = DeepAffineRegistration(starts="all" if pipeline is None else "one")
    own.optimize(**views, transform=RigidTransform3D(), params0=None)
    said = [w for w in recwarn if "hardly overlap" in str(w.message)]
    assert len(said) == (0 if pipeline is None else 2)
    assert all("starts='all'" in str(w.message) for w in said)
    assert all(w.filename == __file__ for w in said)


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
    options = {"pipeline": ["center_of_mass", "translation"]}
    whole, _ = call(views, **options)
    warped, _ = call(views | {"moving": holed}, **options)
    assert np.isnan(warped).sum() <= 1
    assert np.nanmax(abs(warped - whole)) < 0.2


def test_no_turn_where_none_is_asked_for():
    """Neither of images in good order, nor where no step rotates."""
    views = scene(pose=rigid(np.eye(3), [20, -10, 15]))
    _, plain = call(views, pipeline=["center_of_mass"])
    _, searched = call(views, pipeline=["center_of_mass", "rigid"])
    _, single = call(views, pipeline=["center_of_mass", "rigid"], starts="one")
    np.testing.assert_array_equal(searched, single)
    views = scene(pose=rigid(rotation([1, 0, 0], 180), [20, -10, 15]))
    _, moved = call(views, pipeline=["center_of_mass", "translation"])
    np.testing.assert_array_equal(moved[:3, :3], np.eye(3))
    assert misplacement(plain, rigid(np.eye(3), [20, -10, 15])) < NEAR


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
    registration = DeepAffineRegistration()
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
    options = {"pipeline": ["center_of_mass", "rigid"], "starts": "one"}
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
    options = {"pipeline": ["center_of_mass", "rigid"]}
    (_, first), (_, second) = (call(views, **options) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_stack_of_one_slice():
    """What cannot be seen, along its axis, stays as it was."""
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
    ({"starting_affine": np.zeros((4, 4))}, "starting_affine must end in"),
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
    with pytest.raises(ValueError, match="foo is no option of metric 'MI'"):
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


# Choice among poses -----------------------------------------------------------------


def candidate(angle, value):
    """A pose turned by an angle, and minus its mutual information."""
    return Candidate(rigid(rotation((0, 0, 1), angle), np.zeros(3)), value)


@pytest.mark.parametrize(
    "usual, best, chosen",
    [
        ((5, -0.50), (120, -0.53), None),  # far, and hardly better
        ((5, -0.50), (120, -0.60), "best"),
        ((5, -0.50), (30, -0.53), "best"),  # near, and clearly better
        ((5, -0.50), (30, -0.51), None),
        ((28, -0.1486), (68, -0.1511), "usual"),  # a slab, turned too far before
        ((28, -0.50), (30, -0.51), "best"),
    ],
)
def test_a_pose_turned_far_must_be_clearly_better(usual, best, chosen):
    usual, best = candidate(*usual), candidate(*best)
    poses = Poses(best, usual, [best, usual], -1.0)
    expected = {"best": best, "usual": usual, None: None}[chosen]
    assert choose_pose(poses, np.eye(4), "auto") is expected
    assert choose_pose(poses, np.eye(4), "all") is best


def test_the_rival_is_the_best_pose_turned_far():
    near, far, farther = candidate(10, -0.5), candidate(90, -0.45), candidate(180, -0.4)
    poses = Poses(near, near, [near, candidate(20, -0.49), far, farther], 0.1)
    found = compare_poses(poses, near)
    assert found.rival.angle == pytest.approx(80)
    assert found.rival.gain == pytest.approx(0.1)
    assert found.mirror_gain == 0.1
    assert compare_poses(poses._replace(all=[near]), near).rival is None
