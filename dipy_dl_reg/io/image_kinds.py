"""Special types of images: slices, colour images, labels, missing values."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np

#: An image of whole numbers is considered a label map if more than this fraction of
#: neighbouring voxels have the same value.  This fraction is .74 or more in label maps
#: of brains, and at most .30 in images stored as whole numbers (T1, b0, FLAIR, heads
#: with noise in the background).
_EQUAL_NEIGHBOURS = 0.5
#: NIfTI's intent code of label images.
_LABELS = 1002


def replace_signalling_nan(data: np.ndarray) -> np.ndarray:
    """Replace signalling NaN, whose cast gives a warning, by quiet NaN.

    Parameters
    ----------
    data : ndarray
        Values of any type.

    Returns
    -------
    data : ndarray
        The same array if it holds no NaN, else a copy.
    """
    if data.dtype.kind != "f":
        return data
    missing = np.isnan(data)
    return np.where(missing, data.dtype.type(np.nan), data) if missing.any() else data


def check_no_colour(dtype: np.dtype, name: str) -> None:
    """Check that an image holds numbers and not colours.

    Parameters
    ----------
    dtype : dtype
        Type of its voxels; RGB and RGBA of NIfTI have named fields.
    name : str
        Name of the image in the error message.

    Raises
    ------
    ValueError
        If voxels have several channels.
    """
    if dtype.names:
        raise ValueError(
            f"{name} is a colour image ({''.join(dtype.names)}) and must hold one real "
            "number in each voxel: convert it to grey values, or take one channel"
        )


def is_slice(shape: tuple[int, ...]) -> bool:
    """Whether a shape is the shape of a single slice.

    Parameters
    ----------
    shape : tuple of int
        Shape of an image.

    Returns
    -------
    single : bool
        True for (X, Y) and (X, Y, 1).
    """
    return len(shape) == 2 or (len(shape) == 3 and shape[2] == 1)


def slice_affine(matrix: Any, dim: int = 2) -> Any:
    """Reduce the 4x4 matrix of a slice to the slice's plane.

    The third grid axis is dropped, and so is the world axis nearest to the slice's
    normal: z of an axial slice, y of a coronal and x of a sagittal one.

    Parameters
    ----------
    matrix : ndarray or None
        Grid-to-world matrix; that of a file has shape (4, 4).
    dim : int, optional
        Dimension of the image.

    Returns
    -------
    matrix : ndarray or None
        Shape (3, 3) if it was (4, 4) and the image is 2D; otherwise unchanged.
    """
    if dim == 2 and np.shape(matrix) == (4, 4):
        matrix = np.asarray(matrix)
        return matrix[np.ix_([*plane_axes(matrix), 3], [0, 1, 3])]
    return matrix


def plane_axes(matrix: np.ndarray) -> list[int]:
    """Find the two world axes along which a slice lies.

    Parameters
    ----------
    matrix : ndarray, shape (4, 4)
        Grid to world of the slice, which extends along the first two grid axes.

    Returns
    -------
    axes : list of int
        Two of 0, 1, 2, in ascending order.
    """
    matrix = np.asarray(matrix)
    normal = np.abs(np.cross(matrix[:3, 0], matrix[:3, 1]))
    through = int(normal.argmax()) if normal.max() > 0 else 2
    return [axis for axis in range(3) if axis != through]


def match_dimensions(
    static: np.ndarray,
    moving: np.ndarray,
    static_grid2world: np.ndarray | None = None,
    moving_grid2world: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Make two slices 2D for their registration; leave all other images as they are.

    A slice and a volume are left as they are because they can be registered in 3D.

    Parameters
    ----------
    static, moving : ndarray
        The images.
    static_grid2world, moving_grid2world : ndarray, optional
        Their grid-to-world matrices.

    Returns
    -------
    static, moving : ndarray
        Without their last axis if both are of shape (X, Y, 1), or one is and the other
        is (X, Y).
    static_grid2world, moving_grid2world : ndarray or None
        The matrices, reduced to the plane then (see `slice_affine`).

    Raises
    ------
    ValueError
        If two slices have different orientations.
    """
    images, matrices = [static, moving], [static_grid2world, moving_grid2world]
    if all(is_slice(image.shape) for image in images):
        check_planes(*matrices)
        images = [image.reshape(image.shape[:2]) for image in images]
        matrices = [slice_affine(matrix) for matrix in matrices]
    return images[0], images[1], matrices[0], matrices[1]


def check_planes(
    static_grid2world: np.ndarray | None, moving_grid2world: np.ndarray | None
) -> None:
    """Check that two slices have the same orientation.

    Parameters
    ----------
    static_grid2world, moving_grid2world : ndarray or None
        Their matrices; a plane's orientation is known from (4, 4) matrices only.

    Raises
    ------
    ValueError
        If the slices lie along different axes of the world.
    """
    matrices: list[Any] = [static_grid2world, moving_grid2world]
    if any(np.shape(matrix) != (4, 4) for matrix in matrices):
        return
    axes = ["".join("xyz"[a] for a in plane_axes(matrix)) for matrix in matrices]
    if axes[0] != axes[1]:
        raise ValueError(
            "static and moving are slices of different orientations: static lies along "
            f"the world's {axes[0]}, moving along {axes[1]}"
        )


def declares_labels(image: Any) -> bool:
    """Whether the header of an image declares labels.

    Parameters
    ----------
    image : nibabel image or ndarray
        The image.

    Returns
    -------
    labels : bool
        True if its NIfTI header has the intent code 1002.
    """
    header = getattr(image, "header", None)
    return (
        isinstance(header, nib.Nifti1Header) and int(header["intent_code"]) == _LABELS
    )


def looks_like_labels(image: np.ndarray) -> bool:
    """Whether an array seems to hold labels or a mask, not intensities.

    Parameters
    ----------
    image : ndarray
        Values on a grid of two or more axes.

    Returns
    -------
    labels : bool
        True for booleans, and for whole numbers (of any type) of which more than half
        equal their neighbour along an axis.  The most frequent value is background and
        is not counted.
    """
    if image.dtype.kind not in "iuf" or not _are_whole_numbers(image):
        return image.dtype.kind == "b"
    values, counts = np.unique(image, return_counts=True)
    inside = (image != values[counts.argmax()]) & ~np.isnan(image)
    equal = pairs = 0
    for axis in range(image.ndim):
        image, inside = np.moveaxis(image, axis, 0), np.moveaxis(inside, axis, 0)
        both = inside[1:] & inside[:-1]
        pairs += int(np.count_nonzero(both))
        equal += int(np.count_nonzero(both & (image[1:] == image[:-1])))
        image, inside = np.moveaxis(image, 0, axis), np.moveaxis(inside, 0, axis)
    return equal > _EQUAL_NEIGHBOURS * pairs


def _are_whole_numbers(image: np.ndarray) -> bool:
    """Whether there are finite values, and all of them are whole numbers."""
    if image.dtype.kind != "f":
        return image.size > 0
    few = image.ravel()[:: max(1, image.size // 1000)]  # enough for most images
    for values in (few, image):
        known = values[np.isfinite(values)]
        if not known.size or not np.array_equal(known, np.rint(known)):
            return False
    return True
