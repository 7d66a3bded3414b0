"""Deformation fields of MRtrix3, as NIfTI (`mrtransform -warp`, `warpconvert`).

Shape (X, Y, Z, 3), with the affine of the output image: in each voxel the position
``y`` in mm, RAS.  NaN, or zeros throughout, mark positions that are unknown.
"""

from __future__ import annotations

import os
from typing import Any

import nibabel as nib
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.formats.dense_field import DenseField
from dipy_dl_reg.maps.formats.vector_images import (
    has_vectors,
    make_vector_image,
    read_vectors,
)


def matches(image: Any) -> bool:
    """Tell from the header whether an image is a deformation field of MRtrix3.

    Parameters
    ----------
    image : nibabel image
        An opened file; its values are not read.

    Returns
    -------
    matches : bool
        Whether it has three volumes and declares no intent.
    """
    return has_vectors(image, axes=4) and int(image.header["intent_code"]) == 0


def read(path: str | os.PathLike, input_grid: Grid | None) -> DenseField:
    """Read one direction of a map.

    Parameters
    ----------
    path : str or Path
        The file.
    input_grid : Grid or None
        Grid of the input image, which is not needed.

    Returns
    -------
    field : DenseField
        The positions.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no such field.
    """
    vectors, affine, _ = read_vectors(path, axes=4, kind="MRtrix3's deformations")
    unknown = (vectors == 0).all(axis=-1)
    positions = np.where(unknown[..., None], np.nan, vectors)
    return DenseField(positions, Grid(vectors.shape[:3], affine), input_grid)


def write(field: DenseField, path: str | os.PathLike) -> None:
    """Write one direction of a map.

    Parameters
    ----------
    field : DenseField
        The positions.
    path : str or Path
        The file.
    """
    nib.save(make_vector_image(field.positions, field.grid.affine, axes=4), path)
