"""Masks that users give: files, NIfTI images and arrays, on any grid."""

from os import PathLike

import numpy as np
from scipy.ndimage import affine_transform

from dipy_dl_reg.io.image_kinds import in_plane
from dipy_dl_reg.io.images import open_image, read_image
from dipy_dl_reg.validation import check_affine


def fill_masked(image):
    """A masked array as a plain array with NaN in place of what is masked.

    Parameters
    ----------
    image : array
        Of any kind.

    Returns
    -------
    image : array
        The same object unless it is a `numpy.ma.MaskedArray` of real numbers.
    """
    if not np.ma.isMaskedArray(image) or image.dtype.kind not in "buif":
        return image
    kind = image.dtype if image.dtype.kind == "f" else np.float64
    return np.ma.filled(image.astype(kind), np.nan)


def read_mask(mask, image, shape, grid2world, *, name):
    """A mask on the voxels of its image.

    Parameters
    ----------
    mask : None, str, Path, nibabel image or array
        A file's or a nibabel image's mask is resampled through both affines, each
        voxel of the image taking the nearest voxel of the mask, where the two grids
        differ.  An array has the image's grid.
    image : str, Path, nibabel image or array
        The image as the user gave it.
    shape : tuple of int
        Its shape.
    grid2world : array or None
        Its voxels to world, which may overrule that of its file.  Where there is none
        the mask is taken as it is.
    name : str
        What errors call the mask.

    Returns
    -------
    mask : ndarray or None
        Of the image's shape where it was resampled; None for None.

    Raises
    ------
    FileNotFoundError
        If its file is missing.
    ValueError
        If the file is no image, its affine is singular, or nothing of the mask lies
        on the image.
    """
    if mask is None:
        return None
    values, own = read_image(mask, name=name)
    while values.ndim > len(shape) and values.shape[-1] == 1:
        values = values[..., 0]
    if own is None or grid2world is None or values.ndim != len(shape):
        return values
    own, grid2world = in_plane(own, len(shape)), np.asarray(grid2world)
    for other in (grid2world, _stored_affine(image, len(shape))):
        if values.shape == tuple(shape) and _alike(own, other):
            return values
    if grid2world.shape != own.shape:
        return values  # the image's own check has a clear error for that
    return _resample(values, own, shape, grid2world, name)


def _stored_affine(image, dim):
    """The affine in an image's file or header, if it has one."""
    if isinstance(image, (str, PathLike)):
        image = open_image(image)
    if not hasattr(image, "dataobj"):
        return None
    return in_plane(image.affine, dim)


def _alike(matrix, other):
    """Whether two matrices are the same but for rounding in a file's header."""
    if other is None or np.shape(matrix) != np.shape(other):
        return False
    return np.allclose(matrix, other, rtol=1e-5, atol=1e-3)


def _resample(mask, mask_grid2world, shape, grid2world, name):
    """The mask's nearest voxels on another grid, as bool."""
    dim = len(shape)
    inverse = np.linalg.inv(check_affine(mask_grid2world, dim, f"{name}: its affine"))
    counted = np.nan_to_num(np.ma.filled(mask, 0)) != 0
    found = affine_transform(
        counted.astype(np.uint8),
        inverse @ grid2world,
        output_shape=tuple(shape),
        order=0,
        mode="grid-constant",
    ).astype(bool)
    if counted.any() and not found.any():
        raise ValueError(
            f"{name} does not cover the image: through the affines of the two no "
            "voxel of the image lies in the mask."
        )
    return found
