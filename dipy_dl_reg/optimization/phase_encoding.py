r"""Displacement fields that lie on one line, as the distortion of echo-planar images.

Echo-planar images are distorted along the axis of phase encoding only, an axis of the
moving image's own grid.  With :math:`M` the matrix of moving's grid, :math:`P` the
prealign and :math:`b` the displacement in static's world, the map is
:math:`y = P (x + b(x))`, and the displacement in moving's voxels is
:math:`M^{-1} P \, b(x)`.  It lies on axis :math:`a` exactly if :math:`b` lies on the
direction

.. math:: P^{-1} M e_a

which is the same at all voxels.  `AxisConstraint` holds this direction and projects
fields on it.

Composition, smoothing, resampling, inversion by fixed-point or Newton steps,
`enforce_inverse_consistency` and the repair of folds are linear combinations of vectors
of the fields, or multiply them by ``1 + Du``, which maps this direction to itself.
Fields on the line therefore remain on it, up to rounding, and only the gradient of the
energy has to be projected.  The inverse of a map on a line lies on the same line.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.derivatives import derivative
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.validation import check_phase_encoding

#: Smallest part of the direction that lies along axes of more than one voxel.
_LEAST_IN_PLANE = 0.5


class AxisConstraint(NamedTuple):
    """The line on which all displacements of a registration lie.

    Attributes
    ----------
    direction : ndarray, shape (D,)
        In static's world: the displacement that moves a point by one voxel along the
        axis of moving's grid.
    modulates : bool
        Whether the warped image is multiplied by the Jacobian determinant before it is
        compared with static, as the signal of an echo-planar image requires.
    """

    direction: np.ndarray
    modulates: bool = False

    def in_voxels(self, grid: Grid) -> np.ndarray:
        """Convert the direction to voxels of a grid in static's world.

        Parameters
        ----------
        grid : Grid
            Static's grid, or one of the same world.

        Returns
        -------
        direction : ndarray, shape (D,)
            Components along the axes of the grid.
        """
        dim = grid.dim
        direction = np.linalg.solve(grid.affine[:dim, :dim], self.direction)
        # Rounding of the affines would give displacements of 1e-17 along other axes.
        return np.where(abs(direction) < 1e-12 * abs(direction).max(), 0, direction)

    def part_in_plane(self, grid: Grid) -> float:
        """Compute the part of the direction along axes of more than one voxel.

        Parameters
        ----------
        grid : Grid
            A grid of static's world.

        Returns
        -------
        part : float
            Ratio of lengths in voxels, 1 if no axis has only one voxel.
        """
        whole = np.linalg.norm(self.in_voxels(grid))
        return float(np.linalg.norm(self._in_plane(grid)) / whole)

    def _in_plane(self, grid: Grid) -> np.ndarray:
        """The direction without axes of one voxel, along which fields are 0."""
        return np.where(np.array(grid.shape) > 1, self.in_voxels(grid), 0)

    def coordinates(self, field: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Compute the displacements in voxels of moving's grid along its axis.

        Parameters
        ----------
        field : Tensor, shape (B, D, *shape)
            In voxels of `grid`.
        grid : Grid
            Grid of the field.

        Returns
        -------
        shift : Tensor, shape (B, 1, *shape)
            The multiple of the direction that is nearest to each vector.
        """
        seen = self._in_plane(grid)
        weights = seen / (seen @ seen)
        parts = [(a, float(w)) for a, w in enumerate(weights) if w]
        axis, weight = parts[0]
        shift = field[:, axis : axis + 1] * weight
        for axis, weight in parts[1:]:
            shift.add_(field[:, axis : axis + 1], alpha=weight)
        return shift

    def project(self, field: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Project the vectors of a field on the direction, in place.

        Parameters
        ----------
        field : Tensor, shape (B, D, *shape)
            In voxels of `grid`; overwritten.
        grid : Grid
            Grid of the field.

        Returns
        -------
        field : Tensor, shape (B, D, *shape)
            The same tensor.
        """
        shift = self.coordinates(field, grid)
        for axis, part in enumerate(self.in_voxels(grid)):
            torch.mul(shift, float(part), out=field[:, axis : axis + 1])
        return field


def constrain_to_axis(
    pair: Pair, phase_encoding: str | None, *, modulates: bool = False
) -> AxisConstraint | None:
    """Make the constraint for an axis of phase encoding.

    Parameters
    ----------
    pair : Pair
        The images.
    phase_encoding : str or None
        Axis of moving's array, see `check_phase_encoding`; None for no constraint.
    modulates : bool, optional
        See `AxisConstraint`.

    Returns
    -------
    constraint : AxisConstraint or None
        The line on which displacements must lie; its direction includes the prealign.

    Raises
    ------
    ValueError
        If moving has no such axis or one voxel along it, or if static is a single slice
        that does not contain the direction.
    """
    if phase_encoding is None:
        return None
    dim = pair.static_grid.dim
    axis, _ = check_phase_encoding(phase_encoding, dim)
    if pair.moving_grid.shape[axis] == 1:
        raise ValueError(
            f"phase_encoding is {phase_encoding!r}, but moving has one voxel along "
            f"this axis: its shape is {pair.moving_grid.shape}."
        )
    column = pair.moving_grid.affine[:dim, axis]
    direction = np.linalg.solve(pair.prealign[:dim, :dim], column)
    constraint = AxisConstraint(direction, modulates)
    if constraint.part_in_plane(pair.static_grid) < _LEAST_IN_PLANE:
        raise ValueError(
            f"phase_encoding {phase_encoding!r} leads out of static, which has one "
            f"voxel along that direction: its shape is {pair.static_grid.shape}."
        )
    return constraint


def line_determinant(displacement: torch.Tensor) -> torch.Tensor:
    r"""Compute the Jacobian determinant of a map whose displacements lie on a line.

    With :math:`u = t d` and a constant :math:`d`, the determinant of
    :math:`1 + d \, (\nabla t)^T` is :math:`1 + d \cdot \nabla t = 1 + \nabla \cdot u`.

    Parameters
    ----------
    displacement : Tensor, shape (B, D, *shape)
        Field in voxels, of vectors on a line.

    Returns
    -------
    determinant : Tensor, shape (B, 1, *shape)
        By central differences, as `jacobian` computes it.
    """
    total = torch.ones_like(displacement[:, :1])
    for axis in range(displacement.shape[1]):
        component = displacement[:, axis : axis + 1]
        total += derivative(component, axis)
    return total


def modulated_gradient(
    modulated: torch.Tensor, factor: torch.Tensor, *, out: torch.Tensor
) -> torch.Tensor:
    r"""Gradient by the step of an energy of a modulated image.

    A small step :math:`m` along the line changes the modulated image :math:`c` by
    :math:`\partial (c m)`, because the map moves the signal without loss.  Integration
    by parts gives the gradient of an energy :math:`E` with
    :math:`g = \partial E / \partial c`:

    .. math::

        \int g \, \partial (c m) = - \int c \, (\partial g) \, m

    Parameters
    ----------
    modulated : Tensor, shape (1, C, *shape)
        The warped image times the determinant (`line_determinant`).
    factor : Tensor, shape (1, C, *shape)
        Derivative of the energy by this image.
    out : Tensor, shape (1, D, *shape)
        Tensor for the result; it must be neither of the two.

    Returns
    -------
    gradient : Tensor, shape (1, D, *shape)
        `out`, to be projected on the line.
    """
    for axis in range(modulated.ndim - 2):
        product = derivative(factor, axis).mul_(modulated)
        torch.sum(product, 1, keepdim=True, out=out[:, axis : axis + 1])
    return out.neg_()
