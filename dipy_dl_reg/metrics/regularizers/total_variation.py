"""Total variation: a regularizer that permits discontinuities of the field."""

import torch

from dipy_dl_reg.metrics.regularizers.differences import (
    differentiable_axes,
    forward_difference,
)


def total_variation(displacement: torch.Tensor) -> torch.Tensor:
    """Mean absolute first derivative; it permits sliding of neighbouring regions.

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
    terms = (forward_difference(u, axis).abs().mean() for axis in axes)
    return sum(terms, zero) * u.shape[1]
