"""How alike two images are for a batch of matrices, and the slope by each matrix.

For points ``x`` of static and a matrix ``M`` the moving image is read at ``M x``.  The
value's derivative by ``M`` is one sum over the points, ``sum g(x) [x, 1]'`` with ``g``
the derivative by the place that is read: it serves every family of maps.
"""

import math

import torch

from dipy_dl_reg.geometry.fields import sample_at
from dipy_dl_reg.metrics.histogram import (
    bspline_derivatives,
    bspline_weights,
    sum_by_index,
)
from dipy_dl_reg.metrics.metrics import MIMetric

#: Overlap, over as much as there can be, below which values fade to "unlike".
_ENOUGH = 0.8
#: Bins of a joint histogram, unless the metric says.
_NBINS = 32
#: Points of all poses that are dealt with at once: what caches and memory hold.
_AT_ONCE = 2**18


class AffineObjective:
    """Dissimilarity of the images of one level; lower is better.

    Parameters
    ----------
    level : Level
        The images.
    metric : MIMetric, NCCMetric, SSDMetric or CCMetric, optional
        With its options: for MI `nbins`, for CC the windows' `radius`, in points of
        the level's grid, and `variance_floor`.  By default MI with 32 bins.

    Notes
    -----
    With ``w`` how much each point counts (0 where moving is not known), MI is that of
    ``p[i, j] = sum_x w B(x in bin i) h(place of moving - j) / sum_x w``, static in
    bins and moving spread by a cubic B-spline ``h`` :footcite:p:`Mattes2003`.
    Overlap ``o``, the sum of ``w`` over what it could be, turns a value ``V`` into
    ``h V + (1 - h) V0``: ``V0`` is the value of unlike images, ``h = 1`` from
    ``o = 0.8`` on, and falls to 0 with ``o``.

    Derivatives go backwards through `torch.nn.functional.grid_sample`, which on CUDA is
    not the same from run to run, and an error under
    ``torch.use_deterministic_algorithms(True)``.

    References
    ----------
    .. footbibliography::
    """

    @torch.inference_mode(False)
    def __init__(self, level, metric=None):
        metric = MIMetric() if metric is None else metric
        # Tensors made in `torch.inference_mode` cannot be differentiated through.
        level = level._replace(
            **{
                name: part.clone()
                for name, part in level._asdict().items()
                if isinstance(part, torch.Tensor) and part.is_inference()
            }
        )
        self.level, self.metric = level, metric
        self.compare, self.unlike = {
            "MI": (self._information, 0.0),
            "NCC": (_correlation, 1.0),
            "SSD": (_difference, float(level.static.var())),
            "CC": (self._local, 1.0),
        }[metric.name]
        if metric.name == "MI":
            self.nbins = nbins = metric.nbins or _NBINS
            places, _ = _bins(level.static, nbins, *_limits(level.static))
            self.rows = (places + 0.5).long().clamp_(0, nbins - 1) * nbins
            self.limits = _limits(level.volume[:, 0].flatten())
        ones = torch.ones_like(level.points[:, :1])
        self.homogeneous = torch.cat([level.points, ones], 1)

    def __call__(self, matrices):
        """Compare through each of a batch of matrices.

        Parameters
        ----------
        matrices : Tensor, shape (B, D + 1, D + 1)
            Static's world to moving's, float64 on the CPU.

        Returns
        -------
        value : Tensor, shape (B,)
            Float64 on the CPU.
        slope : Tensor, shape (B, D, D + 1)
            Its derivatives by the matrices' rows but the last.
        """
        each = max(1, _AT_ONCE // len(self.level.points))
        parts = [self._few(part) for part in matrices.split(each)]
        return tuple(torch.cat(found) for found in zip(*parts))

    @torch.inference_mode(False)
    def _few(self, matrices):
        level = self.level
        dim = level.points.shape[1]
        shift = torch.eye(dim + 1, dtype=torch.float64, device="cpu")
        shift[:dim, dim] = level.centre
        whole = (level.world2volume @ matrices @ shift)[:, :dim]
        where = self.homogeneous @ whole.float().to(level.device).transpose(1, 2)
        where.requires_grad_()
        with torch.enable_grad():
            sampled = sample_at(level.volume, where)
        moving = sampled[:, 0].detach()
        weight = sampled[:, 1].detach() if sampled.shape[1] > 1 else None
        value, by_moving, by_weight = self.compare(level.static, moving, weight)
        if weight is not None:
            fade, by_overlap = _fade(weight.sum(1) / level.most)
            by_overlap = by_overlap * (value - self.unlike) / level.most
            by_weight = by_weight * fade[:, None] + by_overlap[:, None]
            by_moving = by_moving * fade[:, None]
            value = self.unlike + fade * (value - self.unlike)
            incoming = torch.stack([by_moving, by_weight], 1)
        else:
            incoming = by_moving[:, None]
        (by_place,) = torch.autograd.grad(sampled, where, incoming)
        slope = (by_place.transpose(1, 2) @ self.homogeneous).cpu().double()
        scale = level.world2volume[:dim, :dim].T
        return value.cpu().double(), scale @ slope @ shift.T

    def _information(self, static, moving, weight):
        """Minus the mutual information, and its derivatives."""
        (batch, count), nbins = moving.shape, self.nbins
        size = nbins**2
        place, rate = _bins(moving, nbins, *self.limits)
        first = place.floor().clamp_(max=nbins - 3)
        t = place.sub_(first)
        index = first.long().add_(self.rows)
        if batch > 1:
            start = torch.arange(batch, device=moving.device) * size
            index += start[:, None]
        joint, splines = 0.0, bspline_weights(t)
        for shift, share in zip((-1, 0, 1, 2), splines):
            share = share if weight is None else share * weight
            joint += sum_by_index(
                (index + shift).flatten(), share.flatten(), batch * size
            )
        total = count if weight is None else weight.sum(1).clamp_min(1e-3)[:, None]
        scale = total if weight is None else total[:, :, None]
        joint = (joint.view(batch, nbins, nbins) / scale).to(moving)
        tiny = torch.finfo(moving.dtype).tiny
        by_moving = joint.sum(1, keepdim=True).clamp_min(tiny)
        by_static = joint.sum(2, keepdim=True).clamp_min(tiny)
        ratio = (joint.clamp_min(tiny) / by_moving).log_()
        value = -(joint * (ratio - by_static.log())).sum((1, 2))
        ratio = torch.where(joint > 0, ratio, torch.zeros_like(ratio))
        slope, gain = torch.zeros_like(moving), None
        if weight is not None:
            gain = value[:, None].expand_as(moving).clone()
            by_row = (ratio - by_static.log()).flatten()
        ratio = ratio.flatten()
        slopes = bspline_derivatives(t)
        for shift, share, change in zip((-1, 0, 1, 2), splines, slopes):
            shifted = index + shift
            slope.addcmul_(change, ratio[shifted], value=-1)
            if weight is not None:
                gain.addcmul_(share, by_row[shifted])
        slope *= rate / total if weight is None else weight * rate / total
        low, high = self.limits
        slope[(moving < low) | (moving > high)] = 0
        return value, slope, None if weight is None else -gain / total

    def _local(self, static, moving, weight):
        """Local correlation on a grid of points, one pose after the other."""
        shape, counts = (1, 1, *self.level.shape), self.level.counts
        found = []
        for k in range(len(moving)):
            mask = counts
            if weight is not None:
                known = (weight[k] > 0.5).to(moving)
                mask = known if counts is None else known * counts
            if mask is not None and not bool(mask.any()):
                found.append((moving.new_tensor(self.unlike), 0 * moving[k]))
                continue
            mask = None if mask is None else mask.view(shape)
            evaluate = self.metric.bind(static.view(shape), mask)
            value, slope = evaluate(moving[k].view(shape))
            found.append((value, slope.flatten()))
        value, slope = (torch.stack(part) for part in zip(*found))
        return value, slope, None if weight is None else torch.zeros_like(slope)


def _limits(values):
    """Range of the histogram's bins, without the outermost thousandths."""
    few = values[:: max(1, len(values) // 500_000)]
    low, high = few.quantile(few.new_tensor([0.001, 0.999])).unbind()
    return (low, high) if high > low else (values.min(), values.max())


def _bins(values, nbins, low, high):
    """Places among the bins, two left free at either end, and bins per unit."""
    rate = (nbins - 5) / (high - low).clamp_min(torch.finfo(values.dtype).eps)
    return ((values - low) * rate).clamp_(0, nbins - 5).add_(2), rate


def _fade(overlap):
    """1 with enough overlap, 0 without any; and its slope."""
    lack = (1 - overlap / _ENOUGH).clamp_min(0)
    return 1 - lack * lack, 2 * lack / _ENOUGH


def _traced(value, moving, weight):
    """Leave derivatives to autograd."""
    inputs = [moving] if weight is None else [moving, weight]
    inputs = [x.detach().requires_grad_() for x in inputs]
    with torch.enable_grad():
        found = value(inputs[0], None if weight is None else inputs[1])
        slopes = torch.autograd.grad(found.sum(), inputs)
    return found.detach(), slopes[0], None if weight is None else slopes[1]


def _mean(values, weight):
    if weight is None:
        return values.mean(1)
    return (values * weight).sum(1) / weight.sum(1).clamp_min(1e-3)


def _correlation(static, moving, weight):
    """One minus Pearson's correlation, and its derivatives."""

    def value(moving, weight):
        a = static - _mean(static.expand_as(moving), weight)[:, None]
        b = moving - _mean(moving, weight)[:, None]
        power = (_mean(a * a, weight) * _mean(b * b, weight)).clamp_min(1e-12)
        return 1 - _mean(a * b, weight) / power.sqrt()

    return _traced(value, moving, weight)


def _difference(static, moving, weight):
    """Mean squared difference, and its derivatives."""

    def value(moving, weight):
        return _mean((moving - static) ** 2, weight)

    return _traced(value, moving, weight)


def search_bins(count):
    """Bins for a histogram of few points.

    Parameters
    ----------
    count : int
        Number of points.

    Returns
    -------
    nbins : int
        From 10 to 32: with too many, chance alone makes images informative.
    """
    return max(10, min(32, round(math.sqrt(count / 10))))
