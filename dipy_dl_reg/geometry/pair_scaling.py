"""Scaling of the intensities of a pair of images."""

from __future__ import annotations

import torch

from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.geometry.intensity import quantile_limits, scale_intensities
from dipy_dl_reg.geometry.pair import Pair, make_compared_mask


def scale_by_compared_voxels(pair: Pair) -> Pair:
    """Scale both images by their quantiles over the voxels that are compared.

    The same voxels are used for both images: with quantiles of two different regions,
    two equal images would become different.

    Parameters
    ----------
    pair : Pair
        The images.

    Returns
    -------
    pair : Pair
        With the quantiles .001 and .999 of both images at 0 and 1.

    Raises
    ------
    ValueError
        If no voxel is in both masks.
    """
    zero = pair.static.new_zeros(1, pair.static_grid.dim, *pair.static_grid.shape)
    frame = pair.frame()
    mask = make_compared_mask(pair, zero, frame)
    if mask is not None and not bool(mask.any()):
        raise ValueError(
            "static_mask and moving_mask do not overlap with the affines and prealign "
            "given: there is no voxel to compare."
        )
    warped = warp(pair.moving, zero, frame_=frame)
    return pair._replace(
        static=_scale_to_quantiles(pair.static, pair.static, mask),
        moving=_scale_to_quantiles(pair.moving, warped, mask),
    )


def scale_separately(pair: Pair) -> Pair:
    """Scale each image by its own quantiles, within its own mask.

    Parameters
    ----------
    pair : Pair
        The images, which need not overlap.

    Returns
    -------
    pair : Pair
        With the quantiles .001 and .999 of each image at 0 and 1.
    """
    return pair._replace(
        static=_scale_to_quantiles(pair.static, pair.static, pair.static_mask),
        moving=_scale_to_quantiles(pair.moving, pair.moving, pair.moving_mask),
    )


def _scale_to_quantiles(
    image: torch.Tensor, seen: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Scale an image by the quantiles of its voxels within a mask."""
    values = seen if mask is None else seen[mask > 0]
    low, high = quantile_limits(values.cpu().numpy())
    return scale_intensities(image, low, high) if high > low else image
