"""Fibre orientation distributions, as coefficients of spherical harmonics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dipy_dl_reg.diffusion.fods import transform_fods
from dipy_dl_reg.diffusion.frames import FRAMES
from dipy_dl_reg.diffusion.harmonics import MAX_ORDER, harmonic_order
from dipy_dl_reg.diffusion.kinds.base import (
    FileKind,
    Match,
    Request,
    check_directions,
    check_frame,
    count_components,
    output_grid,
    require,
    save_directions,
)
from dipy_dl_reg.io.images import open_image

#: Arguments of `transform_fods` for each basis of the command.  Those of DIPY are in
#: its legacy definition, its default, unless the name says otherwise.
_BASES: dict[str, dict[str, Any]] = {
    "descoteaux07": {"basis": "descoteaux07", "legacy": True},
    "tournier07": {"basis": "tournier07", "legacy": True},
    "descoteaux07_nonlegacy": {"basis": "descoteaux07", "legacy": False},
    "tournier07_nonlegacy": {"basis": "tournier07", "legacy": False},
    "mrtrix": {"basis": "mrtrix"},
}
#: Numbers of coefficients of the orders 2, 4, 6 and so on.
_COUNTS = {(n + 1) * (n + 2) // 2 for n in range(2, MAX_ORDER + 1, 2)}
#: Slices along the last axis in which the signs of the values are examined.
_SLICES = 3


def _match(path: Path, given: Mapping[str, object]) -> Match:
    """A number of volumes that harmonics have; above order 2, with both signs."""
    count = count_components(path)
    if count not in _COUNTS or len(open_image(path).shape) != 4:
        return "no"
    if "basis" in given:
        return "certain"
    return _match_signs(_some_slices(path))


def _match_signs(values: np.ndarray) -> Match:
    """Coefficients above degree 0 have both signs, as harmonics have.

    FODs are certain if their mean over the sphere is nowhere negative; but of order 2,
    they may be tensors.
    """
    means, others = values[..., 0], values[..., 1:]
    if not others.min() < 0 < others.max():
        return "no"
    is_order_2 = values.shape[-1] == min(_COUNTS)
    return (
        "possible" if is_order_2 or means.min() < 0 or means.max() == 0 else "certain"
    )


def _some_slices(path: Path) -> np.ndarray:
    """The middle slices of an image."""
    image = open_image(path)
    first = max(image.shape[2] // 2 - _SLICES // 2, 0)
    part = np.asarray(image.dataobj[:, :, first : first + _SLICES])
    return np.where(np.isfinite(part), part, 0)


def _check(path: Path, request: Request) -> None:
    """Check that a file has a number of coefficients, and its basis is known."""
    check_directions(path, request)
    shape = open_image(path).shape
    try:
        harmonic_order(shape[-1] if len(shape) == 4 else 0)
    except ValueError as error:
        raise ValueError(f"kind: {path} holds no harmonics: {error}") from error
    require("basis", request, path, _BASES)
    if request.options["basis"] != "mrtrix":
        check_frame(path, open_image(path).affine, request)


def _transform(path: Path, targets: Sequence[Path], request: Request) -> None:
    """Transform FODs, with reorientation."""
    image = open_image(path)
    reference, grid = output_grid(image, request)
    options = dict(request.options)
    options |= _BASES[options["basis"]]
    warped = transform_fods(request.mapping, image, **grid, **options)
    save_directions(targets[0], reference, warped, image)


FODS = FileKind(
    _match,
    _check,
    _transform,
    {"basis": tuple(_BASES), "frame": FRAMES, "modulate": None},
)
