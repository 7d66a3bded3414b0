"""The verdict on a registration: good, doubtful or failed, and why.

Fold counts and round trips say that a map is regular, not that it is right.  The
verdict compares what was measured (`dipy_dl_reg.maps.measures`) with what correct and
wrong registrations of brains gave; `tools/experiments/verdicts.py` makes both kinds and
reports how often the verdict is wrong.
"""

from math import isnan
from typing import NamedTuple

from dipy.utils.logging import logger

GRADES = ("good", "doubtful", "failed")

#: Least mean squared local correlation after the affine part.  Right: .20 and more,
#: also across contrasts; wrong pose, scale or place: up to .22.
_AFFINE_SIMILARITY = 0.19
#: The same less 5 times the mean displacement (as a part of the longest side).
#: Right: .08 and more; wrong: up to .06.
_BALANCE, _DISPLACEMENT_COST = 0.07, 5.0
#: A final similarity that no wrong result reached (up to .61): the deformation has
#: corrected what was wrong after the affine part.
_MADE_UP = 0.68
#: But a mean displacement of more than this part of the longest side is unusual in any
#: case (of right pairs: up to .047).
_FAR = 0.06
#: Affine similarity below the first, mean displacement above the second and final
#: similarity below the third: images that do not match were forced onto each other.
_FORCED = (0.18, 0.04, _MADE_UP)
#: Least final similarity; overlap of the objects below which there is a doubt, and a
#: failure.  Right results: similarity .33 and more, overlap .75 and more.
_FINAL_SIMILARITY, _OVERLAP, _LEAST_OVERLAP = 0.2, 0.6, 0.4
#: Scales of the affine part, and their ratio, by which people differ.
_SCALES, _SCALE_RATIO = (0.74, 1.34), 1.4
#: Least part of static's object that moving shows.
_VISIBLE = 0.15
#: If the similarity after the affine part is below the third, there is a doubt where
#: the chosen pose is better than another one by less than the first, or where the
#: affine part turns by more than the second, in degrees.
_RIVAL_GAIN, _ROTATION, _CLEAR_SIMILARITY = 0.1, 45.0, 0.25
#: How much better a mirror image may fit.  Right pairs of two people: up to .03; one
#: person, mirrored: .08 and more (.02 for b0 and T1).
_MIRROR_GAIN = 0.04


class Verdict(NamedTuple):
    """The judgement of a registration.

    Attributes
    ----------
    grade : {"good", "doubtful", "failed"}
        "good" is a judgement by statistics, not a proof: look at the result.
    reasons : tuple of str
        Why it is not good; empty for "good".
    measures : Measures or None
        What it rests on (`dipy_dl_reg.maps.measures.Measures`).
    """

    grade: str
    reasons: tuple
    measures: tuple | None = None

    def __str__(self):
        if not self.reasons:
            return self.grade
        return f"{self.grade}: {'; '.join(self.reasons)}"


def judge(measures, *, poses=None, shrunk=False):
    """Judge a registration by its measures.

    Parameters
    ----------
    measures : Measures
        See `dipy_dl_reg.maps.measures.measure_registration`.
    poses : PoseComparison, optional
        Result of the search over poses, if there was one.
    shrunk : bool, optional
        Whether the whole displacement had to be shrunk until it was invertible
        (`dipy_dl_reg.geometry.inversion.Quality.shrunk`).

    Returns
    -------
    verdict : Verdict
        "failed" if one of the failures applies; else "doubtful" if a doubt does.
    """
    failures, doubts = _failures(measures), _doubts(measures)
    if poses is not None:
        doubts += _doubts_of_pose(measures, poses)
    if shrunk:
        doubts.append("the displacement had to be shrunk until it was invertible")
    grade = "failed" if failures else "doubtful" if doubts else "good"
    return Verdict(grade, tuple(failures + doubts), measures)


def log_verdict(verdict, what="registration", *, quiet=False):
    """Log a verdict: as a warning unless it is "good".

    Parameters
    ----------
    verdict : Verdict
        Of a registration.
    what : str, optional
        What is judged.
    quiet : bool, optional
        Do not log "good".
    """
    if verdict.grade != "good":
        logger.warning(f"Verdict on the {what}: {verdict}.")
    elif not quiet:
        logger.info(f"Verdict on the {what}: good.")


def _failures(m):
    """Reasons why a result cannot be right."""
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
    if m.overlap < _LEAST_OVERLAP:
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


def _doubts(m):
    """Reasons to look at a result before it is used."""
    reasons = []
    balance = m.similarity_affine - _DISPLACEMENT_COST * m.displacement
    aligned = m.similarity_affine >= _AFFINE_SIMILARITY and balance >= _BALANCE
    made_up = m.similarity >= _MADE_UP and m.displacement <= _FAR
    if not aligned and not made_up:
        reasons.append(_poor_affine(m))
    low, high = m.smallest_scale, m.largest_scale
    if low < _SCALES[0] or high > _SCALES[1] or high > _SCALE_RATIO * low:
        reasons.append(
            f"the affine part scales by {low:.2f} to {high:.2f}, more than people "
            "differ by: if one image shows a whole head and the other a brain without "
            "skull, strip the former, or mask the brain of the latter"
        )
    if _LEAST_OVERLAP <= m.overlap < _OVERLAP:
        reasons.append(f"the two objects overlap little (Dice {m.overlap:.2f})")
    if m.visible < _VISIBLE:
        reasons.append(f"moving shows only {m.visible:.0%} of static's object")
    if m.rotation > _ROTATION and m.similarity_affine < _CLEAR_SIMILARITY:
        reasons.append(
            f"the affine part turns by {m.rotation:.0f} degrees, and the images agree "
            f"weakly (mean squared local correlation {m.similarity_affine:.2f})"
        )
    return reasons


def _poor_affine(m):
    """What is wrong before the deformation, and the remedy."""
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


def _doubts_of_pose(m, poses):
    """Reasons that the search over poses gives."""
    reasons = []
    rival = poses.rival
    if (
        rival is not None
        and rival.gain < _RIVAL_GAIN
        and not m.similarity_affine >= _CLEAR_SIMILARITY
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
