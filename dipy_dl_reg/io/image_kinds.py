"""Kinds of images that need care: slices, colours, labels, and missing values."""

import nibabel as nib
import numpy as np

#: Share of neighbouring voxels with the same value above which whole numbers are taken
#: for labels: label maps of brains have .74 and more, images stored as whole numbers
#: (T1, b0, FLAIR, heads with noise around) at most .30.
_ALIKE = 0.5
#: NIfTI's intent code of label images.
_LABELS = 1002


def quiet_nan(data):
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


def refuse_colour(dtype, name):
    """Raise if an image holds colours instead of numbers.

    Parameters
    ----------
    dtype : dtype
        That of its voxels; NIfTI's RGB and RGBA have named fields.
    name : str
        What the error calls the image.

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


def is_slice(shape):
    """Whether a shape is that of a single slice.

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


def in_plane(matrix, dim=2):
    """The matrix of a slice without the axis that it does not have.

    The world axis that is left out is the one nearest to the slice's normal: z of an
    axial slice, y of a coronal and x of a sagittal one.

    Parameters
    ----------
    matrix : ndarray or None
        Grid to world; files have (4, 4).
    dim : int, optional
        Dimension of the image.

    Returns
    -------
    matrix : ndarray or None
        Shape (3, 3) if it was (4, 4) and the image is 2D, else the same.
    """
    if dim == 2 and np.shape(matrix) == (4, 4):
        matrix = np.asarray(matrix)
        return matrix[np.ix_([*plane_of(matrix), 3], [0, 1, 3])]
    return matrix


def plane_of(matrix):
    """The two world axes along which a slice lies.

    Parameters
    ----------
    matrix : ndarray, shape (4, 4)
        Grid to world of the slice, which extends along the first two grid axes.

    Returns
    -------
    axes : list of int
        Two of 0, 1, 2, in this order.
    """
    matrix = np.asarray(matrix)
    normal = np.abs(np.cross(matrix[:3, 0], matrix[:3, 1]))
    through = int(normal.argmax()) if normal.max() > 0 else 2
    return [axis for axis in range(3) if axis != through]


def match_dimensions(static, moving, static_grid2world=None, moving_grid2world=None):
    """Two images as they are registered: two slices in 2D, all others as they are.

    A single slice and a volume stay as they are: they may be registered in 3D.

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
        The matrices, of the plane then (see `in_plane`).

    Raises
    ------
    ValueError
        If two slices are of unlike orientation.
    """
    images, matrices = [static, moving], [static_grid2world, moving_grid2world]
    if all(is_slice(image.shape) for image in images):
        check_planes(*matrices)
        images = [image.reshape(image.shape[:2]) for image in images]
        matrices = [in_plane(matrix) for matrix in matrices]
    return (*images, *matrices)


def check_planes(static_grid2world, moving_grid2world):
    """Raise if two slices have different orientations.

    Parameters
    ----------
    static_grid2world, moving_grid2world : ndarray or None
        Their matrices; one that is not (4, 4) says nothing of a plane.

    Raises
    ------
    ValueError
        If the slices lie along other axes of the world.
    """
    matrices = [static_grid2world, moving_grid2world]
    if any(np.shape(matrix) != (4, 4) for matrix in matrices):
        return
    axes = ["".join("xyz"[a] for a in plane_of(matrix)) for matrix in matrices]
    if axes[0] != axes[1]:
        raise ValueError(
            "static and moving are slices of unlike orientation: static lies along the "
            f"world's {axes[0]}, moving along {axes[1]}"
        )


def declares_labels(image):
    """Whether an image's header declares labels.

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


def looks_like_labels(image):
    """Whether an array holds labels or a mask rather than intensities.

    Parameters
    ----------
    image : ndarray
        Values on a grid of two or more axes.

    Returns
    -------
    labels : bool
        True for booleans, and for whole numbers (of whatever type) more than half of
        which equal their neighbour along an axis.  The most frequent value is
        background, and is not counted.
    """
    if image.dtype.kind not in "iuf" or not _whole(image):
        return image.dtype.kind == "b"
    values, counts = np.unique(image, return_counts=True)
    inside = (image != values[counts.argmax()]) & ~np.isnan(image)
    alike = pairs = 0
    for axis in range(image.ndim):
        image, inside = np.moveaxis(image, axis, 0), np.moveaxis(inside, axis, 0)
        both = inside[1:] & inside[:-1]
        pairs += np.count_nonzero(both)
        alike += np.count_nonzero(both & (image[1:] == image[:-1]))
        image, inside = np.moveaxis(image, 0, axis), np.moveaxis(inside, 0, axis)
    return alike > _ALIKE * pairs


def _whole(image):
    """Whether there are values, all of them whole numbers but for missing ones."""
    if image.dtype.kind != "f":
        return image.size > 0
    few = image.ravel()[:: max(1, image.size // 1000)]  # enough for most images
    for values in (few, image):
        known = values[np.isfinite(values)]
        if not known.size or not np.array_equal(known, np.rint(known)):
            return False
    return True
