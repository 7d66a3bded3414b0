"""Images of tensors or spherical harmonics as a pair that is reoriented when warped."""

from __future__ import annotations

import numpy as np
import torch

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.reorientation import (
    HarmonicRotation,
    Reorientation,
    TensorRotation,
)
from dipy_dl_reg.grid import Grid


def make_direction_pair(
    images: tuple[np.ndarray, np.ndarray],
    grids: tuple[Grid, Grid],
    rotation: TensorRotation | HarmonicRotation,
    *,
    axes: tuple[np.ndarray, np.ndarray],
    prealign: np.ndarray,
    masks: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    device: torch.device | str = "cpu",
) -> Pair:
    """Make a pair of images whose channels depend on directions.

    Parameters
    ----------
    images : tuple of ndarray, shape (X, Y, Z, 1 + C)
        Static and moving: a channel that does not depend on directions, and C channels
        that do, with components along the images' own axes.
    grids : tuple of Grid
        Their grids.
    rotation : TensorRotation or HarmonicRotation
        Determines what the C channels are.
    axes : tuple of ndarray, shape (3, 3)
        Matrices from the axes of each image's components to those of the world.
    prealign : ndarray, shape (4, 4)
        Static world to moving world.
    masks : tuple of ndarray or None, optional
        Only voxels other than 0 are compared.
    device : torch.device or str, optional
        Device of the tensors.

    Returns
    -------
    pair : Pair
        With components along the axes of the world.
    """
    static, moving = (
        _to_world(image, matrix, rotation).to(device)
        for image, matrix in zip(images, axes)
    )
    static_mask, moving_mask = (
        None
        if mask is None
        else torch.from_numpy(mask.astype(np.float32))[None, None].to(device)
        for mask in masks
    )
    reorient = Reorientation(rotation, first=1)
    return Pair(
        *(static, moving, *grids, prealign, static_mask, moving_mask),
        reorient=reorient,
    )


def _to_world(
    image: np.ndarray, axes: np.ndarray, rotation: TensorRotation | HarmonicRotation
) -> torch.Tensor:
    """An image with channels first, and components along the axes of the world."""
    moved = np.ascontiguousarray(np.moveaxis(image, -1, 0), dtype=np.float32)
    channels = torch.from_numpy(moved)[None]
    turn = torch.from_numpy(axes[..., None]).to(channels)
    turned = rotation(channels[0, 1:].flatten(1), turn)
    channels[0, 1:] = turned.view_as(channels[0, 1:])
    return channels
