"""Self-similarity: what an image looks like whatever its contrast, and its metric.

MIND-SSC (see `MINDMetric` for its source) describes a voxel by how unlike the patches
around it are to each other: of its neighbours at a distance ``dilation`` along the
axes, each pair that does not face each other across the voxel.  That makes
``2 D (D - 1)`` channels: 4 in 2D, 12 in 3D.  With ``a`` and ``b`` the steps to the two
neighbours,

    ``d(x) = mean over a patch p of (I(x + a + p) - I(x + b + p))**2``
    ``m(x) = exp(-(d(x) - min d(x)) / (mean d(x) - min d(x) + floor))``

the least and the mean over the channels, so that the largest ``m`` is 1.

As ``d`` of the pair ``(a, b)`` is that of ``(-b, -a)`` elsewhere, there are but half as
many distance images, each looked up at two places.  All work is done slab by slab, on
buffers kept between calls: twelve channels of a whole image never stand in memory but
those of the static one.
"""

from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F

from dipy_dl_reg.geometry.smoothing import box_sum
from dipy_dl_reg.metrics.base import BoundMetric, Metric
from dipy_dl_reg.validation import check_number, check_whole_number

#: Voxels of a slab on the CPU, where twelve channels of it should stay in the cache,
#: and on other devices, which like to have much to do at once.
_SLAB, _SLAB_ELSEWHERE = 60_000, 8_000_000


def channels(dim):
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


def mind_ssc(image, mask=None, *, radius=1, dilation=1, floor=3e-4):
    """Describe an image by its self-similarity.

    Parameters
    ----------
    image : Tensor, shape (B, 1, *shape)
        Intensities, scaled to about [0, 1].
    mask : Tensor, shape (B, 1, *shape), optional
        Only patches of voxels where it is 1 are compared.  By default the image goes
        on beyond its edges with the value there.
    radius : int, optional
        A patch is ``2 radius + 1`` voxels wide.
    dilation : int or sequence of int, optional
        How far the neighbours are, in voxels: one number, or one for each axis, as is
        right for voxels that are longer along one.
    floor : float, optional
        A texture of this variance is taken to be everywhere: what is flatter looks
        alike in all directions.

    Returns
    -------
    descriptor : Tensor, shape (B, 2 D (D - 1), *shape)
        Between 0 and 1; 0 in channels that the mask leaves nothing to compare for.
    """
    options = {"radius": radius, "dilation": dilation, "floor": floor}
    return SelfSimilarity(image, mask, **options).static


class SelfSimilarity:
    """Mean squared difference of descriptors, against one static image.

    Parameters
    ----------
    static : Tensor, shape (B, 1, *shape)
        Taken as constant.
    mask : Tensor, shape (B, 1, *shape), or None
        1 where a voxel counts, 0 elsewhere.
    radius : int
        See `mind_ssc`.
    dilation : int or sequence of int
        See `mind_ssc`.
    floor : float
        See `mind_ssc`.

    Notes
    -----
    With ``h = 2 (m - m_static) (-m) / N``, ``e = -log m``, ``v`` what ``e`` is divided
    by and ``C`` the number of channels, the derivative by a channel's ``d`` is
    ``(h - sum(h e) / C) / v``, and ``(sum(h e) - sum(h)) / v`` more where ``d`` is
    least.  The rest is the chain rule; a box sum is its own transpose.
    """

    def __init__(self, static, mask, *, radius, dilation, floor):
        dim = static.ndim - 2
        steps = [dilation] * dim if not hasattr(dilation, "__len__") else dilation
        self.radius, self.floor = radius, floor
        self.steps = [int(step) for step in steps]
        self.pads = [radius + step for step in self.steps]
        self.like, self.mask = static, mask
        self.padded_mask = None if mask is None else self._padded(mask)
        total = static.numel() if mask is None else float(mask.sum())
        self.share = 1 / (max(total, 1) * channels(dim))
        image = self._padded(static)
        self.static = static.new_empty(len(static), channels(dim), *static.shape[2:])
        for slab in self._slabs:
            self.static[:, :, slab.rows] = slab.describe(image)

    @cached_property
    def _slabs(self):
        """Parts of the image along its first axis."""
        size, plane = self.like.shape[2], self.like[0, 0, 0].numel()
        most = _SLAB if self.like.device.type == "cpu" else _SLAB_ELSEWHERE
        thick = min(size, max(2 * self.pads[0], most // (plane * len(self.like)), 1))
        count = -(-size // thick)
        ends = [size * part // count for part in range(count + 1)]
        buffers = {}
        return [_Slab(self, a, b, buffers) for a, b in zip(ends, ends[1:])]

    def _padded(self, image):
        """The image with its edges continued, or zeros where a mask says enough."""
        pads = [pad for pad in reversed(self.pads) for _ in range(2)]
        if self.mask is None:
            return F.pad(image, pads, mode="replicate")
        return F.pad(image * self.mask, pads)

    def _unpadded(self, gradient):
        """What `_padded` does, transposed."""
        for axis, pad in enumerate(self.pads, 2):
            size = gradient.shape[axis] - 2 * pad
            if self.mask is None:
                for edge, beyond in ((pad, 0), (pad + size - 1, pad + size)):
                    rest = gradient.narrow(axis, beyond, pad).sum(axis, keepdim=True)
                    gradient.narrow(axis, edge, 1).add_(rest)
            gradient = gradient.narrow(axis, pad, size)
        return gradient.contiguous() if self.mask is None else gradient * self.mask

    def __call__(self, warped):
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
            Its derivative by `warped`.
        """
        image = self._padded(warped)
        gradient, value = torch.zeros_like(image), warped.new_zeros(())
        for slab in self._slabs:
            value += slab.compare(image, gradient)
        return value * self.share, self._unpadded(gradient)


class _Slab:
    """Descriptors of some planes of an image, and the way back."""

    def __init__(self, whole, first, last, buffers):
        self.whole, self.rows = whole, slice(first, last)
        self.padded_rows = slice(first, last + 2 * whole.pads[0])
        self.mask = None if whole.mask is None else whole.mask[:, :, self.rows]
        batch, _, *shape = whole.like[:, :, self.rows].shape
        self.moves = _moves(shape, whole.steps, whole.pads)
        padded = (n + 2 * pad for n, pad in zip(shape, whole.pads))
        padded = batch, len(self.moves), *padded
        inner = batch, 2 * len(self.moves), *shape
        for name, sizes in (
            *((name, padded) for name in ("differences", "sums", "scratch")),
            *((name, inner) for name in ("distances", "likeness", "slope")),
        ):
            if (name, sizes) not in buffers:  # margins of differences must be numbers
                buffers[name, sizes] = whole.like.new_zeros(sizes)
            setattr(self, name, buffers[name, sizes])
        # Sums over patches stand for means where all patches are whole.
        whole_patch = (2 * whole.radius + 1) ** len(shape)
        self.patch = whole_patch if whole.mask is None else 1

    @cached_property
    def weights(self):
        """Which two voxels are both in the mask; one over their number in a patch."""
        mask = self.whole.padded_mask[:, 0, self.padded_rows]
        pairs = torch.zeros_like(self.differences)
        for k, move in enumerate(self.moves):
            pairs[:, k][move.here] = mask[move.here] * mask[move.there]
        count = box_sum(pairs, self.whole.radius)
        return pairs, torch.where(count > 0.5, 1 / count, torch.zeros_like(count))

    @cached_property
    def valid(self):
        """1 for channels that the mask leaves something to compare for; how many."""
        valid = self._looked_up(self.weights[1], torch.empty_like(self.distances))
        valid = valid.gt_(0).mul_(self.mask)
        return valid, valid.sum(1, keepdim=True).clamp_min_(1)

    def _looked_up(self, sums, out):
        """The two channels of every distance image."""
        for k, move in enumerate(self.moves):
            for channel, place in enumerate(move.places, 2 * k):
                out[:, channel].copy_(sums[:, k][place])
        return out

    def _exponents(self, padded):
        """What the descriptor is the exponential of, less its sign; the denominator."""
        image = padded[:, 0, self.padded_rows]
        for k, move in enumerate(self.moves):
            out = self.differences[:, k][move.here]
            torch.sub(image[move.there], image[move.here], out=out)
        if self.mask is not None:
            self.differences *= self.weights[0]
        torch.mul(self.differences, self.differences, out=self.sums)
        self._box()
        if self.mask is not None:
            self.sums *= self.weights[1]
        d, floor = self._looked_up(self.sums, self.distances), self.whole.floor
        if self.mask is None:
            d -= d.amin(1, keepdim=True)
            scale = d.mean(1, keepdim=True).add_(floor * self.patch)
        else:
            valid, count = self.valid
            least = d.masked_fill(valid == 0, torch.inf).amin(1, keepdim=True)
            d = d.sub_(least.masked_fill_(least == torch.inf, 0)).mul_(valid)
            scale = d.sum(1, keepdim=True).div_(count).add_(floor)
        return d.div_(scale), scale

    def _box(self):
        sums, radius = self.sums, self.whole.radius
        box_sum(sums, radius, out=sums, scratch=self.scratch)

    def describe(self, padded):
        """The descriptor, from the padded image; overwritten by the next one."""
        exponents, _ = self._exponents(padded)
        return self._descriptor(exponents)

    def _descriptor(self, exponents):
        m = torch.neg(exponents, out=self.likeness).exp_()
        return m if self.mask is None else m.mul_(self.valid[0])

    def compare(self, padded, gradient):
        """Sum of squares; adds its derivative, times ``share``, to the padded one."""
        e, scale = self._exponents(padded)
        m = self._descriptor(e)
        h = torch.sub(m, self.whole.static[:, :, self.rows], out=self.slope)
        value = h.flatten().dot(h.flatten())
        h.mul_(m).mul_(-2 * self.whole.share)
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
        self._back(h, gradient)
        return value

    def _back(self, by_distances, gradient):
        """From derivatives by the distances to those by the padded image."""
        self.sums.zero_()
        for k, move in enumerate(self.moves):
            for channel, place in enumerate(move.places, 2 * k):
                self.sums[:, k][place].add_(by_distances[:, channel])
        if self.mask is not None:
            self.sums *= self.weights[1]
        self._box()
        self.sums.mul_(self.differences).mul_(2)
        gradient = gradient[:, 0, self.padded_rows]
        for k, move in enumerate(self.moves):
            gradient[move.there].add_(self.sums[:, k][move.here])
            gradient[move.here].sub_(self.sums[:, k][move.here])


class _Move(NamedTuple):
    """One direction in which voxels are compared, as slices of the padded image.

    Voxels `here` are compared with those `there`; centred on the voxels `places` are
    the two pairs of neighbours that lie so to each other.
    """

    here: tuple
    there: tuple
    places: tuple


def _moves(shape, steps, pads):
    """The directions: from one neighbour to another, on two axes, of each sign."""
    dim = len(shape)
    return [
        _move(shape, pads, first, steps[first], second, sign * steps[second])
        for first, second in combinations(range(dim), 2)
        for sign in (1, -1)
    ]


def _move(shape, pads, first, a, second, b):
    """Neighbours at `a` along the first axis and `b` along the second."""
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
    return _Move((..., *here), (..., *there), tuple(places))


class MINDMetric(Metric):
    """Mean squared difference of self-similarity descriptors, for any two contrasts.

    What lies where is compared by how unlike the patches around each voxel are to one
    another, which a change of contrast hardly touches :footcite:p:`Heinrich2013`; see
    `mind_ssc` for the formula.  Unlike mutual information it is local: a bias field or
    a tissue that looks different here and there does no harm.

    Where both images are of one subject, a b0 and its own T1, little but distortion is
    to be found, and a smoother field does better: ``sigma_field=1.4`` or more.

    Parameters
    ----------
    dim : {2, 3}, optional
        Dimension of the images.
    sigma_diff : float, optional
        Standard deviation, in voxels, of the Gaussian that smooths the update of
        the field.
    radius : int, optional
        A patch is ``2 radius + 1`` voxels of the level wide.
    dilation : int or sequence of int, optional
        How far the neighbours are that are compared, in voxels of the level: one
        number, or one for each axis, for voxels that are longer along one.
    floor : float, optional
        A texture of this variance is taken to be everywhere: what is flatter looks
        alike in all directions.  For images scaled to about [0, 1].

    Raises
    ------
    ValueError
        If an option is out of range.

    References
    ----------
    .. footbibliography::
    """

    name = "MIND"
    meaning = "self-similarity"
    gradient_floor = 0.03
    batched = True
    bytes_per_voxel = 450

    def __init__(self, dim=None, *, sigma_diff=1.0, radius=1, dilation=1, floor=3e-4):
        super().__init__(dim, sigma_diff=sigma_diff)
        self.radius = check_whole_number("radius", radius, low=0)
        if hasattr(dilation, "__len__"):
            self.dilation = tuple(
                check_whole_number("dilation", d, low=1) for d in dilation
            )
            if dim is not None:
                self._check_dilation(dim)
        else:
            self.dilation = check_whole_number("dilation", dilation, low=1)
        self.floor = check_number("floor", floor, above=True)

    def _check_dilation(self, dim):
        if isinstance(self.dilation, tuple) and len(self.dilation) != dim:
            raise ValueError(
                f"dilation must be one number or {dim}, one for each axis, got "
                f"{self.dilation}."
            )

    def _bind(
        self,
        static: torch.Tensor,
        mask: torch.Tensor | None,
        moving: torch.Tensor | None,
    ) -> BoundMetric:
        self._check_dilation(static.ndim - 2)
        options = {"radius": self.radius, "dilation": self.dilation}
        return SelfSimilarity(static, mask, floor=self.floor, **options)
