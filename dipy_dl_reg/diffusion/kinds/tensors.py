"""Images of diffusion tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dipy_dl_reg.diffusion.frames import FRAMES
from dipy_dl_reg.diffusion.kinds.base import (
    FileKind,
    Match,
    Request,
    check_directions,
    check_frame,
    count_components,
    find_intent,
    output_grid,
    require,
    save_directions,
)
from dipy_dl_reg.diffusion.tensor_components import ORDERS
from dipy_dl_reg.diffusion.tensors import INTERPOLATIONS, METHODS, transform_tensors
from dipy_dl_reg.io.images import open_image

#: NIfTI's intent code of symmetric matrices.
_SYMMETRIC_MATRIX = 1005


def _match(path: Path, given: Mapping[str, object]) -> Match:
    """Six values in a voxel may be a tensor; with the intent code, they are."""
    if count_components(path) != 6:
        return "no"
    declared = find_intent(path) == _SYMMETRIC_MATRIX
    return "certain" if declared or "tensor_order" in given else "possible"


def _check(path: Path, request: Request) -> None:
    """Check that an image has six values in a voxel, and the map is 3D."""
    check_directions(path, request)
    if count_components(path) != 6:
        raise ValueError(
            f"kind: {path} must have six values in a voxel to hold tensors, got shape "
            f"{open_image(path).shape}"
        )
    if find_intent(path) != _SYMMETRIC_MATRIX:
        require("tensor_order", request, path, ORDERS)
    if request.options.get("tensor_order", "dipy") == "dipy":
        check_frame(path, open_image(path).affine, request)


def _transform(path: Path, targets: Sequence[Path], request: Request) -> None:
    """Transform tensors, with reorientation."""
    image = open_image(path)
    reference, grid = output_grid(image, request)
    options = dict(request.options)
    order = options.pop("tensor_order", "dipy")
    warped = transform_tensors(request.mapping, image, order=order, **grid, **options)
    save_directions(targets[0], reference, warped, image)


TENSORS = FileKind(
    _match,
    _check,
    _transform,
    {
        "interpolation": INTERPOLATIONS,
        "tensor_order": tuple(ORDERS),
        "method": METHODS,
        "frame": FRAMES,
    },
)
