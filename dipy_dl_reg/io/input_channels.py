"""Reads an image of several channels from files, NIfTI images or arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dipy_dl_reg.io.input_image import InputImage, read_input_image
from dipy_dl_reg.io.resampling import resample_array
from dipy_dl_reg.validation import check_affine

#: A voxel of a resampled channel is missing if less than this part of its value comes
#: from valid voxels.
_LEAST_VALID = 0.5


def read_input_channels(
    images: Sequence[Any],
    grid2world: Any = None,
    masks: Any = None,
    *,
    name: str,
) -> list[InputImage]:
    """Read the channels of an image, and resample them to the grid of the first.

    Parameters
    ----------
    images : sequence of str, Path, nibabel image or array
        The channels.
    grid2world : array, or sequence of array or None, optional
        Voxels to world: one matrix for all channels, or one for each; by default the
        affines in the files.
    masks : str, Path, nibabel image, array, or sequence of these or None, optional
        One mask for all channels, or one for each; see `read_mask`.  A mask in an array
        has the grid of its channel; one mask for all has that of the first channel.
    name : str
        Name of the image in error messages.

    Returns
    -------
    channels : list of InputImage
        Values, matrix and mask of each, all on the grid of the first.  Voxels outside
        the field of view of a channel are NaN in this channel.

    Raises
    ------
    ValueError
        If there is no channel, the numbers of matrices or masks differ from that of the
        channels, a channel of another shape has no matrix, or an image is invalid.
    FileNotFoundError
        If a file is missing.
    """
    count = len(images)
    if not count:
        raise ValueError(f"{name} must have at least one image, got none.")
    matrices = _one_for_each(grid2world, count, f"{name}_affine")
    each = _one_for_each(masks, count, f"{name}_mask")
    common = masks is not None and not isinstance(masks, (list, tuple))
    read = []
    for k, (image, matrix, mask) in enumerate(zip(images, matrices, each)):
        own = None if common and k else mask
        read.append(read_input_image(image, matrix, own, name=_channel_name(name, k)))
    first = read[0]
    read = [_on_grid_of(first, channel, _channel_name(name, k))
            for k, channel in enumerate(read)]  # fmt: skip
    if common:
        read = [channel._replace(mask=first.mask) for channel in read]
    return read


def _channel_name(name: str, index: int) -> str:
    """Name of a channel in error messages."""
    return name if index == 0 else f"{name} (channel {index + 1})"


def _one_for_each(value: Any, count: int, name: str) -> list[Any]:
    """A value for each channel, from one for all or a sequence."""
    if not isinstance(value, (list, tuple)) or np.ndim(value[:1]) == 2:
        return [value] * count
    if len(value) != count:
        raise ValueError(
            f"{name} must be one for all {count} channels or one for each, got "
            f"{len(value)}."
        )
    return list(value)


def _on_grid_of(first: InputImage, channel: InputImage, name: str) -> InputImage:
    """A channel on the grid of the first one."""
    shape = np.shape(first.values)
    if channel.grid2world is None or first.grid2world is None:
        if np.shape(channel.values) == shape:
            return channel._replace(grid2world=first.grid2world)
        raise ValueError(
            f"{name} must have the shape of the first channel, {shape}, or both must "
            f"have an affine, got shape {np.shape(channel.values)}."
        )
    same = np.shape(channel.grid2world) == np.shape(first.grid2world)
    if same and np.shape(channel.values) == shape:
        if np.allclose(channel.grid2world, first.grid2world, rtol=1e-5, atol=1e-3):
            return channel._replace(grid2world=first.grid2world)
    dim = len(shape)
    if np.ndim(channel.values) != dim:
        raise ValueError(
            f"{name} must be {dim}D like the first channel, got shape "
            f"{np.shape(channel.values)}."
        )
    own = check_affine(channel.grid2world, dim, f"the affine of {name}")
    matrix = np.linalg.inv(own) @ check_affine(first.grid2world, dim, f"{name}_affine")
    mask = channel.mask
    if mask is not None:
        inside = (np.asarray(mask) != 0).astype(np.uint8)
        mask = resample_array(inside, matrix, shape, order=0, mode="grid-constant") > 0
    return InputImage(_resample(channel.values, matrix, shape), first.grid2world, mask)


def _resample(
    image: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """Interpolate linearly between valid voxels; NaN outside the field of view."""
    values = np.asarray(image, dtype=np.float64)
    valid = np.isfinite(values)
    part, total = (
        resample_array(array, matrix, shape, mode="grid-constant")
        for array in (valid.astype(np.float64), np.where(valid, values, 0))
    )
    seen = part >= _LEAST_VALID
    return np.where(seen, total / np.where(seen, part, 1), np.nan)
