"""Maps of two heads of which one is turned against its header."""

import numpy as np
import phantom
import pytest

from dipy_dl_reg.grid import Grid, rotation_angle
from dipy_dl_reg.initialization.head_rotation import find_head_rotation
from dipy_dl_reg.registration import head_poses

TRUTH = phantom.rigid(phantom.rotation((1, 2, 3), 100), [30.0, -20, 10])
GRIDS = (
    Grid((34, 40, 30), phantom.grid((34, 40, 30), 5.0)),
    Grid(
        (36, 38, 36), phantom.grid((36, 38, 36), 5.0, centre=np.array([30.0, -20, 10]))
    ),
)


def make_images():
    first = phantom.image(GRIDS[0].shape, GRIDS[0].affine)
    return first, phantom.image(GRIDS[1].shape, GRIDS[1].affine, TRUTH)


def test_rotation_is_found():
    upright, turned = make_images()
    pose = find_head_rotation(turned, GRIDS[1], upright, GRIDS[0])
    left = (pose @ TRUTH, np.linalg.inv(pose) @ TRUTH)
    assert min(rotation_angle(matrix[:3, :3]) for matrix in left) < 5


class Judge:
    """Maps that are plausible for some images, or in some poses."""

    def __init__(self, monkeypatch, upright, in_pose):
        self.upright, self.in_pose, self.poses = upright, in_pose, []
        monkeypatch.setattr(head_poses, "predict_anatomy", self.predict)
        monkeypatch.setattr(head_poses, "is_plausible", self.judge)
        monkeypatch.setattr(
            head_poses, "find_head_rotation", lambda *given: ("pose of", given[0])
        )

    def predict(self, image, grid, pose=None):
        self.poses.append(pose)
        return (image, pose)

    def judge(self, maps, pose=None):
        return self.in_pose if pose is not None else maps[0] in self.upright


@pytest.mark.parametrize(
    "upright, in_pose, expected",
    [
        (["a", "b"], False, [("a", None), ("b", None)]),
        ([], True, [None, None]),
        (["a"], False, [("a", None), None]),
    ],
)
def test_poses_that_are_not_needed_or_do_not_help(
    monkeypatch, upright, in_pose, expected
):
    Judge(monkeypatch, upright, in_pose)
    assert head_poses.predict_upright(["a", "b"], [None, None]) == expected


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_registered_head_is_seen_in_the_pose_of_the_other(monkeypatch, wrong):
    images = ["a", "b"]
    judge = Judge(monkeypatch, [images[1 - wrong]], True)
    maps, turned = head_poses.predict_registered(images, [None, None], TRUTH)
    assert turned == wrong and maps[1 - wrong] == (images[1 - wrong], None)
    pose = np.linalg.inv(TRUTH) if wrong else TRUTH  # into the world of the other
    np.testing.assert_allclose(maps[wrong][1], pose)
    judge.in_pose = False
    maps, turned = head_poses.predict_registered(images, [None, None], TRUTH)
    assert turned is None and maps == [("a", None), ("b", None)]


def test_no_other_pose_without_a_turn(monkeypatch):
    judge = Judge(monkeypatch, ["a"], True)
    slightly = phantom.rigid(phantom.rotation((1, 2, 3), 20), np.zeros(3))
    for matrix in (slightly, np.diag([-1.0, 1, 1, 1]) @ TRUTH):
        assert head_poses.predict_registered("ab", [None] * 2, matrix)[1] is None
    assert judge.poses == [None] * 4


@pytest.mark.parametrize("wrong", [0, 1])
def test_the_wrong_head_is_seen_in_the_pose_of_the_other(monkeypatch, wrong):
    images, pose = ["a", "b"], np.diag([-1.0, -1, 1, 1])
    judge = Judge(monkeypatch, [images[1 - wrong]], True)
    monkeypatch.setattr(head_poses, "find_head_rotation", lambda *given: pose)
    maps = head_poses.predict_upright(images, [None, None])
    assert maps[wrong] == (images[wrong], pose)
    assert maps[1 - wrong] == (images[1 - wrong], None)
    assert len(judge.poses) == 3
