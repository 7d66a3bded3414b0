"""Diffusion: the regularizer of first derivatives."""

import torch

from dipy_dl_reg.metrics.regularizers.differences import (
    differentiable_axes,
    forward_difference,
)


def diffusion(displacement: torch.Tensor) -> torch.Tensor:
    """Mean squared first derivative, ``mean |grad u|^2``.

    Parameters
    ----------
    displacement : Tensor, shape (B, D, *shape)
        Field in voxels.

    Returns
    -------
    energy : Tensor, shape ()
        Sum over axes of the mean over voxels, components added up.
    """
    u, zero = displacement, displacement.new_zeros(())
    axes = differentiable_axes(u)
    terms = (forward_difference(u, axis).square().mean() for axis in axes)
    return sum(terms, zero) * u.shape[1]
