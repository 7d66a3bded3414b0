r"""Landmarks that guide a refinement: a penalty on how far the field misses them.

.. math:: E = \frac{w}{N} \sum_i |\varphi(p_i) - q_i|^2

with the distances in mm of moving's world.  Its gradient by the field at a landmark is
spread to the voxels around it by a Gaussian: what a single voxel was moved, the field's
own smoothing would undo at once.
"""

import math

import torch

from dipy_dl_reg.geometry.fields import sample
from dipy_dl_reg.geometry.point_pairs import in_voxels

#: Standard deviation of that Gaussian, in voxels, and how many to either side it has.
_SPREAD, _REACH = 2.0, 4


class LandmarkPenalty:
    """The penalty on one grid.

    Parameters
    ----------
    pair : Pair
        Has the landmarks and the grid; those outside the grid do not count.
    weight : float
        w, per mm**2.
    sigma : float
        Standard deviation, in voxels, by which the gradient will be smoothed.
    """

    def __init__(self, pair, weight, sigma):
        grid, like = pair.static_grid, pair.static
        dim = grid.dim
        self.shape = grid.shape
        places = in_voxels(grid, pair.landmarks.points)
        aims = in_voxels(grid, pair.landmarks.targets) - places
        last = places.new_tensor([n - 1 for n in grid.shape])
        inside = ((places >= -0.5) & (places <= last + 0.5)).all(1)
        places = places[inside].clamp(min=0).minimum(last)
        # The distance is counted after the prealign, in mm.
        linear = torch.from_numpy((pair.prealign @ grid.affine)[:dim, :dim])
        self.metric = (linear.T @ linear).to(like)
        self.points, self.aims = places.T.to(like), aims[inside].T.to(like)
        self.factor = weight / max(1, len(places))
        self.indices, self.parts = _patches(places, grid.shape, like)
        # One over the peak of a pull of 1, once it is smoothed too.
        self.spread = math.sqrt(2 * math.pi * (_SPREAD**2 + sigma**2)) ** dim

    def pull(self, u, gradient, *, strongest):
        """Add the penalty's gradient to that of the images.

        A landmark a voxel or more off its target pulls, once that is smoothed, at most
        as hard as the images do anywhere, and within the voxel by so much less: however
        large the weight, the field comes to rest there, and an optimiser that measures
        gradients by the largest still sees the others.

        Parameters
        ----------
        u : Tensor, shape (1, D, *shape)
            Field in voxels.
        gradient : Tensor, shape (1, D, *shape)
            By the displacement, before it is smoothed; contiguous, and added to.
        strongest : Tensor, shape ()
            Length of the longest smoothed gradient.

        Returns
        -------
        energy : Tensor, shape ()
            The penalty: w times the mean squared distance.
        """
        missed = sample(u, self.points) - self.aims
        force = self.metric @ missed
        energy = self.factor * (missed * force).sum()
        force *= 2 * self.factor
        near = torch.linalg.vector_norm(missed, dim=0).clamp(max=1)
        strength = torch.linalg.vector_norm(force, dim=0)
        most = self.spread * strongest * near
        force *= (most / strength.clamp(min=1e-30)).clamp(max=1)
        pulls = (force[..., None] * self.parts).flatten(1)
        flat = gradient[0].view(len(force), -1)
        flat.index_add_(1, self.indices.flatten(), pulls)
        return energy


def _patches(places, shape, like):
    """Voxels around each place, and what part of its pull each gets: two (N, M)."""
    steps = torch.arange(-_REACH, _REACH + 1, device=places.device)
    offsets = torch.cartesian_prod(*[steps] * len(shape))
    voxels = places.round().long()[:, None] + offsets
    away = (voxels - places[:, None]).square().sum(2)
    last = voxels.new_tensor([n - 1 for n in shape])
    inside = ((voxels >= 0) & (voxels <= last)).all(2)
    parts = torch.exp(away / (-2 * _SPREAD**2)) * inside
    parts /= parts.sum(1, keepdim=True)
    index = 0
    for axis, size in enumerate(shape):
        index = index * size + voxels[..., axis].clamp(0, size - 1)
    return index.to(like.device), parts.to(like)
