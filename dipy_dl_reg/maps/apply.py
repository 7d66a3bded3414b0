"""Transformation of images by a map, to any grid.

By default an image of moving's world is transformed to static's; with ``inverse=True``
an image of static's world is transformed to moving's.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
from typing import Any, NamedTuple
import warnings

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.io.images import ImageLike, open_image, read_image
from dipy_dl_reg.maps.dipy_map import check_mapping
from dipy_dl_reg.maps.interpolation import (
    INTERPOLATIONS,
    choose_interpolation,
    interpolate_linearly,
    interpolate_nearest,
    should_warn_of_labels,
)
from dipy_dl_reg.validation import check_affine

#: Message about series of images, which may be diffusion data.
SERIES_MESSAGE = (
    "Each volume was transformed independently: gradient directions (b-vectors), "
    "vectors and tensors are not reoriented and remain in the subject's frame "
    "(transform_dwi, transform_tensors, transform_fods and transform_vectors "
    "reorient them)"
)


def apply_mapping(
    mapping: DiffeomorphicMap,
    image: ImageLike,
    *,
    image_grid2world: np.ndarray | None = None,
    out_shape: Sequence[int] | None = None,
    out_grid2world: np.ndarray | None = None,
    interpolation: str = "auto",
    inverse: bool = False,
) -> np.ndarray:
    """Transform an image by a map, to any grid.

    .. math:: warped(x) = image(W y(S x))

    with :math:`S` the output grid's matrix, :math:`W` the inverse of the image's, and
    :math:`y` the map from static world to moving world (from moving to static with
    `inverse`), prealign included. The image is interpolated once.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    image : ndarray, nibabel image, str or Path
        An image in moving's world (in static's with `inverse`), on any grid, of any
        type, with the dimension of the map (2D or 3D). An image with one more axis is a
        series: each volume along the last axis is transformed independently. In
        diffusion data, vectors and tensors are not reoriented, and b-vectors remain in
        the subject's frame; a message is logged. `transform_tensors`, `transform_fods`,
        `transform_vectors` and `transform_dwi` reorient them.
    image_grid2world : ndarray, shape (dim + 1, dim + 1), optional
        The image's grid-to-world matrix; by default the affine in the file. For an
        array, the default is moving's matrix (static's with `inverse`); the array must
        then have moving's (static's) shape.
    out_shape : tuple of int, optional
        Shape of the result; static's (moving's with `inverse`) by default.
    out_grid2world : ndarray, shape (dim + 1, dim + 1), optional
        Grid-to-world matrix of the result; static's (moving's with `inverse`) by
        default. It is required if `out_shape` differs from that image's shape.
    interpolation : {"auto", "linear", "nearest"}, optional
        Use "nearest" for labels and masks. "auto" is "nearest" for NIfTI images whose
        intent is labels (code 1002) and "linear" for all others, with a warning if
        they look like labels: whole numbers, most of which equal their neighbours.
    inverse : bool, optional
        Transform from static to moving.

    Returns
    -------
    warped : ndarray
        The image on the output grid; 0 outside the image. "nearest" preserves the type
        and the values. "linear" returns float32, and treats NaN and infinities as
        missing data: each voxel is the weighted mean of its valid neighbours, and NaN
        if the valid neighbours have less than half of the weight.

    Raises
    ------
    ValueError
        If the interpolation is unknown, a matrix is not affine and invertible, or a
        shape does not fit its grid.

    Warns
    -----
    UserWarning
        If "auto" interpolates linearly an image that looks like labels.

    See Also
    --------
    transform_streamlines, transform_tractogram : points move in the opposite direction.
    transform_tensors, transform_fods, transform_vectors, transform_dwi :
        images of directions.
    apply_epi_correction : also restores the density of the signal.
    read_mapping : maps of other programs.

    Notes
    -----
    Unlike ``mapping.transform`` this accepts any type (unsigned bytes, booleans, long
    integers, big-endian, read-only or strided memory), and one NaN does not make its
    neighbours NaN. For a finite image the result is the same.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import DeepRegistration, apply_mapping
    >>> x, y = np.mgrid[-1:1:32j, -1:1:32j]
    >>> static, moving = np.exp(-8 * (x**2 + y**2)), np.exp(-8 * (x**2 + 2 * y**2))
    >>> mapping = DeepRegistration("SSD").optimize(static=static, moving=moving)

    Labels are transformed with the nearest neighbour, and may be on any grid of
    moving's world, here one of half the voxel size:

    >>> labels = np.kron(moving > 0.5, np.ones((2, 2), dtype=int))
    >>> warped = apply_mapping(
    ...     mapping,
    ...     labels,
    ...     image_grid2world=np.diag([0.5, 0.5, 1]),
    ...     interpolation="nearest",
    ... )
    >>> warped.shape, np.unique(warped)
    ((32, 32), array([0, 1]))
    """
    check_mapping(mapping)
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            'interpolation must be "auto", "linear" or "nearest", got '
            f"{interpolation!r}"
        )
    if isinstance(image, (str, os.PathLike)):
        image = open_image(image)
    chosen = choose_interpolation(interpolation, image)
    data, image_grid2world = read_image(image, image_grid2world)
    warped = transform_array(
        mapping,
        data,
        image_grid2world=image_grid2world,
        out_shape=out_shape,
        out_grid2world=out_grid2world,
        interpolation=chosen,
        inverse=inverse,
    )
    if should_warn_of_labels(interpolation, chosen, data, mapping.dim):
        warnings.warn(
            "image seems to contain labels or a mask, but was interpolated linearly: "
            'give interpolation="nearest", or "linear" if this is intended',
            UserWarning,
            stacklevel=2,
        )
    if data.ndim > mapping.dim == 3:
        logger.info(f"{SERIES_MESSAGE}.")
    return warped


def transform_array(
    mapping: DiffeomorphicMap,
    image: np.ndarray,
    *,
    image_grid2world: np.ndarray | None = None,
    out_shape: Sequence[int] | None = None,
    out_grid2world: np.ndarray | None = None,
    interpolation: str = "linear",
    inverse: bool = False,
) -> np.ndarray:
    """Transform an array by a map, without messages about labels and series.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    image : ndarray
        The values.
    image_grid2world, out_shape, out_grid2world : optional
        As in `apply_mapping`.
    interpolation : {"linear", "nearest"}, optional
        As in `apply_mapping`.
    inverse : bool, optional
        As in `apply_mapping`.

    Returns
    -------
    warped : ndarray
        The image on the output grid.

    Raises
    ------
    ValueError
        If the image does not fit the map, or a shape does not fit its grid.
    """
    _check_image(image, mapping.dim)
    found = find_grids(
        mapping, image.shape, image_grid2world, out_shape, out_grid2world, inverse
    )
    grids: dict[str, Any] = {
        "image_world2grid": np.linalg.inv(found.image_grid2world),
        # `transform_inverse` of a map that is not in SyN's form accepts no tuple.
        "out_shape": np.array(found.out_shape, dtype=np.int32),
        "out_grid2world": found.out_grid2world,
    }
    transform = mapping.transform_inverse if inverse else mapping.transform
    if interpolation == "nearest":
        return interpolate_nearest(transform, image, mapping.dim, **grids)
    if image.ndim == mapping.dim:
        return interpolate_linearly(transform, image, **grids)
    warped = np.empty((*grids["out_shape"], image.shape[-1]), dtype=np.float32)
    for k in range(image.shape[-1]):
        warped[..., k] = interpolate_linearly(transform, image[..., k], **grids)
    return warped


def _check_image(image: np.ndarray, dim: int) -> None:
    """Check that an array is an image of the map's dimension, or a series."""
    if image.ndim not in (dim, dim + 1):
        raise ValueError(
            f"image must have {dim} axes, or {dim + 1} for a series, as the map is "
            f"{dim}D; got shape {image.shape}"
        )
    if 0 in image.shape[:dim]:
        raise ValueError(f"image must have voxels, got shape {image.shape}")
    if image.dtype.kind not in "biuf":
        raise ValueError(f"image must hold real numbers, got {image.dtype}")


class ResamplingGrids(NamedTuple):
    """Grids of an image and of its result, when a map is applied.

    Attributes
    ----------
    image_grid2world : ndarray, shape (dim + 1, dim + 1)
        Grid-to-world matrix of the image.
    out_shape : tuple of int
        Shape of the result.
    out_grid2world : ndarray, shape (dim + 1, dim + 1)
        Grid-to-world matrix of the result.
    """

    image_grid2world: np.ndarray
    out_shape: tuple[int, ...]
    out_grid2world: np.ndarray


def find_grids(
    mapping: DiffeomorphicMap,
    image_shape: Sequence[int],
    image_grid2world: np.ndarray | None = None,
    out_shape: Sequence[int] | None = None,
    out_grid2world: np.ndarray | None = None,
    inverse: bool = False,
) -> ResamplingGrids:
    """Find the grids of an image and of its result, which a map has by default.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    image_shape : tuple of int
        Shape of the image; axes beyond the map's dimension are not considered.
    image_grid2world, out_shape, out_grid2world : optional
        As in `apply_mapping`.
    inverse : bool, optional
        As in `apply_mapping`.

    Returns
    -------
    grids : ResamplingGrids
        The grids.

    Raises
    ------
    ValueError
        If a matrix is not affine and invertible, or a shape does not fit its grid.
    """
    dim = mapping.dim
    sides = ["domain", "codomain"]
    if bool(mapping.is_inverse) == inverse:
        sides.reverse()
    own_shape, own_out_shape = (
        tuple(int(n) for n in getattr(mapping, f"{side}_shape")) for side in sides
    )
    own_grid, own_out_grid = (getattr(mapping, f"{side}_grid2world") for side in sides)
    image_shape = tuple(image_shape[:dim])
    if image_grid2world is None and image_shape != own_shape:
        raise ValueError(
            f"image has shape {image_shape}, and the map's own image {own_shape}: "
            "give its image_grid2world"
        )
    shape = own_out_shape if out_shape is None else _check_shape(out_shape, dim)
    if out_grid2world is None and shape != own_out_shape:
        raise ValueError(
            f"out_shape {shape} is not the map's own {own_out_shape}: give "
            "out_grid2world too"
        )
    image_grid = _first_matrix(image_grid2world, own_grid, dim)
    out_grid = _first_matrix(out_grid2world, own_out_grid, dim)
    return ResamplingGrids(
        check_affine(image_grid, dim, "image_grid2world"),
        shape,
        check_affine(out_grid, dim, "out_grid2world"),
    )


def _first_matrix(
    matrix: np.ndarray | None, other: np.ndarray | None, dim: int
) -> np.ndarray:
    """The first of two matrices that is not None; the identity if both are."""
    if matrix is not None:
        return matrix
    return np.eye(dim + 1) if other is None else other


def _check_shape(shape: Sequence[int], dim: int) -> tuple[int, ...]:
    """The shape as a tuple of `dim` positive integers."""
    numbers = np.atleast_1d(np.asarray(shape))
    if numbers.shape != (dim,) or numbers.dtype.kind not in "iu" or numbers.min() < 1:
        raise ValueError(f"out_shape must be {dim} positive integers, got {shape}")
    return tuple(int(n) for n in numbers)
