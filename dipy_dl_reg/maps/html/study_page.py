"""The index page of a study: all subjects, sorted by each measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from math import isfinite
import os
from typing import Any, NamedTuple, TypeGuard
from urllib.parse import quote

from dipy_dl_reg.io.atomic_files import check_writable, write_atomically
from dipy_dl_reg.maps.html.rendering import check_templates, render
from dipy_dl_reg.maps.record import list_versions
from dipy_dl_reg.validation import wrong_value

#: Keys of rows that are no measures.
_TEXTS = ("subject", "status", "reason", "grade", "report", "thumbnail")


class _Column(NamedTuple):
    """A measure: heading, format, and whether small values are the bad ones."""

    heading: str
    form: str
    small_is_bad: bool = False


#: Known measures, in the order of the columns; others follow by their names.
_COLUMNS = {
    "similarity_raw": _Column("Similarity, raw", ".2f", True),
    "similarity_affine": _Column("Similarity, affine", ".2f", True),
    "similarity_deformed": _Column("Similarity, deformed", ".2f", True),
    "dice_before": _Column("Dice, before", ".3f", True),
    "dice_after": _Column("Dice, after", ".3f", True),
    "overlap_deformed": _Column("Overlap of objects", ".2f", True),
    "anatomy_affine": _Column("Anatomy maps, affine", ".2f", True),
    "anatomy_deformed": _Column("Anatomy maps, deformed", ".2f", True),
    "displacement": _Column("Mean displacement, part of length", ".3f"),
    "sd_log_jacobian": _Column("SD of log Jacobian", ".3f"),
    "minimum_jacobian": _Column("Smallest Jacobian", ".3f", True),
    "folds_percent": _Column("Folds, %", ".3g"),
    "folds_percent_inverse": _Column("Folds of inverse, %", ".3g"),
    "round_trip_mean_mm": _Column("Round trip, mean, mm", ".3f"),
    "round_trip_max_mm": _Column("Round trip, maximum, mm", ".3f"),
    "seconds": _Column("Time, s", ".1f"),
}
#: Measures of `ReportSummary` that have no column, because others tell the same.
_HIDDEN = {"overlap_raw", "overlap_affine", "round_trip_mean", "round_trip_max"}
_HIDDEN |= {"minimum_jacobian_inverse", "anatomy_raw"}
#: The order of rows: the bad ones first.
_ORDER = ("failed", "doubtful", "good")


def write_study_report(
    path: str | os.PathLike,
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str = "Study",
    overwrite: bool = True,
) -> None:
    """Write the index page of a study, with a link to the report of each subject.

    The page is sorted by a click on the heading of a column. First come the subjects
    that failed, then those whose registration failed or is doubtful.

    Parameters
    ----------
    path : str or Path
        The page.
    rows : sequence of dict
        One for each subject: ``subject``, ``status`` ("done" or "failed"), ``reason``,
        ``grade`` (that of a `Verdict`), ``report`` (path relative to the page's
        folder, or None), optionally ``thumbnail`` (a data URI), and measures, such as
        those of ``as_row`` of a `ReportSummary`. Other values are ignored.
    title : str, optional
        Heading of the page.
    overwrite : bool, optional
        Replace the file if it exists.

    Raises
    ------
    ImportError
        If jinja2 is not installed.
    ValueError
        If a row has no subject, or another status than "done" and "failed".
    FileExistsError
        If the file exists and `overwrite` is False.

    See Also
    --------
    write_report : the report of one registration, whose ``as_row`` is a row.
    register_cohort : writes both for a cohort.

    Examples
    --------
    >>> import tempfile
    >>> from dipy_dl_reg import write_study_report
    >>> rows = [
    ...     {"subject": "01", "status": "done", "grade": "good", "seconds": 9.5},
    ...     {"subject": "02", "status": "failed", "reason": "the file is damaged"},
    ... ]
    >>> write_study_report(f"{tempfile.mkdtemp()}/index.html", rows)
    """
    check_templates()
    check_writable(path, overwrite=overwrite)
    for row in rows:
        _check_row(row)
    columns = _find_columns(rows)
    ordered = sorted(rows, key=_sort_key)
    counts = dict.fromkeys(_ORDER, 0)
    for row in rows:
        if row["status"] == "done" and row.get("grade") in _ORDER:
            counts[row["grade"]] += 1
    page = render(
        "study",
        title=title,
        date=date.today().isoformat(),
        version=list_versions()["dipy_dl_reg"],
        columns=columns,
        rows=[_format_row(row, columns) for row in ordered],
        counts=counts,
        not_done=sum(row["status"] == "failed" for row in rows),
    )
    with write_atomically(path, overwrite=overwrite) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _check_row(row: Mapping[str, Any]) -> None:
    """Check what every row must have."""
    if "subject" not in row:
        raise wrong_value("rows", "dictionaries with a subject", dict(row))
    if row.get("status") not in ("done", "failed"):
        raise wrong_value("status", "'done' or 'failed'", row.get("status"))


def _is_measure(value: Any) -> TypeGuard[float]:
    """Whether a value of a row is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _find_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, _Column]:
    """The measures of all rows, and their columns."""
    found = dict.fromkeys(
        name for row in rows for name, value in row.items() if _is_measure(value)
    )
    known = {name: column for name, column in _COLUMNS.items() if name in found}
    others = [n for n in found if n not in {*known, *_HIDDEN, *_TEXTS}]
    return known | {name: _Column(name.replace("_", " "), ".4g") for name in others}


def _sort_key(row: Mapping[str, Any]) -> tuple[int, int, float, str]:
    """The key by which bad rows come first."""
    grade = row.get("grade")
    place = _ORDER.index(grade) if grade in _ORDER else -1
    similarity = row.get("similarity_deformed")
    value = float(similarity) if _is_measure(similarity) else -1.0
    return row["status"] == "done", place, value, str(row["subject"])


def _format_row(
    row: Mapping[str, Any], columns: Mapping[str, _Column]
) -> dict[str, Any]:
    """The cells of a row, as text and as the number by which they are sorted."""
    cells = []
    for name, column in columns.items():
        value = row.get(name)
        number = float(value) if _is_measure(value) else float("nan")
        text = format(number, column.form) if isfinite(number) else ""
        cells.append({"text": text, "number": repr(number) if text else ""})
    done, report = row["status"] == "done", row.get("report")
    grade = row["grade"] if row.get("grade") in _ORDER else ""
    thumbnail = str(row.get("thumbnail") or "")
    return {
        "subject": str(row["subject"]),
        # A colon would make a scheme of the part before it.
        "link": quote(str(report).replace(os.sep, "/")) if done and report else "",
        "state": grade if done else "not done",
        "rank": _sort_key(row)[0] * 4 + _sort_key(row)[1],
        "reason": str(row.get("reason") or ""),
        "thumbnail": thumbnail if thumbnail.startswith("data:image/") else "",
        "cells": cells,
    }
