"""Each measure of a registration beside its limit, and the grade of its regularity.

The limits are those of `dipy_dl_reg.maps.verdict` and of
`dipy_dl_reg.geometry.fold_repair`.
"""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, NamedTuple

from dipy_dl_reg.geometry.fold_repair import ROUND_TRIP_MAX, ROUND_TRIP_MEAN
from dipy_dl_reg.maps.regularity import Regularity, RegularityMeasures
from dipy_dl_reg.maps.verdict import (
    GRADES,
    LIMITS,
    Verdict,
    find_anatomy_doubts,
    is_aligned,
    least_anatomy_overlap,
)

if TYPE_CHECKING:
    from dipy_dl_reg.anatomy.overlap import AnatomyOverlap
    from dipy_dl_reg.maps.measures import Measures

#: Folded voxels, in percent, and mean inverse consistency error, in voxels, above which
#: a map has failed: it is then not usable for labels, points or volumes.
FAILED_FOLDS, FAILED_ROUND_TRIP = 1.0, 1.0

#: Beginnings of the reasons.
_FOLDS = "the map folds in"
_TRIP = "the two directions of the map are no inverses of each other"


class Check(NamedTuple):
    """One measure beside its limit.

    Attributes
    ----------
    name : str
        Name of the measure.
    value : str
        The value with its unit.
    limit : str
        The limit, in words; empty if there is none.
    grade : {"good", "doubtful", "failed", ""}
        Which grade this measure alone leads to; empty if there is no limit.
    """

    name: str
    value: str
    limit: str = ""
    grade: str = ""


def add_regularity(verdict: Verdict, regularity: Regularity) -> Verdict:
    """Add the grade of a map's regularity to a verdict on its correctness.

    Parameters
    ----------
    verdict : Verdict
        The verdict.
    regularity : RegularityMeasures or Quality
        Folds and inverse consistency.

    Returns
    -------
    verdict : Verdict
        The same verdict if the map is regular, or if its regularity has been added
        already. A map with folds, or whose directions
        are no inverses of each other, is "doubtful"; with folds in more than 1 % of the
        voxels, or a mean error of more than 1 voxel, it is "failed".
    """
    reasons = [r for r in verdict.reasons if not r.startswith((_FOLDS, _TRIP))]
    folds, trip = _grade_folds(regularity), _grade_round_trip(regularity)
    if folds != "good":
        reasons.append(
            f"{_FOLDS} {regularity.folds_percent:.3g} % of the voxels, its "
            f"inverse in {regularity.folds_percent_inverse:.3g} %"
        )
    if trip != "good":
        reasons.append(
            f"{_TRIP} (inverse consistency error: mean "
            f"{regularity.round_trip_mean:.3f}, maximum "
            f"{regularity.round_trip_max:.3f} voxel)"
        )
    grade = find_worst(verdict.grade, folds, trip)
    return verdict._replace(grade=grade, reasons=tuple(reasons))


def add_anatomy(verdict: Verdict, overlap: AnatomyOverlap) -> Verdict:
    """Add the overlap of the anatomy maps to a verdict.

    Parameters
    ----------
    verdict : Verdict
        The verdict, with its measures.
    overlap : AnatomyOverlap
        The overlap before and after the registration.

    Returns
    -------
    verdict : Verdict
        With the overlap among the measures; at least "doubtful" if the overlap falls or
        is low at the end.
    """
    if verdict.measures is None:
        return verdict
    measures = verdict.measures._replace(
        anatomy_before=overlap.before,
        anatomy_affine=overlap.affine,
        anatomy=overlap.after,
    )
    doubts = find_anatomy_doubts(measures)
    grade = find_worst(verdict.grade, _doubt_if(bool(doubts)))
    return Verdict(grade, (*verdict.reasons, *doubts), measures)


def find_worst(*grades: str) -> str:
    """Find the worst of several grades.

    Parameters
    ----------
    *grades : str
        Members of `GRADES`; others are ignored.

    Returns
    -------
    grade : str
        The worst; "good" if there is none.
    """
    known = [GRADES.index(grade) for grade in grades if grade in GRADES]
    return GRADES[max(known, default=0)]


def _grade_folds(m: Regularity) -> str:
    """The grade of the folds."""
    folds = max(m.folds_percent, m.folds_percent_inverse)
    return "failed" if folds > FAILED_FOLDS else "doubtful" if folds > 0 else "good"


def _grade_round_trip(m: Regularity) -> str:
    """The grade of the inverse consistency; failed where it is unknown."""
    if not m.round_trip_mean <= FAILED_ROUND_TRIP:
        return "failed"
    valid = m.round_trip_mean <= ROUND_TRIP_MEAN and m.round_trip_max <= ROUND_TRIP_MAX
    return "good" if valid else "doubtful"


def check_regularity(m: RegularityMeasures) -> list[Check]:
    """List the measures of a map's regularity beside their limits.

    Parameters
    ----------
    m : RegularityMeasures
        The measures.

    Returns
    -------
    checks : list of Check
        One for each measure.
    """
    folds, trip = _grade_folds(m), _grade_round_trip(m)
    above = f"above 0 %: doubtful; above {FAILED_FOLDS:g} %: failed"
    error = (
        f"mean above {ROUND_TRIP_MEAN:g} or maximum above {ROUND_TRIP_MAX:g} voxel: "
        f"doubtful; mean above {FAILED_ROUND_TRIP:g} voxel: failed"
    )
    return [
        Check(
            "Folded voxels (determinant of 0 or less)",
            f"{m.folds_percent:.3g} %, inverse {m.folds_percent_inverse:.3g} %",
            *(above, folds),
        ),
        Check(
            "Smallest Jacobian determinant",
            f"{m.minimum_jacobian:.3f}, inverse {m.minimum_jacobian_inverse:.3f}",
            "0 or less is a fold",
        ),
        Check(
            "Inverse consistency error (round trip)",
            f"mean {m.round_trip_mean:.3f}, maximum {m.round_trip_max:.3f} voxel "
            f"({m.round_trip_mean_mm:.3f} and {m.round_trip_max_mm:.3f} mm)",
            *(error, trip),
        ),
        Check("Standard deviation of the log Jacobian", f"{m.sd_log_jacobian:.3f}"),
    ]


def check_measures(m: Measures) -> list[Check]:
    """List the measures of a verdict beside their limits.

    Parameters
    ----------
    m : Measures
        The measures.

    Returns
    -------
    checks : list of Check
        One for each measure; their worst grade is that of `judge` without a search over
        poses.
    """
    checks = [*_check_similarity(m), *_check_overlap(m), *_check_affine(m)]
    checks += _check_anatomy(m)
    if m.volume_ratio is not None:
        ratio, limit = m.volume_ratio, LIMITS["volume_ratio"]
        checks.append(
            Check(
                "Change of the masked region's volume",
                f"{ratio:.2f}",
                f"more than {limit:g} or less than 1/{limit:g}: doubtful",
                _doubt_if(max(ratio, 1 / ratio) > limit),
            )
        )
    return checks


def _doubt_if(condition: bool) -> str:
    return "doubtful" if condition else "good"


def _fail_if(condition: bool) -> str:
    return "failed" if condition else "good"


def _number(value: float) -> str:
    return "unknown" if isnan(value) else f"{value:.2f}"


def _check_similarity(m: Measures) -> list[Check]:
    """Similarity and displacement."""
    x = LIMITS
    wrong = m.similarity_wrong
    other = "" if wrong is None else f" (in wrong poses {_number(wrong)})"
    corrected = (
        m.similarity >= x["corrected_similarity"]
        and m.displacement <= x["max_correction"]
    )
    forced = (
        m.similarity_affine < x["forced_similarity"]
        and m.displacement > x["forced_displacement"]
        and m.similarity < x["corrected_similarity"]
    )
    return [
        Check("Similarity of the raw images", _number(m.similarity_before)),
        Check(
            "Similarity after the affine part",
            _number(m.similarity_affine) + other,
            f"below {x['affine_similarity']:g}, or less than {x['balance']:g} above "
            f"{x['displacement_cost']:g} times the mean displacement: doubtful, unless "
            f"it is at least {x['unclear_similarity']:g} and {x['pose_ratio']:g} times "
            "that in wrong poses, with a mean displacement of at most "
            f"{x['unclear_displacement']:.0%}, or the deformation reaches "
            f"{x['corrected_similarity']:g} with a mean displacement of at most "
            f"{x['max_correction']:.0%}",
            _doubt_if(not is_aligned(m) and not corrected),
        ),
        Check(
            "Similarity after the deformation",
            _number(m.similarity),
            f"below {x['final_similarity']:g}: failed",
            _fail_if(not m.similarity >= x["final_similarity"]),
        ),
        Check(
            "Mean displacement, part of the image's length",
            f"{m.displacement:.1%} (95th percentile {m.displacement_95:.1%})",
            f"above {x['forced_displacement']:.0%}, with a similarity below "
            f"{x['forced_similarity']:g} before and {x['corrected_similarity']:g} "
            "after the deformation: failed",
            _fail_if(forced),
        ),
    ]


def _check_overlap(m: Measures) -> list[Check]:
    """Overlap of the objects, and the visible part."""
    failed, doubtful = LIMITS["failed_overlap"], LIMITS["doubtful_overlap"]
    grade = "doubtful" if m.overlap < doubtful else "good"
    return [
        Check(
            "Overlap of the objects (Dice), raw and after the affine part",
            f"{m.overlap_before:.2f}, {m.overlap_affine:.2f}",
        ),
        Check(
            "Overlap of the objects after the deformation",
            f"{m.overlap:.2f}",
            f"below {doubtful:g}: doubtful; below {failed:g}: failed",
            "failed" if m.overlap < failed else grade,
        ),
        Check(
            "Part of static's object that moving shows",
            f"{m.visible:.0%}",
            f"below {LIMITS['visible']:.0%}: doubtful",
            _doubt_if(m.visible < LIMITS["visible"]),
        ),
    ]


def _check_anatomy(m: Measures) -> list[Check]:
    """Overlap of the anatomy maps, if it was measured."""
    if m.anatomy is None or m.anatomy_affine is None or m.anatomy_before is None:
        return []
    return [
        Check(
            "Overlap of the anatomy maps, raw and after the affine part",
            f"{_number(m.anatomy_before)}, {_number(m.anatomy_affine)}",
        ),
        Check(
            "Overlap of the anatomy maps at the end",
            _number(m.anatomy),
            f"below {least_anatomy_overlap(m):g}, or lower than after the affine part "
            f"by more than {LIMITS['anatomy_fall']:g}: doubtful",
            _doubt_if(bool(find_anatomy_doubts(m))),
        ),
    ]


def _check_affine(m: Measures) -> list[Check]:
    """Scales, rotation and mirroring of the affine part."""
    x, low, high = LIMITS, m.smallest_scale, m.largest_scale
    unusual = (
        low < x["smallest_scale"]
        or high > x["largest_scale"]
        or high > x["scale_ratio"] * low
    )
    weak = m.similarity_affine < x["strong_similarity"]
    return [
        Check(
            "Scales of the affine part",
            f"{low:.2f} to {high:.2f}",
            f"below {x['smallest_scale']:g}, above {x['largest_scale']:g}, or a ratio "
            f"above {x['scale_ratio']:g}: doubtful",
            _doubt_if(unusual),
        ),
        Check(
            "Rotation of the affine part",
            f"{m.rotation:.1f}°",
            f"above {x['rotation']:g}° with a similarity below "
            f"{x['strong_similarity']:g}: doubtful",
            _doubt_if(m.rotation > x["rotation"] and weak),
        ),
        Check(
            "Affine part mirrors the image",
            "yes" if m.mirrors else "no",
            "yes: failed",
            _fail_if(m.mirrors),
        ),
    ]
