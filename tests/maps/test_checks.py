"""The limits that a report states lead to the grades of the verdict."""

from good_measures import GOOD
import numpy as np
import pytest

from dipy_dl_reg.geometry.fold_repair import Quality
from dipy_dl_reg.maps.checks import add_regularity, check_measures, find_worst
from dipy_dl_reg.maps.verdict import Verdict, judge


def test_worst_check_is_the_verdict():
    """For random measures around all limits."""
    rng = np.random.default_rng(0)
    grades = set()
    for _ in range(3000):
        measures = GOOD._replace(
            similarity_affine=rng.uniform(0.1, 0.5),
            similarity_wrong=rng.choice([None, 0.05, 0.1], p=[0.6, 0.2, 0.2]),
            similarity=rng.uniform(0.15, 0.9),
            overlap=rng.choice([0.97, rng.uniform(0.3, 0.8)], p=[0.8, 0.2]),
            visible=rng.choice([1, 0.1], p=[0.9, 0.1]),
            displacement=rng.uniform(0, 0.08),
            rotation=rng.choice([5, 60], p=[0.9, 0.1]),
            smallest_scale=rng.choice([0.95, 0.7], p=[0.9, 0.1]),
            largest_scale=rng.choice([1.05, 1.4], p=[0.9, 0.1]),
            volume_ratio=rng.choice([None, 1.1, 1.3, 0.7], p=[0.7, 0.1, 0.1, 0.1]),
            mirrors=bool(rng.random() < 0.03),
            **draw_anatomy(rng),
        )
        grade = judge(measures).grade
        assert find_worst(*(c.grade for c in check_measures(measures))) == grade
        grades.add(grade)
    assert grades == {"good", "doubtful", "failed"}


def draw_anatomy(rng):
    """Random overlaps of the anatomy maps, or none."""
    if rng.random() < 0.5:
        return {}
    names = ("anatomy_before", "anatomy_affine", "anatomy")
    return dict(zip(names, (0.2, *rng.choice([0.5, 0.85, 0.9], 2, p=[0.1, 0.3, 0.6]))))


@pytest.mark.parametrize(
    "quality, grade",
    [
        (Quality(0.1, 0.1, 0.01, 0.3), "good"),
        (Quality(-0.1, 0.1, 0.01, 0.3, folds_percent=0.01), "doubtful"),
        (Quality(0.1, -0.1, 0.01, 0.3, folds_percent_inverse=2.0), "failed"),
        (Quality(0.1, 0.1, 0.06, 0.3), "doubtful"),
        (Quality(0.1, 0.1, 0.01, 0.6), "doubtful"),
        (Quality(0.1, 0.1, 1.5, 9.0), "failed"),
        (Quality(0.1, 0.1, float("nan"), float("nan")), "failed"),
    ],
)
def test_regularity_has_a_grade(quality, grade):
    verdict = add_regularity(Verdict("good", ()), quality)
    assert verdict.grade == grade and bool(verdict.reasons) == (grade != "good")
    assert add_regularity(verdict, quality) == verdict
    worse = add_regularity(Verdict("failed", ("mirrored",)), quality)
    assert worse.grade == "failed" and worse.reasons[0] == "mirrored"
