"""The index page of a study: all subjects, sorted by each measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
import os
from typing import Any

from dipy_dl_reg.io.atomic_files import write_atomically


def write_study_report(
    path: str | os.PathLike,
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str = "Study",
    overwrite: bool = True,
) -> None:
    """Write the index page of a study, with a link to the report of each subject.

    Parameters
    ----------
    path : str or Path
        The page.
    rows : sequence of dict
        One for each subject: ``subject``, ``status`` ("done" or "failed"), ``reason``,
        ``grade``, ``report`` (path relative to the page's folder), optionally
        ``thumbnail`` (a data URI), and measures, such as those of
        ``ReportSummary.as_row``.
    title : str, optional
        Heading of the page.
    overwrite : bool, optional
        Replace the file if it exists.

    Raises
    ------
    FileExistsError
        If the file exists and `overwrite` is False.
    """
    lines = [
        f'<li><a href="{escape(str(row.get("report") or ""))}">'
        f"{escape(str(row['subject']))}</a> {escape(str(row['status']))} "
        f"{escape(str(row.get('reason') or ''))}</li>"
        for row in rows
    ]
    page = f"<h1>{escape(title)}</h1><ul>{''.join(lines)}</ul>"
    with write_atomically(path, overwrite=overwrite) as temporary:
        temporary.write_text(page, encoding="utf-8")
