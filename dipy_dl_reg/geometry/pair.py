"""Two images in world space as tensors, and the mask of the compared voxels."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.fields import Frame, frame, identity, warp
from dipy_dl_reg.geometry.point_pairs import Landmarks
from dipy_dl_reg.grid import Grid

#: Turns the channels of a warped image along with the field that warped it, see `Pair`.
Reorientation = Callable[[torch.Tensor, torch.Tensor, Grid, np.ndarray], torch.Tensor]


class Pair(NamedTuple):
    """Two images in world space, as tensors.

    An image may have several channels, such as T1 and FA.  Channel k of static is
    compared with channel k of moving; all channels are warped by the same field.

    Attributes
    ----------
    static, moving : Tensor, shape (1, C, *shape)
        Intensities scaled to about [0, 1]; the two shapes are independent.
    static_grid, moving_grid : Grid
        Their grids in world space.
    prealign : ndarray, shape (D + 1, D + 1)
        Static world to moving world.
    static_mask, moving_mask : Tensor, shape (1, 1 or C, *shape), or None
        1 at voxels that are compared, 0 elsewhere; one for all channels or one for
        each.
    landmarks : Landmarks or None
        Pairs of corresponding points.
    reorient : callable or None
        For channels that depend on direction, such as the components of a tensor:
        ``reorient(warped, u, grid, prealign)`` turns the channels of the moving image,
        warped by the prealign and the field ``u`` in voxels of ``grid``, with the local
        rotation of this map (`dipy_dl_reg.geometry.reorientation`).
    """

    static: torch.Tensor
    moving: torch.Tensor
    static_grid: Grid
    moving_grid: Grid
    prealign: np.ndarray
    static_mask: torch.Tensor | None = None
    moving_mask: torch.Tensor | None = None
    landmarks: Landmarks | None = None
    reorient: Reorientation | None = None

    @property
    def channels(self) -> int:
        """Number of channels of both images."""
        return self.static.shape[1]

    def channel(self, index: int) -> "Pair":
        """Select one channel of both images, and its masks.

        Parameters
        ----------
        index : int
            Number of the channel, from 0.

        Returns
        -------
        pair : Pair
            Images of one channel, without reorientation; the pair itself if it has one
            channel.
        """
        if self.channels == 1:
            return self
        return self._replace(
            static=self.static[:, index : index + 1],
            moving=self.moving[:, index : index + 1],
            static_mask=_select_mask(self.static_mask, index),
            moving_mask=_select_mask(self.moving_mask, index),
            reorient=None,
        )

    def warp_moving(self, u: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Warp the moving image by a field, and reorient it if its channels need it.

        Parameters
        ----------
        u : Tensor, shape (1, D, *static_shape)
            Field in voxels of the static grid.
        frame : dipy_dl_reg.geometry.fields.Frame
            Of the pair.

        Returns
        -------
        warped : Tensor, shape (1, C, *static_shape)
            The moving image on the static grid.
        """
        warped = warp(self.moving, u, frame_=frame)
        if self.reorient is None:
            return warped
        return self.reorient(warped, u, self.static_grid, self.prealign)

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


def _select_mask(mask: torch.Tensor | None, index: int) -> torch.Tensor | None:
    """The mask of a channel; None if there is no mask."""
    if mask is None or mask.shape[1] == 1:
        return mask
    return mask[:, index : index + 1]


def merge_channels(pairs: Sequence[Pair]) -> Pair:
    """Combine pairs of images on the same grids to one pair with several channels.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one.  Grids, prealign and landmarks are those of the first.

    Returns
    -------
    pair : Pair
        With the channels of all pairs, in their order.  If a channel has a mask, every
        channel has one.
    """
    first = pairs[0]
    if len(pairs) == 1:
        return first
    return first._replace(
        static=torch.cat([pair.static for pair in pairs], 1),
        moving=torch.cat([pair.moving for pair in pairs], 1),
        static_mask=_join_masks([(pair.static_mask, pair.static) for pair in pairs]),
        moving_mask=_join_masks([(pair.moving_mask, pair.moving) for pair in pairs]),
    )


def _join_masks(
    channels: Sequence[tuple[torch.Tensor | None, torch.Tensor]],
) -> torch.Tensor | None:
    """Masks of all channels in one tensor; the common mask if all are equal."""
    if all(mask is None for mask, _ in channels):
        return None
    masks = [
        torch.ones_like(image[:, :1]) if mask is None else mask
        for mask, image in channels
    ]
    if all(torch.equal(mask, masks[0]) for mask in masks[1:]):
        return masks[0]
    return torch.cat(masks, 1)


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
        pair.warp_moving(u, frame),
        pair.static_grid,
        pair.static_grid,
        np.eye(pair.static_grid.dim + 1),
        make_compared_mask(pair, u, frame),
        landmarks=landmarks,
        reorient=pair.reorient,
    )


def reverse_pair(pair: Pair) -> Pair:
    """Exchange the images of a pair on the grid of the static image.

    Parameters
    ----------
    pair : Pair
        The images.

    Returns
    -------
    pair : Pair
        Its static image is the moving image on static's grid, its moving image the
        static image, so that the inverse of a field of the given pair is a field of
        this one.  Without landmarks.
    """
    frame, grid = pair.frame(), pair.static_grid
    zero = pair.static.new_zeros(1, grid.dim, *grid.shape)
    return Pair(
        pair.warp_moving(zero, frame),
        pair.static,
        grid,
        grid,
        np.eye(grid.dim + 1),
        make_compared_mask(pair._replace(static_mask=None), zero, frame),
        pair.static_mask,
        reorient=pair.reorient,
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
    mask : Tensor, shape (1, 1 or C, *static_shape), or None
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
    counts : Tensor of bool, shape (1, 1 or C, *static_shape)
        Voxels that count.
    """
    counts = pair.overlap()
    if pair.static_mask is not None:
        counts = counts & (pair.static_mask > 0.5)
    if pair.moving_mask is not None:
        counts = counts & (warp(pair.moving_mask, displacement, frame_=frame) > 0.5)
    return counts
