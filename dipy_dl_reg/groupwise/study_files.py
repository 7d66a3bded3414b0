"""Writes the files of a whole cohort: description, table and index page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import csv
from math import isfinite
from pathlib import Path
from typing import Any

from dipy_dl_reg.groupwise.cohort_plan import CohortPlan
from dipy_dl_reg.groupwise.provenance import describe_provenance, write_json
from dipy_dl_reg.io.atomic_files import write_atomically
from dipy_dl_reg.maps.record import list_versions

#: Columns that are not measures, and what they hold.
COLUMNS = {
    "participant_id": "Subject",
    "session_id": "Session",
    "status": "done, or failed: then there are no outputs",
    "grade": "Verdict on the registration: good, doubtful or failed",
    "reason": "Why the subject failed, or why the grade is not good",
    "report": "Report of the registration",
}
#: Entries of a row that are not columns.
_LEFT_OUT = ("subject", "thumbnail", "was_done")


def write_description(plan: CohortPlan) -> None:
    """Write ``dataset_description.json``, as BIDS derivatives require.

    Parameters
    ----------
    plan : CohortPlan
        What all subjects have in common.
    """
    path = plan.out_dir / "dataset_description.json"
    content = {
        "Name": f"Registration to {plan.space}",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "dipy_dl_reg",
                "Version": list_versions()["dipy_dl_reg"],
                "Description": plan.call,
            }
        ],
    }
    write_json(path, content, overwrite=True)
    ignored = plan.out_dir / ".bidsignore"
    with write_atomically(ignored, overwrite=True) as temporary:
        temporary.write_text(
            "*_report.html\n*_xfm.*\n*_measures.*\n*_index.html\nlogs/\n"
        )


def write_table(
    path: Path, rows: Sequence[Mapping[str, Any]], plan: CohortPlan
) -> None:
    """Write the table of all subjects, and a JSON file that describes it.

    Parameters
    ----------
    path : Path
        The table, ``.tsv``.
    rows : sequence of dict
        A row for each subject.
    plan : CohortPlan
        What all subjects have in common.
    """
    columns = list(COLUMNS)
    columns += dict.fromkeys(
        name
        for row in rows
        for name in row
        if name not in columns and name not in _LEFT_OUT
    )
    with write_atomically(path, overwrite=True) as temporary:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(columns)
            for row in rows:
                writer.writerow([format_cell(row.get(name)) for name in columns])
    described = {name: {"Description": text} for name, text in COLUMNS.items()}
    content = {**described, **describe_provenance(plan.call, plan.template)}
    write_json(path.with_suffix(".json"), content, overwrite=True)


def format_cell(value: Any) -> str:
    """Format a value for a table.

    Parameters
    ----------
    value : object
        A number, a text or None.

    Returns
    -------
    text : str
        The value; ``n/a``, as in BIDS, for what is unknown.
    """
    if isinstance(value, float):
        return f"{value:.6g}" if isfinite(value) else "n/a"
    text = " ".join(str(value).split()) if value is not None else ""
    return text or "n/a"
