"""How alike two images are: squares, correlation, information.

How a metric is used stands in `dipy_dl_reg.metrics.base`.
"""

import torch

from dipy_dl_reg.metrics.base import Metric, real_number, whole_number
from dipy_dl_reg.metrics.histogram import (
    PART,
    PiecewiseLinear,
    bin_weights,
    bspline_derivatives,
    bspline_weights,
    choose_bin_count,
    mutual_information,
    sum_by_index,
)
from dipy_dl_reg.metrics.local_correlation import LocalCorrelation
from dipy_dl_reg.metrics.mind import MINDMetric


class SSDMetric(Metric):
    """Mean of squared differences.

    Parameters
    ----------
    dim : {2, 3}, optional
        Dimension of the images.
    smooth : float, optional
        Standard deviation, in voxels, of the Gaussian that smooths the update of
        the field; DIPY's name for it in this metric.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    ``value = mean((static - warped)**2)`` over the mask.
    """

    name = "SSD"
    batched = True

    def __init__(self, dim=None, *, smooth=1.0):
        super().__init__(dim, sigma_diff=smooth)

    def _bind(self, static, mask, moving):
        weight = _weight(static, mask)

        def evaluate(warped):
            difference = (warped - static).mul_(weight)
            value = (difference * (warped - static)).sum()
            return value, difference.mul_(2)

        return evaluate


class NCCMetric(Metric):
    """One minus the global correlation of the two images (Pearson's, signed).

    Parameters
    ----------
    dim : {2, 3}, optional
        Dimension of the images.
    sigma_diff : float, optional
        Standard deviation, in voxels, of the Gaussian that smooths the update of
        the field.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    With ``a`` and ``b`` the images less their means over the mask,
    ``value = 1 - sum(a b) / sqrt(sum(a a) sum(b b))`` and
    ``d value / d warped = -(a / |a| - r b / |b|) / |b|``, ``r`` the correlation.
    """

    name = "NCC"
    batched = True

    def _bind(self, static, mask, moving):
        axes = tuple(range(1, static.ndim))
        weight = torch.ones_like(static) if mask is None else mask
        weight = weight / weight.sum(axes, keepdim=True).clamp_min(1)
        tiny = torch.finfo(static.dtype).eps ** 2

        def centred(image):
            b = image - (weight * image).sum(axes, keepdim=True)
            norm = (weight * b * b).sum(axes, keepdim=True).clamp_min(tiny).sqrt()
            return b, norm

        a, a_norm = centred(static)
        a = a / a_norm

        def evaluate(warped):
            b, b_norm = centred(warped)
            b = b / b_norm
            r = (weight * a * b).sum(axes, keepdim=True)
            gradient = (r * b - a) * weight / (b_norm * len(warped))
            return (1 - r).mean(), gradient

        return evaluate


class CCMetric(Metric):
    """One minus the squared local correlation, averaged over the image.

    The metric of SyN :footcite:p:`Avants2008`: blind to the sign and the scale of
    the intensities within each window.

    Parameters
    ----------
    dim : {2, 3}, optional
        Dimension of the images.
    sigma_diff : float, optional
        Standard deviation, in voxels, of the Gaussian that smooths the update of
        the field.
    radius : int, optional
        The window is a cube ``2 radius + 1`` voxels wide.
    variance_floor : float, optional
        A texture of this variance is taken to be in every window of both images,
        the same in both: windows flatter than it are noise and have little say.  For
        images scaled to about [0, 1].

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    With means over the window's voxels inside image and mask, at each voxel
    ``cross = mean(s w) - mean(s) mean(w) + floor``,
    ``var = mean(w w) - mean(w)**2 + floor`` (and so for s),
    ``cc = cross**2 / (var_s var_w)``; ``value = 1 - mean(cc)``.  The floor in `cross`
    too keeps ``cc <= 1`` with equality for equal images; without it a warp would
    gain by contrast alone, and move identical images.  By
    the chain rule, box sums being their own transpose,
    ``d sum(cc) / d w = s box[2 a] - w box[2 b] + box[2 b mean(w) - 2 a mean(s)]``
    with ``a = cross / (var_s var_w)`` and ``b = cc / var_w``, each over the
    window's count.

    References
    ----------
    .. footbibliography::
    """

    name = "CC"
    batched = True
    # Long steps where the images differ most, short ones where little is to be seen:
    # with equal steps the field is rougher, and no better.
    gradient_floor = 0.3
    max_step_factor = 2.8
    sigma_field = 0.8

    def __init__(self, dim=None, *, sigma_diff=1.0, radius=1, variance_floor=1e-3):
        super().__init__(dim, sigma_diff=sigma_diff)
        self.radius = whole_number("radius", radius, 1)
        self.variance_floor = real_number("variance_floor", variance_floor, above=True)

    def _bind(self, static, mask, moving):
        return LocalCorrelation(static, mask, self.radius, self.variance_floor)


class MIMetric(Metric):
    """Minus the mutual information of the two images, normalised.

    Fit for two contrasts, such as b0 and T1 :footcite:p:`Mattes2003`.

    Parameters
    ----------
    dim : {2, 3}, optional
        Dimension of the images.
    sigma_diff : float, optional
        Standard deviation, in voxels, of the Gaussian that smooths the update of
        the field.
    nbins : int, optional
        Number of bins of the joint histogram along each axis.  By default by the number
        of voxels that are compared: 32 for 20000 and more, down to 12.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    Both images are spread over the bins by a cubic B-spline ``h``; ``p`` is the joint
    histogram, ``I(s, w) = sum p log(p / (p_s p_w))`` and
    ``value = -I(s, w) / sqrt(I(w, w))``.  With ``t`` a voxel's place among the bins,
    and ``i`` those of static, rounded to a sixteenth of a bin,
    ``d I(s, w) / d t = sum_ik h(s - i) h'(t - k) log(p[i, k] / p_w[k]) / N``.

    ``I(s, w)`` alone is not largest for an image and itself: the spline spreads
    frequent intensities over bins of rare ones, and moving the rare ones away from
    these raises it.  ``I(w, w)`` rises by twice as much, so that the quotient does not.

    References
    ----------
    .. footbibliography::
    """

    name = "MI"
    gradient_floor = 0.4
    _PADDING = 2

    def __init__(self, dim=None, *, sigma_diff=1.0, nbins=None):
        super().__init__(dim, sigma_diff=sigma_diff)
        self.nbins = None if nbins is None else whole_number("nbins", nbins, 8)

    def _bind(self, static, mask, moving):
        inside = None if mask is None else mask.flatten() > 0
        chosen = static.flatten() if inside is None else static.flatten()[inside]
        nbins = choose_bin_count(len(chosen)) if self.nbins is None else self.nbins
        split = bin_weights(nbins, chosen)
        place, _ = self._places(chosen, nbins, *_limits(chosen))
        rows = (place / PART).round_().long() * nbins
        other = static if moving is None else moving
        low, high = _limits(other.flatten())

        def evaluate(warped):
            flat = warped.flatten() if inside is None else warped.flatten()[inside]
            value, slope = self._compare(split, rows, flat, low, high)
            if inside is None:
                return value, slope.view_as(warped)
            gradient = torch.zeros_like(warped)
            gradient.view(-1)[inside] = slope
            return value, gradient

        return evaluate

    def _places(self, values, nbins, low, high):
        """Position among the bins, room left for the spline, and bins per unit."""
        room = nbins - 1 - 2 * self._PADDING
        rate = room / (high - low).clamp_min(torch.finfo(values.dtype).eps)
        return ((values - low) * rate).clamp_(0, room) + self._PADDING, rate

    def _compare(self, split, rows, values, low, high):
        (parts, nbins), count = split.shape, len(values)
        place, rate = self._places(values, nbins, low, high)
        whole, own = self._alone(split, place)
        first = place.floor().clamp_(max=nbins - 1 - self._PADDING)
        t = place.sub_(first)
        index = first.long().add_(rows)
        sums = sum(
            sum_by_index(index + shift, weight, parts * nbins)
            for shift, weight in zip((-1, 0, 1, 2), bspline_weights(t))
        )
        joint = split.T.to(sums) @ (sums.view(parts, nbins) / count)
        shared, ratio = mutual_information(joint.to(values))
        slope = own.mul_(shared / (2 * whole))
        table = (split @ ratio).flatten()
        for shift, weight in zip((-1, 0, 1, 2), bspline_derivatives(t)):
            slope.addcmul_(weight, table[index + shift], value=-1)
        slope *= rate / (count * whole.sqrt())
        slope[(values < low) | (values > high)] = 0
        return -shared / whole.sqrt(), slope

    def _alone(self, split, place):
        """What an image tells of itself, and the slope by each of its places."""
        parts, count = len(split), len(place)
        lower = (place / PART).floor_().clamp_(0, parts - 2)
        t, lower = place / PART - lower, lower.long()
        density = sum_by_index(lower, 1 - t, parts) + sum_by_index(lower + 1, t, parts)
        density = (density / count).to(place)
        whole, ratio = mutual_information(split.T @ (density[:, None] * split))
        by_part = ((split @ ratio) * split).sum(1)
        slope = (by_part.diff() / PART)[lower]
        return whole.clamp_min(torch.finfo(place.dtype).eps), slope


class CRMetric(Metric):
    """Correlation ratio: the part of the warped image that static does not explain.

    Each intensity of static predicts one of moving, whichever fits best, so that the
    contrasts may differ :footcite:p:`Roche1998`.  What DIPY's EMMetric does with
    means alone, and steadier than mutual information; the latter can follow
    one static intensity that stands for two moving ones.

    Parameters
    ----------
    dim : {2, 3}, optional
        Dimension of the images.
    sigma_diff : float, optional
        Standard deviation, in voxels, of the Gaussian that smooths the update of
        the field.
    nbins : int, optional
        Number of intensity levels of the static image.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    With ``f`` the continuous function, linear between the levels, that is nearest to
    the warped image in least squares, and ``m`` the mean,
    ``value = sum((w - f(s))**2) / sum((w - m)**2) = N / D`` and
    ``d value / d w = 2 (w - f(s)) / D - 2 (w - m) N / D**2``: ``f`` and ``m`` need no
    derivative, being where the sums are least.  A mean for each level instead would
    have an image move away from itself, towards the middles of its levels.  Static's
    outermost thousandths do not count.

    References
    ----------
    .. footbibliography::
    """

    name = "CR"
    gradient_floor = 0.1

    def __init__(self, dim=None, *, sigma_diff=1.0, nbins=64):
        super().__init__(dim, sigma_diff=sigma_diff)
        self.nbins = whole_number("nbins", nbins, 8)

    def _bind(self, static, mask, moving):
        inside = None if mask is None else mask.flatten() > 0
        chosen = static.flatten() if inside is None else static.flatten()[inside]
        low, high = _limits(chosen)
        counts = (chosen >= low) & (chosen <= high)
        if not bool(counts.all()):
            every = torch.ones_like(static, dtype=torch.bool).flatten()
            inside = every if inside is None else inside
            inside = inside.masked_scatter(inside, counts)
            chosen = chosen[counts]
        rate = (self.nbins - 1) / (high - low).clamp_min(torch.finfo(low.dtype).eps)
        curve = PiecewiseLinear((chosen - low) * rate, self.nbins)
        least = len(chosen) * torch.finfo(low.dtype).eps ** 2  # rounding alone

        def evaluate(warped):
            flat = warped.flatten() if inside is None else warped.flatten()[inside]
            rest, spread = flat - curve.nearest(flat), flat - flat.mean()
            total = spread.square().sum().clamp_min(least)
            value = rest.square().sum() / total
            slope = rest.mul_(2 / total).sub_(spread.mul_(2 * value / total))
            if inside is None:
                return value, slope.view_as(warped)
            gradient = torch.zeros_like(warped)
            gradient.view(-1)[inside] = slope
            return value, gradient

        return evaluate


def _limits(values):
    """Range of the bins, without the outermost thousandths.

    One hot voxel would squeeze the rest into a single bin.
    """
    few = values[:: max(1, len(values) // 1_000_000)]
    low, high = few.quantile(few.new_tensor([0.001, 0.999])).unbind()
    return (low, high) if high > low else (values.min(), values.max())


def _weight(static, mask):
    """What one voxel counts in a mean over batch and mask."""
    if mask is None:
        return torch.full_like(static, 1.0 / static.numel())
    return mask / mask.sum().clamp_min(1)


#: Metrics by the names that `DeepRegistration(metric=...)` takes.
METRICS = {
    "CC": CCMetric,
    "SSD": SSDMetric,
    "NCC": NCCMetric,
    "MI": MIMetric,
    "CR": CRMetric,
    "MIND": MINDMetric,
}
