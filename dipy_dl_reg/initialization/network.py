"""The displacement that a network predicts for images on any grid and orientation.

A network has no information about the affines.  Therefore the images are sampled on a
grid in the standard form of the training (`Grid.to_standard`: isotropic voxels of the
network's voxel size, axes along those of the world), and the predicted field is
resampled to the static image's grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from threading import Lock
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from scipy.ndimage import label
import torch

from dipy_dl_reg.geometry.fields import compose, warp
from dipy_dl_reg.geometry.pair import Pair, inside_mask
from dipy_dl_reg.geometry.resampling import resample_field, sample_on_grid
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization.metric_selection import (
    SAME_CONTRAST,
    mean_local_correlation,
)
from dipy_dl_reg.initialization.midspace import (
    crop_background,
    integrate_velocity,
    make_midspace_grid,
    predict_in_midspace,
)
from dipy_dl_reg.initialization.single_slice import embed_in_volume, flatten_slices
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.networks.base import RegistrationNetwork

#: Smoothing of the images before they are sampled on larger voxels, see `coarsen`.
_SIGMA_FACTOR = 0.5
#: Passes of a symmetric network: for each pass, the ratio of its voxel size to that of
#: the grid.  One pass if refinement follows, three if not.  If the images are far apart
#: or have different contrasts, two, after passes with large voxels: more deform such
#: images too much.
_ONE_PASS, _TWO_PASSES, _THREE_PASSES = (1.0,), (1.0,) * 2, (1.0,) * 3
_COARSE_PASSES = (4.0, 2.0)
#: Voxel size, over the network's own, of the grid where it makes several passes.
_FINER = 0.75


class _Predicted(NamedTuple):
    """A displacement and its inverse (None if it is not known), (1, D, *shape)."""

    displacement: torch.Tensor
    inverse: torch.Tensor | None = None


class _Use(NamedTuple):
    """Number of threads that use a network, and the training mode of its modules."""

    users: int
    modes: dict[torch.nn.Module, bool]


#: Networks in use.
_IN_USE: WeakKeyDictionary[RegistrationNetwork, _Use] = WeakKeyDictionary()
_LOCK = Lock()


def predict_displacement(
    network: RegistrationNetwork,
    pair: Pair,
    objective: Objective,
    *,
    alone: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Predict the displacement field of a pair by a network.

    A network for 2D images also takes two volumes of a single slice each.

    A symmetric network is applied in mid-space (`predict_in_midspace`), so that swapped
    images give the inverse.  For any other network that predicts a velocity, two
    variants are tried: the network is also applied to the swapped images, and half the
    difference of both velocities is used; and the network is applied a second time, to
    the images warped by the first field.  Each variant is used only if it lowers the
    objective, because a network that was trained in one direction, or on one pair, may
    give a better field without it.

    Parameters
    ----------
    network : RegistrationNetwork
        A network for the images' dimension, or a 2D network if both images are single
        slices; its device and its mode are not changed.
    pair : Pair
        The images; voxels outside the masks are set to 0 for the network.
    objective : Objective
        The function that refinement minimizes; not used with symmetric networks.
    alone : bool, optional
        Whether no refinement follows: a symmetric network then makes three passes.

    Returns
    -------
    displacement : Tensor, shape (1, D, *static_shape)
        In voxels of the static grid; 0 across a single slice.
    inverse : Tensor, shape (1, D, *static_shape), or None
        Its inverse, if the network predicts a velocity.

    Raises
    ------
    ValueError
        If the network is for another dimension, or its field is not finite.
    """
    flat = flatten_slices(pair) if network.dim == 2 else None
    if flat is None:
        return _predict(network, pair, objective, alone)
    u, v = _predict(network, flat, objective, alone)
    shape = pair.static_grid.shape
    return embed_in_volume(u, shape), None if v is None else embed_in_volume(v, shape)


def _predict(
    network: RegistrationNetwork, pair: Pair, objective: Objective, alone: bool
) -> _Predicted:
    """The field for images of the network's dimension, in voxels of the static grid."""
    target = pair.static_grid
    if network.dim != target.dim:
        raise ValueError(
            f"model is for {network.dim}D images, but the images are {target.dim}D."
        )
    with _ready_on_device(network, pair.static.device) as ready, torch.no_grad():
        if network.symmetric:
            grid, (u, v) = _predict_symmetric(ready, pair, alone)
        else:
            grid = target.to_standard(network.spacing)
            u, v = _predict_best(ready, *sample_pair_on_grid(pair, grid), objective)
        u = resample_field(u, grid, target)
        v = None if v is None else resample_field(v, grid, target)
    if not bool(torch.isfinite(u).all()):
        raise ValueError("model predicts a field that is not finite for these images.")
    return _Predicted(u, v)


def _predict_symmetric(
    network: RegistrationNetwork, pair: Pair, alone: bool
) -> tuple[Grid, _Predicted]:
    """The field of a symmetric network in mid-space, and its grid.

    If the correlation of the images is weak, passes with large voxels come first, and
    two passes with smaller voxels follow.  Otherwise one pass is made, or three with
    smaller voxels if no refinement follows.
    """
    grid, static, moving = _sample_in_midspace(pair, network.spacing)
    sampled = Pair(static, moving, grid, grid, np.eye(grid.dim + 1))
    correlation = mean_local_correlation(sampled)
    similar = correlation is not None and correlation >= SAME_CONTRAST
    factors: tuple[float, ...] = _TWO_PASSES
    if similar:
        factors = _THREE_PASSES if alone else _ONE_PASS
    if len(factors) > 1 and network.spacing is not None:
        grid, static, moving = _sample_in_midspace(pair, _FINER * network.spacing)
    factors = factors if similar else (*_COARSE_PASSES, *factors)
    return grid, _Predicted(*predict_in_midspace(network, static, moving, factors))


def _sample_in_midspace(
    pair: Pair, spacing: float | None
) -> tuple[Grid, torch.Tensor, torch.Tensor]:
    """Sample both images in mid-space; without one, on static's standard grid."""
    grid = make_midspace_grid(
        pair.static_grid, pair.moving_grid, pair.prealign, spacing
    )
    if grid is None:
        grid = pair.static_grid.to_standard(spacing)
    grid, (static, moving) = crop_background(grid, sample_pair_on_grid(pair, grid))
    return grid, static, moving


def _predict_best(
    network: RegistrationNetwork,
    static: torch.Tensor,
    moving: torch.Tensor,
    objective: Objective,
) -> _Predicted:
    """The field of the lowest energy among several ways to apply a network."""
    evaluate = objective.bind(static, moving=moving)

    def energy(fields: _Predicted) -> float:
        u = fields.displacement
        return float(evaluate(warp(moving, u), u)[0].total)

    first = _predict_once(network, static, moving)
    if first.inverse is None:
        return first
    predict, best = _predict_once, first
    both = _predict_both_orders(network, static, moving)
    if energy(both) < energy(first):
        predict, best = _predict_both_orders, both
    rest = predict(network, static, warp(moving, best.displacement))
    second = _compose_fields(rest, best)
    return second if energy(second) < energy(best) else best


def _compose_fields(last: _Predicted, first: _Predicted) -> _Predicted:
    """One field, with its inverse, for two that are applied one after the other."""
    u = compose(last.displacement, first.displacement)
    if first.inverse is None or last.inverse is None:
        return _Predicted(u)
    return _Predicted(u, compose(first.inverse, last.inverse))


def _predict_once(
    network: RegistrationNetwork, static: torch.Tensor, moving: torch.Tensor
) -> _Predicted:
    """The network's own displacement, and its inverse if it predicts a velocity."""
    dtype = next(network.parameters()).dtype
    prediction = network(static.to(dtype), moving.to(dtype))
    if prediction.velocity is None:
        return _Predicted(prediction.displacement.float())
    return _Predicted(*integrate_velocity(prediction.velocity.float()))


def _predict_both_orders(
    network: RegistrationNetwork, static: torch.Tensor, moving: torch.Tensor
) -> _Predicted:
    """The flow of half the difference of the velocities for both orders of images."""
    dtype = next(network.parameters()).dtype
    static, moving = static.to(dtype), moving.to(dtype)
    there, back = network(static, moving), network(moving, static)
    velocity = (there.velocity - back.velocity).float() / 2
    return _Predicted(*integrate_velocity(velocity))


def sample_pair_on_grid(pair: Pair, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample both images on one grid, the moving one through the prealign.

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
        fields of view and the masks of the pair.  If only one image has a mask, it is
        applied to both: a network that sees a whole head beside a brain predicts a
        field that expands the brain to the size of the head.  Holes inside a mask, such
        as lesions, are not set to 0, which would look like a ventricle: they have the
        values of neighbouring voxels.
    """
    pair = pair._replace(
        static_mask=_fill_holes(pair.static_mask),
        moving_mask=_fill_holes(pair.moving_mask),
    )
    dim = pair.static_grid.dim
    linear = (pair.prealign @ grid.affine)[:dim, :dim]
    static = _smooth_for_spacing(
        pair.static, pair.static_mask, pair.static_grid, grid.spacing
    )
    moving = _smooth_for_spacing(
        pair.moving,
        pair.moving_mask,
        pair.moving_grid,
        np.linalg.norm(linear, axis=0),
    )
    to_static = grid.to(pair.static_grid)
    to_moving = grid.to(pair.moving_grid, pair.prealign)
    static = _sample_or_zero(static, grid.shape, to_static)
    moving = _sample_or_zero(moving, grid.shape, to_moving)
    if pair.static_mask is None and pair.moving_mask is not None:
        static = static * _sample_mask(pair.moving_mask, grid.shape, to_moving)
    if pair.moving_mask is None and pair.static_mask is not None:
        moving = moving * _sample_mask(pair.static_mask, grid.shape, to_static)
    return static, moving


def _fill_holes(mask: torch.Tensor | None) -> torch.Tensor | None:
    """A mask without its holes: what is 0 and does not reach a face of the image."""
    if mask is None:
        return None
    parts = [label(each.cpu().numpy() == 0)[0] for each in mask[0]]
    filled = [~np.isin(part, _find_outer_parts(part)) for part in parts]
    return torch.from_numpy(np.stack(filled)[None]).to(mask)


def _find_outer_parts(parts: np.ndarray) -> np.ndarray:
    """The numbers of the parts that reach a face, 0 left out."""
    faces = [
        parts.take(end, axis).ravel() for axis in range(parts.ndim) for end in (0, -1)
    ]
    return np.setdiff1d(np.unique(np.concatenate(faces)), [0])


def _sample_mask(
    mask: torch.Tensor, shape: tuple[int, ...], matrix: np.ndarray
) -> torch.Tensor:
    """A mask at the voxels of a grid, 1 or 0."""
    return (_sample_or_zero(mask, shape, matrix) > 0.5).to(mask.dtype)


def _smooth_for_spacing(
    image: torch.Tensor, mask: torch.Tensor | None, grid: Grid, spacing: np.ndarray
) -> torch.Tensor:
    """An image to be sampled at a larger spacing, with masked voxels set to 0.

    The training images of networks also have zeros outside the mask.  For refinement,
    masked voxels are filled with the values of neighbouring valid voxels, but outside
    the brain a network would interpret these values as anatomy.
    """
    image = image if mask is None else image * mask
    ratio = float(spacing.min()) / grid.spacing
    sigma = np.where(ratio > 1, _SIGMA_FACTOR * (ratio - 1), 0.0)
    return smooth(image, list(sigma)) if sigma.any() else image


def _sample_or_zero(
    image: torch.Tensor, shape: tuple[int, ...], matrix: np.ndarray
) -> torch.Tensor:
    """An image at the voxels of a grid, and 0 outside its field of view."""
    inside = inside_mask(shape, image.shape[2:], matrix, device=image.device)
    return sample_on_grid(image, shape, matrix) * inside


@contextmanager
def _ready_on_device(
    network: RegistrationNetwork, device: torch.device
) -> Iterator[RegistrationNetwork]:
    """The network, or a copy on another device, in evaluation mode.

    Threads may share a network: the first one changes its mode, the last one restores
    it.
    """
    if next(network.parameters()).device != device:
        network = deepcopy(network).to(device)
    with _LOCK:
        use = _IN_USE.get(network)
        if use is None:
            use = _Use(0, {m: m.training for m in network.modules()})
            network.eval()
        _IN_USE[network] = use._replace(users=use.users + 1)
    try:
        yield network
    finally:
        with _LOCK:
            use = _IN_USE.pop(network)
            if use.users > 1:
                _IN_USE[network] = use._replace(users=use.users - 1)
            else:
                for module, training in use.modes.items():
                    module.training = training
