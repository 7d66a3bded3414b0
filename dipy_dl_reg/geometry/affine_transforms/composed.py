"""Transforms composed of a rotation, scales and a translation."""

from typing import ClassVar, Literal

import torch

from dipy_dl_reg.geometry.affine_transforms.base import EXACT, AffineTransform
from dipy_dl_reg.geometry.affine_transforms.rotations import rotation_matrices


class ComposedTransform(AffineTransform):
    """``y = diag(s) R x + t``, with some of the scales s, rotation R, translation t.

    A subclass defines by class attributes which of these parts it has.  The parameters
    are the angles of R, then t, then s.

    Attributes
    ----------
    dim : {2, 3}
        Dimension of space.
    """

    #: Whether there is a rotation.
    rotates: ClassVar[bool] = False
    #: Whether there are no scales, one for all axes, or one for each axis.
    scaling: ClassVar[Literal["none", "one", "each"]] = "none"

    @property
    def angle_count(self) -> int:
        """Number of angles, which come first."""
        return (1 if self.dim == 2 else 3) if self.rotates else 0

    @property
    def scale_count(self) -> int:
        """Number of scales, which come last."""
        return {"none": 0, "one": 1, "each": self.dim}[self.scaling]

    @property
    def count(self) -> int:
        """Number of parameters, P."""
        shifts = self.dim * self.has_translation
        return self.angle_count + shifts + self.scale_count

    def identity(self) -> torch.Tensor:
        """Parameters of the identity.

        Returns
        -------
        theta : Tensor, shape (1, P)
            A batch of one: angles and translation 0, scales 1.
        """
        theta = torch.zeros(1, self.count, **EXACT)
        theta[:, self.count - self.scale_count :] = 1
        return theta

    def translation(self, theta: torch.Tensor) -> torch.Tensor:
        """View of the translation among the parameters.

        Parameters
        ----------
        theta : Tensor, shape (B, P)
            Float64.

        Returns
        -------
        translation : Tensor, shape (B, D)
            Shares memory with `theta`.
        """
        return theta[:, self.angle_count : self.angle_count + self.dim]

    def rows(self, theta: torch.Tensor) -> torch.Tensor:
        """All rows of the matrices but the last, which is 0 ... 0 1.

        Parameters
        ----------
        theta : Tensor, shape (B, P)
            Float64.

        Returns
        -------
        rows : Tensor, shape (B, D, D + 1)
            ``[diag(s) R, t]``.
        """
        dim = self.dim
        rotation, _ = rotation_matrices(theta[:, : self.angle_count], dim)
        rows = theta.new_zeros(len(theta), dim, dim + 1)
        rows[:, :, :dim] = self._scales(theta)[:, :, None] * rotation
        if self.has_translation:
            rows[:, :, dim] = self.translation(theta)
        return rows

    def jacobian(self, theta: torch.Tensor) -> torch.Tensor:
        """Derivatives of `rows` by the parameters.

        Parameters
        ----------
        theta : Tensor, shape (B, P)
            Float64.

        Returns
        -------
        jacobian : Tensor, shape (B, P, D, D + 1)
            Float64.
        """
        dim = self.dim
        jacobian = theta.new_zeros(len(theta), self.count, dim, dim + 1)
        rotation, by_angle = rotation_matrices(theta[:, : self.angle_count], dim)
        scales = self._scales(theta)
        for k, derivative in enumerate(by_angle):
            jacobian[:, k, :, :dim] = scales[:, :, None] * derivative
        for d in range(dim * self.has_translation):
            jacobian[:, self.angle_count + d, d, dim] = 1
        first = self.count - self.scale_count
        if self.scaling == "one":
            jacobian[:, first, :, :dim] = rotation
        elif self.scaling == "each":
            for d in range(dim):
                jacobian[:, first + d, d, :dim] = rotation[:, d]
        return jacobian

    def _scales(self, theta: torch.Tensor) -> torch.Tensor:
        """Scale of each axis, (B, D)."""
        if not self.scale_count:
            return theta.new_ones(len(theta), self.dim)
        return theta[:, self.count - self.scale_count :].expand(-1, self.dim)
