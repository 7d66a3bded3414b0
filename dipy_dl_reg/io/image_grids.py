"""The grid of an image, from its file, without reading its values."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.image_kinds import is_slice, slice_affine
from dipy_dl_reg.io.images import open_image
from dipy_dl_reg.validation import check_affine


def read_grid(image: Any, name: str, dim: int | None = None) -> Grid | None:
    """Find the grid of an image.

    Parameters
    ----------
    image : str, Path, nibabel image, Grid or None
        The image.
    name : str
        Its name in error messages.
    dim : int, optional
        Dimension of the grid; by default 2 for a slice, else 3.

    Returns
    -------
    grid : Grid or None
        None if there is no image.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is no image, has another dimension, or its affine is singular.
    """
    if image is None:
        return None
    if isinstance(image, (str, os.PathLike)):
        image = open_image(image, name=name)
    if not hasattr(image, "affine") or not hasattr(image, "shape"):
        raise ValueError(f"{name} must be an image or its path, got {type(image)}")
    shape = tuple(int(n) for n in image.shape)
    if dim is None:
        dim = 2 if is_slice(shape) else 3
    if len(shape) < dim or (dim == 2 and not is_slice(shape)):
        raise ValueError(f"{name} must be {dim}D, got shape {shape}")
    affine = slice_affine(np.array(image.affine, dtype=float), dim)
    return Grid(shape[:dim], check_affine(affine, dim, f"{name}: its affine"))
