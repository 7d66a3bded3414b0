"""Masks of the brains of two whole heads.

Neck, face and scalp of two people differ more than their brains.  If they are compared,
the map is deformed there without need, and less exact inside the brain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.anatomy.brain_view import can_show_brain
from dipy_dl_reg.anatomy.wide_masks import mask_brain_with_margin
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.input_image import InputImage
from dipy_dl_reg.registration.brain_masks import find_brain_mask, show_whole_heads
from dipy_dl_reg.registration.devices import threads
from dipy_dl_reg.registration.head_poses import predict_upright

#: Distance from the brain up to which heads are compared, mm: the edge between brain
#: and fluid is seen, the scalp is not.
_MARGIN = 4.0


def find_head_masks(
    images: Sequence[np.ndarray], grids: Sequence[Grid]
) -> list[np.ndarray] | None:
    """Make masks of the brains of two images, if both show whole heads.

    The network `anatomy` finds the brains (`dipy_dl_reg.brain_mask`), in about two
    seconds an image of one core.

    Parameters
    ----------
    images : tuple of ndarray
        Static and moving; NaN is missing data.
    grids : tuple of Grid
        Grids of the two.

    Returns
    -------
    masks : list of ndarray of bool, or None
        The brain of each image with a margin of 4 mm.  None if an image is no whole
        head: it is not 3D, was stripped of its skull, shows less than a head, or no
        upright brain is found in it, also after it was rotated to the other one.
    """
    if not all(can_show_brain(grid, whole=True) for grid in grids):
        return None
    if not show_whole_heads(images, grids):
        return None
    masks = []
    for maps, grid in zip(predict_upright(images, grids), grids):
        mask = None if maps is None else mask_brain_with_margin(maps, grid, _MARGIN)
        if mask is None:
            return None
        masks.append(mask)
    logger.info(
        "Both images show whole heads: only their brains and a margin of "
        f"{_MARGIN:g} mm are compared. To choose another region, give static_mask or "
        "moving_mask."
    )
    return masks


def find_brain_masks(
    images: Mapping[str, np.ndarray], grids: Mapping[str, Grid]
) -> dict[str, np.ndarray | None]:
    """Make masks for two images of which at least one shows a whole head, and log it.

    Parameters
    ----------
    images : dict of ndarray
        "static" and "moving"; NaN is missing data.
    grids : dict of Grid
        Their grids, by the same names.

    Returns
    -------
    masks : dict of ndarray or None
        By the same names: a mask of the brain without skull if the other image shows a
        whole head (`find_brain_mask`), masks of both brains if both show whole heads
        (`find_head_masks`), else None.
    """
    roles = list(images)
    both = [images[role] for role in roles], [grids[role] for role in roles]
    index, mask = find_brain_mask(*both)
    if index is None:
        found = find_head_masks(*both)
        return dict(zip(roles, found)) if found else dict.fromkeys(roles)
    brain, head = roles[index], roles[1 - index]
    logger.info(
        f"{brain} shows a brain without skull and {head} a whole head: only the region "
        f"of {brain}'s brain is compared. To choose another region, give static_mask "
        "or moving_mask."
    )
    return {brain: mask, head: None}


def mask_heads(
    static: InputImage, moving: InputImage, *, num_threads: int | None = None
) -> tuple[InputImage, InputImage]:
    """Add masks of the brains to two images, if both show whole heads.

    Several steps of a registration then use the same masks, and find them once.

    Parameters
    ----------
    static, moving : InputImage
        The images.
    num_threads : int, optional
        Threads on the CPU; None uses Torch's default, -1 all processors.

    Returns
    -------
    static, moving : InputImage
        With masks; the same images if one has a mask or no matrix, or is no whole head.
    """
    both = (static, moving)
    if any(each.mask is not None or each.grid2world is None for each in both):
        return both
    grids = [
        Grid(np.shape(each.values), np.asarray(each.grid2world, dtype=float))
        for each in both
    ]
    with threads(num_threads):
        masks = find_head_masks([each.values for each in both], grids)
    if masks is None:
        return both
    first, second = (each._replace(mask=mask) for each, mask in zip(both, masks))
    return first, second


def mask_heads_of_channels(
    channels: Sequence[tuple[InputImage, InputImage]], *, num_threads: int | None = None
) -> list[tuple[InputImage, InputImage]]:
    """Add masks of the brains to all channels, if those of the first are whole heads.

    Parameters
    ----------
    channels : sequence of tuple of InputImage
        Static and moving of each channel, on the grids of the first.
    num_threads : int, optional
        Threads on the CPU, as in `mask_heads`.

    Returns
    -------
    channels : list of tuple of InputImage
        With the same masks in each channel; as given if an image has a mask.
    """
    if any(image.mask is not None for both in channels for image in both):
        return list(channels)
    static, moving = mask_heads(*channels[0], num_threads=num_threads)
    return [
        (one._replace(mask=static.mask), other._replace(mask=moving.mask))
        for one, other in channels
    ]
