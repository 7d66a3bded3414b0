"""An image with its mask and grid: coarser versions, and faces that cut the object."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.resampling import resize_image, shrink_mask
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.grid import Grid

#: Intensities (of a range of about 1) up to which voxels are background.
BACKGROUND = 0.1
#: A face shows only background if at most this fraction of its voxels is brighter.
_LARGEST_OBJECT_PART = 0.03
#: Smallest smoothing, in voxels, per unit by which the voxel size grows: see
#: `MaskedImage.coarsen`.
_LEAST_SIGMA = 0.4

#: For each axis, whether the first and the last face cut through the object.
Faces = list[tuple[bool, bool]]


class MaskedImage(NamedTuple):
    """An image, its grid, and which of its voxels are compared.

    Attributes
    ----------
    image : Tensor, shape (1, 1, *shape)
        Intensities.
    mask : Tensor, shape (1, 1, *shape), or None
        1 at voxels that are compared, 0 elsewhere; None if all are compared.
    grid : Grid
        Grid of the voxels.
    sigma : float
        Standard deviation of the smoothing so far, mm.
    """

    image: torch.Tensor
    mask: torch.Tensor | None
    grid: Grid
    sigma: float = 0.0

    def coarsen(self, spacing: float, sigma: float) -> MaskedImage:
        """The image with larger voxels.

        Parameters
        ----------
        spacing : float
            Wanted voxel size, mm.
        sigma : float
            Standard deviation of the total smoothing of the original image, mm.  It is
            increased if the new voxels would otherwise cause aliasing.

        Returns
        -------
        image : MaskedImage
            The image at about `spacing`.
        """
        new = self.grid.coarsen(spacing)
        missing = max(sigma**2 - self.sigma**2, 0.0) ** 0.5
        growth = new.spacing / self.grid.spacing - 1
        sigmas = np.maximum(missing / self.grid.spacing, _LEAST_SIGMA * growth)
        image = self.image
        if (sigmas > 0.05).any():
            image = smooth(image, list(sigmas))
        mask = self.mask
        if new.shape != self.grid.shape:
            image = resize_image(image, new.shape)
            if mask is not None:
                mask = shrink_mask(mask, list(sigmas), new.shape)
        return MaskedImage(image, mask, new, max(sigma, self.sigma))


def mask_images(pair: Pair) -> tuple[MaskedImage, MaskedImage]:
    """Static and moving of a pair, each with its mask and grid.

    Parameters
    ----------
    pair : Pair
        The two images.

    Returns
    -------
    static, moving : MaskedImage
        The images, not smoothed yet.
    """
    static = MaskedImage(pair.static, pair.static_mask, pair.static_grid)
    return static, MaskedImage(pair.moving, pair.moving_mask, pair.moving_grid)


def open_faces(image: MaskedImage) -> Faces:
    """Find the faces of an image that cut through the object.

    Parameters
    ----------
    image : MaskedImage
        Its intensities range over about [0, 1].

    Returns
    -------
    faces : list of tuple of bool
        For each axis, True if the first or the last face cuts through the object.  A
        single slice has no such face.  In an image with a mask, all faces count as such
        faces, because the region outside the mask is unknown.
    """
    faces = []
    for axis, size in enumerate(image.grid.shape):
        if size == 1:
            faces.append((False, False))
            continue
        first, last = (image.image.select(axis + 2, k) for k in (0, size - 1))
        masked = image.mask is not None
        faces.append((masked or _shows_object(first), masked or _shows_object(last)))
    return faces


def _shows_object(face: torch.Tensor) -> bool:
    return float((face > BACKGROUND).float().mean()) > _LARGEST_OBJECT_PART
