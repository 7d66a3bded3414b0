"""Self-similarity: a descriptor of images that is almost independent of contrast.

MIND-SSC (see `dipy_dl_reg.metrics.mind.MINDMetric` for its source) describes a voxel by
the differences between patches around its neighbours, which are at a distance
``dilation`` along the axes: one channel for each pair of neighbours that are not on
opposite sides of the voxel.  These are ``2 D (D - 1)`` channels: 4 in 2D, 12 in 3D.
With ``a`` and ``b`` the steps to the two neighbours,

    ``d(x) = mean over a patch p of (I(x + a + p) - I(x + b + p))**2``
    ``m(x) = exp(-(d(x) - min d(x)) / (mean d(x) - min d(x) + floor))``

with the minimum and the mean over the channels, so that the largest ``m`` is 1.

Since ``d`` of the pair ``(a, b)`` equals ``d`` of ``(-b, -a)`` at another voxel, half
as many distance images are sufficient; each is read at two voxels.  The image is
processed in slabs, with buffers that are reused between calls.  Therefore only the
channels of the static image are stored for the whole image.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F

from dipy_dl_reg.geometry.smoothing import box_sum

#: Number of voxels of a slab: on the CPU, so that its twelve channels fit the cache;
#: and on other devices, which are faster with large slabs.
_SLAB, _SLAB_GPU = 60_000, 8_000_000


def channel_count(dim: int) -> int:
    """Number of channels of the descriptor.

    Parameters
    ----------
    dim : {2, 3}
        Dimension of the image.

    Returns
    -------
    count : int
        4 or 12.
    """
    return 2 * dim * (dim - 1)


def mind_ssc(
    image: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    radius: int = 1,
    dilation: int | Sequence[int] = 1,
    floor: float = 3e-4,
) -> torch.Tensor:
    """Describe an image by its self-similarity.

    Parameters
    ----------
    image : Tensor, shape (B, 1, *shape)
        Intensities, scaled to about [0, 1].
    mask : Tensor, shape (B, 1, *shape), optional
        Only voxels where the mask is 1 are used in the patches.  By default the image
        is extended beyond its edges with the values at the edges.
    radius : int, optional
        A patch is ``2 radius + 1`` voxels wide.
    dilation : int or sequence of int, optional
        Distance of the neighbours, in voxels: one number, or one for each axis, for
        voxels that are longer along one axis.
    floor : float, optional
        Variance, for images scaled to about [0, 1], below which all differences count
        as noise: the descriptor of such a region is the same in all directions.

    Returns
    -------
    descriptor : Tensor, shape (B, 2 D (D - 1), *shape)
        Between 0 and 1; 0 in channels for which the mask leaves no voxels to compare.
    """
    similarity = SelfSimilarity(
        image, mask, radius=radius, dilation=dilation, floor=floor
    )
    return similarity.static


class SelfSimilarity:
    """Mean squared difference of the descriptors of an image and one static image.

    Parameters
    ----------
    static : Tensor, shape (B, 1, *shape)
        The static image, which is treated as constant.
    mask : Tensor, shape (B, 1, *shape), or None
        1 at voxels that are compared, 0 elsewhere.
    radius : int
        See `mind_ssc`.
    dilation : int or sequence of int
        See `mind_ssc`.
    floor : float
        See `mind_ssc`.

    Notes
    -----
    With ``h = 2 (m - m_static) (-m) / N``, ``e = -log m``, ``v`` the divisor of ``e``
    and ``C`` the number of channels, the derivative by a channel's ``d`` is
    ``(h - sum(h e) / C) / v``, plus ``(sum(h e) - sum(h)) / v`` where ``d`` is
    smallest.  The rest is the chain rule; a box sum is its own transpose.
    """

    def __init__(
        self,
        static: torch.Tensor,
        mask: torch.Tensor | None,
        *,
        radius: int,
        dilation: int | Sequence[int],
        floor: float,
    ) -> None:
        dim = static.ndim - 2
        steps = list(dilation) if isinstance(dilation, Iterable) else [dilation] * dim
        self.radius, self.floor = radius, floor
        self.steps = [int(step) for step in steps]
        self.pads = [radius + step for step in self.steps]
        self.like, self.mask = static, mask
        self.padded_mask = None if mask is None else self._pad(mask)
        total = static.numel() if mask is None else float(mask.sum())
        self.weight = 1 / (max(total, 1) * channel_count(dim))
        image = self._pad(static)
        self.static = static.new_empty(
            len(static), channel_count(dim), *static.shape[2:]
        )
        for slab in self._slabs:
            self.static[:, :, slab.rows] = slab.describe(image)

    @cached_property
    def _slabs(self) -> "list[_Slab]":
        """Parts of the image along its first axis."""
        size, plane = self.like.shape[2], self.like[0, 0, 0].numel()
        most = _SLAB if self.like.device.type == "cpu" else _SLAB_GPU
        thick = min(size, max(2 * self.pads[0], most // (plane * len(self.like)), 1))
        count = -(-size // thick)
        ends = [size * part // count for part in range(count + 1)]
        buffers: dict[tuple, torch.Tensor] = {}
        return [_Slab(self, a, b, buffers) for a, b in zip(ends, ends[1:])]

    def _pad(self, image: torch.Tensor) -> torch.Tensor:
        """Continue the image beyond its edges; with 0 if there is a mask."""
        pads = [pad for pad in reversed(self.pads) for _ in range(2)]
        if self.mask is None:
            return F.pad(image, pads, mode="replicate")
        return F.pad(image * self.mask, pads)

    def _pad_transposed(self, gradient: torch.Tensor) -> torch.Tensor:
        """The transpose of `_pad`."""
        for axis, pad in enumerate(self.pads, 2):
            size = gradient.shape[axis] - 2 * pad
            if self.mask is None:
                for edge, beyond in ((pad, 0), (pad + size - 1, pad + size)):
                    rest = gradient.narrow(axis, beyond, pad).sum(axis, keepdim=True)
                    gradient.narrow(axis, edge, 1).add_(rest)
            gradient = gradient.narrow(axis, pad, size)
        return gradient.contiguous() if self.mask is None else gradient * self.mask

    def __call__(self, warped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compare with another image.

        Parameters
        ----------
        warped : Tensor, shape (B, 1, *shape)
            The other image.

        Returns
        -------
        value : Tensor, shape ()
            Mean of squared differences over voxels and channels.
        gradient : Tensor, shape (B, 1, *shape)
            Derivative of the value by `warped`.
        """
        image = self._pad(warped)
        gradient, value = torch.zeros_like(image), warped.new_zeros(())
        for slab in self._slabs:
            value += slab.compare(image, gradient)
        return value * self.weight, self._pad_transposed(gradient)


class _Slab:
    """Descriptors of some planes of an image, and their derivatives."""

    def __init__(
        self,
        parent: SelfSimilarity,
        first: int,
        last: int,
        buffers: dict[tuple, torch.Tensor],
    ) -> None:
        self.parent, self.rows = parent, slice(first, last)
        self.padded_rows = slice(first, last + 2 * parent.pads[0])
        self.mask = None if parent.mask is None else parent.mask[:, :, self.rows]
        batch, _, *shape = parent.like[:, :, self.rows].shape
        self.directions = _directions(shape, parent.steps, parent.pads)
        sizes = [n + 2 * pad for n, pad in zip(shape, parent.pads)]
        padded = (batch, len(self.directions), *sizes)
        inner = (batch, 2 * len(self.directions), *shape)

        def buffer(name: str, sizes: tuple[int, ...]) -> torch.Tensor:
            # Shared by slabs of the same size.  Initialised with zeros, because the
            # margins of `differences` are summed but never written.
            if (name, sizes) not in buffers:
                buffers[name, sizes] = parent.like.new_zeros(sizes)
            return buffers[name, sizes]

        self.differences = buffer("differences", padded)
        self.sums = buffer("sums", padded)
        self.scratch = buffer("scratch", padded)
        self.distances = buffer("distances", inner)
        self.likeness = buffer("likeness", inner)
        self.slope = buffer("slope", inner)
        # Sums over patches replace means where all patches are complete.
        whole_patch = (2 * parent.radius + 1) ** len(shape)
        self.patch = whole_patch if parent.mask is None else 1

    @cached_property
    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """1 where both voxels are in the mask; one over their number in a patch."""
        assert self.parent.padded_mask is not None  # used with a mask only
        mask = self.parent.padded_mask[:, 0, self.padded_rows]
        pairs = torch.zeros_like(self.differences)
        for k, direction in enumerate(self.directions):
            pairs[:, k][direction.here] = mask[direction.here] * mask[direction.there]
        count = box_sum(pairs, self.parent.radius)
        return pairs, torch.where(count > 0.5, 1 / count, torch.zeros_like(count))

    @cached_property
    def valid(self) -> tuple[torch.Tensor, torch.Tensor]:
        """1 for channels with voxels to compare in the mask; their number."""
        assert self.mask is not None  # used with a mask only
        valid = self._look_up(self.weights[1], torch.empty_like(self.distances))
        valid = valid.gt_(0).mul_(self.mask)
        return valid, valid.sum(1, keepdim=True).clamp_min_(1)

    def _look_up(self, sums: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Read the two channels of every distance image."""
        for k, direction in enumerate(self.directions):
            for channel, place in enumerate(direction.places, 2 * k):
                out[:, channel].copy_(sums[:, k][place])
        return out

    def _exponents(self, padded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``-log m`` of the descriptor m, and its denominator."""
        image = padded[:, 0, self.padded_rows]
        for k, direction in enumerate(self.directions):
            out = self.differences[:, k][direction.here]
            torch.sub(image[direction.there], image[direction.here], out=out)
        if self.mask is not None:
            self.differences *= self.weights[0]
        torch.mul(self.differences, self.differences, out=self.sums)
        self._box()
        if self.mask is not None:
            self.sums *= self.weights[1]
        d, floor = self._look_up(self.sums, self.distances), self.parent.floor
        if self.mask is None:
            d -= d.amin(1, keepdim=True)
            scale = d.mean(1, keepdim=True).add_(floor * self.patch)
        else:
            valid, count = self.valid
            least = d.masked_fill(valid == 0, torch.inf).amin(1, keepdim=True)
            d = d.sub_(least.masked_fill_(least == torch.inf, 0)).mul_(valid)
            scale = d.sum(1, keepdim=True).div_(count).add_(floor)
        return d.div_(scale), scale

    def _box(self) -> None:
        """Sum over patches, in place."""
        sums, radius = self.sums, self.parent.radius
        box_sum(sums, radius, out=sums, scratch=self.scratch)

    def describe(self, padded: torch.Tensor) -> torch.Tensor:
        """The descriptor of a padded image; the next call overwrites it."""
        exponents, _ = self._exponents(padded)
        return self._descriptor(exponents)

    def _descriptor(self, exponents: torch.Tensor) -> torch.Tensor:
        """``exp(-exponents)``, 0 in channels without voxels to compare."""
        m = torch.neg(exponents, out=self.likeness).exp_()
        return m if self.mask is None else m.mul_(self.valid[0])

    def compare(self, padded: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Sum of squared differences; adds its weighted derivative to `gradient`."""
        e, scale = self._exponents(padded)
        m = self._descriptor(e)
        h = torch.sub(m, self.parent.static[:, :, self.rows], out=self.slope)
        value = h.flatten().dot(h.flatten())
        h.mul_(m).mul_(-2 * self.parent.weight)
        least = (e == 0).to(e.dtype)
        if self.mask is not None:
            least *= self.valid[0]
        over_all = torch.mul(h, e, out=self.likeness).sum(1, keepdim=True)
        at_least = over_all - h.sum(1, keepdim=True)
        at_least /= least.sum(1, keepdim=True).clamp_min_(1)
        over_all /= h.shape[1] if self.mask is None else self.valid[1]
        h.sub_(over_all).addcmul_(least, at_least).div_(scale)
        if self.mask is not None:
            h *= self.valid[0]
        self._backpropagate(h, gradient)
        return value

    def _backpropagate(
        self, by_distances: torch.Tensor, gradient: torch.Tensor
    ) -> None:
        """Add the derivatives by the padded image, from those by the distances."""
        self.sums.zero_()
        for k, direction in enumerate(self.directions):
            for channel, place in enumerate(direction.places, 2 * k):
                self.sums[:, k][place].add_(by_distances[:, channel])
        if self.mask is not None:
            self.sums *= self.weights[1]
        self._box()
        self.sums.mul_(self.differences).mul_(2)
        gradient = gradient[:, 0, self.padded_rows]
        for k, direction in enumerate(self.directions):
            gradient[direction.there].add_(self.sums[:, k][direction.here])
            gradient[direction.here].sub_(self.sums[:, k][direction.here])


class _Direction(NamedTuple):
    """One direction in which voxels are compared, as slices of the padded image.

    Voxels `here` are compared with those `there`; `places` are the voxels whose
    neighbours are such a pair, for each of the two pairs with this direction.
    """

    here: tuple
    there: tuple
    places: tuple


def _directions(
    shape: list[int], steps: list[int], pads: list[int]
) -> list[_Direction]:
    """Directions from one neighbour to another, on two axes, with each sign."""
    dim = len(shape)
    return [
        _direction(shape, pads, first, steps[first], second, sign * steps[second])
        for first, second in combinations(range(dim), 2)
        for sign in (1, -1)
    ]


def _direction(
    shape: list[int], pads: list[int], first: int, a: int, second: int, b: int
) -> _Direction:
    """Direction between neighbours at `a` on the first axis and `b` on the second."""
    step = [0] * len(shape)
    step[first], step[second] = a, -b
    sizes = [n + 2 * pad for n, pad in zip(shape, pads)]
    here = [slice(max(0, -s), n - max(0, s)) for s, n in zip(step, sizes)]
    there = [slice(max(0, s), n - max(0, -s)) for s, n in zip(step, sizes)]
    places = []
    for axis, shift in ((second, b), (first, -a)):
        starts = list(pads)
        starts[axis] += shift
        places.append((..., *(slice(p, p + n) for p, n in zip(starts, shape))))
    return _Direction((..., *here), (..., *there), tuple(places))
