r"""Penalty on the distance between mapped landmarks and their targets.

.. math:: E = \frac{w}{N} \sum_i |\varphi(p_i) - q_i|^2

with distances in mm in the world of the moving image.  The gradient at a landmark is
distributed over the voxels around it by a Gaussian, because the smoothing of the field
would remove the displacement of a single voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

import torch

from dipy_dl_reg.geometry.fields import sample
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.point_pairs import to_voxels
from dipy_dl_reg.grid import Grid

#: Standard deviation of that Gaussian, and its half-width, in voxels.
_SPREAD, _REACH = 2.0, 4


class LandmarkPenalty:
    """The penalty on the grid of one level.

    Parameters
    ----------
    pair : Pair
        Images with landmarks; landmarks outside the static grid are left out.
    weight : float
        w, per mm**2.
    sigma : float
        Standard deviation, in voxels, of the Gaussian that smooths the gradient
        afterwards.

    Attributes
    ----------
    points : Tensor, shape (D, N)
        Static landmarks, in voxels.
    displacements : Tensor, shape (D, N)
        Wanted displacements of these points, in voxels.
    metric : Tensor, shape (D, D)
        ``x @ metric @ x`` is the squared length in mm of x in voxels.
    """

    def __init__(self, pair: Pair, weight: float, sigma: float) -> None:
        if pair.landmarks is None:
            raise ValueError("pair must have landmarks, got None.")
        grid, like = pair.static_grid, pair.static
        points = to_voxels(grid, pair.landmarks.points)
        targets = to_voxels(grid, pair.landmarks.targets)
        inside = _is_inside(points, grid)
        displacements = (targets - points)[inside]
        points = _clamp_to_grid(points[inside], grid)
        self.points, self.displacements = points.T.to(like), displacements.T.to(like)
        # Distances are measured after the prealign, in mm.
        linear = torch.from_numpy((pair.prealign @ grid.affine)[: grid.dim, : grid.dim])
        self.metric = (linear.T @ linear).to(like)
        self._factor = weight / max(1, len(points))
        self._indices, self._weights = _neighbourhoods(points, grid.shape, like)
        # The inverse of the peak that a gradient of 1 has, once spread and smoothed.
        spread = math.sqrt(2 * math.pi * (_SPREAD**2 + sigma**2))
        self._inverse_peak = spread**grid.dim

    def add_gradient(
        self, u: torch.Tensor, gradient: torch.Tensor, *, largest: torch.Tensor
    ) -> torch.Tensor:
        """Evaluate the penalty, and add its gradient to that of the images.

        The length of a landmark's smoothed gradient is at most `largest`; within one
        voxel of the target it decreases in proportion to the distance.  Therefore the
        field converges at the landmark for any weight, and the gradients of the images
        remain relevant in an optimizer that compares gradients with the largest one.

        Parameters
        ----------
        u : Tensor, shape (1, D, *shape)
            Displacement in voxels.
        gradient : Tensor, shape (1, D, *shape)
            Gradient by the displacement, before smoothing; contiguous, changed in
            place.
        largest : Tensor, shape ()
            Length of the longest smoothed gradient.

        Returns
        -------
        energy : Tensor, shape ()
            The penalty: w times the mean squared distance.
        """
        error = sample(u, self.points) - self.displacements
        by_point = self.metric @ error
        energy = self._factor * (error * by_point).sum()
        by_point *= 2 * self._factor
        distance = torch.linalg.vector_norm(error, dim=0).clamp(max=1)
        length = torch.linalg.vector_norm(by_point, dim=0)
        bound = self._inverse_peak * largest * distance
        by_point *= (bound / length.clamp(min=1e-30)).clamp(max=1)
        by_voxel = (by_point[..., None] * self._weights).flatten(1)
        flat = gradient[0].view(len(by_point), -1)
        flat.index_add_(1, self._indices.flatten(), by_voxel)
        return energy


def _is_inside(points: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Which points (N, D), in voxels, lie within the voxels of a grid: bool (N,)."""
    last = points.new_tensor([n - 1 for n in grid.shape])
    return ((points >= -0.5) & (points <= last + 0.5)).all(1)


def _clamp_to_grid(points: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Points (N, D) moved to between the outermost voxel centres, where fields are."""
    last = points.new_tensor([n - 1 for n in grid.shape])
    return points.clamp(min=0).minimum(last)


def _neighbourhoods(
    points: torch.Tensor, shape: Sequence[int], like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat indices of the voxels around each point, and their weights: two (N, M)."""
    steps = torch.arange(-_REACH, _REACH + 1, device=points.device)
    offsets = torch.cartesian_prod(*[steps] * len(shape))
    voxels = points.round().long()[:, None] + offsets
    squared = (voxels - points[:, None]).square().sum(2)
    last = voxels.new_tensor([n - 1 for n in shape])
    inside = ((voxels >= 0) & (voxels <= last)).all(2)
    weights = torch.exp(squared / (-2 * _SPREAD**2)) * inside
    weights /= weights.sum(1, keepdim=True)
    indices = torch.zeros_like(voxels[..., 0])
    for axis, size in enumerate(shape):
        indices = indices * size + voxels[..., axis].clamp(0, size - 1)
    return indices.to(like.device), weights.to(like)
