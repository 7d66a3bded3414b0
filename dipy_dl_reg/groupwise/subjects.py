"""The subjects of a cohort, with their files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
import re

#: Entities of a name in BIDS that stand behind ``space``.
_AFTER_SPACE = ("split", "recording", "chunk", "seg", "res", "den", "label", "desc")


@dataclass(frozen=True)
class SubjectFile:
    """A file of a subject.

    Attributes
    ----------
    path : Path
        The file.
    suffix : str
        Suffix of its name in BIDS, such as "T1w", "dseg" or "dwi".
    kind : str
        A name of `dipy_dl_reg.diffusion.kinds.table.KINDS`, or "auto".
    entities : tuple of tuple of str
        Further parts of its name, such as ``(("acq", "mprage"),)``.
    datatype : str
        Folder in BIDS, such as "anat" or "dwi".
    options : tuple of tuple of str
        Options of its kind that are files, such as ``(("bvals", path),)``.
    """

    path: Path
    suffix: str
    kind: str = "auto"
    entities: tuple[tuple[str, str], ...] = ()
    datatype: str = "anat"
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Subject:
    """A subject of a cohort, or one of its sessions.

    Attributes
    ----------
    label : str
        Letters and digits, as in BIDS behind ``sub-``.
    session : str
        Label of the session; empty if there are none.
    images : tuple of SubjectFile
        The images that are registered, one for each contrast.
    mask : Path or None
        Mask of the first image.
    files : tuple of SubjectFile
        Further files in the world of the first image, which are transformed.
    missing : str
        What is missing, so that the subject cannot be registered.
    """

    label: str
    session: str = ""
    images: tuple[SubjectFile, ...] = ()
    mask: Path | None = None
    files: tuple[SubjectFile, ...] = field(default=())
    missing: str = ""

    @property
    def name(self) -> str:
        """Name of the subject, such as "sub-01_ses-2"."""
        return f"sub-{self.label}" + f"_ses-{self.session}" * bool(self.session)

    @property
    def folder(self) -> Path:
        """Its folder, such as "sub-01/ses-2"."""
        return Path(*self.name.split("_"))

    def inputs(self) -> list[Path]:
        """List all files that are read.

        Returns
        -------
        paths : list of Path
            Images, mask, further files and gradient tables, each once.
        """
        files = (*self.images, *self.files)
        paths = [file.path for file in files]
        paths += [self.mask] if self.mask else []
        paths += [Path(p) for f in files for _, p in f.options]
        return list(dict.fromkeys(paths))


def check_subjects(subjects: Sequence[Subject]) -> list[Subject]:
    """Check that there are subjects, and that no two have the same name.

    Parameters
    ----------
    subjects : sequence of Subject
        The subjects.

    Returns
    -------
    subjects : list of Subject
        The same, sorted by name.

    Raises
    ------
    ValueError
        If there are none, or two have the same name.
    """
    if not subjects:
        raise ValueError("subjects must be at least one, got none.")
    first: dict[str, Subject] = {}
    for subject in subjects:
        other = first.setdefault(subject.name, subject)
        if other is not subject:
            places = " and ".join(_describe_place(each) for each in (other, subject))
            raise ValueError(f"subjects: two have the name {subject.name}: {places}")
    return sorted(subjects, key=lambda subject: subject.name)


def _describe_place(subject: Subject) -> str:
    """The first image of a subject, for messages."""
    return str(subject.images[0].path) if subject.images else "one without images"


def make_label(text: str, name: str) -> str:
    """Make a label of letters and digits, as BIDS requires them.

    Parameters
    ----------
    text : str
        The user's text, such as "patient_01".
    name : str
        What it names, for the error message.

    Returns
    -------
    label : str
        Such as "patient01".

    Raises
    ------
    ValueError
        If no letter or digit remains.

    Examples
    --------
    >>> from dipy_dl_reg.groupwise.subjects import make_label
    >>> make_label("patient_01", "subject")
    'patient01'
    """
    label = re.sub(r"[^A-Za-z0-9]", "", text)
    if not label:
        raise ValueError(f"{name} must contain letters or digits, got {text!r}.")
    return label


def strip_suffix(name: str) -> str:
    """Remove the suffix of the format from the name of a file.

    Parameters
    ----------
    name : str
        Such as "sub-01_T1w.nii.gz".

    Returns
    -------
    stem : str
        Such as "sub-01_T1w".
    """
    return Path(name.removesuffix(".gz")).stem


def parse_name(name: str) -> tuple[dict[str, str], str]:
    """Split the name of a file in BIDS into its entities and its suffix.

    Parameters
    ----------
    name : str
        Such as "sub-01_acq-fast_T1w.nii.gz".

    Returns
    -------
    entities : dict of str
        Such as ``{"sub": "01", "acq": "fast"}``; empty if it is no such name.
    suffix : str
        Such as "T1w".

    Examples
    --------
    >>> from dipy_dl_reg.groupwise.subjects import parse_name
    >>> parse_name("sub-01_acq-fast_T1w.nii.gz")
    ({'sub': '01', 'acq': 'fast'}, 'T1w')
    """
    *parts, suffix = strip_suffix(name).split("_")
    pairs = [part.split("-", 1) for part in parts]
    if not pairs or pairs[0][0] != "sub" or any(len(pair) != 2 for pair in pairs):
        return {}, suffix
    return dict(pairs), suffix


def format_name(
    subject: Subject,
    suffix: str,
    entities: Iterable[tuple[str, str]] = (),
    *,
    space: str | None = None,
) -> str:
    """Make the name of an output without the suffix of its format.

    Parameters
    ----------
    subject : Subject
        The subject.
    suffix : str
        Suffix in BIDS.
    entities : iterable of tuple of str
        Further entities; ``space`` is put in its place among them.
    space : str, optional
        Label of the space in which the output lies.

    Returns
    -------
    name : str
        Such as "sub-01_space-MNI_desc-brain_mask".
    """
    pairs = [pair for pair in entities if pair[0] != "space"]
    if space is not None:
        place = next(
            (k for k, (key, _) in enumerate(pairs) if key in _AFTER_SPACE), len(pairs)
        )
        pairs.insert(place, ("space", space))
    return "_".join([subject.name, *(f"{key}-{value}" for key, value in pairs), suffix])


def describe_subject(subject: Subject) -> Mapping[str, str]:
    """The columns of a table that name a subject.

    Parameters
    ----------
    subject : Subject
        The subject.

    Returns
    -------
    columns : dict of str
        ``participant_id`` and ``session_id``, as in BIDS.
    """
    session = f"ses-{subject.session}" if subject.session else "n/a"
    return {"participant_id": f"sub-{subject.label}", "session_id": session}
