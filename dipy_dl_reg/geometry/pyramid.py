"""Two images at a series of resolutions, their geometry kept exact."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from dipy_dl_reg.geometry.fields import frame, identity
from dipy_dl_reg.geometry.point_pairs import Landmarks
from dipy_dl_reg.geometry.smoothing import smooth
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
        return covered(
            self.static_grid.shape,
            self.moving_grid.shape,
            self.static_grid.to(self.moving_grid, self.prealign),
            device=self.static.device,
        )


def covered(shape, image_shape, matrix, *, device="cpu"):
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


def level_spacings(grid, levels):
    """Voxel sizes of a pyramid's levels.

    Parameters
    ----------
    grid : Grid
        The static image's.
    levels : int
        How many.

    Returns
    -------
    spacings : list of float
        mm, coarsest first: the smallest voxel size times 2**(levels - 1), ..., 2, 1.
    """
    axes = [s for s, n in zip(grid.spacing, grid.shape) if n > 1]
    return [float(min(axes)) * 2**level for level in range(levels - 1, -1, -1)]


def coarsen(pair, spacing, *, sigma_factor):
    """The pair at a coarser resolution.

    Both images are smoothed and resampled to voxels of about `spacing`; axes that
    are as coarse already stay as they are, so that anisotropic voxels become
    isotropic on the way up.

    Parameters
    ----------
    pair : Pair
        At full resolution.
    spacing : float
        Wanted voxel size, mm.
    sigma_factor : float
        Standard deviation of the Gaussian along an axis is this times
        ``ratio - 1`` voxels, ``ratio`` the new voxel size over the old.

    Returns
    -------
    pair : Pair
        At `spacing`.
    """
    static, static_mask, static_grid = _coarsen(
        pair.static, pair.static_mask, pair.static_grid, spacing, sigma_factor
    )
    dim = pair.static_grid.dim
    # A prealign that scales: as coarse in moving's world as `spacing` is in static's.
    scale = abs(np.linalg.det(pair.prealign[:dim, :dim])) ** (1 / dim)
    moving, moving_mask, moving_grid = _coarsen(
        pair.moving, pair.moving_mask, pair.moving_grid, spacing * scale, sigma_factor
    )
    return Pair(
        static,
        moving,
        static_grid,
        moving_grid,
        pair.prealign,
        static_mask,
        moving_mask,
        pair.landmarks,
    )


def _coarsen(image, mask, grid, spacing, sigma_factor):
    new = grid.coarsened(spacing)
    if new.shape == grid.shape:
        return image, mask, grid
    sigma = sigma_factor * (new.spacing / grid.spacing - 1)
    image = _resample(smooth(image, list(sigma)), new.shape)
    if mask is not None:
        # Half covered; or, of a mask thinner than the voxels, its best covered part.
        cover = _resample(smooth(mask, list(sigma)), new.shape)
        mask = (cover > 0.5 * cover.amax()).to(mask.dtype)
    return image, mask, new


def _resample(image, shape):
    mode = {2: "bilinear", 3: "trilinear"}[len(shape)]
    return F.interpolate(image, size=shape, mode=mode, align_corners=True)
