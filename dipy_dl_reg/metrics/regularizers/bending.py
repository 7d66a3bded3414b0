"""Bending energy: the regularizer of second derivatives."""

import torch

from dipy_dl_reg.metrics.regularizers.differences import (
    differentiable_axes,
    forward_difference,
)


def bending(displacement: torch.Tensor) -> torch.Tensor:
    """Mean squared second derivative, mixed ones included; 0 for every affine map.

    Parameters
    ----------
    displacement : Tensor, shape (B, D, *shape)
        Field in voxels.

    Returns
    -------
    energy : Tensor, shape ()
        ``mean(sum_ij |d_i d_j u|^2)``.
    """
    u, energy = displacement, displacement.new_zeros(())
    axes = differentiable_axes(u)
    for a in axes:
        first = forward_difference(u, a)
        for b in axes:
            if first.shape[b + 2] > 1:
                energy = energy + forward_difference(first, b).square().mean()
    return energy * u.shape[1]
