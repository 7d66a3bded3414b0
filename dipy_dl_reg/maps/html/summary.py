"""The measures of a report, flat, as a row of the table of a study."""

from __future__ import annotations

from math import isfinite
from typing import Any, NamedTuple

from dipy_dl_reg.maps.html.label_overlap import LabelOverlap
from dipy_dl_reg.maps.record import RegistrationRecord
from dipy_dl_reg.maps.regularity import RegularityMeasures
from dipy_dl_reg.maps.verdict import Verdict

#: Measures of the verdict that a report shows, and their names in rows.
_MEASURES = {
    "similarity_raw": "similarity_before",
    "similarity_affine": "similarity_affine",
    "similarity_deformed": "similarity",
    "overlap_raw": "overlap_before",
    "overlap_affine": "overlap_affine",
    "overlap_deformed": "overlap",
    "displacement": "displacement",
    "anatomy_raw": "anatomy_before",
    "anatomy_affine": "anatomy_affine",
    "anatomy_deformed": "anatomy",
}


class ReportSummary(NamedTuple):
    """The result of a report.

    Attributes
    ----------
    grade : {"good", "doubtful", "failed"}
        The worse of the verdict and the grade of the map's regularity.
    reasons : tuple of str
        Why it is not good.
    measures : dict of float
        All measures by name.
    thumbnail : str
        A small picture of the result as a data URI.
    """

    grade: str
    reasons: tuple[str, ...]
    measures: dict[str, float]
    thumbnail: str = ""

    def as_row(self, subject: str, report: str) -> dict[str, Any]:
        """Make the row of a subject for `write_study_report`.

        Parameters
        ----------
        subject : str
            Name of the subject.
        report : str
            Path of its report, relative to the folder of the study's index page.

        Returns
        -------
        row : dict
            Plain values, which JSON can hold.
        """
        return {
            "subject": subject,
            "status": "done",
            "reason": "; ".join(self.reasons),
            "grade": self.grade,
            "report": report,
            "thumbnail": self.thumbnail,
            **self.measures,
        }


def collect_measures(
    regularity: RegularityMeasures,
    verdict: Verdict,
    record: RegistrationRecord | None = None,
    labels: LabelOverlap | None = None,
) -> dict[str, float]:
    """Collect the measures of a registration by name.

    Parameters
    ----------
    regularity : RegularityMeasures
        Jacobian determinants and inverse consistency.
    verdict : Verdict
        The verdict with its measures.
    record : RegistrationRecord, optional
        How the map was computed.
    labels : LabelOverlap, optional
        Overlap of labels.

    Returns
    -------
    measures : dict of float
        Similarities, overlaps of the objects and of the anatomy maps "raw", "affine"
        and "deformed", the mean displacement, the measures of regularity, and
        "dice_before", "dice_after" and "seconds".  Values that are not known are left
        out.
    """
    found: dict[str, float] = {}
    if labels is not None:
        found |= {"dice_before": labels.before, "dice_after": labels.after}
    if verdict.measures is not None:
        for name, attribute in _MEASURES.items():
            value = getattr(verdict.measures, attribute)
            found[name] = float("nan") if value is None else float(value)
    found |= {name: float(value) for name, value in regularity._asdict().items()}
    if record is not None:
        found["seconds"] = float(sum(record.seconds.values()))
    return {name: value for name, value in found.items() if isfinite(value)}
