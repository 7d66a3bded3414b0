"""All poses are found, without reflections; a large rotation needs a clear gain."""

from affine_views import GRIDS, NEAR, QUICK, call, scene
from dipy.align.imaffine import (
    transform_centers_of_mass,
)
from dipy.align.transforms import RigidTransform2D, RigidTransform3D
import numpy as np
from phantom import grid, misplacement, rigid, rotation
import pytest

from dipy_dl_reg import (
    DeepAffineRegistration,
)
from dipy_dl_reg.initialization.rotation_search import Candidate, Poses
from dipy_dl_reg.registration.affine.poses import choose_pose, compare_poses


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
    warped, found = call(views, pipeline=["center_of_mass", "rigid"], **QUICK)
    assert misplacement(found, pose) < 2 * NEAR
    assert warped.shape == views["static"].shape


@pytest.mark.parametrize("starts", ["auto", "all"])
def test_any_pose_by_the_class(starts):
    pose = rigid(rotation([1, 1, 1], 120), [150, -80, 190])
    views = scene(pose=pose, moving_grid=grid(*GRIDS[3], pose[:3, 3] + 5))
    near = rigid(np.eye(3), pose[:3, 3] + 12)
    affine_map = DeepAffineRegistration(starts=starts, **QUICK).optimize(
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
        _, found = call(views, pipeline=pipeline, **QUICK)
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


def test_no_turn_where_none_is_asked_for():
    """Neither of images in good order, nor where no step rotates."""
    views = scene(pose=rigid(np.eye(3), [20, -10, 15]))
    _, plain = call(views, pipeline=["center_of_mass"])
    options = {"pipeline": ["center_of_mass", "rigid"], **QUICK}
    _, searched = call(views, **options)
    _, single = call(views, starts="one", **options)
    np.testing.assert_array_equal(searched, single)
    views = scene(pose=rigid(rotation([1, 0, 0], 180), [20, -10, 15]))
    _, moved = call(views, pipeline=["center_of_mass", "translation"])
    np.testing.assert_array_equal(moved[:3, :3], np.eye(3))
    assert misplacement(plain, rigid(np.eye(3), [20, -10, 15])) < NEAR


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
