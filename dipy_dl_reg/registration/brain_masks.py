"""Detect a stripped brain beside a whole head, and give the mask that it needs.

Scalp, skull and neck of a head have no counterpart in a brain without skull: without a
mask, an affine registration enlarges the brain to the size of the head.  Within a mask
of the brain the two are comparable.

An image counts as stripped if everything near its object has one constant value; around
a head as the scanner measured it there is noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_fill_holes, distance_transform_edt, label

from dipy_dl_reg.geometry.intensity import quantile_limits
from dipy_dl_reg.grid import Grid

#: Both images are inspected on about this many voxels along the longest axis.
_SIZE, _SIZE_OF_MASK = 56, 112
#: Part of the intensity range above which there is an object, and within which two
#: background values count as equal.
_OBJECT, _EQUAL = 0.1, 1e-3
#: Least part of constant voxels in the shell around the object of a stripped image.
#: Stripped brains have .99 and more, whole heads .84 at most.
_CONSTANT = 0.95
#: Inner and outer distance of that shell, in inspected voxels.
_SHELL = (1.2, 4.0)
#: Least volume of the other object over that of the brain: a head may be cut by the
#: field of view, and a template is larger than most brains.
_LEAST_RATIO = 0.7
#: Margin of the mask around the brain, as a part of the longest side (2 mm of a head).
_MARGIN = 0.01


class _Object(NamedTuple):
    """The largest connected object of an image."""

    volume: float  # in the cube of the unit of length
    is_stripped: bool


def find_brain_mask(
    images: Sequence[np.ndarray], grids: Sequence[Grid]
) -> tuple[int | None, np.ndarray | None]:
    """Mask of the stripped brain if the other image shows a whole head.

    Parameters
    ----------
    images : tuple of ndarray, 3D
        Static and moving; NaN is missing data.
    grids : tuple of Grid
        Grids of the two.

    Returns
    -------
    index : int or None
        Which of the two is stripped; None if no mask is needed: both images are
        stripped, or neither is, or the other one shows a much smaller object.
    mask : ndarray of bool, or None
        The brain with a margin of 1 % of the image's longest side.
    """
    if any(image.ndim != 3 or min(image.shape) < 8 for image in images):
        return None, None
    objects = [_find_object(*given) for given in zip(images, grids)]
    constant = not all(found.volume for found in objects)
    if constant or objects[0].is_stripped == objects[1].is_stripped:
        return None, None
    index = 0 if objects[0].is_stripped else 1
    if objects[1 - index].volume < _LEAST_RATIO * objects[index].volume:
        return None, None
    return index, _mask_with_margin(images[index], grids[index])


def _find_object(image: np.ndarray, grid: Grid) -> _Object:
    """Volume of the largest object, and whether the image is stripped."""
    image, spacing = _subsample(image, grid, _SIZE)
    scaled, background = _scale_intensities(image)
    inside = _fill_largest_part(np.abs(scaled - background) > _OBJECT)
    low, high = _SHELL
    distance = distance_transform_edt(~inside, sampling=spacing / spacing.max())
    shell = (distance > low) & (distance <= high)
    equal = np.abs(scaled[shell] - background) <= _EQUAL
    constant = equal.mean() if equal.size else 0.0
    volume = float(inside.sum() * spacing.prod())
    return _Object(volume, bool(constant >= _CONSTANT))


def _mask_with_margin(image: np.ndarray, grid: Grid) -> np.ndarray:
    """Mask of the object and a margin, on the image's grid."""
    sampled, spacing = _subsample(image, grid, _SIZE_OF_MASK)
    scaled, background = _scale_intensities(sampled)
    inside = _fill_largest_part(np.abs(scaled - background) > _EQUAL)
    margin = _MARGIN * grid.longest_side
    mask = distance_transform_edt(~inside, sampling=spacing) <= margin
    for axis, (size, step) in enumerate(zip(image.shape, _steps(grid, _SIZE_OF_MASK))):
        nearest = (np.arange(size) + step // 2) // step
        mask = mask.take(nearest.clip(max=mask.shape[axis] - 1), axis)
    return mask


def _steps(grid: Grid, size: int) -> list[int]:
    """Step from one inspected voxel to the next along each axis, in voxels."""
    wanted = grid.longest_side / size
    return [max(1, int(wanted / spacing + 0.5)) for spacing in grid.spacing]


def _subsample(
    image: np.ndarray, grid: Grid, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Every n-th voxel of an image, values unchanged, and the spacing of these."""
    steps = _steps(grid, size)
    image = image[tuple(slice(None, None, step) for step in steps)]
    return image, grid.spacing * steps


def _scale_intensities(image: np.ndarray) -> tuple[np.ndarray, float]:
    """Intensities from 0 to 1, and the background's: the median of the six faces."""
    image = np.asarray(image, dtype=np.float64)
    known = np.isfinite(image)
    if not known.any():  # none of the inspected voxels has data
        return np.zeros_like(image), 0.0
    low, high = quantile_limits(image[known])
    scaled = np.where(known, image, low)
    scaled = ((scaled - low) / max(high - low, np.finfo(float).tiny)).clip(0, 1)
    faces = [scaled.take(end, axis).ravel() for axis in range(3) for end in (0, -1)]
    return scaled, float(np.median(np.concatenate(faces)))


def _fill_largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask, its holes filled."""
    parts, count = label(mask)
    if count > 1:
        mask = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    return binary_fill_holes(mask)
