"""Smoothness of a field: penalties on its derivatives, all differentiable.

Each function takes a displacement ``(B, D, *shape)`` in voxels and returns a scalar,
0 for a translation; bending is 0 for every affine map.
"""

import torch


def _forward(u, axis):
    """Differences between neighbours along one spatial axis."""
    dim = axis + 2
    return u.narrow(dim, 1, u.shape[dim] - 1) - u.narrow(dim, 0, u.shape[dim] - 1)


def _axes(u, least=2):
    """Spatial axes long enough to be differentiated."""
    return [a for a in range(u.ndim - 2) if u.shape[a + 2] >= least]


def diffusion(displacement):
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
    terms = (_forward(u, a).square().mean() for a in _axes(u))
    return sum(terms, zero) * u.shape[1]


def bending(displacement):
    """Mean squared second derivative, mixed ones included.

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
    axes = _axes(u)
    for a in axes:
        first = _forward(u, a)
        for b in axes:
            if first.shape[b + 2] > 1:
                energy = energy + _forward(first, b).square().mean()
    return energy * u.shape[1]


def total_variation(displacement):
    """Mean absolute first derivative: lets neighbouring parts slide.

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
    terms = (_forward(u, a).abs().mean() for a in _axes(u))
    return sum(terms, zero) * u.shape[1]


#: Penalties by the names that `DeepRegistration(regularizer=...)` takes.
REGULARIZERS = {"diffusion": diffusion, "bending": bending, "tv": total_variation}


def gradient(regularizer, displacement):
    """Value of a penalty and its derivative by the field.

    Parameters
    ----------
    regularizer : callable
        One of this module's functions, or any with their signature.
    displacement : Tensor, shape (B, D, *shape)
        Field in voxels.

    Returns
    -------
    value : Tensor, shape ()
        The penalty.
    slope : Tensor, shape (B, D, *shape)
        ``d value / d displacement``.
    """
    with torch.inference_mode(False), torch.enable_grad():
        u = displacement.clone() if displacement.is_inference() else displacement
        u = u.detach().requires_grad_()
        value = regularizer(u)
        return value.detach(), torch.autograd.grad(value, u)[0]
