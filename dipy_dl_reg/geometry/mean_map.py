"""Centring of maps: composition with the inverse of their mean."""

from __future__ import annotations

import torch

from dipy_dl_reg.geometry.fields import compose
from dipy_dl_reg.geometry.fold_repair import make_diffeomorphic


def invert_mean(mean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Invert a mean displacement; repair it first where it folds.

    Parameters
    ----------
    mean : Tensor, shape (1, D, *shape)
        Mean of displacements, in voxels.  A mean of maps without folds is nearly always
        free of folds, too.

    Returns
    -------
    mean, inverse : Tensor, shape (1, D, *shape)
        The repaired mean and its inverse.
    """
    repaired, inverse, _ = make_diffeomorphic(mean)
    return repaired, inverse


def remove_mean_map(
    u: torch.Tensor,
    v: torch.Tensor,
    mean: torch.Tensor,
    inverse: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Compose a map with the inverse of the mean of all maps.

    With :math:`\phi_i(x) = x + u_i(x)` and their mean :math:`M(x) = x + m(x)`, the
    centred maps are :math:`\phi_i \circ M^{-1}`. Their mean is the identity
    :footcite:p:`Guimond2000`:

    .. math:: \frac{1}{N} \sum_i \phi_i(M^{-1}(x)) = M(M^{-1}(x)) = x

    Parameters
    ----------
    u, v : Tensor, shape (1, D, *shape)
        A map and its inverse, in voxels.
    mean, inverse : Tensor, shape (1, D, *shape)
        The mean of all maps and its inverse (`invert_mean`).

    Returns
    -------
    u, v : Tensor, shape (1, D, *shape)
        The centred map and its inverse :math:`M \circ \phi_i^{-1}`, without folds.

    References
    ----------
    .. footbibliography::
    """
    u, v, _ = make_diffeomorphic(compose(inverse, u), compose(v, mean))
    return u, v
