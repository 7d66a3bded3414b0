"""How alike two images are: squares, correlation, information.

How a metric is used stands in `dipy_dl_reg.engine.metric`.
"""

import torch

from dipy_dl_reg.engine.correlation import LocalCorrelation
from dipy_dl_reg.engine.histogram import add_up
from dipy_dl_reg.engine.metric import Metric, real_number, whole_number
from dipy_dl_reg.engine.mind import MINDMetric


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
    weak_gradient = 0.3
    stride = 2.8
    sigma_field = 0.8

    def __init__(self, dim=None, *, sigma_diff=1.0, radius=1, variance_floor=1e-3):
        super().__init__(dim, sigma_diff=sigma_diff)
        self.radius = whole_number("radius", radius, 1)
        self.variance_floor = real_number("variance_floor", variance_floor, above=True)

    def _bind(self, static, mask, moving):
        return LocalCorrelation(static, mask, self.radius, self.variance_floor)


class MIMetric(Metric):
    """Minus the mutual information of the two images (Mattes; Parzen windows).

    Fit for two contrasts, such as b0 and T1 :footcite:p:`Mattes2003`.

    Parameters
    ----------
    dim : {2, 3}, optional
        Dimension of the images.
    sigma_diff : float, optional
        Standard deviation, in voxels, of the Gaussian that smooths the update of
        the field.
    nbins : int, optional
        Number of bins of the joint histogram along each axis.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    The static image falls into bins, the warped one is spread over four by a cubic
    B-spline ``h``; ``p`` is the joint histogram, ``value = -sum p log(p / (p_s p_w))``.
    With ``t`` a voxel's place among the bins and ``i`` its static bin,
    ``d value / d t = -sum_k h'(t - k) log(p[i, k] / p_w[k]) / N``.

    References
    ----------
    .. footbibliography::
    """

    name = "MI"
    weak_gradient = 1.0
    _PADDING = 2

    def __init__(self, dim=None, *, sigma_diff=1.0, nbins=32):
        super().__init__(dim, sigma_diff=sigma_diff)
        self.nbins = whole_number("nbins", nbins, 8)

    def _bind(self, static, mask, moving):
        inside = None if mask is None else mask.flatten() > 0
        chosen = static.flatten() if inside is None else static.flatten()[inside]
        place, _ = self._places(chosen, *_limits(chosen))
        rows = (place + 0.5).long().clamp_(0, self.nbins - 1) * self.nbins
        other = static if moving is None else moving
        low, high = _limits(other.flatten())

        def evaluate(warped):
            flat = warped.flatten() if inside is None else warped.flatten()[inside]
            value, slope = self._information(rows, flat, low, high)
            if inside is None:
                return value, slope.view_as(warped)
            gradient = torch.zeros_like(warped)
            gradient.view(-1)[inside] = slope
            return value, gradient

        return evaluate

    def _places(self, values, low, high):
        """Position among the bins, room left for the spline, and bins per unit."""
        room = self.nbins - 1 - 2 * self._PADDING
        rate = room / (high - low).clamp_min(torch.finfo(values.dtype).eps)
        return ((values - low) * rate).clamp_(0, room) + self._PADDING, rate

    def _information(self, rows, values, low, high):
        place, rate = self._places(values, low, high)
        first = place.floor().clamp_(max=self.nbins - 1 - self._PADDING)
        t = place - first
        index = rows + first.long()
        size = self.nbins**2
        joint = sum(
            add_up(index + shift, weight, size)
            for shift, weight in zip((-1, 0, 1, 2), spline(t))
        )
        joint = (joint / len(values)).to(values).view(self.nbins, self.nbins)
        tiny = torch.finfo(values.dtype).tiny
        by_warped = joint.sum(0, keepdim=True)
        ratio = (joint.clamp_min(tiny) / by_warped.clamp_min(tiny)).log_()
        by_static = joint.sum(1, keepdim=True).clamp_min(tiny)
        value = -(joint * (ratio - by_static.log())).sum()
        table = torch.where(joint > 0, ratio, torch.zeros_like(ratio)).flatten()
        slope = torch.zeros_like(values)
        for shift, weight in zip((-1, 0, 1, 2), spline_slope(t)):
            slope.addcmul_(weight, table[index + shift], value=-1)
        slope *= rate / len(values)
        slope[(values < low) | (values > high)] = 0
        return value, slope


def spline(t):
    """Cubic B-spline weights of four bins.

    Parameters
    ----------
    t : Tensor
        Places between bins 0 and 1.

    Returns
    -------
    weights : tuple of Tensor
        Of bins -1, 0, 1 and 2, shaped as `t`.
    """
    s = 1 - t
    return (
        s**3 / 6,
        2 / 3 - t * t * (2 - t) / 2,
        2 / 3 - s * s * (2 - s) / 2,
        t**3 / 6,
    )


def spline_slope(t):
    """Slopes of the four weights.

    Parameters
    ----------
    t : Tensor
        Places between bins 0 and 1.

    Returns
    -------
    slopes : tuple of Tensor
        Derivatives of `spline` by `t`.
    """
    s = 1 - t
    return -s * s / 2, t * (1.5 * t - 2), s * (2 - 1.5 * s), t * t / 2


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
    With ``m_i`` the mean of the warped image over static's bin ``i`` and ``m`` that
    over all, ``value = sum((w - m_i)**2) / sum((w - m)**2) = N / D`` and
    ``d value / d w = 2 (w - m_i) / D - 2 (w - m) N / D**2``: the means need no
    derivative, being where the sums are least.

    References
    ----------
    .. footbibliography::
    """

    name = "CR"
    weak_gradient = 0.1

    def __init__(self, dim=None, *, sigma_diff=1.0, nbins=64):
        super().__init__(dim, sigma_diff=sigma_diff)
        self.nbins = whole_number("nbins", nbins, 8)

    def _bind(self, static, mask, moving):
        inside = None if mask is None else mask.flatten() > 0
        chosen = static.flatten() if inside is None else static.flatten()[inside]
        low, high = _limits(chosen)
        rate = (self.nbins - 1) / (high - low).clamp_min(torch.finfo(low.dtype).eps)
        place = (chosen - low) * rate
        bins = (place + 0.5).long().clamp_(0, self.nbins - 1)
        counts = torch.bincount(bins, minlength=self.nbins).clamp_min(1)

        def evaluate(warped):
            flat = warped.flatten() if inside is None else warped.flatten()[inside]
            means = add_up(bins, flat, self.nbins) / counts
            rest, spread = flat - means.to(flat.dtype)[bins], flat - flat.mean()
            total = spread.square().sum().clamp_min(torch.finfo(flat.dtype).tiny)
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
