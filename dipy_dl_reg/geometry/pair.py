"""Two images in world space as tensors, and the mask of the compared voxels."""

from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.fields import Frame, frame, identity, warp
from dipy_dl_reg.geometry.point_pairs import Landmarks
from dipy_dl_reg.grid import Grid


class Pair(NamedTuple):
    """Two images in world space, as tensors.

    Attributes
    ----------
    static, moving : Tensor, shape (1, 1, *shape)
        Intensities scaled to about [0, 1]; the two shapes are independent.
    static_grid, moving_grid : Grid
        Their grids in world space.
    prealign : ndarray, shape (D + 1, D + 1)
        Static world to moving world.
    static_mask, moving_mask : Tensor or None
        1 at voxels that are compared, 0 elsewhere.
    landmarks : Landmarks or None
        Pairs of corresponding points.
    """

    static: torch.Tensor
    moving: torch.Tensor
    static_grid: Grid
    moving_grid: Grid
    prealign: np.ndarray
    static_mask: torch.Tensor | None = None
    moving_mask: torch.Tensor | None = None
    landmarks: Landmarks | None = None

    def frame(self) -> Frame:
        """The frame for sampling the moving image at displaced static voxels.

        Returns
        -------
        frame : dipy_dl_reg.geometry.fields.Frame
            Its affine combines both affines and the prealign.
        """
        return frame(
            self.static_grid.shape,
            self.moving_grid.shape,
            affine=self.static_grid.to(self.moving_grid, self.prealign),
            dtype=self.static.dtype,
            device=self.static.device,
        )

    def overlap(self) -> torch.Tensor:
        """Static voxels that the prealign maps into the moving image.

        Returns
        -------
        inside : Tensor of bool, shape (1, 1, *static_shape)
            The moving image ends half a voxel beyond its outermost voxel centres.
        """
        return inside_mask(
            self.static_grid.shape,
            self.moving_grid.shape,
            self.static_grid.to(self.moving_grid, self.prealign),
            device=self.static.device,
        )


def move_pair(pair: Pair, u: torch.Tensor, v: torch.Tensor) -> Pair:
    """Warp the moving image of a pair by a field.

    Parameters
    ----------
    pair : Pair
        The images.
    u, v : Tensor, shape (1, D, *static_shape)
        A field and its inverse, in voxels of the static grid.

    Returns
    -------
    pair : Pair
        Both images on the static grid, with the mask of the voxels to compare; the
        landmarks have the distance that remains after the field.
    """
    frame = pair.frame()
    landmarks = pair.landmarks
    if landmarks is not None:
        landmarks = landmarks.carry_back(pair.static_grid, v)
    return Pair(
        pair.static,
        warp(pair.moving, u, frame_=frame),
        pair.static_grid,
        pair.static_grid,
        np.eye(pair.static_grid.dim + 1),
        make_compared_mask(pair, u, frame),
        landmarks=landmarks,
    )


def make_compared_mask(
    pair: Pair, u: torch.Tensor, frame: Frame
) -> torch.Tensor | None:
    """Make the mask of voxels in both masks and, with the prealign, in both images.

    The moving mask is warped once per level, by the field at the start of the level.

    Parameters
    ----------
    pair : Pair
        The images.
    u : Tensor, shape (1, D, *static_shape)
        Field in voxels of the static grid.
    frame : dipy_dl_reg.geometry.fields.Frame
        Of the pair.

    Returns
    -------
    mask : Tensor, shape (1, 1, *static_shape), or None
        1 or 0; None if every voxel counts.
    """
    inside = pair.overlap()
    if pair.static_mask is None and pair.moving_mask is None and bool(inside.all()):
        return None
    mask = inside.to(u.dtype)
    if pair.static_mask is not None:
        mask = mask * pair.static_mask
    if pair.moving_mask is not None:
        mask = mask * warp(pair.moving_mask, u, frame_=frame, mode="nearest")
    return mask


def inside_mask(
    shape: tuple[int, ...],
    image_shape: tuple[int, ...],
    matrix: np.ndarray,
    *,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Mask of the voxels of a grid that lie within an image on another grid.

    Parameters
    ----------
    shape, image_shape : tuple of int
        Shape of the grid and of the image.
    matrix : ndarray, shape (D + 1, D + 1)
        From grid voxels to image voxels.
    device : torch.device or str, optional
        Device of the result.

    Returns
    -------
    inside : Tensor of bool, shape (1, 1, *shape)
        The image ends half a voxel beyond its outermost voxel centres.
    """
    inside = torch.ones(1, 1, *shape, dtype=torch.bool, device=device)
    axes = identity(shape, device=device)
    dim = len(shape)
    for row, size in zip(matrix[:dim], image_shape):
        place = float(row[0]) * axes[:, :1]
        for d in range(1, dim):
            place = place + float(row[d]) * axes[:, d : d + 1]
        place = place + float(row[dim])
        inside &= (place >= -0.501) & (place <= size - 0.499)
    return inside


def compared_voxels(
    pair: Pair, displacement: torch.Tensor, frame: Frame
) -> torch.Tensor:
    """Static voxels inside both fields of view and, through a field, both masks.

    Parameters
    ----------
    pair : Pair
        The images; the fields of view are compared through the prealign alone.
    displacement : Tensor, shape (1, D, *static_shape)
        Field in voxels of the static grid; it warps the moving mask.
    frame : dipy_dl_reg.geometry.fields.Frame
        Of the pair.

    Returns
    -------
    counts : Tensor of bool, shape (1, 1, *static_shape)
        Voxels that count.
    """
    counts = pair.overlap()
    if pair.static_mask is not None:
        counts &= pair.static_mask > 0.5
    if pair.moving_mask is not None:
        counts &= warp(pair.moving_mask, displacement, frame_=frame) > 0.5
    return counts
