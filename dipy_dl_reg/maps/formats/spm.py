r"""SPM's deformation fields (``y_*.nii``, ``iy_*.nii``).

The image has shape (X, Y, Z, 1, 3) and the grid of the output image: for each voxel the
point of the input image, in mm, RAS.  SPM warps an image by ``y_*.nii`` with its
utility *Deformations*, *Pullback*.
"""

from __future__ import annotations

import os
from typing import Any

import nibabel as nib
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.formats.dense_field import DenseField
from dipy_dl_reg.maps.formats.vector_images import (
    VECTOR,
    make_vector_image,
    read_vectors,
)


def matches(image: Any) -> bool:
    """Tell from the header whether an image is a deformation field of SPM.

    *Segment* writes a description and no intent, the utility *Deformations* both.
    ITK's displacement fields have the same shape and intent, but neither of the texts.

    Parameters
    ----------
    image : nibabel image
        The image; its values are not read.

    Returns
    -------
    matches : bool
        True for deformation fields.
    """
    header = image.header
    if not isinstance(header, nib.Nifti1Header) or image.shape[3:] != (1, 3):
        return False
    name, text = (bytes(header[k].item()) for k in ("intent_name", "descrip"))
    return name == b"Mapping" or b"Deformation" in text


def write(field: DenseField, path: str | os.PathLike) -> None:
    """Write one direction of a map.

    Parameters
    ----------
    field : DenseField
        The positions.
    path : str or Path
        The file, of NIfTI.  SPM itself reads ``.nii`` only.
    """
    image = make_vector_image(
        field.positions,
        field.grid.affine,
        axes=5,
        intent=VECTOR,
        intent_name="Mapping",
        description="Deformation field",
    )
    nib.save(image, path)


def read(path: str | os.PathLike, input_grid: Grid | None = None) -> DenseField:
    """Read one direction of a map.

    Parameters
    ----------
    path : str or Path
        The file.
    input_grid : Grid, optional
        Grid of the image that the field warps.

    Returns
    -------
    field : DenseField
        The positions; NaN where the file holds none.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no deformation field of SPM.
    """
    positions, affine, _ = read_vectors(path, axes=5, kind="SPM's deformation fields")
    positions[~np.isfinite(positions).all(axis=-1)] = np.nan
    return DenseField(positions, Grid(positions.shape[:3], affine), input_grid)
