"""Two echo-planar images of opposite encodings, and the removal of their distortion.

`dipy_dl_reg.optimization.epi` has the formulas.  Images and shifts are
``(1, 1, *shape)``; a shift is in voxels along the encoded axis.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.derivatives import derivative
from dipy_dl_reg.geometry.fields import Frame, frame, warp
from dipy_dl_reg.geometry.resampling import resize_image
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.geometry.transposed import derivative_transposed, sum_of_neighbours
from dipy_dl_reg.grid import Grid

#: Smoothing of the images for a coarser level, see `dipy_dl_reg.geometry.pyramid`.
_SIGMA_FACTOR = 0.5


class EpiPair(NamedTuple):
    """Two images of opposite phase encodings on one grid.

    Attributes
    ----------
    first, second : Tensor, shape (1, 1, *shape)
        Intensities, on the same scale.
    grid : Grid
        Their grid.
    axis : int
        Axis of phase encoding.
    """

    first: torch.Tensor
    second: torch.Tensor
    grid: Grid
    axis: int


def make_epi_pair(
    first: np.ndarray,
    second: np.ndarray,
    grid: Grid,
    axis: int,
    *,
    device: torch.device | str = "cpu",
) -> tuple[EpiPair, float]:
    """Convert two images to tensors on one scale of intensity.

    Distortion preserves the sum of the signal; therefore the ratio of the two sums is
    the ratio of the scales.

    Parameters
    ----------
    first, second : ndarray
        Finite intensities, 0 without signal.
    grid : Grid
        Grid of both.
    axis : int
        Axis of phase encoding.
    device : torch.device or str, optional
        Device of the tensors.

    Returns
    -------
    pair : EpiPair
        Intensities whose mean over the bright part of the images is about 1.
    gain : float
        The number by which the second image was multiplied.
    """
    gain = float(first.sum(dtype=np.float64) / second.sum(dtype=np.float64))
    bright = first[first > first.mean()]
    scale = float(bright.mean())
    tensors = [
        torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32) / scale)
        for image in (first, second * np.float32(gain))
    ]
    one, other = (tensor[None, None].to(device) for tensor in tensors)
    return EpiPair(one, other, grid, axis), gain


class View(NamedTuple):
    """How one of the images is sampled at displaced points of the undistorted grid.

    Attributes
    ----------
    image, slope : Tensor, shape (1, 1, *shape)
        The image, and its derivative along the axis times the sign of the shift.
    direction : list of float
        Displacement on the undistorted grid by a shift of one voxel.
    frame : Frame
        From undistorted voxels to those of the image.
    """

    image: torch.Tensor
    slope: torch.Tensor
    direction: list[float]
    frame: Frame

    def along(self, x: torch.Tensor) -> torch.Tensor:
        """Differentiate along the direction.

        Parameters
        ----------
        x : Tensor, shape (1, 1, *shape)
            An image on the undistorted grid.

        Returns
        -------
        derivative : Tensor, same shape
            By central differences, for a step of one voxel of shift.
        """
        total = torch.zeros_like(x)
        for axis, part in enumerate(self.direction):
            if part:
                total.add_(derivative(x, axis), alpha=part)
        return total

    def along_transposed(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the transpose of `along`.

        Parameters
        ----------
        x : Tensor, shape (1, 1, *shape)
            An image on the undistorted grid.

        Returns
        -------
        transposed : Tensor, same shape
            ``sum(along(a) * x)`` is ``sum(a * transposed)``.
        """
        total = torch.zeros_like(x)
        for axis, part in enumerate(self.direction):
            if part:
                total.add_(derivative_transposed(x, axis), alpha=part)
        return total

    def displacement(self, shift: torch.Tensor) -> torch.Tensor:
        """Convert a shift to a displacement field.

        Parameters
        ----------
        shift : Tensor, shape (1, 1, *shape)
            In voxels along the encoded axis.

        Returns
        -------
        field : Tensor, shape (1, D, *shape)
            In voxels of the undistorted grid.
        """
        return torch.cat([shift * part for part in self.direction], 1)


class Linearised(NamedTuple):
    """An image without distortion, and its derivative by the shift.

    The derivative of ``value`` by a change of the shift is
    ``local * change + sampled * view.along(change)``.

    Attributes
    ----------
    view : View
        The image.
    value, local, sampled : Tensor, shape (1, 1, *shape)
        The image without distortion, the slope of the image times the stretch, and the
        image at the displaced points.
    """

    view: View
    value: torch.Tensor
    local: torch.Tensor
    sampled: torch.Tensor

    def change(self, shift: torch.Tensor) -> torch.Tensor:
        """Apply the derivative.

        Parameters
        ----------
        shift : Tensor, shape (1, 1, *shape)
            A change of the shift.

        Returns
        -------
        change : Tensor, same shape
            Of the image without distortion.
        """
        return self.view.along(shift).mul_(self.sampled).addcmul_(self.local, shift)

    def change_transposed(self, residual: torch.Tensor) -> torch.Tensor:
        """Apply the transpose of the derivative.

        Parameters
        ----------
        residual : Tensor, shape (1, 1, *shape)
            Derivative of an energy by the image without distortion.

        Returns
        -------
        gradient : Tensor, same shape
            Its derivative by the shift.
        """
        transposed = self.view.along_transposed(self.sampled * residual)
        return transposed.addcmul_(self.local, residual)

    def squares(self) -> torch.Tensor:
        """Compute the diagonal of the transpose times the derivative.

        Returns
        -------
        diagonal : Tensor, shape (1, 1, *shape)
            Without the products of different axes.
        """
        square, total = self.sampled.square(), self.local.square()
        for axis, part in enumerate(self.view.direction):
            if part:
                total.add_(sum_of_neighbours(square, axis), alpha=part**2 / 4)
        return total


def make_views(pair: EpiPair, motion: np.ndarray) -> tuple[View, View]:
    """Prepare the sampling of both images from the undistorted grid.

    Parameters
    ----------
    pair : EpiPair
        The images.
    motion : ndarray, shape (D + 1, D + 1)
        World of the first image to world of the second.

    Returns
    -------
    first, second : View
        With opposite directions; that of the second is along the encoded axis of its
        own grid after the motion.
    """
    dim, shape, axis = pair.grid.dim, pair.grid.shape, pair.axis
    views = []
    for image, matrix, sign in (
        (pair.first, np.eye(dim + 1), 1),
        (pair.second, pair.grid.to(pair.grid, motion), -1),
    ):
        direction = sign * np.linalg.inv(matrix[:dim, :dim])[:, axis]
        into = frame(shape, affine=matrix, dtype=image.dtype, device=image.device)
        slope = sign * derivative(image, axis)
        views.append(View(image, slope, [float(d) for d in direction], into))
    return views[0], views[1]


def remove_distortion(view: View, shift: torch.Tensor) -> torch.Tensor:
    """Sample an image at the displaced points, and multiply by the local stretch.

    Parameters
    ----------
    view : View
        The image.
    shift : Tensor, shape (1, 1, *shape)
        In voxels along the encoded axis.

    Returns
    -------
    image : Tensor, shape (1, 1, *shape)
        The image without distortion.
    """
    sampled = warp(view.image, view.displacement(shift), frame_=view.frame)
    return sampled.mul_(view.along(shift).add_(1))


def linearise(view: View, shift: torch.Tensor) -> Linearised:
    """Remove the distortion of an image, and differentiate by the shift.

    Parameters
    ----------
    view : View
        The image.
    shift : Tensor, shape (1, 1, *shape)
        In voxels along the encoded axis.

    Returns
    -------
    linearised : Linearised
        The image and its derivative.
    """
    displacement, stretch = view.displacement(shift), view.along(shift).add_(1)
    sampled = warp(view.image, displacement, frame_=view.frame)
    slope = warp(view.slope, displacement, frame_=view.frame)
    return Linearised(view, sampled * stretch, slope.mul_(stretch), sampled)


def coarsen_epi_pair(pair: EpiPair, spacing: float) -> EpiPair:
    """Smooth and resample a pair to larger voxels.

    Parameters
    ----------
    pair : EpiPair
        At full resolution.
    spacing : float
        Voxel size, mm; axes that are at least as coarse are not changed.

    Returns
    -------
    pair : EpiPair
        On the coarser grid.
    """
    grid = pair.grid.coarsen(spacing)
    if grid.shape == pair.grid.shape:
        return pair
    sigmas = list(_SIGMA_FACTOR * (grid.spacing / pair.grid.spacing - 1))
    first, second = (
        resize_image(smooth(image, sigmas), grid.shape)
        for image in (pair.first, pair.second)
    )
    return EpiPair(first, second, grid, pair.axis)


def resize_shift(shift: torch.Tensor, pair: EpiPair) -> torch.Tensor:
    """Resample a shift to the grid of a pair.

    Parameters
    ----------
    shift : Tensor, shape (1, 1, *any)
        In voxels of a grid of the same field of view; with one voxel, it is 0.
    pair : EpiPair
        A pair on the wanted grid.

    Returns
    -------
    shift : Tensor, shape (1, 1, *shape)
        In voxels of the pair's grid.
    """
    old, new = shift.shape[2:], pair.grid.shape
    if max(old) == 1:
        return shift.new_zeros(1, 1, *new)
    if tuple(old) == tuple(new):
        return shift
    scale = (new[pair.axis] - 1) / (old[pair.axis] - 1)
    return resize_image(shift, new) * scale
