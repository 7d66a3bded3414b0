"""Diffusion-weighted series with their gradient tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
import shutil

from dipy_dl_reg.diffusion.dwi import check_shells, transform_dwi
from dipy_dl_reg.diffusion.frames import FRAMES
from dipy_dl_reg.diffusion.gradient_tables import check_gradient_table
from dipy_dl_reg.diffusion.kinds.base import (
    FileKind,
    Match,
    Request,
    check_directions,
    count_components,
    output_grid,
    save_directions,
)
from dipy_dl_reg.diffusion.tensors import METHODS
from dipy_dl_reg.io.images import open_image

#: Suffixes of the files of a gradient table.
_SUFFIXES = {"bvals": (".bval", ".bvals"), "bvecs": (".bvec", ".bvecs")}


def _match(path: Path, given: Mapping[str, object]) -> Match:
    """A series with b-vectors, given or beside it."""
    if count_components(path) < 2 or len(open_image(path).shape) != 4:
        return "no"
    return "certain" if _find_table_file(path, "bvecs", given) else "no"


def _check(path: Path, request: Request) -> None:
    """Check that a series has a gradient table with an entry for each volume."""
    check_directions(path, request)
    table = [_find_table_file(path, name, request.options) for name in _SUFFIXES]
    for name, found in zip(_SUFFIXES, table, strict=True):
        if found is None:
            wanted = " or ".join(_SUFFIXES[name])
            raise ValueError(
                f"{name}: there is no {wanted} beside {path}; give --{name}, or --kind "
                "image to leave directions as they are"
            )
    name = f"the gradient table of {path}"
    gtab = check_gradient_table(table, open_image(path).shape[3], name=name)
    check_shells(gtab, name=name)


def _transform(path: Path, targets: Sequence[Path], request: Request) -> None:
    """Transform a series, with reorientation; its table remains valid."""
    image = open_image(path)
    reference, grid = output_grid(image, request)
    table = [_find_table_file(path, name, request.options) for name in _SUFFIXES]
    # Files of b-vectors are FSL's.
    options = {"frame": "fsl"} | {
        name: request.options[name]
        for name in ("frame", "method")
        if name in request.options
    }
    warped = transform_dwi(request.mapping, image, table, **grid, **options)
    save_directions(targets[0], reference, warped, image)
    for source, target in zip(table, targets[1:], strict=True):
        shutil.copyfile(str(source), target)


def _find_table_file(path: Path, name: str, given: Mapping[str, object]) -> Path | None:
    """The file of the b-values or b-vectors: the one given, or that beside a series."""
    if name in given:
        return Path(str(given[name]))
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    beside = [path.with_name(stem + suffix) for suffix in _SUFFIXES[name]]
    return next((file for file in beside if file.is_file()), None)


DWI = FileKind(
    _match,
    _check,
    _transform,
    {"bvals": None, "bvecs": None, "method": METHODS, "frame": FRAMES},
    beside=(".bval", ".bvec"),
)
