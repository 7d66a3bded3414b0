"""NIfTI images of vectors, in which other programs store maps."""

from __future__ import annotations

import os
from typing import Any

import nibabel as nib
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.image_kinds import slice_affine
from dipy_dl_reg.io.images import open_image, read_image
from dipy_dl_reg.maps.formats.plausibility import distance_of_corners
from dipy_dl_reg.validation import check_affine

#: NIfTI's intent codes.
DISPLACEMENT, VECTOR = 1006, 1007
#: Largest value, in mm, that float32 stores with an error below 1e-4 mm.
_LARGEST_FLOAT32 = 1000
#: Largest disagreement of sform and qform, in voxels.
_FORMS_TOLERANCE = 0.05


def make_vector_image(
    vectors: np.ndarray,
    affine: np.ndarray,
    *,
    axes: int,
    intent: int = 0,
    intent_name: str = "",
    description: str = "",
) -> nib.Nifti1Image:
    """Make a NIfTI image of one vector for each voxel.

    Parameters
    ----------
    vectors : ndarray, shape (X, Y, Z, 3) or (X, Y, 2)
        The vectors; stored in float32, or in float64 if they are so long that float32
        is not exact to 1e-4 mm.
    affine : ndarray, shape (4, 4) or (3, 3)
        Voxels to world, mm.
    axes : {4, 5}
        Shape of the image: (X, Y, Z, 3) or (X, Y, Z, 1, 3); in 2D (X, Y, 1, 1, 2).
    intent : int, optional
        NIfTI's intent code.
    intent_name, description : str, optional
        Texts of the header.

    Returns
    -------
    image : nibabel.Nifti1Image
        The image.
    """
    dim = vectors.shape[-1]
    rows = [*range(dim), 3]
    matrix = np.eye(4)
    matrix[np.ix_(rows, rows)] = affine
    shape = (*vectors.shape[:dim], 1)[:3] + (1,) * (axes - 4) + (dim,)
    large = np.abs(vectors).max(initial=0, where=~np.isnan(vectors)) > _LARGEST_FLOAT32
    data = vectors.reshape(shape).astype(np.float64 if large else np.float32)
    image = nib.Nifti1Image(data, matrix)
    image.header.set_intent(intent, name=intent_name, allow_unknown=True)
    image.header["descrip"] = description.encode()
    image.header.set_xyzt_units("mm")
    image.set_sform(matrix, 1)
    # A qform cannot hold a shear; two affines that disagree are worse than one.
    image.set_qform(matrix, 0 if is_sheared(matrix) else 1)
    return image


def is_sheared(affine: np.ndarray) -> bool:
    """Tell whether the axes of a grid are not perpendicular.

    Parameters
    ----------
    affine : ndarray, shape (D + 1, D + 1)
        Voxels to world.

    Returns
    -------
    sheared : bool
        Whether a cosine between two axes exceeds 1e-4.
    """
    axes = affine[:-1, :-1] / np.linalg.norm(affine[:-1, :-1], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(len(axes))).max() > 1e-4)


def has_vectors(image: Any, *, axes: int) -> bool:
    """Tell whether an image is NIfTI and has one vector in each voxel.

    Parameters
    ----------
    image : nibabel image
        An opened file; its values are not read.
    axes : {4, 5}
        Shape of the image: (X, Y, Z, 3) or (X, Y, Z, 1, 3); in 2D (X, Y, 1, 1, 2).

    Returns
    -------
    has_vectors : bool
        Whether this is its shape.
    """
    if not isinstance(image.header, nib.Nifti1Header):
        return False
    shape = tuple(image.shape)
    if axes == 4:
        return len(shape) == 4 and shape[3] == 3
    return shape[3:] == (1, 3) or shape[2:] == (1, 1, 2)


def read_vectors(
    path: str | os.PathLike, *, axes: int, kind: str, slices: bool = False
) -> tuple[np.ndarray, np.ndarray, nib.Nifti1Header]:
    """Read a NIfTI image of one vector for each voxel.

    Parameters
    ----------
    path : str or Path
        The file.
    axes : {4, 5}
        Expected shape: (X, Y, Z, 3) or (X, Y, Z, 1, 3).
    kind : str
        What the file must be, for messages, such as "SPM's deformation".
    slices : bool, optional
        Accept (X, Y, 1, 1, 2), too, which is a field in 2D.

    Returns
    -------
    vectors : ndarray of float64, shape (X, Y, Z, 3) or (X, Y, 2)
        The vectors.
    affine : ndarray, shape (4, 4) or (3, 3)
        Voxels to world, mm.
    header : nibabel.Nifti1Header
        The header.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, has another shape, or no position in the world, or two
        that disagree.
    """
    image = open_image(path, name="path")
    shape = tuple(image.shape)
    wanted = "(X, Y, Z, 3)" if axes == 4 else "(X, Y, Z, 1, 3)"
    is_slice = shape[2:] == (1, 1, 2)
    if not has_vectors(image, axes=axes) or (is_slice and not slices) or 0 in shape:
        raise ValueError(
            f"path: {path} must have the shape {wanted} of {kind}, got {shape}"
        )
    _check_forms(image, path)
    affine = check_affine(image.affine, 3, f"path: the affine of {path}")
    data, _ = read_image(image, name="path", dtype=np.float64)
    dim = shape[-1]
    return (
        data.reshape(*shape[:dim], dim),
        slice_affine(affine, dim),
        image.header,
    )


def _check_forms(image: nib.Nifti1Image, path: str | os.PathLike) -> None:
    """Check that a file has one position in the world, which all programs read."""
    forms = [image.get_sform(coded=True), image.get_qform(coded=True)]
    if not any(code for _, code in forms):
        raise ValueError(
            f"path: {path} must have a position in the world (an sform or qform "
            "code above 0), got none: copy the static image's"
        )
    if not all(code for _, code in forms):
        return
    sform, qform = (Grid(image.shape[:3], matrix) for matrix, _ in forms)
    if distance_of_corners(sform, qform) > _FORMS_TOLERANCE:
        raise ValueError(
            f"path: {path} must have one position in the world, but its two affines, "
            "sform and qform, disagree, and programs read one or the other: correct "
            "the one that is wrong"
        )
