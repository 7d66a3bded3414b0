"""Reads the subjects of a cohort from a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import csv
import os
from pathlib import Path
from typing import Any

from dipy_dl_reg.groupwise.subjects import Subject, SubjectFile, make_label

#: Suffixes of tables, and what separates their columns.
SEPARATORS = {".tsv": "\t", ".csv": ","}
#: Columns of further files: kind, suffix and datatype in BIDS of the outputs.
FILE_COLUMNS = {
    "image": ("image", "image", "anat"),
    "series": ("image", "series", "func"),
    "labels": ("labels", "dseg", "anat"),
    "dwi": ("dwi", "dwi", "dwi"),
    "tensors": ("tensors", "tensors", "dwi"),
    "vectors": ("vectors", "vectors", "dwi"),
    "fods": ("fods", "fods", "dwi"),
    "peaks": ("peaks", "peaks", "dwi"),
    "tractogram": ("tractogram", "tractogram", "dwi"),
}
_SUBJECT, _SESSION, _MASK = "subject", "session", "mask"
_GRADIENTS = ("bvals", "bvecs")
#: Cells without a value.
_EMPTY = ("", "n/a", "None")


def read_table(path: str | os.PathLike) -> list[dict[str, str]]:
    """Read a table with a line of column names.

    Parameters
    ----------
    path : str or Path
        A ``.tsv`` file, separated by tabulators, or a ``.csv`` file, separated by
        commas.

    Returns
    -------
    rows : list of dict
        Cells by column, without those that are empty or ``n/a``.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If a line has more or fewer cells than the first, or a column has no name or
        the name of another.
    """
    path = Path(path)
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = list(csv.reader(file, delimiter=SEPARATORS[path.suffix.lower()]))
    if not lines:
        raise ValueError(f"subjects: {path} is empty")
    names = [name.strip() for name in lines[0]]
    if "" in names or len(set(names)) < len(names):
        raise ValueError(f"subjects: {path} must have column names, each once: {names}")
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(names):
            raise ValueError(
                f"subjects: line {number} of {path} has {len(cells)} cells, but there "
                f"are {len(names)} columns; .tsv needs tabulators, .csv commas"
            )
        rows.append({n: c.strip() for n, c in zip(names, cells)})
    return rows


def find_table_subjects(
    rows: Sequence[Mapping[str, Any]],
    contrasts: Sequence[str] | None,
    folder: str | os.PathLike,
    name: str = "subjects",
) -> list[Subject]:
    """Make the subjects of the rows of a table.

    Parameters
    ----------
    rows : sequence of dict
        The rows; each has the same columns, of which cells may be empty.
    contrasts : sequence of str or None
        Columns of the images that are registered; by default all columns that have no
        other meaning.
    folder : str or Path
        Folder in which paths that are not absolute begin.
    name : str, optional
        Name of the table in messages.

    Returns
    -------
    subjects : list of Subject
        One for each row.

    Raises
    ------
    ValueError
        If a column or the name of a subject is missing.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if not rows:
        raise ValueError(f"{name} has no rows")
    if contrasts is None:
        contrasts = [c for c in columns if not _is_known(c)]
    for column in (_SUBJECT, *contrasts):
        if column not in columns:
            raise ValueError(f"{name} has no column {column!r}, only {columns}")
    if not contrasts:
        raise ValueError(f"{name} has no column of images, only {columns}")
    return [_make_subject(row, contrasts, Path(folder), name) for row in rows]


def _is_known(column: str) -> bool:
    """Whether a column has a meaning other than that of a contrast."""
    known = (_SUBJECT, _SESSION, _MASK, *_GRADIENTS, *FILE_COLUMNS)
    return column.split("_", 1)[0] in known


def _make_subject(
    row: Mapping[str, Any], contrasts: Sequence[str], folder: Path, name: str
) -> Subject:
    """Make the subject of one row."""
    cells = {
        column: value
        for column, value in row.items()
        if value is not None and str(value).strip() not in _EMPTY
    }
    if _SUBJECT not in cells:
        raise ValueError(f"{name}: a row has no subject: {dict(row)}")
    label = make_label(str(cells[_SUBJECT]).removeprefix("sub-"), _SUBJECT)
    session = str(cells.get(_SESSION, "")).removeprefix("ses-")
    images = tuple(
        SubjectFile(folder / cells[c], make_label(c, "contrast"), "image")
        for c in contrasts
        if c in cells
    )
    lacking = [c for c in contrasts if c not in cells]
    return Subject(
        label,
        make_label(session, _SESSION) if session else "",
        images,
        folder / cells[_MASK] if _MASK in cells else None,
        tuple(_find_files(cells, contrasts, folder)),
        f"the table names no {' and no '.join(lacking)}" if lacking else "",
    )


def _find_files(
    cells: Mapping[str, Any], contrasts: Sequence[str], folder: Path
) -> Iterable[SubjectFile]:
    """Find the further files in a row, such as in a column ``labels_tissue``."""
    tables = tuple((n, str(folder / cells[n])) for n in _GRADIENTS if n in cells)
    for column, value in cells.items():
        kind, _, description = column.partition("_")
        if kind not in FILE_COLUMNS or column in contrasts:
            continue
        name, suffix, datatype = FILE_COLUMNS[kind]
        entities = (("desc", make_label(description, column)),) if description else ()
        options = tables if kind == "dwi" else ()
        yield SubjectFile(folder / value, suffix, name, entities, datatype, options)
