"""The verdict on a registration: good, doubtful or failed, and why.

Folds and inverse consistency show whether a map is regular, not whether it is correct.
The verdict compares the measures of a registration (`dipy_dl_reg.maps.measures`) with
those of correct and wrong registrations of brains.
"""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, NamedTuple

from dipy.utils.logging import logger

if TYPE_CHECKING:
    from dipy_dl_reg.maps.measures import Measures

GRADES = ("good", "doubtful", "failed")

#: Beginning of the reasons that concern the anatomy maps.
ANATOMY_REASON = "the overlap of the anatomy maps"

# Values after "Right:" and "wrong:" were measured in correct and wrong registrations.

#: Mean squared local correlation after the affine part above which images are aligned,
#: whatever their contrasts.  Right T1 images: .20 and more; wrong pose, scale or
#: position: up to .22.  A lower one is compared with that in wrong poses.
CLEAR_SIMILARITY = 0.19
#: Smallest mean squared local correlation after the affine part where it is lower than
#: `CLEAR_SIMILARITY`, as between FA maps of two people; smallest ratio to that in wrong
#: poses; and largest mean displacement.  FA, right: from .14, from 1.9, up to .029;
#: wrong: up to .10, up to 1.4, from .039.
_UNCLEAR_SIMILARITY, _POSE_RATIO, _UNCLEAR_DISPLACEMENT = 0.12, 1.8, 0.03
#: Smallest value of this correlation minus 5 times the mean displacement (as a fraction
#: of the longest side).  Right: .08 and more; wrong: up to .06.
_BALANCE, _DISPLACEMENT_COST = 0.07, 5.0
#: Final similarity above which the deformation has corrected a poor affine part.
#: Wrong: up to .61.
_CORRECTED_SIMILARITY = 0.68
#: Largest mean displacement, as a fraction of the longest side, of such a correction.
#: Right: up to .047.
_MAX_CORRECTION = 0.06
#: A registration has forced unrelated images onto each other if the affine similarity
#: is below the first value, the mean displacement above the second, and the final
#: similarity below the third.
_FORCED = (0.18, 0.04, _CORRECTED_SIMILARITY)
#: Smallest final similarity.  Right: .33 and more.
_FINAL_SIMILARITY = 0.2
#: Overlap of the objects below which a registration is doubtful, and failed.  Right:
#: .75 and more.
_DOUBTFUL_OVERLAP, _FAILED_OVERLAP = 0.6, 0.4
#: Smallest and largest scale of the affine part between two people, and their ratio.
_SCALES, _SCALE_RATIO = (0.74, 1.34), 1.4
#: Largest factor by which the displacement enlarges or shrinks the compared region, if
#: only one image has a mask: that region moves with the displacement, so that the
#: similarity does not show it.  Right, after an affine: up to 1.1; wrong: from 1.31.
_VOLUME_RATIO = 1.2
#: Smallest visible fraction of static's object.
_VISIBLE = 0.15
#: If the similarity after the affine part is below the third value, a registration is
#: doubtful if another pose is worse by less than the first value, or if the affine part
#: rotates by more than the second value, in degrees.
_RIVAL_GAIN, _ROTATION, _STRONG_SIMILARITY = 0.1, 45.0, 0.25
#: Limit of the relative increase of mutual information with a mirror image.  Correct
#: pairs of two people: up to .03; one person, mirrored: .08 and more (.02 for b0 and
#: T1).
_MIRROR_GAIN = 0.04

#: Largest fall of the overlap of the anatomy maps by the deformation.  Right, T1, b0
#: and FA: rises by .025 and more; another person's field, a field applied inversely,
#: twice or at random: falls by .006 and more, mostly by more than .02.
_ANATOMY_FALL = 0.005
#: Smallest overlap at the end, and after an affine part alone.  Right: .93, and .86
#: after the affine part.  With equal weights of structures, on one pair: wrong
#: poses that were not recovered up to .2, other wrong affine parts up to .43.
_ANATOMY_OVERLAP, _ANATOMY_AFFINE = 0.8, 0.6

#: These limits by name, for reports, which state each of them beside its measure.
LIMITS = {
    "affine_similarity": CLEAR_SIMILARITY,
    "unclear_similarity": _UNCLEAR_SIMILARITY,
    "pose_ratio": _POSE_RATIO,
    "unclear_displacement": _UNCLEAR_DISPLACEMENT,
    "balance": _BALANCE,
    "displacement_cost": _DISPLACEMENT_COST,
    "corrected_similarity": _CORRECTED_SIMILARITY,
    "max_correction": _MAX_CORRECTION,
    "forced_similarity": _FORCED[0],
    "forced_displacement": _FORCED[1],
    "final_similarity": _FINAL_SIMILARITY,
    "doubtful_overlap": _DOUBTFUL_OVERLAP,
    "failed_overlap": _FAILED_OVERLAP,
    "smallest_scale": _SCALES[0],
    "largest_scale": _SCALES[1],
    "scale_ratio": _SCALE_RATIO,
    "volume_ratio": _VOLUME_RATIO,
    "visible": _VISIBLE,
    "rotation": _ROTATION,
    "strong_similarity": _STRONG_SIMILARITY,
    "anatomy_fall": _ANATOMY_FALL,
    "anatomy_overlap": _ANATOMY_OVERLAP,
    "anatomy_affine": _ANATOMY_AFFINE,
}


class Rival(NamedTuple):
    """A pose far from the chosen one.

    Attributes
    ----------
    angle : float
        Rotation between the two, degrees.
    gain : float
        How much better the chosen pose is, as a part of its mutual information;
        negative where the other one is better.
    """

    angle: float
    gain: float


class PoseComparison(NamedTuple):
    """Comparison of the chosen pose with other poses of a search.

    Attributes
    ----------
    rival : Rival or None
        The best pose that differs from the chosen one by a rotation of more than 30
        degrees; None if there was no such pose at the last level of the search.
    mirror_gain : float
        How much better a mirror image of the best pose is, as a part of its mutual
        information; negative where it is worse.
    """

    rival: Rival | None
    mirror_gain: float


class Verdict(NamedTuple):
    """The verdict on a registration.

    Attributes
    ----------
    grade : {"good", "doubtful", "failed"}
        The grade. "good" is a statistical judgement, not a proof: look at the result.
    reasons : tuple of str
        Why it is not good; empty for "good".
    measures : Measures or None
        The measures that were judged, see `Measures`.

    See Also
    --------
    DeepRegistration : after `optimize`, ``registration.verdict`` is one.
    assess_mapping : the verdict on any map.

    Examples
    --------
    >>> from dipy_dl_reg import Verdict
    >>> verdict = Verdict("doubtful", ("the images hardly overlap",))
    >>> print(verdict)
    doubtful: the images hardly overlap
    """

    grade: str
    reasons: tuple[str, ...]
    measures: Measures | None = None

    def __str__(self) -> str:
        if not self.reasons:
            return self.grade
        return f"{self.grade}: {'; '.join(self.reasons)}"


def judge(
    measures: Measures, *, poses: PoseComparison | None = None, shrunk: bool = False
) -> Verdict:
    """Judge a registration by its measures.

    Parameters
    ----------
    measures : Measures
        The measures (see `dipy_dl_reg.maps.measures.measure_registration`).
    poses : PoseComparison, optional
        Comparison of the search over poses, if there was one.
    shrunk : bool, optional
        Whether the whole displacement had to be reduced until it was invertible
        (`dipy_dl_reg.geometry.fold_repair.Quality.shrunk`).

    Returns
    -------
    verdict : Verdict
        "failed" if there is a reason for that; else "doubtful" if there is one for
        that; else "good".
    """
    failures, doubts = _find_failures(measures), _find_doubts(measures)
    doubts += [] if poses is None else _find_pose_doubts(measures, poses)
    if shrunk:
        doubts.append("the displacement had to be shrunk until it was invertible")
    grade = "failed" if failures else "doubtful" if doubts else "good"
    return Verdict(grade, tuple(failures + doubts), measures)


def log_verdict(
    verdict: Verdict, what: str = "registration", *, quiet: bool = False
) -> None:
    """Log a verdict: as a warning unless it is "good".

    Parameters
    ----------
    verdict : Verdict
        The verdict.
    what : str, optional
        Name of what was judged.
    quiet : bool, optional
        Do not log "good".
    """
    if verdict.grade != "good":
        logger.warning(f"Verdict on the {what}: {verdict}.")
    elif not quiet:
        logger.info(f"Verdict on the {what}: good.")


def _find_failures(m: Measures) -> list[str]:
    """Find the reasons why a result cannot be correct."""
    reasons = []
    if m.mirrors:
        reasons.append("the prealign mirrors the image (its determinant is negative)")
    if isnan(m.similarity):
        reasons.append("the images share no structure where they overlap")
    elif m.similarity < _FINAL_SIMILARITY:
        reasons.append(
            "the registered images do not resemble each other (mean squared local "
            f"correlation {m.similarity:.2f}; aligned heads have at least .2 after the "
            "affine part and .3 after the deformation)"
        )
    if m.overlap < _FAILED_OVERLAP:
        reasons.append(f"the two objects hardly overlap (Dice {m.overlap:.2f})")
    affine, displacement, final = _FORCED
    if (
        m.similarity_affine < affine
        and m.displacement > displacement
        and m.similarity < final
    ):
        reasons.append(
            "the deformation had to begin from images that were not aligned (mean "
            f"squared local correlation {m.similarity_affine:.2f}), and did not align "
            f"them (now {m.similarity:.2f})"
        )
    return reasons


def _find_doubts(m: Measures) -> list[str]:
    """Find the reasons why the user should check a result before using it."""
    reasons = []
    aligned = is_aligned(m)
    corrected = (
        m.similarity >= _CORRECTED_SIMILARITY and m.displacement <= _MAX_CORRECTION
    )
    if not aligned and not corrected:
        reasons.append(_describe_poor_affine(m))
    low, high = m.smallest_scale, m.largest_scale
    if low < _SCALES[0] or high > _SCALES[1] or high > _SCALE_RATIO * low:
        reasons.append(
            f"the affine part scales by {low:.2f} to {high:.2f}, more than people "
            "differ by: if one image shows a whole head and the other a brain without "
            "skull, strip the former, or mask the brain of the latter"
        )
    if _FAILED_OVERLAP <= m.overlap < _DOUBTFUL_OVERLAP:
        reasons.append(f"the two objects overlap little (Dice {m.overlap:.2f})")
    ratio = m.volume_ratio
    if ratio is not None and max(ratio, 1 / ratio) > _VOLUME_RATIO:
        reasons.append(
            f"the deformation multiplies the volume of the masked region by "
            f"{ratio:.2f}: check that it does not stretch a brain to the size "
            "of a head, and mask the other image, too"
        )
    if m.visible < _VISIBLE:
        reasons.append(f"moving shows only {m.visible:.0%} of static's object")
    if m.rotation > _ROTATION and m.similarity_affine < _STRONG_SIMILARITY:
        reasons.append(
            f"the affine part turns by {m.rotation:.0f} degrees, and the images agree "
            f"weakly (mean squared local correlation {m.similarity_affine:.2f})"
        )
    return reasons + find_anatomy_doubts(m)


def find_anatomy_doubts(m: Measures) -> list[str]:
    """Find the reasons for doubt in the overlap of the anatomy maps.

    Parameters
    ----------
    m : Measures
        The measures.

    Returns
    -------
    reasons : list of str
        One if the overlap falls, one if it is low at the end; none if it was not
        measured.
    """
    if m.anatomy is None or m.anatomy_affine is None:
        return []
    reasons = []
    if m.anatomy < m.anatomy_affine - _ANATOMY_FALL:
        reasons.append(
            f"{ANATOMY_REASON} falls from {m.anatomy_affine:.2f} to {m.anatomy:.2f} by "
            "the deformation"
        )
    if m.anatomy < least_anatomy_overlap(m):
        reasons.append(
            f"{ANATOMY_REASON} is only {m.anatomy:.2f} at the end: the same structures "
            "do not lie on each other, or the network does not find them in an image"
            + _describe_turn(m.rotation)
        )
    return reasons


def _describe_turn(rotation: float) -> str:
    """What a large rotation may mean; nothing for a small one."""
    if rotation < _ROTATION:
        return ""
    return (
        f"; the affine part turns by {rotation:.0f} degrees: check the header, because "
        "an image whose voxels are reversed along an axis has left and right exchanged "
        "after such a turn"
    )


def least_anatomy_overlap(m: Measures) -> float:
    """Smallest overlap of the anatomy maps that is not doubtful.

    Parameters
    ----------
    m : Measures
        The measures.

    Returns
    -------
    limit : float
        The limit; it is lower if the map contains only an affine part.
    """
    return _ANATOMY_OVERLAP if m.displacement > 0 else _ANATOMY_AFFINE


def is_aligned(m: Measures) -> bool:
    """Whether the affine part aligned two images.

    Parameters
    ----------
    m : Measures
        The measures.

    Returns
    -------
    aligned : bool
        True if the images are similar after the affine part and deformed little, or
        resemble each other weakly, but in this pose alone.
    """
    return _is_clear(m) or _beats_wrong_poses(m)


def _is_clear(m: Measures) -> bool:
    """Whether images were similar after the affine part, and deformed little."""
    balance = m.similarity_affine - _DISPLACEMENT_COST * m.displacement
    return m.similarity_affine >= CLEAR_SIMILARITY and balance >= _BALANCE


def _beats_wrong_poses(m: Measures) -> bool:
    """Whether images that resemble each other weakly do so in this pose alone."""
    return (
        m.similarity_wrong is not None
        and m.similarity_affine >= _UNCLEAR_SIMILARITY
        and m.similarity_affine >= _POSE_RATIO * m.similarity_wrong
        and m.displacement <= _UNCLEAR_DISPLACEMENT
    )


def _describe_poor_affine(m: Measures) -> str:
    """Describe a poor alignment before the deformation, and what to do."""
    value = f"mean squared local correlation {m.similarity_affine:.2f}"
    if m.displacement:
        value += f", mean displacement {m.displacement:.1%} of the image's length"
    if m.has_prealign:
        return (
            f"the affine part hardly aligned the images ({value}): check pose and "
            "field of view, and whether both images show the same region"
        )
    return (
        f"the images were not aligned before the deformation ({value}): register them "
        "affinely first (a pipeline with affine steps, or --affine)"
    )


def _find_pose_doubts(m: Measures, poses: PoseComparison) -> list[str]:
    """Find the reasons for doubt that result from the search over poses."""
    reasons, rival = [], poses.rival
    if (
        rival is not None
        and rival.gain < _RIVAL_GAIN
        and not m.similarity_affine >= _STRONG_SIMILARITY
    ):
        reasons.append(
            f"a pose turned by {rival.angle:.0f} degrees from this one fits about as "
            f"well (its mutual information differs by {abs(rival.gain):.0%})"
        )
    if poses.mirror_gain > _MIRROR_GAIN:
        reasons.append(
            "a mirror image of moving fits better (its mutual information is higher by "
            f"{poses.mirror_gain:.1%}): check whether a header exchanges left and right"
        )
    return reasons
