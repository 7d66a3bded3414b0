"""Two images in world space as tensors, and which voxels of them are compared."""

from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.fields import frame, identity, warp
from dipy_dl_reg.geometry.point_pairs import Landmarks
from dipy_dl_reg.grid import Grid


class Pair(NamedTuple):
    """Two images in world space, as tensors.

    Attributes
    ----------
    static, moving : Tensor, shape (1, 1, *shape)
        Intensities scaled to about [0, 1]; the two shapes are independent.
    static_grid, moving_grid : Grid
        Where their voxels lie.
    prealign : ndarray, shape (D + 1, D + 1)
        Static world to moving world.
    static_mask, moving_mask : Tensor or None
        1 where a voxel counts, 0 elsewhere.
    landmarks : Landmarks or None
        Points that belong together.
    """

    static: torch.Tensor
    moving: torch.Tensor
    static_grid: Grid
    moving_grid: Grid
    prealign: np.ndarray
    static_mask: torch.Tensor | None = None
    moving_mask: torch.Tensor | None = None
    landmarks: Landmarks | None = None

    def frame(self):
        """How displacements on the static grid sample the moving image.

        Returns
        -------
        frame : dipy_dl_reg.geometry.fields.Frame
            Through both affines and the prealign at once.
        """
        return frame(
            self.static_grid.shape,
            self.moving_grid.shape,
            affine=self.static_grid.to(self.moving_grid, self.prealign),
            dtype=self.static.dtype,
            device=self.static.device,
        )

    def overlap(self):
        """Static voxels that the prealign brings inside the moving image.

        Returns
        -------
        inside : Tensor of bool, shape (1, 1, *static_shape)
            Up to half a voxel beyond the outermost centres.
        """
        return inside_mask(
            self.static_grid.shape,
            self.moving_grid.shape,
            self.static_grid.to(self.moving_grid, self.prealign),
            device=self.static.device,
        )


def move_pair(pair, u, v):
    """The pair with the moving image where a field brings it, and what counts there.

    Parameters
    ----------
    pair : Pair
        The images.
    u, v : Tensor, shape (1, D, *static_shape)
        A field and its inverse, in voxels of the static grid.

    Returns
    -------
    pair : Pair
        Both images on the static grid; landmarks have left what the field leaves.
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


def make_compared_mask(pair, u, frame):
    """Voxels that count: in both masks and, by the prealign, in both images.

    The moving mask is brought over once a level, through the field as the level
    finds it.

    Parameters
    ----------
    pair : Pair
        The images.
    u : Tensor, shape (1, D, *static_shape)
        Field in voxels of the static grid.
    frame : dipy_dl_reg.geometry.fields.Frame
        The pair's.

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


def inside_mask(shape, image_shape, matrix, *, device="cpu"):
    """Voxels of a grid that lie within an image on another.

    Parameters
    ----------
    shape, image_shape : tuple of int
        Of the grid and of the image.
    matrix : ndarray, shape (D + 1, D + 1)
        From grid voxels to image voxels.
    device : torch.device or str, optional
        Where the result lives.

    Returns
    -------
    inside : Tensor of bool, shape (1, 1, *shape)
        Up to half a voxel beyond the image's outermost centres.
    """
    inside = torch.ones(1, 1, *shape, dtype=torch.bool, device=device)
    axes = identity(shape, device=device)
    dim = len(shape)
    for row, size in zip(matrix[:dim], image_shape):
        place = sum(float(row[d]) * axes[:, d : d + 1] for d in range(dim))
        place += float(row[dim])
        inside &= (place >= -0.501) & (place <= size - 0.499)
    return inside


def compared_voxels(pair, displacement, frame):
    """Static voxels that both fields of view and both masks hold through a field.

    Parameters
    ----------
    pair : Pair
        The images; the prealign alone decides on the fields of view.
    displacement : Tensor, shape (1, D, *static_shape)
        Field in voxels of the static grid, through which the moving mask is read.
    frame : dipy_dl_reg.geometry.fields.Frame
        The pair's.

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
