"""Dissimilarity of two images for a batch of matrices, and its derivatives.

For points ``x`` of static and a matrix ``M`` the moving image is sampled at ``M x``.
The derivative by the matrix is a sum over the points, ``sum g(x) [x, 1]'``, where ``g``
is the derivative by the sampled position; it is used for all types of affine
transforms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from dipy_dl_reg.geometry.fields import sample_at
from dipy_dl_reg.geometry.intensity import histogram_limits
from dipy_dl_reg.metrics.base import Metric
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
from dipy_dl_reg.optimization.affine_sampling import Level

#: Overlap, as a fraction of the largest possible overlap, below which the value is
#: changed gradually to that of unrelated images.
_FULL_OVERLAP = 0.8
#: Default number of bins of a joint histogram.
_NBINS = 32
#: Approximate number of intensities from which the range of the bins is determined.
_MOST_POINTS = 500_000
#: Number of points, summed over matrices, evaluated at a time: limits memory.
_CHUNK = 2**18


class _Comparison(NamedTuple):
    """Dissimilarity of sampled images, and its derivatives."""

    value: torch.Tensor  # (B,)
    by_moving: torch.Tensor  # (B, N), by the sampled intensities
    by_weight: torch.Tensor | None  # (B, N), by the weights, if there are any


class AffineObjective:
    """Dissimilarity of the images of one level; lower is better.

    Parameters
    ----------
    level : Level
        The images.
    metric : MIMetric, NCCMetric, SSDMetric or CCMetric, optional
        The metric with its options: `nbins` of MI; `radius` (in points of the level's
        grid) and `variance_floor` of CC.  By default MI with 32 bins.

    Notes
    -----
    With ``w`` the weight of each point (0 where moving is unknown), MI is computed from
    ``p[i, j] = sum_x w B(x in bin i) h(position of moving - j) / sum_x w``, where each
    static intensity belongs to one bin, and moving intensities are distributed by a
    cubic B-spline ``h`` :footcite:p:`Mattes2003`.  The overlap ``o`` is the ratio of
    the sum of ``w`` to its largest possible value.  It changes a value ``V`` to
    ``h V + (1 - h) V0``: ``V0`` is the value of unrelated images; ``h`` is 1 for ``o``
    of 0.8 and more, and decreases to 0 with ``o``.

    The backward pass of `torch.nn.functional.grid_sample` is used.  On CUDA its result
    is not reproducible, and it raises an error with
    ``torch.use_deterministic_algorithms(True)``.

    References
    ----------
    .. footbibliography::
    """

    @torch.inference_mode(False)
    def __init__(self, level: Level, metric: Metric | None = None) -> None:
        metric = MIMetric() if metric is None else metric
        level = _clone_inference_tensors(level)
        self.level, self.metric = level, metric
        self._compare: Callable[..., _Comparison]
        self._compare, self.unlike = {
            "MI": (self._mutual_information, 0.0),
            "NCC": (_global_correlation, 1.0),
            "SSD": (_squared_difference, float(level.static.var())),
            "CC": (self._local_correlation, 1.0),
        }[str(metric.name)]
        if isinstance(metric, MIMetric):
            self.nbins = nbins = metric.nbins or _NBINS
            limits = histogram_limits(level.static, most=_MOST_POINTS)
            positions, _ = bin_positions(level.static, nbins, *limits)
            self.rows = (positions + 0.5).long().clamp_(0, nbins - 1) * nbins
            volume = level.volume[:, 0].flatten()
            self.limits = histogram_limits(volume, most=_MOST_POINTS)
        ones = torch.ones_like(level.points[:, :1])
        self.homogeneous = torch.cat([level.points, ones], 1)

    def __call__(self, matrices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compare the images through each of a batch of matrices.

        Parameters
        ----------
        matrices : Tensor, shape (B, D + 1, D + 1)
            Static's world to moving's, float64 on the CPU.

        Returns
        -------
        value : Tensor, shape (B,)
            Float64 on the CPU.
        gradient : Tensor, shape (B, D, D + 1)
            Derivatives by the matrices' rows without the last.
        """
        each = max(1, _CHUNK // len(self.level.points))
        parts = [self._evaluate(part) for part in matrices.split(each)]
        values, gradients = zip(*parts)
        return torch.cat(values), torch.cat(gradients)

    @torch.inference_mode(False)
    def _evaluate(self, matrices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Evaluate a part of a batch, which is limited by memory."""
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
        found = self._compare(level.static, moving, weight)
        value, incoming = found.value, found.by_moving[:, None]
        if weight is not None and found.by_weight is not None:
            value, incoming = self._fade_value(
                found.value, found.by_moving, found.by_weight, weight
            )
        (by_place,) = torch.autograd.grad(sampled, where, incoming)
        gradient = (by_place.transpose(1, 2) @ self.homogeneous).cpu().double()
        scale = level.world2volume[:dim, :dim].T
        return value.cpu().double(), scale @ gradient @ shift.T

    def _fade_value(
        self,
        value: torch.Tensor,
        by_moving: torch.Tensor,
        by_weight: torch.Tensor,
        weight: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Combine value and derivatives (B, 2, N) with the effect of the overlap."""
        fade, by_overlap = _fade_by_overlap(weight.sum(1) / self.level.most)
        by_overlap = by_overlap * (value - self.unlike) / self.level.most
        by_weight = by_weight * fade[:, None] + by_overlap[:, None]
        by_moving = by_moving * fade[:, None]
        value = self.unlike + fade * (value - self.unlike)
        return value, torch.stack([by_moving, by_weight], 1)

    def _mutual_information(
        self, static: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor | None
    ) -> _Comparison:
        """Minus the mutual information, and its derivatives."""
        index, t, bins_per_unit = self._spread_over_bins(moving)
        weights = bspline_weights(t)
        total: Any = moving.shape[1]
        per_histogram, weighted_rate = total, bins_per_unit / total
        if weight is not None:
            total = weight.sum(1).clamp_min(1e-3)[:, None]
            per_histogram = total[:, :, None]
            weighted_rate = weight * bins_per_unit / total
        counted = (w if weight is None else w * weight for w in weights)
        joint = sum_into_bins(index, counted, len(moving) * self.nbins**2)
        joint = joint.view(len(moving), self.nbins, self.nbins) / per_histogram
        value, ratio, by_share = _information(joint.to(moving))
        by_moving = torch.zeros_like(moving)
        terms = [LookUp(by_moving, ratio, bspline_derivatives(t), sign=-1)]
        gain = None
        if weight is not None:
            gain = value[:, None].expand_as(moving).clone()
            terms.append(LookUp(gain, by_share, weights))
        add_from_bins(index, *terms)
        by_moving *= weighted_rate
        low, high = self.limits
        by_moving[(moving < low) | (moving > high)] = 0
        return _Comparison(value, by_moving, None if gain is None else -gain / total)

    def _spread_over_bins(
        self, moving: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Find the position of each point in the joint histograms of a batch.

        Returns the index, into all histograms, of the second of the four bins over
        which a point is distributed (B, N); the distance of the point from the centre
        of this bin, in bins (B, N); and the number of bins per unit of intensity.
        """
        positions, bins_per_unit = bin_positions(moving, self.nbins, *self.limits)
        lower, t = split_positions(positions, self.nbins)
        index = lower.add_(self.rows)
        if len(moving) > 1:
            start = torch.arange(len(moving), device=moving.device) * self.nbins**2
            index += start[:, None]
        return index, t, bins_per_unit

    def _local_correlation(
        self, static: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor | None
    ) -> _Comparison:
        """Local correlation on a grid of points, one matrix after the other."""
        assert self.level.shape is not None
        shape, counts = (1, 1, *self.level.shape), self.level.counts
        values, gradients = [], []
        for k in range(len(moving)):
            mask = counts
            if weight is not None:
                known = (weight[k] > 0.5).to(moving)
                mask = known if counts is None else known * counts
            if mask is not None and not bool(mask.any()):
                values.append(moving.new_tensor(self.unlike))
                gradients.append(0 * moving[k])
                continue
            mask = None if mask is None else mask.view(shape)
            evaluate = self.metric.bind(static.view(shape), mask)
            value, gradient = evaluate(moving[k].view(shape))
            values.append(value)
            gradients.append(gradient.flatten())
        by_moving = torch.stack(gradients)
        by_weight = None if weight is None else torch.zeros_like(by_moving)
        return _Comparison(torch.stack(values), by_moving, by_weight)


def _clone_inference_tensors(level: Level) -> Level:
    """The level with tensors that autograd can use.

    Tensors made in `torch.inference_mode` cannot be differentiated through.
    """
    clones: dict[str, Any] = {
        name: part.clone()
        for name, part in level._asdict().items()
        if isinstance(part, torch.Tensor) and part.is_inference()
    }
    return level._replace(**clones)


def _information(
    joint: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Minus the mutual information of joint histograms, and its derivatives.

    Returns the values (B,) and two flat arrays over bins: the derivative by the content
    of each bin up to a constant of its row, and the derivative with this constant.
    """
    tiny = torch.finfo(joint.dtype).tiny
    by_moving = joint.sum(1, keepdim=True).clamp_min(tiny)
    by_static = joint.sum(2, keepdim=True).clamp_min(tiny)
    ratio = (joint.clamp_min(tiny) / by_moving).log_()
    value = -(joint * (ratio - by_static.log())).sum((1, 2))
    ratio = torch.where(joint > 0, ratio, torch.zeros_like(ratio))
    return value, ratio.flatten(), (ratio - by_static.log()).flatten()


def _fade_by_overlap(overlap: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """1 with enough overlap, 0 without any; and the derivative by the overlap."""
    lack = (1 - overlap / _FULL_OVERLAP).clamp_min(0)
    return 1 - lack * lack, 2 * lack / _FULL_OVERLAP


def _differentiate(
    function: Callable[..., torch.Tensor],
    moving: torch.Tensor,
    weight: torch.Tensor | None,
) -> _Comparison:
    """Value and derivatives of a function of intensities and weights, by autograd."""
    inputs = [moving] if weight is None else [moving, weight]
    inputs = [x.detach().requires_grad_() for x in inputs]
    with torch.enable_grad():
        value = function(inputs[0], None if weight is None else inputs[1])
        gradients = torch.autograd.grad(value.sum(), inputs)
    by_weight = None if weight is None else gradients[1]
    return _Comparison(value.detach(), gradients[0], by_weight)


def _weighted_mean(values: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    if weight is None:
        return values.mean(1)
    return (values * weight).sum(1) / weight.sum(1).clamp_min(1e-3)


def _global_correlation(
    static: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor | None
) -> _Comparison:
    """One minus Pearson's correlation, and its derivatives."""

    def evaluate(moving: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        a = static - _weighted_mean(static.expand_as(moving), weight)[:, None]
        b = moving - _weighted_mean(moving, weight)[:, None]
        power = _weighted_mean(a * a, weight) * _weighted_mean(b * b, weight)
        return 1 - _weighted_mean(a * b, weight) / power.clamp_min(1e-12).sqrt()

    return _differentiate(evaluate, moving, weight)


def _squared_difference(
    static: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor | None
) -> _Comparison:
    """Mean squared difference, and its derivatives."""

    def evaluate(moving: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        return _weighted_mean((moving - static) ** 2, weight)

    return _differentiate(evaluate, moving, weight)
