"""Random geometry: an affine, and the flow of a smooth velocity."""

import torch

from dipy_dl_reg.geometry.fields import compose, exp, resize
from dipy_dl_reg.training.examples import SINGLE

#: Squarings of the flow, found at every second voxel.
_SQUARINGS = 4


class Bending:
    """Random smooth displacements of a grid that do not fold unless they are extreme.

    The point ``x`` goes to ``A(phi(x))``: ``phi`` the flow of a stationary velocity
    that is random at control points and linear between them, ``A`` a rotation and
    stretch about the middle of the grid, and a shift.

    Parameters
    ----------
    rotation : float, optional
        Standard deviation of the angles, degrees.
    scale : float, optional
        Standard deviation of the stretch, as a part of 1.
    translation : float, optional
        Standard deviation of the shift, voxels.
    bending : float, optional
        Root of the mean square of the velocity's components, voxels.
    bending_scale : int, optional
        Voxels between its control points.
    """

    def __init__(
        self, *, rotation=2.0, scale=0.02, translation=0.5, bending=0.7,
        bending_scale=10,
    ):  # fmt: skip
        self.rotation, self.scale, self.translation = rotation, scale, translation
        self.bending, self.bending_scale = bending, bending_scale

    def __call__(self, shape, generator):
        """A displacement field.

        Parameters
        ----------
        shape : sequence of int
            Of the grid.
        generator : torch.Generator
            All that is random comes from it.

        Returns
        -------
        u : Tensor, shape (1, D, *shape)
            In voxels.
        """
        affine = self._affine(shape, generator)
        coarse = [max(4, round(n / self.bending_scale)) for n in shape]
        knots = torch.randn(1, len(shape), *coarse, generator=generator, **SINGLE)
        if not self.bending:
            return affine
        half = [max(2, -(-n // 2)) for n in shape]
        velocity = resize(knots, shape)
        size = self.bending / velocity.square().mean().sqrt()
        flow = resize(exp(resize(velocity * size, half), steps=_SQUARINGS), shape)
        return compose(flow, affine)

    def _affine(self, shape, generator):
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
