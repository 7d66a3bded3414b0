"""The files of prealigns of `dipy_align_deep`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dipy_dl_reg.io.affine_files import (
    AFFINE_FORMATS,
    affine_format_name,
    read_affine,
)
from dipy_dl_reg.workflows.base import PathLike


def check_out_prealign(name: str, dims: set[int]) -> None:
    """Check that the format of the prealign can store matrices of all dimensions.

    Parameters
    ----------
    name : str
        Name of the file to be written.
    dims : set of int
        Dimensions of the pairs.

    Raises
    ------
    ValueError
        If it cannot.
    """
    entry = AFFINE_FORMATS[affine_format_name(name, "text")]
    if not dims <= set(entry.dimensions):
        raise ValueError(
            f"out_prealign: the format of {name}, {entry.description}, holds 3D "
            "matrices only, not those of slices"
        )


def read_prealigns(
    path: PathLike | None, dims: set[int], pairs: Sequence[Sequence[Path]]
) -> dict[int, Any]:
    """Read the matrix in a file for each dimension of the pairs.

    Parameters
    ----------
    path : str, Path or None
        The file.
    dims : set of int
        Dimensions of the pairs.
    pairs : sequence of pairs of Path
        The images, on which matrices of FSL depend.

    Returns
    -------
    prealigns : dict
        By dimension: the matrix from static world to moving world, or None without a
        file.
    """
    if path is None:
        return dict.fromkeys(dims)
    static, moving = pairs[0] if len(pairs) == 1 else (None, None)
    return {
        dim: read_affine(path, static=static, moving=moving, dim=dim, name="prealign")
        for dim in dims
    }
