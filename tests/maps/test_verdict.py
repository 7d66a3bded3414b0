"""Verdicts: right registrations are called good, wrong ones are not."""

from good_measures import GOOD
import numpy as np
import phantom
import pytest

from dipy_dl_reg import (
    DeepAffineRegistration,
    DeepRegistration,
    assess_mapping,
    deep_registration,
)
from dipy_dl_reg.geometry.fold_repair import Quality
from dipy_dl_reg.maps.verdict import PoseComparison, Rival, judge

NAN = float("nan")
SHAPE, SPACING = (44, 52, 40), 4.0
WRONG = [
    ("failed", {"mirrors": True}, "mirrors"),
    ("failed", {"similarity": NAN}, "share no structure"),
    ("failed", {"similarity": 0.1}, "do not resemble each other"),
    ("failed", {"overlap": 0.2}, "hardly overlap"),
    (
        "failed",
        {"similarity_affine": 0.12, "displacement": 0.07, "similarity": 0.5},
        "did not align them",
    ),
    (
        "doubtful",
        {"similarity_affine": 0.15, "similarity": 0.5},
        "hardly aligned the images",
    ),
    (
        "doubtful",
        {"similarity_affine": float("nan"), "similarity": 0.5},
        "hardly aligned the images",
    ),
    (
        "doubtful",
        {"displacement": 0.08, "similarity": 0.5},
        "hardly aligned the images",
    ),
    (
        "doubtful",
        {"similarity_affine": 0.15, "similarity": 0.4, "has_prealign": False},
        "register them affinely first",
    ),
    ("doubtful", {"largest_scale": 1.46}, "scales by 0.95 to 1.46"),
    ("doubtful", {"smallest_scale": 0.7}, "mask the brain of the latter"),
    ("doubtful", {"overlap": 0.5}, "overlap little"),
    ("doubtful", {"volume_ratio": 1.33}, "masked region by 1.33"),
    ("doubtful", {"volume_ratio": 0.75}, "masked region by 0.75"),
    ("doubtful", {"visible": 0.1}, "shows only 10%"),
    ("doubtful", {"rotation": 63.0, "similarity_affine": 0.22}, "turns by 63 degrees"),
]


@pytest.mark.parametrize("volume_ratio", [1.02, None])
def test_good_measures_give_no_reason(volume_ratio):
    verdict = judge(GOOD._replace(volume_ratio=volume_ratio))
    assert verdict.grade == str(verdict) == "good" and verdict.reasons == ()
    assert verdict.measures.volume_ratio is volume_ratio


@pytest.mark.parametrize("grade, measures, reason", WRONG)
def test_each_failure_and_doubt_is_named(grade, measures, reason):
    verdict = judge(GOOD._replace(**measures))
    assert verdict.grade == grade
    assert reason in str(verdict) and str(verdict).startswith(grade)


def test_a_field_that_had_to_be_shrunk_is_doubtful():
    assert "shrunk" in str(judge(GOOD, shrunk=True))
    quality = Quality(0.1, 0.1, 0.01, 0.1, repairs=25)
    assert quality.shrunk and not quality._replace(repairs=3).shrunk


def test_a_deformation_may_make_up_for_the_affine_part():
    poor = GOOD._replace(similarity_affine=0.15, displacement=0.05)
    assert poor.similarity >= 0.7 and judge(poor).grade == "good"
    assert judge(poor._replace(displacement=0.1)).grade == "doubtful"


#: Measures of a right registration of FA maps of two people.
WEAK = {
    "similarity_affine": 0.15,
    "similarity_wrong": 0.07,
    "similarity": 0.35,
    "displacement": 0.025,
}


def test_weak_similarity_is_good_in_one_pose_alone():
    assert judge(GOOD._replace(**WEAK)).grade == "good"


@pytest.mark.parametrize(
    "change",
    [
        {"similarity_wrong": None},
        {"similarity_wrong": 0.1},
        {"similarity_affine": 0.11, "similarity_wrong": 0.04},
        {"displacement": 0.035},
    ],
)
def test_weak_similarity_without_a_clear_pose_is_doubtful(change):
    verdict = judge(GOOD._replace(**WEAK | change))
    assert verdict.grade == "doubtful" and "hardly aligned" in str(verdict)


def test_a_clear_turn_is_no_doubt():
    """Headers may be wrong: what counts is that the images agree."""
    assert judge(GOOD._replace(rotation=150.0)).grade == "good"


def test_poses_that_fit_equally_well_are_ambiguous():
    weak = GOOD._replace(similarity_affine=0.22, displacement=0.01)
    close = PoseComparison(Rival(170.0, 0.02), -0.1)
    clear = PoseComparison(Rival(170.0, 0.5), -0.1)
    assert "170 degrees" in str(judge(weak, poses=close))
    assert judge(weak, poses=clear).grade == "good"
    assert judge(GOOD, poses=close).grade == "good"
    mirrored = PoseComparison(None, 0.2)
    assert "mirror image" in str(judge(GOOD, poses=mirrored))


@pytest.fixture(scope="module")
def scene():
    """One object in two poses."""
    grid2world = phantom.grid(SHAPE, SPACING)
    pose = phantom.rigid(phantom.rotation((1, 0, 2), 12), np.array([6.0, -5, 4]))
    moving = phantom.image(SHAPE, grid2world, pose)
    return phantom.image(SHAPE, grid2world), moving, grid2world, pose


def optimize(registration, scene, prealign):
    static, moving, grid2world, _ = scene
    return registration.optimize(
        static,
        moving,
        static_grid2world=grid2world,
        moving_grid2world=grid2world,
        prealign=prealign,
    )


def test_a_right_prealign_is_good_and_a_wrong_one_is_not(scene):
    registration = DeepRegistration()
    mapping = optimize(registration, scene, scene[3])
    assert registration.verdict.grade == "good"
    again = assess_mapping(mapping, *scene[:2])
    expected = pytest.approx(registration.verdict.measures, abs=1e-4)
    assert again.measures == expected
    turned = scene[3] @ phantom.rigid(phantom.rotation((1, 0, 0), 90), np.zeros(3))
    mapping = optimize(registration, scene, turned)
    assert registration.verdict.grade != "good"
    assert assess_mapping(mapping, *scene[:2]).grade != "good"


def test_a_verdict_goes_with_its_pair(scene):
    registration = DeepRegistration(level_iters=[1])
    optimize(registration, scene, scene[3])
    with pytest.raises(ValueError, match="is constant"):
        registration.optimize(np.zeros(SHAPE), scene[1])
    assert not hasattr(registration, "verdict")


def test_unrelated_images_are_not_good(scene, rng):
    noise = rng.normal(1, 0.2, SHAPE).astype(np.float32)
    registration = DeepRegistration()
    registration.optimize(scene[0], noise)
    assert registration.verdict.grade == "failed"


def test_the_affine_registration_is_judged_too(scene):
    from dipy.align.transforms import AffineTransform3D

    static, moving, grid2world, _ = scene
    affines = {"static_grid2world": grid2world, "moving_grid2world": grid2world}
    registration = DeepAffineRegistration(starts="auto")
    registration.optimize(static, moving, AffineTransform3D(), None, **affines)
    assert registration.verdict.grade == "good"
    flipped = np.ascontiguousarray(moving[::-1])
    registration.optimize(static, flipped, AffineTransform3D(), None, **affines)
    assert registration.verdict.grade != "good"
    assert "mirror image" in str(registration.verdict)


def test_the_log_warns_unless_the_result_is_good(scene, monkeypatch):
    from dipy.utils.logging import logger

    said = []
    monkeypatch.setattr(logger, "warning", said.append)
    static, moving, grid2world, _ = scene
    affines = {"static_affine": grid2world, "moving_affine": grid2world}
    steps = ["center_of_mass", "affine", "deform"]
    deep_registration(moving, static, **affines, pipeline=steps)
    assert not said
    turned = phantom.rigid(phantom.rotation((1, 0, 0), 90), np.zeros(3))
    deep_registration(moving, static, **affines, prealign=turned)
    assert any("Verdict on the registration" in text for text in said)


def test_a_map_of_other_images_is_refused(scene):
    registration = DeepRegistration(level_iters=[1], model=None)
    mapping = optimize(registration, scene, None)
    with pytest.raises(ValueError, match="static must have shape"):
        assess_mapping(mapping, scene[0][:20], scene[1])
    with pytest.raises(ValueError, match="is_inverse=False"):
        assess_mapping(registration.static_to_ref, *scene[:2])
