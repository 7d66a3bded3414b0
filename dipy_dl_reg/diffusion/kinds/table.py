"""The table of the kinds of files that `dipy_apply_deep` transforms.

A new kind is one module beside this one, with a constant that is a
`dipy_dl_reg.diffusion.kinds.base.FileKind`, and one line in `KINDS`.  A module is
imported when the command runs, so that ``--help`` need not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dipy_dl_reg.options import join_words

if TYPE_CHECKING:
    from dipy_dl_reg.diffusion.kinds.base import FileKind


class KindEntry(NamedTuple):
    """A kind of file.

    Attributes
    ----------
    description : str
        In a few words, for the help and for messages.
    module : str
        Name of its module in this folder.
    name : str
        Name of its constant there.
    """

    description: str
    module: str
    name: str

    def load(self) -> FileKind:
        """Import the module.

        Returns
        -------
        kind : FileKind
            The kind.
        """
        module = import_module(f"dipy_dl_reg.diffusion.kinds.{self.module}")
        return getattr(module, self.name)


#: By name.
KINDS = {
    "image": KindEntry("image, or series without directions", "images", "IMAGE"),
    "labels": KindEntry("labels or mask", "images", "LABELS"),
    "tensors": KindEntry("diffusion tensors", "tensors", "TENSORS"),
    "vectors": KindEntry("vectors such as V1 or MRtrix3's peaks", "vectors", "VECTORS"),
    "fods": KindEntry(
        "fibre orientation distributions as spherical harmonics", "fods", "FODS"
    ),
    "dwi": KindEntry("diffusion-weighted series with b-vectors", "dwi", "DWI"),
    "peaks": KindEntry("DIPY's peaks, .pam5", "vectors", "PEAKS"),
    "tractogram": KindEntry(
        "streamlines, .trk, .tck or .trx", "tractograms", "TRACTOGRAM"
    ),
}


def describe_kinds() -> str:
    """Say which kinds there are.

    Returns
    -------
    text : str
        Such as "image (image, or series without directions), labels (...)".
    """
    return join_words(f"{name} ({entry.description})" for name, entry in KINDS.items())


def find_kind(path: Path, **given: object) -> str:
    """Recognise the kind of a file.

    Parameters
    ----------
    path : Path
        The file.
    **given : object
        The options of the command that were given, by name.

    Returns
    -------
    name : str
        A name of `KINDS`: the kind of which the file certainly is, or the only one of
        which it may be.

    Raises
    ------
    ValueError
        If the file may be of several kinds.
    """
    kinds = {name: entry.load() for name, entry in KINDS.items()}
    matches = {name: kind.match(path, given) for name, kind in kinds.items()}
    for degree in ("certain", "possible"):
        names = [name for name, match in matches.items() if match == degree]
        if len(names) == 1:
            return names[0]
        if names:
            meanings = join_words(f"{n} ({KINDS[n].description})" for n in names)
            raise ValueError(
                f"kind: {path} may be of several kinds; give --kind: {meanings}"
            )
    raise ValueError(f"kind: {path} is of no kind that is known: {describe_kinds()}")
