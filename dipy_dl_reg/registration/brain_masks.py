"""Detects pairs of a skull-stripped brain and a whole head, and makes a brain mask.

Scalp, skull and neck of a whole head have no counterpart in a skull-stripped brain.
Without a mask, an affine registration enlarges the brain to the size of the head.
Within a mask of the brain the two images can be compared.

An image counts as stripped if the background around its object is constant.  Around a
head that was not stripped the background contains noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt

from dipy_dl_reg.anatomy.segmentation import fill_largest_part
from dipy_dl_reg.geometry.intensity import quantile_limits
from dipy_dl_reg.grid import Grid

#: Both images are subsampled to about this many voxels along the longest axis.
_SIZE, _SIZE_OF_MASK = 56, 112
#: Fractions of the intensity range: above the first, a voxel belongs to an object;
#: background values that differ by less than the second count as equal.
_OBJECT, _EQUAL = 0.1, 1e-3
#: Smallest fraction of constant voxels in the shell around a stripped image's object.
#: Stripped brains have .99 and more, whole heads .84 at most.
_CONSTANT = 0.95
#: Inner and outer distance of that shell from the object, in subsampled voxels.
_SHELL = (1.2, 4.0)
#: Smallest ratio of the other object's volume to the brain's.  It is not larger because
#: the field of view may cut the head, and a template is larger than most brains.
_LEAST_RATIO = 0.7
#: Margin of the mask around the brain, as a fraction of the longest side (2 mm for a
#: head).
_MARGIN = 0.01


class _Object(NamedTuple):
    """The largest connected object of an image."""

    volume: float  # in the unit of length, cubed
    is_stripped: bool


def find_brain_mask(
    images: Sequence[np.ndarray], grids: Sequence[Grid]
) -> tuple[int | None, np.ndarray | None]:
    """Make a mask of the stripped brain if the other image shows a whole head.

    Parameters
    ----------
    images : tuple of ndarray, 3D
        Static and moving; NaN is missing data.
    grids : tuple of Grid
        Grids of the two.

    Returns
    -------
    index : int or None
        Index of the stripped image; None if no mask is needed, because both images are
        stripped, neither is, or the other image shows a much smaller object.
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


def show_whole_heads(images: Sequence[np.ndarray], grids: Sequence[Grid]) -> bool:
    """Tell whether neither image was stripped of its skull.

    Parameters
    ----------
    images : sequence of ndarray, 3D
        The images; NaN is missing data.
    grids : sequence of Grid
        Their grids.

    Returns
    -------
    whole : bool
        True if the background around each object is not constant.
    """
    found = [_find_object(*given) for given in zip(images, grids)]
    return all(each.volume > 0 and not each.is_stripped for each in found)


def _find_object(image: np.ndarray, grid: Grid) -> _Object:
    """Measure the largest object, and find out whether the image is stripped."""
    image, spacing = _subsample(image, grid, _SIZE)
    scaled, background = _scale_intensities(image)
    inside = fill_largest_part(np.abs(scaled - background) > _OBJECT)
    low, high = _SHELL
    distance = distance_transform_edt(~inside, sampling=spacing / spacing.max())
    shell = (distance > low) & (distance <= high)
    equal = np.abs(scaled[shell] - background) <= _EQUAL
    constant = equal.mean() if equal.size else 0.0
    volume = float(inside.sum() * spacing.prod())
    return _Object(volume, bool(constant >= _CONSTANT))


def _mask_with_margin(image: np.ndarray, grid: Grid) -> np.ndarray:
    """Make a mask of the object with a margin, on the image's grid."""
    sampled, spacing = _subsample(image, grid, _SIZE_OF_MASK)
    scaled, background = _scale_intensities(sampled)
    inside = fill_largest_part(np.abs(scaled - background) > _EQUAL)
    margin = _MARGIN * grid.longest_side
    mask = distance_transform_edt(~inside, sampling=spacing) <= margin
    for axis, (size, step) in enumerate(
        zip(image.shape, _subsampling_steps(grid, _SIZE_OF_MASK))
    ):
        nearest = (np.arange(size) + step // 2) // step
        mask = mask.take(nearest.clip(max=mask.shape[axis] - 1), axis)
    return mask


def _subsampling_steps(grid: Grid, size: int) -> list[int]:
    """Compute the step of subsampling along each axis, in voxels."""
    wanted = grid.longest_side / size
    return [max(1, int(wanted / spacing + 0.5)) for spacing in grid.spacing]


def _subsample(
    image: np.ndarray, grid: Grid, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Take every n-th voxel of an image; also return the spacing of these voxels."""
    steps = _subsampling_steps(grid, size)
    image = image[tuple(slice(None, None, step) for step in steps)]
    return image, grid.spacing * steps


def _scale_intensities(image: np.ndarray) -> tuple[np.ndarray, float]:
    """Scale intensities to [0, 1]; also return the background's (median of faces)."""
    image = np.asarray(image, dtype=np.float64)
    known = np.isfinite(image)
    if not known.any():  # all subsampled voxels are missing data
        return np.zeros_like(image), 0.0
    low, high = quantile_limits(image[known])
    scaled = np.where(known, image, low)
    scaled = ((scaled - low) / max(high - low, np.finfo(float).tiny)).clip(0, 1)
    faces = [scaled.take(end, axis).ravel() for axis in range(3) for end in (0, -1)]
    return scaled, float(np.median(np.concatenate(faces)))
