"""The base class of affine transforms."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from dipy_dl_reg.validation import wrong_value

#: Type and device of parameters and matrices.
EXACT: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}


@dataclass(frozen=True)
class AffineTransform(ABC):
    """Base class of all types of affine transforms.

    Attributes
    ----------
    dim : {2, 3}
        Dimension of space.

    Raises
    ------
    ValueError
        If `dim` is neither 2 nor 3.
    """

    #: Its name in `dipy_dl_reg.geometry.affine_transforms.registry.TRANSFORMS`.
    kind: ClassVar[str]
    #: Description of the transform for messages and documentation.
    meaning: ClassVar[str]
    #: Whether a translation is among the parameters, so that any point may be the
    #: centre of rotations and scales.
    has_translation: ClassVar[bool] = True

    dim: int

    def __post_init__(self) -> None:
        if self.dim not in (2, 3):
            raise wrong_value("dim", "2 or 3", self.dim)

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of parameters, P."""

    @abstractmethod
    def identity(self) -> torch.Tensor:
        """Parameters of the identity.

        Returns
        -------
        theta : Tensor, shape (1, P)
            A batch of one.
        """

    @abstractmethod
    def rows(self, theta: torch.Tensor) -> torch.Tensor:
        """All rows of the matrices but the last, which is 0 ... 0 1.

        Parameters
        ----------
        theta : Tensor, shape (B, P)
            Float64.

        Returns
        -------
        rows : Tensor, shape (B, D, D + 1)
            Linear part and translation.
        """

    @abstractmethod
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

    @abstractmethod
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

    def matrix(self, theta: torch.Tensor) -> torch.Tensor:
        """Matrices of a batch of parameters.

        Parameters
        ----------
        theta : Tensor, shape (B, P)
            Float64.

        Returns
        -------
        matrix : Tensor, shape (B, D + 1, D + 1)
            The last row is 0 ... 0 1.
        """
        last = torch.eye(self.dim + 1, dtype=theta.dtype, device=theta.device)[-1:]
        return torch.cat([self.rows(theta), last.expand(len(theta), 1, -1)], 1)

    def numpy_matrix(self, theta: np.ndarray) -> np.ndarray:
        """The matrix of one set of parameters, from array to array.

        Parameters
        ----------
        theta : ndarray, shape (P,)
            Parameters.

        Returns
        -------
        matrix : ndarray, shape (D + 1, D + 1)
            As of DIPY's `param_to_matrix`.
        """
        return self.matrix(torch.as_tensor(theta, **EXACT)[None])[0].numpy()

    def change_centre(self, theta: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
        """Convert parameters to those of the same transforms about another origin.

        Parameters
        ----------
        theta : Tensor, shape (B, P)
            With the origin as the centre.
        centre : Tensor, shape (D,) or (B, D)
            The new origin.

        Returns
        -------
        theta : Tensor, shape (B, P)
            New parameters, of ``T(-centre) M(theta) T(centre)``; those of a transform
            without a translation, whose centre is always the origin, do not change.
        """
        theta = theta.clone()
        if not self.has_translation:
            return theta
        linear = self.rows(theta)[:, :, :-1]
        turned = (linear @ centre[..., None]).squeeze(-1)
        self.translation(theta).add_(turned - centre)
        return theta
