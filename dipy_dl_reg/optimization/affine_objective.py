"""How alike two images are for a batch of matrices, and the slope by each matrix.

For points ``x`` of static and a matrix ``M`` the moving image is read at ``M x``.  The
value's derivative by ``M`` is one sum over the points, ``sum g(x) [x, 1]'`` with ``g``
the derivative by the place that is read: it serves every family of maps.
"""

import torch

from dipy_dl_reg.geometry.fields import sample_at
from dipy_dl_reg.geometry.intensity import histogram_limits
from dipy_dl_reg.metrics.histogram import (
    LookUp,
    add_from_bins,
    bin_positions,
    bspline_derivatives,
    bspline_weights,
    split_positions,
    sum_into_bins,
)
from dipy_dl_reg.metrics.mutual_information import MIMetric

#: Overlap, over as much as there can be, below which values fade to "unlike".
_ENOUGH = 0.8
#: Bins of a joint histogram, unless the metric says.
_NBINS = 32
#: The range of the bins is found from about this number of intensities.
_MOST_POINTS = 500_000
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
            limits = histogram_limits(level.static, most=_MOST_POINTS)
            positions, _ = bin_positions(level.static, nbins, *limits)
            self.rows = (positions + 0.5).long().clamp_(0, nbins - 1) * nbins
            volume = level.volume[:, 0].flatten()
            self.limits = histogram_limits(volume, most=_MOST_POINTS)
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
        positions, rate = bin_positions(moving, nbins, *self.limits)
        lower, t = split_positions(positions, nbins)
        index = lower.add_(self.rows)
        if batch > 1:
            start = torch.arange(batch, device=moving.device) * size
            index += start[:, None]
        splines = bspline_weights(t)
        counted = (s if weight is None else s * weight for s in splines)
        joint = sum_into_bins(index, counted, batch * size)
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
        terms = [LookUp(slope, ratio.flatten(), bspline_derivatives(t), sign=-1)]
        if weight is not None:
            gain = value[:, None].expand_as(moving).clone()
            by_row = (ratio - by_static.log()).flatten()
            terms.append(LookUp(gain, by_row, splines))
        add_from_bins(index, *terms)
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
