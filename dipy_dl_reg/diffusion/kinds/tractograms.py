"""Tractogram files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dipy_dl_reg.diffusion.kinds.base import FileKind, Match, Request
from dipy_dl_reg.diffusion.tractograms import (
    check_tractogram,
    transform_opened_tractogram,
)
from dipy_dl_reg.io.tractograms.table import FORMATS, open_tractogram


def _match(path: Path, given: Mapping[str, object]) -> Match:
    """Tractograms have suffixes of their own."""
    return "certain" if path.suffix.lower() in FORMATS else "no"


def _check(path: Path, request: Request) -> None:
    """Check that a tractogram lies in the space from which it is transformed."""
    check_tractogram(request.mapping, path, inverse=request.inverse)


def _transform(path: Path, targets: Sequence[Path], request: Request) -> None:
    """Transform streamlines, in chunks; `_check` logged any doubt about the space."""
    transform_opened_tractogram(
        request.mapping,
        open_tractogram(path, name="in_file"),
        targets[0],
        inverse=request.inverse,
        reference=request.reference,
        overwrite=True,
    )


TRACTOGRAM = FileKind(
    _match, _check, _transform, suffixes=tuple(FORMATS), keeps_suffix=True
)
