"""Any affine matrix."""

import torch

from dipy_dl_reg.geometry.affine_transforms.base import EXACT, AffineTransform


class Affine(AffineTransform):
    """Any affine matrix; its rows but the last are the parameters.

    Attributes
    ----------
    dim : {2, 3}
        Dimension of space.
    """

    kind = "affine"
    meaning = "any matrix"

    @property
    def count(self) -> int:
        """Number of parameters, P."""
        return self.dim * (self.dim + 1)

    def identity(self) -> torch.Tensor:
        """Parameters of the identity.

        Returns
        -------
        theta : Tensor, shape (1, P)
            A batch of one.
        """
        return torch.eye(self.dim, self.dim + 1, **EXACT).view(1, -1)

    def rows(self, theta: torch.Tensor) -> torch.Tensor:
        """All rows of the matrices but the last, which is 0 ... 0 1.

        Parameters
        ----------
        theta : Tensor, shape (B, P)
            Float64.

        Returns
        -------
        rows : Tensor, shape (B, D, D + 1)
            A view of the parameters.
        """
        return theta.view(len(theta), self.dim, self.dim + 1)

    def jacobian(self, theta: torch.Tensor) -> torch.Tensor:
        """Derivatives of `rows` by the parameters, each 0 or 1.

        Parameters
        ----------
        theta : Tensor, shape (B, P)
            Float64.

        Returns
        -------
        jacobian : Tensor, shape (B, P, D, D + 1)
            Float64.
        """
        own = torch.eye(self.count, dtype=theta.dtype, device=theta.device)
        own = own.view(1, self.count, self.dim, self.dim + 1)
        return own.repeat(len(theta), 1, 1, 1)

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
        return theta.view(-1, self.dim, self.dim + 1)[:, :, -1]
