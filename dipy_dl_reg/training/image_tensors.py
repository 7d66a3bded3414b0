"""Checks arrays of images and label maps, and converts them to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dipy_dl_reg.geometry.intensity import quantile_limits, scale_intensities
from dipy_dl_reg.networks.array_file import to_array

#: Description of the scaling of intensities, for a network's card.
INTENSITY = "quantiles .001 and .999 to 0 and 1, NaN to 0"


def normalize(image: Any) -> torch.Tensor:
    """Scale intensities so that the quantiles .001 and .999 become 0 and 1.

    Parameters
    ----------
    image : array, shape (*shape)
        Real numbers; NaN is missing data and becomes 0.

    Returns
    -------
    scaled : Tensor of float32, shape (*shape)
        In about [0, 1].

    Raises
    ------
    ValueError
        If the image is constant, or has an infinite value.
    """
    image = as_array(image).astype(np.float64)
    values = image[~np.isnan(image)]
    if not np.isfinite(values).all():
        raise ValueError("image has infinite values.")
    if not values.size or values.min() == values.max():
        raise ValueError("image is constant and cannot be registered.")
    low, high = quantile_limits(values)
    scaled = np.nan_to_num(scale_intensities(image, low, high), nan=0.0)
    return torch.from_numpy(scaled.astype(np.float32))


def as_array(image: Any) -> np.ndarray:
    """Convert an image to an array.

    Parameters
    ----------
    image : array or Tensor
        A tensor on any device, whether it requires a gradient or not.

    Returns
    -------
    array : ndarray
        The same numbers.
    """
    return to_array(image) if isinstance(image, torch.Tensor) else np.asarray(image)


def image_tensors(
    images: Sequence[Any], name: str, normalized: bool
) -> list[torch.Tensor]:
    """Convert images to tensors.

    Parameters
    ----------
    images : sequence of array, shape (*shape)
        2D or 3D.
    name : str
        Name of the parameter, for errors.
    normalized : bool
        If True, intensities are not changed; otherwise they are scaled by `normalize`.

    Returns
    -------
    tensors : list of Tensor of float32, shape (1, *shape)
        A tensor for each image.

    Raises
    ------
    ValueError
        If there is no image, or an image cannot be used.
    """
    if len(images) == 0:
        raise ValueError(f"{name} must hold at least one image, got none.")
    return [_image_tensor(image, name, normalized) for image in images]


def _image_tensor(image: Any, name: str, normalized: bool) -> torch.Tensor:
    """One image as a tensor ``(1, *shape)``."""
    image = as_array(image)
    if image.ndim not in (2, 3) or image.dtype.kind not in "buif":
        raise ValueError(
            f"{name} must be 2D or 3D images of real numbers, got one of shape "
            f"{image.shape} and dtype {image.dtype}."
        )
    if not normalized:
        try:
            return normalize(image)[None]
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if not np.isfinite(image).all():
        raise ValueError(f"{name} must be finite once normalized, got NaN or infinity.")
    return torch.from_numpy(np.array(image[None], dtype=np.float32))


def label_tensors(
    labels: Sequence[Any] | None, images: list[torch.Tensor], name: str
) -> list[torch.Tensor] | None:
    """Convert label maps to tensors.

    Parameters
    ----------
    labels : sequence of array of int, shape (*shape), or None
        A label map for each image.
    images : list of Tensor, shape (1, *shape)
        The images.
    name : str
        Name of the parameter, for errors.

    Returns
    -------
    tensors : list of Tensor of int32, shape (1, *shape), or None
        None if there are no label maps.

    Raises
    ------
    ValueError
        If label maps are missing, differ in shape from their images, or are not whole
        numbers.
    """
    if labels is None:
        return None
    if len(labels) != len(images):
        raise ValueError(
            f"{name} must have a map for each of {len(images)} images, got "
            f"{len(labels)}."
        )
    return [_label_tensor(m, image, name) for m, image in zip(labels, images)]


def _label_tensor(labels: Any, image: torch.Tensor, name: str) -> torch.Tensor:
    """One label map as whole numbers ``(1, *shape)``."""
    labels = as_array(labels)
    with np.errstate(invalid="ignore"):
        whole = np.array(labels[None], dtype=np.int32)
    if not np.array_equal(whole[0], labels):
        raise ValueError(f"{name} must be whole numbers, got dtype {labels.dtype}.")
    if whole.shape != tuple(image.shape):
        raise ValueError(
            f"{name} must have the shape of their images, {tuple(image.shape[1:])}, "
            f"got {labels.shape}."
        )
    return torch.from_numpy(whole)


def check_one_shape(images: Sequence[torch.Tensor], name: str) -> None:
    """Check that images have the same shape.

    Parameters
    ----------
    images : sequence of Tensor, shape (1, *shape)
        The images.
    name : str
        Name of the parameter, for errors.

    Raises
    ------
    ValueError
        If they differ.
    """
    shapes = {tuple(image.shape[1:]) for image in images}
    if len(shapes) > 1:
        raise ValueError(f"{name} must have the same shape, got {sorted(shapes)}.")
