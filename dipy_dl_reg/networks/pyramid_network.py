"""Pyramid: a velocity from coarse to fine, the same way for both images.

What a voxel looks like is told to the network by its self-similarity
(`dipy_dl_reg.metrics.mind`) beside its intensity, so that it need not learn from
nothing that one tissue may be bright in one image and dark in the other.
"""

import torch
from torch import nn
import torch.nn.functional as F

from dipy_dl_reg.geometry.fields import exp, resize, warp
from dipy_dl_reg.metrics.base import whole_number
from dipy_dl_reg.metrics.mind import channel_count, mind_ssc
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.layers import conv, flow_conv

#: How far along every axis features are compared, in voxels of each resolution.
REACH = (1, 2)
#: Squarings of the half-way flows: in coarser voxels they are short.
_SQUARINGS = 3
#: Added to the mean square of features that are divided by its root.
_FLOOR = 1e-3


class Pyramid(RegistrationNetwork):
    """Stationary velocity from coarse to fine, symmetric in the two images.

    One encoder looks at each image by itself: its intensity and its self-similarity
    (MIND-SSC) :footcite:p:`Heinrich2013`; at every halving a convolution of stride 2
    and another.  From the coarsest to half the full resolution, and several times at
    each, the features `a` of static and `b` of moving are warped half-way to each other
    by the velocity so far, compared in place and at 1 and 2 voxels along every axis,
    and two convolutions ``g`` say what is to be added to the velocity:

        ``v <- v + (g(a, b) - g(b, a)) / 2``

    Swapping the images therefore changes the sign of `v`, and gives the inverse map,
    whatever the weights.  All convolutions are 3 voxels wide, followed by a leaky
    ReLU (0.2) but the last of every resolution, which is linear, has no bias (it
    would be lost in the difference), and begins near zero.

    Parameters
    ----------
    dim : {2, 3}
        Dimension of the images.
    features : sequence of int, optional
        Channels at 1/2, 1/4, ... of the resolution.
    width : int, optional
        Channels of the convolutions that compare.
    repeats : int, optional
        How often each resolution is looked at, by the same convolutions.
    output : {"velocity"}, optional
        There is no other form.
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
        self, dim, *, features=(16, 32, 32), width=16, repeats=2, output="velocity",
        spacing=None,
    ):  # fmt: skip
        features = [whole_number("features", number, 1) for number in features]
        width = whole_number("width", width, 1)
        repeats = whole_number("repeats", repeats, 1)
        super().__init__(
            dim, spacing=spacing, output=output, features=features, width=width,
            repeats=repeats,
        )  # fmt: skip
        self.repeats = repeats
        if output != "velocity":
            raise ValueError(f"output must be 'velocity', got {output!r}.")
        if not features:
            raise ValueError("features must name at least one resolution, got none.")
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

    def _fields(self, images):
        # Both images as one batch: twice the work at a time, which on a CPU is faster
        # than two times the work.
        x, pyramid = self._described(torch.cat([images[:, :1], images[:, 1:]])), []
        for block in self.encoder:
            x = block(x)
            pyramid.append(x)
        velocity = None
        for level in reversed(range(len(pyramid))):
            for _ in range(self.repeats):
                velocity = self._refined(velocity, pyramid[level], level)
        return (resize(velocity, images.shape[2:]),)

    def _described(self, both):
        """What the encoder is told of an image: intensity and self-similarity."""
        with torch.no_grad():
            descriptor = mind_ssc(both.float()).to(both.dtype)
        return torch.cat([both, descriptor], 1)

    def _refined(self, velocity, both, level):
        """The velocity at one resolution, from that of the next coarser one."""
        if velocity is not None:
            velocity = resize(velocity, both.shape[2:])
            # Static is taken back by half the flow, moving on by the other half.
            half = exp(torch.cat([-velocity, velocity]) / 2, steps=_SQUARINGS)
            both = warp(both, half.to(both.dtype))
        a, b = both.chunk(2)
        # The other way round in the second half of the batch.
        first, second = both, torch.cat([b, a])
        there = _compared(a, b)
        x = torch.cat([first, second, torch.cat([there, _turned(there)])], 1)
        there, back = self.flow[level](self.decoder[level](x)).chunk(2)
        step = (there - back) / 2
        return step if velocity is None else velocity + step


def _block(*layers):
    """Convolutions, each with what follows it."""
    return nn.Sequential(*(m for layer in layers for m in (layer, nn.LeakyReLU(0.2))))


def _compared(first, second):
    """Correlation over the channels, in place and with what is beside it.

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
    for axis, step in _steps(dim):
        found.append((first * _beside(padded, axis, step)).mean(1))
    return torch.stack(found, 1)


def _turned(found):
    """What `_compared` finds for the images in the other order, from what it found.

    ``b(x) a(x + s)`` is at `x` what ``a(x) b(x - s)`` is at ``x + s``.
    """
    dim, most = found.ndim - 2, max(REACH)
    padded = F.pad(found, (most, most) * dim)
    steps = _steps(dim)
    turned = [found[:, :1]]
    for axis, step in steps:
        opposite = 1 + steps.index((axis, -step))
        turned.append(_beside(padded[:, opposite : opposite + 1], axis, step))
    return torch.cat(turned, 1)


def _steps(dim):
    """Axis and distance of the neighbours compared."""
    return [(axis, k * sign) for axis in range(dim) for k in REACH for sign in (-1, 1)]


def _beside(padded, axis, step):
    """What is so many voxels further along an axis, of images with a margin."""
    dim, margin = padded.ndim - 2, max(REACH)
    for other in range(dim):
        size = padded.shape[other + 2] - 2 * margin
        start = margin + step * (other == axis)
        padded = padded.narrow(other + 2, start, size)
    return padded


def _precision(x):
    """One over the root of the mean square over the channels."""
    return x.square().mean(1, keepdim=True).add(_FLOOR).rsqrt()
