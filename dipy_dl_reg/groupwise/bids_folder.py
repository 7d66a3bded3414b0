"""Finds the subjects of a cohort in a folder in BIDS form.

The files are listed by pybids where it is installed, and by their names otherwise; what
is chosen from them is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import importlib.util
import os
from pathlib import Path
from typing import NamedTuple
import warnings

from dipy.utils.logging import logger

from dipy_dl_reg.groupwise.subjects import Subject, SubjectFile, parse_name

#: Contrast that is registered by default.
CONTRASTS = ("T1w",)
#: Kinds of further files by their suffix in BIDS.
_KINDS = {"dseg": "labels", "mask": "labels", "bold": "image", "dwi": "dwi"}
_IMAGES = (".nii", ".nii.gz")
_SUFFIXES = (*_IMAGES, ".trk", ".tck", ".trx", ".pam5")
#: Suffixes of formats, and options of the kind, of the files of a gradient table.
_TABLES = {"bvals": ".bval", "bvecs": ".bvec"}


class _File(NamedTuple):
    """A file in the folder, with the parts of its name."""

    path: Path
    entities: dict[str, str]
    suffix: str


def find_bids_subjects(
    folder: str | os.PathLike,
    *,
    contrasts: Sequence[str] | None = None,
    entities: Mapping[str, str] | None = None,
    further: Sequence[str] = ("dseg",),
) -> list[Subject]:
    """Find the subjects and sessions in a folder in BIDS form.

    Parameters
    ----------
    folder : str or Path
        A dataset, raw or of derivatives.
    contrasts : sequence of str, optional
        Suffixes of the images that are registered; by default "T1w".
    entities : mapping of str, optional
        Entities that the images must have, such as ``{"run": "1"}``.  Images with the
        entity ``space`` are left out unless it is one of these.
    further : sequence of str, optional
        Suffixes of further files to transform.  They must lie in the world of the first
        image.

    Returns
    -------
    subjects : list of Subject
        One for each session that has the images, or for each subject without sessions.
        A brain mask (``desc-brain_mask``) of the image is used if there is one.

    Raises
    ------
    ValueError
        If no subject has the images, or a session has several of one contrast.
    """
    folder, wanted = Path(folder), dict(entities or {})
    contrasts = list(contrasts or CONTRASTS)
    sessions: dict[tuple[str, str], list[_File]] = {}
    for file in _list_files(folder):
        key = file.entities["sub"], file.entities.get("ses", "")
        sessions.setdefault(key, []).append(file)
    if not sessions:
        raise ValueError(
            f"subjects: {folder} has no images in folders sub-*: give a dataset in "
            "BIDS form, a pattern such as 'images/*.nii.gz', or a table (.tsv, .csv)"
        )
    found = {
        key: _make_subject(key, files, contrasts, wanted, further)
        for key, files in sorted(sessions.items())
    }
    complete = {label for (label, _), each in found.items() if not each.missing}
    if not complete:
        suffixes = sorted({f.suffix for files in sessions.values() for f in files})
        raise ValueError(
            f"subjects: no subject in {folder} has {' and '.join(contrasts)}"
            f"{_describe_entities(wanted)}; there are {', '.join(suffixes)}"
        )
    return _leave_out_sessions(found, complete)


def _leave_out_sessions(
    found: Mapping[tuple[str, str], Subject], complete: set[str]
) -> list[Subject]:
    """Leave out sessions without the images, if another session has them."""
    subjects = []
    for (label, _session), subject in found.items():
        if not subject.missing:
            subjects.append(subject)
        elif label in complete:
            logger.info(f"{subject.name} is left out: {subject.missing}")
        elif label not in {each.label for each in subjects}:
            subjects.append(subject)
    return subjects


def _make_subject(
    key: tuple[str, str],
    files: Sequence[_File],
    contrasts: Sequence[str],
    wanted: Mapping[str, str],
    further: Sequence[str],
) -> Subject:
    """Make the subject of a session."""
    images, lacking = [], []
    for suffix in contrasts:
        file = _choose_image(key, files, suffix, wanted)
        if file is None:
            lacking.append(suffix)
        else:
            images.append(_make_file(file, "image"))
    native = [f for f in files if "space" not in f.entities and f.suffix in further]
    masks = [
        file.path
        for file in files
        if file.suffix == "mask" and file.entities.get("desc") == "brain"
        if not lacking and _describes(file, images[0])
    ]
    return Subject(
        *key,
        images=tuple(images),
        mask=masks[0] if len(masks) == 1 else None,
        files=tuple(_make_file(f, _KINDS.get(f.suffix, "auto")) for f in native),
        missing=f"there is no {' and no '.join(lacking)}{_describe_entities(wanted)}"
        if lacking
        else "",
    )


def _choose_image(
    key: tuple[str, str],
    files: Iterable[_File],
    suffix: str,
    wanted: Mapping[str, str],
) -> _File | None:
    """The image of a contrast; None if there is none."""
    found = [
        file
        for file in files
        if file.suffix == suffix and file.path.name.endswith(_IMAGES)
        if wanted.items() <= file.entities.items()
        if "space" in wanted or "space" not in file.entities
    ]
    if len(found) > 1:
        names = ", ".join(file.path.name for file in found)
        raise ValueError(
            f"subjects: sub-{key[0]} has {len(found)} images {suffix}: {names}; choose "
            "by entities, such as run-1"
        )
    return found[0] if found else None


def _describes(mask: _File, image: SubjectFile) -> bool:
    """Whether a mask lies on the grid of an image, by the entities of their names."""
    own = {key: value for key, value in mask.entities.items() if key != "desc"}
    other = dict(image.entities) | {"desc": ""}
    names = {key: value for key, value in own.items() if key not in ("sub", "ses")}
    return mask.path.parent == image.path.parent and names.items() <= other.items()


def _make_file(file: _File, kind: str) -> SubjectFile:
    """Convert a file of the folder."""
    own = [(k, v) for k, v in file.entities.items() if k not in ("sub", "ses")]
    return SubjectFile(
        file.path,
        file.suffix,
        kind,
        tuple(own),
        file.path.parent.name,
        tuple(_find_gradients(file)) if kind == "dwi" else (),
    )


def _find_gradients(file: _File) -> Iterable[tuple[str, str]]:
    """Find the gradient table of a series: beside it, or further up, as BIDS allows."""
    levels = [file.path.parent, *file.path.parents[1:4]]
    for option, ending in _TABLES.items():
        for level in levels:
            matches = [
                path
                for path in sorted(level.glob(f"*{file.suffix}{ending}"))
                if _applies(path, file)
            ]
            if matches:
                yield option, str(max(matches, key=lambda path: len(path.name)))
                break


def _applies(path: Path, file: _File) -> bool:
    """Whether a file of values applies to a series: it has no other entities."""
    *parts, suffix = path.name.split(".")[0].split("_")
    own = {f"{key}-{value}" for key, value in file.entities.items()}
    return suffix == file.suffix and set(parts) <= own


def _list_files(folder: Path) -> list[_File]:
    """List the images, tractograms and peaks of all subjects."""
    if importlib.util.find_spec("bids") is None or not _has_description(folder):
        paths = sorted(folder.glob("sub-*/**/sub-*"))
    else:
        paths = _list_by_pybids(folder)
    files = []
    for path in paths:
        entities, suffix = parse_name(path.name)
        if entities and path.name.endswith(_SUFFIXES):
            files.append(_File(path, entities, suffix))
    return files


def _has_description(folder: Path) -> bool:
    """Whether the folder has the description that pybids requires."""
    if (folder / "dataset_description.json").is_file():
        return True
    logger.info(f"{folder} has no dataset_description.json: files are found by name")
    return False


def _list_by_pybids(folder: Path) -> list[Path]:
    """List the files that pybids finds, which respects .bidsignore."""
    import bids

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        indexer = bids.BIDSLayoutIndexer(validate=False, index_metadata=False)
        layout = bids.BIDSLayout(folder, validate=False, indexer=indexer)
        names = layout.get(return_type="filename", scope="self")
    top = folder.resolve()
    inside = [Path(os.path.relpath(Path(n).resolve(), top)) for n in names]
    return sorted(folder / p for p in inside if p.parts[0].startswith("sub-"))


def _describe_entities(wanted: Mapping[str, str]) -> str:
    """The entities that the user requires, for messages."""
    text = ", ".join(f"{key}-{value}" for key, value in wanted.items())
    return f" with {text}" if text else ""
