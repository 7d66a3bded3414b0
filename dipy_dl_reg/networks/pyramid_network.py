"""Pyramid: predicts a velocity from coarse to fine, antisymmetric in the images.

In addition to intensities, the input contains the self-similarity descriptors of each
voxel (`metrics.self_similarity`), which are almost independent of the contrast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
import torch.nn.functional as F

from dipy_dl_reg.geometry.fields import exp, resize, warp
from dipy_dl_reg.metrics.self_similarity import channel_count, mind_ssc
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.layers import conv, flow_conv
from dipy_dl_reg.validation import check_whole_number

#: Distances along every axis at which features are compared, in voxels of each
#: resolution.
REACH = (1, 2)
#: Squarings by which half a velocity is integrated; in coarser voxels it is short.
HALF_FLOW_SQUARINGS = 3
#: Added to the mean square of features before they are divided by its root.
_FLOOR = 1e-3


class Pyramid(RegistrationNetwork):
    """Stationary velocity from coarse to fine, symmetric in the two images.

    The same encoder is applied to both images.  Its input is the intensity and the
    self-similarity (MIND-SSC) :footcite:p:`Heinrich2013`; at each resolution it has a
    convolution of stride 2 and a second convolution.  The velocity is updated from the
    coarsest to half the full resolution, several times at each resolution.  In each
    update, the features `a` of static and `b` of moving are warped half-way to each
    other by the current velocity, and are correlated at the same voxel and at distances
    of 1 and 2 voxels along every axis; two convolutions ``g`` give the update:

        ``v <- v + (g(a, b) - g(b, a)) / 2``

    If the images are swapped, the sign of `v` changes and the map is inverted, for any
    weights.  All convolutions are 3 voxels wide and followed by a leaky ReLU (0.2),
    except the last convolution of each resolution: it is linear, has no bias (which the
    difference would cancel), and its initial weights are near zero.

    Parameters
    ----------
    dim : {2, 3}
        Dimension of the images.
    features : sequence of int, optional
        Channels at 1/2, 1/4, ... of the resolution.
    width : int, optional
        Channels of the convolutions ``g``.
    repeats : int, optional
        Updates at each resolution, by the same convolutions.
    output : {"velocity"}, optional
        The only value.
    spacing : float, optional
        See `RegistrationNetwork`.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Parameters: 2D 70240, 3D 220144.

    References
    ----------
    .. footbibliography::
    """

    name = "pyramid"
    remainder = 1
    symmetric = True

    def __init__(
        self,
        dim: int,
        *,
        features: Sequence[int] = (16, 32, 32),
        width: int = 16,
        repeats: int = 2,
        output: str = "velocity",
        spacing: float | None = None,
    ) -> None:
        features = [
            check_whole_number("features", number, low=1) for number in features
        ]
        width = check_whole_number("width", width, low=1)
        repeats = check_whole_number("repeats", repeats, low=1)
        super().__init__(
            dim, spacing=spacing, output=output, features=features, width=width,
            repeats=repeats,
        )  # fmt: skip
        self.repeats = repeats
        if output != "velocity":
            raise ValueError(f"output must be 'velocity', got {output!r}.")
        if not features:
            raise ValueError("features must have at least one number, got none.")
        self.multiple = 2 ** len(features)
        described = [1 + channel_count(dim), *features]
        self.encoder = nn.ModuleList(
            _block(conv(dim, above, here, stride=2), conv(dim, here, here))
            for above, here in zip(described, features)
        )
        compared = 1 + 2 * dim * len(REACH)
        self.decoder = nn.ModuleList(
            _block(conv(dim, 2 * here + compared, width), conv(dim, width, width))
            for here in features
        )
        self.flow = nn.ModuleList(flow_conv(dim, width) for _ in features)
        for layer in self.flow:
            layer.register_parameter("bias", None)

    def _fields(self, images: torch.Tensor) -> Sequence[torch.Tensor]:
        # Both images are one batch, which is faster on a CPU than two calls.
        x, pyramid = self.describe(torch.cat([images[:, :1], images[:, 1:]])), []
        for block in self.encoder:
            x = block(x)
            pyramid.append(x)
        velocity: torch.Tensor | None = None
        for level in reversed(range(len(pyramid))):
            for _ in range(self.repeats):
                velocity = self.update(velocity, pyramid[level], level)
        assert velocity is not None  # there is a level, and an update at it
        return (resize(velocity, images.shape[2:]),)

    def describe(self, both: torch.Tensor) -> torch.Tensor:
        """Input of the encoder: intensity and self-similarity.

        Parameters
        ----------
        both : Tensor, shape (2 B, 1, *shape)
            Static images, then moving ones.

        Returns
        -------
        described : Tensor, shape (2 B, C, *shape)
            With further channels.
        """
        with torch.no_grad():
            descriptor = mind_ssc(both.float()).to(both.dtype)
        return torch.cat([both, descriptor], 1)

    def update(
        self, velocity: torch.Tensor | None, both: torch.Tensor, level: int
    ) -> torch.Tensor:
        """Update the velocity at one resolution.

        Parameters
        ----------
        velocity : Tensor, shape (B, D, *coarser), or None
            Velocity so far, of this resolution or the next coarser one; None at first.
        both : Tensor, shape (2 B, C, *shape)
            Features of static, then those of moving.
        level : int
            Number of the resolution, 0 the finest.

        Returns
        -------
        velocity : Tensor, shape (B, D, *shape)
            With the update.
        """
        if velocity is not None:
            velocity = resize(velocity, both.shape[2:])
            both = warp_half_way(both, velocity)
        a, b = both.chunk(2)
        # The second half of the batch has the images in the other order.
        first, second = both, torch.cat([b, a])
        there = correlate_neighbours(a, b)
        compared = torch.cat([there, swap_correlations(there)])
        x = _join_channels([first, second, compared])
        forward, backward = self.flow[level](self.decoder[level](x)).chunk(2)
        step = ((forward - backward) / 2).contiguous()
        return step if velocity is None else velocity + step


def warp_half_way(both: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
    """Warp features half-way to each other: static by minus half, moving by half.

    Parameters
    ----------
    both : Tensor, shape (2 B, C, *shape)
        Features of static, then those of moving.
    velocity : Tensor, shape (B, D, *shape)
        The velocity.

    Returns
    -------
    both : Tensor, shape (2 B, C, *shape)
        The warped features, in mid-space.
    """
    # Under autocast features and velocities have half precision, which is not enough
    # for coordinates: among 80 voxels, points closer than .15 voxel are the same.
    wide = torch.promote_types(velocity.dtype, torch.float32)
    velocity = velocity.to(wide)
    half = exp(torch.cat([-velocity, velocity]) / 2, steps=HALF_FLOW_SQUARINGS)
    return warp(both.to(wide), half).to(both.dtype)


def _block(*layers: nn.Module) -> nn.Sequential:
    """Make a sequence of convolutions, each followed by a ReLU."""
    return nn.Sequential(*(m for layer in layers for m in (layer, nn.LeakyReLU(0.2))))


def _join_channels(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate channels; on a CPU, with those of a voxel side by side in memory.

    Convolutions take half the time there in this order, and keep it.  Training is not
    changed, because its speed in this order has not been measured.
    """
    first = parts[0]
    if first.device.type != "cpu" or torch.is_grad_enabled():
        return torch.cat(list(parts), 1)
    order = torch.channels_last if first.ndim == 4 else torch.channels_last_3d
    shape = (len(first), sum(part.shape[1] for part in parts), *first.shape[2:])
    joined = torch.empty(shape, dtype=first.dtype, memory_format=order)
    torch.cat(list(parts), 1, out=joined)
    return joined


def correlate_neighbours(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Correlate features over the channels, at the same voxel and with neighbours.

    Parameters
    ----------
    first, second : Tensor, shape (B, C, *shape)
        Features.

    Returns
    -------
    correlation : Tensor, shape (B, 1 + 2 D len(REACH), *shape)
        Between -1 and 1; 0 beyond the edges.
    """
    first, second = (x * _precision(x) for x in (first, second))
    dim, most = first.ndim - 2, max(REACH)
    padded = F.pad(second, (most, most) * dim)
    found = [(first * second).mean(1)]
    for axis, step in _neighbour_steps(dim):
        found.append((first * _shift(padded, axis, step)).mean(1))
    return torch.stack(found, 1)


def swap_correlations(found: torch.Tensor) -> torch.Tensor:
    """Compute the correlations of the features in the reverse order.

    ``b(x) a(x + s)`` is at `x` what ``a(x) b(x - s)`` is at ``x + s``.

    Parameters
    ----------
    found : Tensor, shape (B, 1 + 2 D len(REACH), *shape)
        From `correlate_neighbours`.

    Returns
    -------
    swapped : Tensor, same shape
        Correlations with first and second exchanged.
    """
    dim, most = found.ndim - 2, max(REACH)
    padded = F.pad(found, (most, most) * dim)
    steps = _neighbour_steps(dim)
    turned = [found[:, :1]]
    for axis, step in steps:
        opposite = 1 + steps.index((axis, -step))
        turned.append(_shift(padded[:, opposite : opposite + 1], axis, step))
    return torch.cat(turned, 1)


def _neighbour_steps(dim: int) -> list[tuple[int, int]]:
    """Axis and distance of the neighbours compared."""
    return [(axis, k * sign) for axis in range(dim) for k in REACH for sign in (-1, 1)]


def _shift(padded: torch.Tensor, axis: int, step: int) -> torch.Tensor:
    """Values some voxels further along an axis, of images with a margin."""
    dim, margin = padded.ndim - 2, max(REACH)
    for other in range(dim):
        size = padded.shape[other + 2] - 2 * margin
        start = margin + step * (other == axis)
        padded = padded.narrow(other + 2, start, size)
    return padded


def _precision(x: torch.Tensor) -> torch.Tensor:
    """One over the root of the mean square over the channels."""
    return x.square().mean(1, keepdim=True).add(_FLOOR).rsqrt()
