"""A network's word on two images of any grid and orientation.

Networks know voxels only.  The images are brought to a grid in the form that networks
are trained on (`Grid.to_standard`: isotropic voxels of the network's own size, axes
along the world's), and the field is brought back to the static image's grid.
"""

from contextlib import contextmanager
from copy import deepcopy
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
import torch

from dipy_dl_reg.geometry.fields import compose, frame, warp
from dipy_dl_reg.geometry.pair import Pair, inside_mask
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.initialization.metric_selection import ALIKE, mean_local_correlation
from dipy_dl_reg.initialization.midspace import ask_half_way, common_grid, cropped, flow
from dipy_dl_reg.initialization.single_slice import embed_in_volume, flatten_slices

#: Smoothing of the images on the way to coarser voxels, see `coarsen`.
_SIGMA_FACTOR = 0.5
#: Looks of a symmetric network: how many times larger than the grid's its voxels are.
_LOOKS, _LOOKS_AGAIN, _FROM_FAR = (1,), (1, 1), (4, 2)
#: Voxels, in the network's own, where it looks again.
_FINER = 0.75
#: Networks that are at work: by how many, and which parts were in training mode before.
_IN_USE, _LOCK = WeakKeyDictionary(), Lock()


def predict_displacement(network, pair, objective, *, alone=True):
    """The field that a network predicts for a pair.

    A network for 2D images also takes two volumes of a single slice each.

    A network that predicts velocities is asked again with the images swapped, and half
    the difference of the two answers taken, so that swapping the images gives the
    inverse; and it looks a second time, at what its first answer left.  Each is kept
    only where it lowers the objective: a network that was trained in one direction
    alone, or on one pair, is taken at its plain word.  A network that is symmetric by
    construction is not asked twice for that; it looks at both images half-way, so that
    the inverse stays what swapped images give.

    Parameters
    ----------
    network : RegistrationNetwork
        Of the images' dimension, or for 2D images where both are one slice; neither
        its device nor its mode is changed.
    pair : Pair
        The images; outside masks they are 0 for the network.
    objective : Objective
        What refinement would minimise; symmetric networks are not judged by it.
    alone : bool, optional
        Whether the field is the result, and not only where refinement begins: a
        symmetric network then looks again.

    Returns
    -------
    displacement : Tensor, shape (1, D, *static_shape)
        In voxels of the static grid; 0 across a single slice.
    inverse : Tensor, shape (1, D, *static_shape), or None
        Its inverse, where the network predicts a velocity.

    Raises
    ------
    ValueError
        If the network is for another dimension, or predicts anything not finite.
    """
    flat = flatten_slices(pair) if network.dim == 2 else None
    if flat is None:
        return _predict(network, pair, objective, alone)
    fields = _predict(network, flat, objective, alone)
    return tuple(
        None if u is None else embed_in_volume(u, pair.static_grid.shape)
        for u in fields
    )


def _predict(network, pair, objective, alone):
    """The field, and its inverse or None, for images of the network's dimension."""
    dim = pair.static_grid.dim
    if network.dim != dim:
        raise ValueError(
            f"model is a network for {network.dim}D images, these are {dim}D."
        )
    with _ready(network, pair.static.device) as ready, torch.no_grad():
        if network.symmetric:
            grid, fields = _answer_half_way(ready, pair, alone)
        else:
            grid = pair.static_grid.to_standard(network.spacing)
            fields = _answer(ready, *on_grid(pair, grid), objective)
        u, *v = (resample_field(f, grid, pair.static_grid) for f in fields)
    if not bool(torch.isfinite(u).all()):
        raise ValueError("model predicts a field that is not finite for these images.")
    return u, v[0] if v else None


def _answer_half_way(network, pair, alone):
    """A symmetric network's displacement and inverse, and their grid.

    Images that agree already are looked at as the network is meant to; others from far
    first.  Where refinement will add little, or is not sure, the network looks again,
    and at smaller voxels.
    """
    grid, images = _half_way(pair, network.spacing)
    agrees = mean_local_correlation(Pair(*images, grid, grid, np.eye(grid.dim + 1)))
    near = agrees is not None and agrees >= ALIKE
    if alone or not near:
        if network.spacing is not None:
            grid, images = _half_way(pair, _FINER * network.spacing)
        looks = _LOOKS_AGAIN
    else:
        looks = _LOOKS
    looks = looks if near else (*_FROM_FAR, *looks)
    return grid, ask_half_way(network, *images, looks)


def _half_way(pair, spacing):
    """The images where a symmetric network sees them, and their grid."""
    both = pair.static_grid, pair.moving_grid
    grid = common_grid(*both, pair.prealign, spacing)
    grid = pair.static_grid.to_standard(spacing) if grid is None else grid
    return cropped(grid, on_grid(pair, grid))


def _answer(network, static, moving, objective):
    """Displacement, and its inverse from a network of velocities, on their grid."""
    evaluate = objective.bind(static, moving=moving)

    def energy(fields):
        return float(evaluate(warp(moving, fields[0]), fields[0])[0].total)

    first = _asked(network, static, moving)
    if len(first) == 1:
        return first
    both = _asked_both_ways(network, static, moving)
    ask, best = _asked, first
    if energy(both) < energy(first):
        ask, best = _asked_both_ways, both
    u, v = ask(network, static, warp(moving, best[0]))
    second = compose(u, best[0]), compose(best[1], v)
    return second if energy(second) < energy(best) else best


def _asked(network, static, moving):
    """A network's plain word: the displacement, and its inverse if it is a flow."""
    dtype = next(network.parameters()).dtype
    prediction = network(static.to(dtype), moving.to(dtype))
    if prediction.velocity is None:
        return (prediction.displacement.float(),)
    return flow(prediction.velocity.float())


def _asked_both_ways(network, static, moving):
    """Flow of half the difference between a network's answers to both orders."""
    dtype = next(network.parameters()).dtype
    static, moving = static.to(dtype), moving.to(dtype)
    there, back = network(static, moving), network(moving, static)
    return flow((there.velocity - back.velocity).float() / 2)


def on_grid(pair, grid):
    """Both images on one grid, the moving one through the prealign.

    Parameters
    ----------
    pair : Pair
        The images.
    grid : Grid
        In static's world.

    Returns
    -------
    static, moving : Tensor, shape (1, 1, *grid.shape)
        Smoothed first where `grid` is coarser; one interpolation each; 0 outside the
        masks of the pair.
    """
    dim = pair.static_grid.dim
    there = (pair.prealign @ grid.affine)[:dim, :dim]
    static = _smoothed(pair.static, pair.static_mask, pair.static_grid, grid.spacing)
    moving = _smoothed(
        pair.moving, pair.moving_mask, pair.moving_grid, np.linalg.norm(there, axis=0)
    )
    return (
        _seen(static, grid.shape, grid.to(pair.static_grid)),
        _seen(moving, grid.shape, grid.to(pair.moving_grid, pair.prealign)),
    )


def _smoothed(image, mask, own, spacing):
    """An image ready to be sampled at coarser voxels; missing data is 0.

    So it is in training.  For refinement, which looks at neighbours only, the image is
    continued there instead; a network would take that for anatomy.
    """
    image = image if mask is None else image * mask
    ratio = float(spacing.min()) / own.spacing
    sigma = np.where(ratio > 1, _SIGMA_FACTOR * (ratio - 1), 0.0)
    return smooth(image, list(sigma)) if sigma.any() else image


def _sampled(image, shape, matrix):
    """An image on a grid whose voxels `matrix` takes to the image's."""
    still = image.new_zeros(1, len(shape), *shape)
    into = frame(shape, image.shape[2:], affine=matrix, device=image.device)
    return warp(image, still, frame_=into)


def _seen(image, shape, matrix):
    """An image on a grid, and nothing beyond what it shows."""
    inside = inside_mask(shape, image.shape[2:], matrix, device=image.device)
    return _sampled(image, shape, matrix) * inside


def resample_field(u, grid, target):
    """Bring a field to another grid.

    Parameters
    ----------
    u : Tensor, shape (B, D, *grid.shape)
        Displacements in voxels of `grid`.
    grid, target : Grid
        Where the field is, and where it is wanted, in one world.

    Returns
    -------
    resampled : Tensor, shape (B, D, *target.shape)
        The same displacements in voxels of `target`; 0 across a single slice.
    """
    moved = _sampled(u, target.shape, target.to(grid))
    linear = grid.to(target)[: grid.dim, : grid.dim]
    linear = torch.as_tensor(linear, dtype=u.dtype, device=u.device)
    # Nothing moves out of a single slice: there is nothing beyond it.
    linear[[size == 1 for size in target.shape]] = 0
    return torch.einsum("ij,bj...->bi...", linear, moved)


@contextmanager
def _ready(network, device):
    """The network on a device and set for use; the caller's stays as it was."""
    home = next(network.parameters()).device
    if home != device:
        network = deepcopy(network).to(device)
    # Threads may share a network: the first sets it for use, the last sets it back.
    with _LOCK:
        users, modes = _IN_USE.get(network, (0, None))
        if not users:
            modes = {module: module.training for module in network.modules()}
            network.eval()
        _IN_USE[network] = users + 1, modes
    try:
        yield network
    finally:
        with _LOCK:
            users, modes = _IN_USE.pop(network)
            if users > 1:
                _IN_USE[network] = users - 1, modes
            else:
                for module, training in modes.items():
                    module.training = training
