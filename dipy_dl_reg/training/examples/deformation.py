"""Random deformations: an affine and the flow of a smooth velocity."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dipy_dl_reg.geometry.fields import compose, exp, resize
from dipy_dl_reg.training.examples import SINGLE

#: Squarings by which the velocity is integrated, at every second voxel.
_SQUARINGS = 4


class Bending:
    """Random smooth displacements of a grid, without folds unless they are extreme.

    The point ``x`` is mapped to ``A(phi(x))``.  ``phi`` is the flow of a stationary
    velocity that is random at control points and linear between them; ``A`` is a
    rotation and stretch about the middle of the grid, and a translation.

    Parameters
    ----------
    rotation : float, optional
        Standard deviation of the angles, degrees.
    scale : float, optional
        Standard deviation of the stretch, as a fraction.
    translation : float, optional
        Standard deviation of the shift, voxels.
    bending : float, optional
        Root mean square of the velocity's components, voxels.
    bending_scale : int, optional
        Voxels between its control points.
    """

    def __init__(
        self,
        *,
        rotation: float = 2.0,
        scale: float = 0.02,
        translation: float = 0.5,
        bending: float = 0.7,
        bending_scale: float = 10,
    ) -> None:
        self.rotation, self.scale, self.translation = rotation, scale, translation
        self.bending, self.bending_scale = bending, bending_scale

    def __call__(
        self, shape: Sequence[int], generator: torch.Generator
    ) -> torch.Tensor:
        """Draw a displacement field.

        Parameters
        ----------
        shape : sequence of int
            Shape of the grid.
        generator : torch.Generator
            Source of all random numbers.

        Returns
        -------
        u : Tensor, shape (1, D, *shape)
            In voxels.
        """
        affine = self._draw_affine(shape, generator)
        coarse = [max(4, round(n / self.bending_scale)) for n in shape]
        knots = torch.randn(1, len(shape), *coarse, generator=generator, **SINGLE)
        if not self.bending:
            return affine
        half = [max(2, -(-n // 2)) for n in shape]
        velocity = resize(knots, shape)
        size = self.bending / velocity.square().mean().sqrt()
        flow = resize(exp(resize(velocity * size, half), steps=_SQUARINGS), shape)
        return compose(flow, affine)

    def _draw_affine(
        self, shape: Sequence[int], generator: torch.Generator
    ) -> torch.Tensor:
        """Displacement of a random affine about the middle of the grid."""
        dim = len(shape)
        skew = torch.randn(dim, dim, generator=generator, **SINGLE)
        skew = (skew - skew.T) * 0.5 * 2**0.5 * self.rotation * torch.pi / 180
        stretch = torch.randn(dim, dim, generator=generator, **SINGLE) * self.scale
        matrix = torch.matrix_exp(skew + (stretch + stretch.T) / 2)
        matrix -= torch.eye(dim, **SINGLE)
        shift = torch.randn(dim, generator=generator, **SINGLE) * self.translation
        lines = [torch.arange(n, **SINGLE) - (n - 1) / 2 for n in shape]
        grid = torch.stack(torch.meshgrid(*lines, indexing="ij"))
        moved = torch.einsum("ij,j...->i...", matrix, grid)
        return (moved + shift.view(-1, *[1] * dim))[None]
