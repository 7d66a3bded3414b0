"""Finds the subjects of a cohort: in a folder, by a pattern, or in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import glob
import os
from pathlib import Path
from typing import Any

from dipy_dl_reg.groupwise.bids_folder import find_bids_subjects
from dipy_dl_reg.groupwise.subject_table import (
    SEPARATORS,
    find_table_subjects,
    read_table,
)
from dipy_dl_reg.groupwise.subjects import (
    Subject,
    SubjectFile,
    check_subjects,
    make_label,
    parse_name,
    strip_suffix,
)


def find_subjects(
    source: str | os.PathLike | Sequence[Mapping[str, Any]],
    *,
    contrasts: Sequence[str] | None = None,
    entities: Mapping[str, str] | None = None,
    further: Sequence[str] = ("dseg",),
) -> list[Subject]:
    """Find the subjects of a cohort.

    Parameters
    ----------
    source : str, Path or sequence of dict
        A folder in BIDS form; a pattern of image files, such as
        ``"images/*_T1w.nii.gz"``; or a table (``.tsv``, ``.csv``, or its rows as
        dictionaries).
    contrasts : sequence of str, optional
        Contrasts that are registered: suffixes in BIDS, or columns of a table.
    entities : mapping of str, optional
        In BIDS form: entities of the images, such as ``{"run": "1"}``.
    further : sequence of str, optional
        In BIDS form: suffixes of further files to transform.

    Returns
    -------
    subjects : list of Subject
        Sorted by name.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or table, or no file matches the pattern.
    ValueError
        If a subject has no name, or two have the same.
    """
    if not isinstance(source, (str, os.PathLike)):
        found = find_table_subjects(list(source), contrasts, Path.cwd())
        return check_subjects(found)
    # Processes of a cluster may have other working directories.
    path = Path(os.path.abspath(source))
    if path.suffix.lower() in SEPARATORS:
        if not path.is_file():
            raise FileNotFoundError(f"subjects: no such file: {path}")
        rows = read_table(path)
        name = f"subjects: {path}"
        found = find_table_subjects(rows, contrasts, path.parent, name)
    elif path.is_dir():
        found = find_bids_subjects(
            path, contrasts=contrasts, entities=entities, further=further
        )
    else:
        found = _find_by_pattern(str(path), contrasts)
    return check_subjects(found)


def _find_by_pattern(pattern: str, contrasts: Sequence[str] | None) -> list[Subject]:
    """Make a subject of each image that matches a pattern."""
    paths = sorted(Path(p) for p in glob.glob(pattern, recursive=True))
    paths = [path for path in paths if path.is_file()]
    if not paths:
        raise FileNotFoundError(f"subjects: no file matches {pattern}")
    if contrasts is not None and len(contrasts) != 1:
        raise ValueError(
            "contrasts must be one for a pattern, which gives each subject one image; "
            "several need a table or a folder in BIDS form"
        )
    labels = _name_subjects(paths)
    subjects = []
    for path, (label, session) in zip(paths, labels, strict=True):
        entities, suffix = parse_name(path.name)
        suffix = contrasts[0] if contrasts else suffix if entities else "image"
        own = [(k, v) for k, v in entities.items() if k not in ("sub", "ses")]
        suffix = make_label(suffix, "contrast")
        image = SubjectFile(path, suffix, "image", tuple(own))
        subjects.append(Subject(label, session, (image,)))
    return subjects


def _name_subjects(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Name subjects by ``sub-`` and ``ses-``, or by what differs in their paths."""
    parts = [[*path.parts[:-1], path.name] for path in paths]
    labels = [(_find_entity(p, "sub"), _find_entity(p, "ses")) for p in parts]
    if all(label for label, _ in labels):
        return labels
    stems = [strip_suffix(path.name) for path in paths]
    if len(set(stems)) < len(stems):
        # Files of one name in folders of the subjects.
        stems = _differing_folders(paths) or stems
    return [(make_label(stem, "subject"), "") for stem in stems]


def _find_entity(parts: Sequence[str], key: str) -> str:
    """The value of an entity in the last part of a path that has it."""
    for part in reversed(parts):
        for piece in part.split(".")[0].split("_"):
            if piece.startswith(f"{key}-") and piece[len(key) + 1 :].isalnum():
                return piece[len(key) + 1 :]
    return ""


def _differing_folders(paths: Sequence[Path]) -> list[str]:
    """The names of the innermost folders that differ for all paths; none if none."""
    depth = min(len(path.parts) for path in paths)
    for level in range(2, depth + 1):
        names = [path.parts[-level] for path in paths]
        if len(set(names)) == len(names):
            return names
    return []
