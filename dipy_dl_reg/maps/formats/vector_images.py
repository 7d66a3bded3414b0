"""NIfTI images of vectors, in which other programs store maps."""

from __future__ import annotations

import os

import nibabel as nib
import numpy as np

from dipy_dl_reg.io.images import open_image, read_image
from dipy_dl_reg.validation import check_affine

#: NIfTI's intent codes.
DISPLACEMENT, VECTOR = 1006, 1007


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
    vectors : ndarray, shape (X, Y, Z, 3)
        The vectors; stored in float32.
    affine : ndarray, shape (4, 4)
        Voxels to world, mm.
    axes : {4, 5}
        Shape of the image: (X, Y, Z, 3) or (X, Y, Z, 1, 3).
    intent : int, optional
        NIfTI's intent code.
    intent_name, description : str, optional
        Texts of the header.

    Returns
    -------
    image : nibabel.Nifti1Image
        The image.
    """
    data = np.asarray(vectors, dtype=np.float32)
    image = nib.Nifti1Image(data if axes == 4 else data[:, :, :, None], affine)
    image.header.set_intent(intent, name=intent_name, allow_unknown=True)
    image.header["descrip"] = description.encode()
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image


def read_vectors(
    path: str | os.PathLike, *, axes: int, kind: str
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

    Returns
    -------
    vectors : ndarray of float64, shape (X, Y, Z, 3)
        The vectors.
    affine : ndarray, shape (4, 4)
        Voxels to world, mm.
    header : nibabel.Nifti1Header
        The header.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, has another shape, or no position in the world.
    """
    image = open_image(path, name="path")
    wanted = "(X, Y, Z, 3)" if axes == 4 else "(X, Y, Z, 1, 3)"
    last = (3,) if axes == 4 else (1, 3)
    if len(image.shape) != axes or image.shape[3:] != last:
        raise ValueError(
            f"path: {path} must have the shape {wanted} of {kind}, got {image.shape}"
        )
    header = image.header
    if isinstance(header, nib.Nifti1Header) and not header["sform_code"] > 0:
        if not header["qform_code"] > 0:
            raise ValueError(
                f"path: {path} must have a position in the world (an sform or qform "
                "code above 0), got none: copy the static image's"
            )
    affine = check_affine(image.affine, 3, f"path: the affine of {path}")
    data, _ = read_image(image, name="path", dtype=np.float32)
    return data.reshape(*image.shape[:3], 3).astype(np.float64), affine, header
