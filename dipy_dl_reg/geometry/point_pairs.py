"""Landmarks: pairs of corresponding points in world space."""

from typing import Any, NamedTuple

import torch

from dipy_dl_reg.geometry.fields import sample
from dipy_dl_reg.grid import Grid


class Landmarks(NamedTuple):
    """Pairs of corresponding points in world space.

    Attributes
    ----------
    points : Tensor, shape (N, D)
        In the world of the static image, mm, float64.
    targets : Tensor, shape (N, D)
        Corresponding points of the moving image, mapped to the static image's world by
        the inverse of the prealign.
    """

    points: torch.Tensor
    targets: torch.Tensor

    def carry_back(self, grid: Grid, inverse: torch.Tensor) -> "Landmarks":
        """Map the targets by the inverse of a field that was applied to the images.

        Parameters
        ----------
        grid : Grid
            Grid of the static image.
        inverse : Tensor, shape (1, D, *shape)
            Inverse of the field, in voxels of that grid.

        Returns
        -------
        landmarks : Landmarks
            The same points; each target moved by the inverse.
        """
        dim = grid.dim
        matrix = torch.as_tensor(grid.affine[:dim, :dim], **_like(self.points))
        places = to_voxels(grid, self.targets)
        # The inverse's device may have no double precision: convert after the copy.
        move = sample(inverse, places.T.to(inverse)).T.to(self.targets.device).double()
        return self._replace(targets=self.targets + move @ matrix.T)


def _like(points: torch.Tensor) -> dict[str, Any]:
    """Type and device of points, for new tensors."""
    return {"dtype": points.dtype, "device": points.device}


def to_voxels(grid: Grid, points: torch.Tensor) -> torch.Tensor:
    """Voxel coordinates of points in a grid's world.

    Parameters
    ----------
    grid : Grid
        The grid.
    points : Tensor, shape (N, D)
        World coordinates.

    Returns
    -------
    places : Tensor, shape (N, D)
        Voxel coordinates.
    """
    matrix = torch.as_tensor(grid.inverse, **_like(points))
    return points @ matrix[:-1, :-1].T + matrix[:-1, -1]
