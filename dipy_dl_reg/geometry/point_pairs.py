"""Pairs of points that belong together, in world space (landmarks)."""

from typing import NamedTuple

import torch

from dipy_dl_reg.geometry.fields import sample


class Landmarks(NamedTuple):
    """Pairs of points in world space.

    Attributes
    ----------
    points : Tensor, shape (N, D)
        In static's world, float64.
    targets : Tensor, shape (N, D)
        Where they belong, brought to static's world by the inverse of the prealign.
    """

    points: torch.Tensor
    targets: torch.Tensor

    def carry_back(self, grid, inverse):
        """The landmarks of what a field leaves to be done.

        Parameters
        ----------
        grid : Grid
            Static's.
        inverse : Tensor, shape (1, D, *shape)
            Inverse of the field, in voxels of that grid.

        Returns
        -------
        landmarks : Landmarks
            The same points, the targets carried back by the field.
        """
        dim = grid.dim
        matrix = torch.as_tensor(grid.affine[:dim, :dim], **_like(self.points))
        places = to_voxels(grid, self.targets)
        # The inverse's device may have no double precision: convert after the copy.
        move = sample(inverse, places.T.to(inverse)).T.to(self.targets.device).double()
        return self._replace(targets=self.targets + move @ matrix.T)


def _like(points):
    """The kind of tensor that points are."""
    return {"dtype": points.dtype, "device": points.device}


def to_voxels(grid, points):
    """Points of a grid's world in its voxels.

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
