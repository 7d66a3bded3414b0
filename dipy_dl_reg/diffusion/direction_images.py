"""Images of directions as channels that can be compared.

The first channel does not depend on directions; the others do.  All are scaled so that
two images of different acquisitions can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dipy_dl_reg.diffusion.frames import choose_frame, frame_to_world
from dipy_dl_reg.diffusion.resampling import find_known
from dipy_dl_reg.diffusion.tensor_components import TensorImage, split_tensors
from dipy_dl_reg.io.input_image import InputImage, read_input_image

#: Weights with which the sum of squares of a tensor's components, in DIPY's order, is
#: its squared Frobenius norm.
TENSOR_WEIGHTS = (1, 2, 1, 2, 2, 1)
#: Components of a tensor on its diagonal, in DIPY's order.
_DIAGONAL = [0, 2, 5]


class DirectionImage(NamedTuple):
    """An image of directions, as channels that can be compared.

    Attributes
    ----------
    channels : ndarray of float32, shape (X, Y, Z, 1 + C)
        A channel without directions, such as FA, and C components; 0 in the background.
    affine : ndarray, shape (4, 4)
        Voxels to world, mm.
    mask : ndarray or None
        Only voxels other than 0 are compared.
    axes : ndarray, shape (3, 3)
        From the axes of the components to those of the world.
    """

    channels: np.ndarray
    affine: np.ndarray
    mask: np.ndarray | None
    axes: np.ndarray


def read_direction_images(
    images: tuple[Any, Any],
    affines: tuple[np.ndarray | None, np.ndarray | None],
    masks: tuple[Any, Any],
) -> tuple[InputImage, InputImage]:
    """Read moving and static images of directions, with both affines.

    Parameters
    ----------
    images : tuple of ndarray, nibabel image, str, Path or TensorFit
        Moving and static.
    affines : tuple of ndarray or None
        Their voxel-to-world matrices; by default those in the files, and the identity
        for two arrays.
    masks : tuple of ndarray, nibabel image, str, Path or None
        Their masks.

    Returns
    -------
    moving, static : InputImage
        With a matrix each.

    Raises
    ------
    ValueError
        If an image cannot be used, or only one of them has an affine.
    FileNotFoundError
        If a file is missing.
    """
    read = []
    for role, image, affine, mask in zip(("moving", "static"), images, affines, masks):
        image = getattr(image, "quadratic_form", image)  # of a TensorFit
        read.append(read_input_image(image, affine, mask, name=role))
    without = [image.grid2world is None for image in read]
    if without[0] != without[1]:
        role = "moving" if without[0] else "static"
        raise ValueError(
            f"{role}_affine is required: {role} is an array without an affine, but the "
            "other image has an affine."
        )
    if all(without):
        read = [image._replace(grid2world=np.eye(4)) for image in read]
    return read[0], read[1]


def affines_of(images: Sequence[InputImage]) -> list[np.ndarray]:
    """List the affines of images.

    Parameters
    ----------
    images : sequence of InputImage
        The images.

    Returns
    -------
    affines : list of ndarray, shape (4, 4)
        Voxels to world; the identity for an array without a matrix.
    """
    return [
        np.eye(4) if image.grid2world is None else image.grid2world for image in images
    ]


def choose_tensor_frame(
    images: tuple[InputImage, InputImage], order: str, frame: str | None
) -> str:
    """Choose the frame of two images of tensors, as `transform_tensors` does.

    Parameters
    ----------
    images : tuple of InputImage
        Moving and static tensors.
    order : {"dipy", "fsl", "mrtrix"}
        Order of six components.
    frame : {"voxel", "fsl", "world"} or None
        The user's value.

    Returns
    -------
    frame : {"voxel", "fsl", "world"}
        The frame; see `choose_frame`.

    Raises
    ------
    ValueError
        If the frame or the order is unknown, an image holds no tensors, or `frame` is
        None and the defaults of the two images differ.
    """
    moving, static = (
        _read_tensors(image, order, name).default_frame
        for image, name in zip(images, ("moving", "static"))
    )
    if frame is None and moving != static:
        raise ValueError(
            f"frame must be given: by default, moving is in the frame {moving!r} and "
            f"static in {static!r}"
        )
    return choose_frame(frame, *affines_of(images), default=moving)


def make_tensor_images(
    images: tuple[InputImage, InputImage], order: str, frame: str
) -> tuple[DirectionImage, DirectionImage]:
    """Convert tensors to FA and deviatoric tensors, whose norm is FA.

    Parameters
    ----------
    images : tuple of InputImage
        Moving and static tensors.
    order : {"dipy", "fsl", "mrtrix"}
        Order of six components.
    frame : {"voxel", "fsl", "world"}
        Axes in which they are given.

    Returns
    -------
    moving, static : DirectionImage
        As from `tensor_channels`.

    Raises
    ------
    ValueError
        If an image holds no tensors, or is zero or NaN everywhere.
    """
    made = []
    for image, name in zip(images, ("moving", "static")):
        components = _read_tensors(image, order, name).components
        valid = np.isfinite(components).all(-1) & (components != 0).any(-1)
        find_known(valid, None, name)
        made.append(with_channels(image, tensor_channels(components), frame))
    return made[0], made[1]


def _read_tensors(image: InputImage, order: str, name: str) -> TensorImage:
    """Read the tensors of an image."""
    try:
        return split_tensors(image.values, order)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def with_channels(
    image: InputImage, channels: np.ndarray, frame: str
) -> DirectionImage:
    """Combine channels with the geometry and the mask of an image.

    Parameters
    ----------
    image : InputImage
        The image from which the channels were computed.
    channels : ndarray, shape (X, Y, Z, 1 + C)
        The channels.
    frame : {"voxel", "fsl", "world"}
        Axes in which the image's directions are given.

    Returns
    -------
    image : DirectionImage
        The channels with affine, mask and axes.
    """
    (affine,) = affines_of([image])
    return DirectionImage(channels, affine, image.mask, frame_to_world(affine, frame))


def tensor_channels(components: np.ndarray) -> np.ndarray:
    """Compute FA and the deviatoric part of tensors, scaled so that its norm is FA.

    Parameters
    ----------
    components : ndarray, shape (..., 6)
        Tensors in DIPY's order.

    Returns
    -------
    channels : ndarray of float32, shape (..., 7)
        FA and six components; 0 where a tensor is 0 or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg.diffusion.direction_images import tensor_channels
    >>> tensor_channels(np.array([1e-3, 0, 0, 0, 0, 0])).round(2)
    array([ 1.  ,  0.82,  0.  , -0.41,  0.  ,  0.  , -0.41], dtype=float32)
    """
    tensors = np.array(components, dtype=np.float64)
    tensors[~np.isfinite(tensors).all(-1)] = 0
    norm = _frobenius_norm(tensors)
    tensors[..., _DIAGONAL] -= tensors[..., _DIAGONAL].mean(-1, keepdims=True)
    tensors *= np.sqrt(1.5) / np.where(norm > 0, norm, 1)[..., None]
    # Tensors with negative eigenvalues have an FA above 1.
    fa = _frobenius_norm(tensors)
    tensors /= np.maximum(fa, 1)[..., None]
    channels = np.concatenate([np.minimum(fa, 1)[..., None], tensors], axis=-1)
    return channels.astype(np.float32)


def _frobenius_norm(tensors: np.ndarray) -> np.ndarray:
    """Frobenius norm of tensors in DIPY's order."""
    return np.sqrt(np.square(tensors) @ np.array(TENSOR_WEIGHTS, dtype=np.float64))
