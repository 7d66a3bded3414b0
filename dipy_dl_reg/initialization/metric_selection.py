"""What to compare two images by, seen from the images themselves.

Two images of one contrast brighten and darken together, and local correlation finds
the most in them.  T1 and b0 do the opposite in the tissue, but not at the edge of the
brain, and local correlation, blind to the sign, then pulls the wrong things together.
There the moving image can be shown in static's contrast first; or, where no curve
leads from one to the other, self-similarity compares the two.
"""

from typing import NamedTuple

import torch

from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.geometry.pair import compared_voxels
from dipy_dl_reg.geometry.pyramid import coarsen
from dipy_dl_reg.geometry.smoothing import gaussian_taps, window_moments
from dipy_dl_reg.metrics.base import Metric
from dipy_dl_reg.metrics.histogram import sum_by_index
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.mind import MINDMetric

#: Voxels, mm, that are fine enough to tell whether images agree; but of images smaller
#: than heads this part of the longest side.  How the one shows what the other does is
#: seen at voxels this many times as large.
_SPACING, _PARTS, _FOR_CURVE = 3.0, 48, 2 / 3
#: Smoothing on the way to those voxels, see `coarsen`.
_SIGMA_FACTOR = 0.5
#: Windows are cubes ``2 _RADIUS + 1`` voxels wide.
_RADIUS = 2
#: Part of the range of an image above which there is something.
_SOMETHING = 0.05
#: Least variance of a window in which there is something to compare, and how many such
#: windows are evidence.
_LEAST_VARIANCE, _ENOUGH = 1e-5, 30
#: Intensities that a curve knows, and over how many of them it is smoothed.
_BINS, _SMOOTHING = 64, 1.5
#: Part of the brightest voxels that the last bin holds.
_BRIGHTEST = 0.001
#: Part of static's variance that a curve must explain.  Real images of one subject and
#: T1 brains made to look like b0 explain half and more from b0 and MD to T1; from FA to
#: T1 it is a tenth.
_LEAST_EXPLAINED = 0.3
#: Agreement of images of one contrast.  After the network that of T1 brains is .6 and
#: more, and of real FA with T1 about .3.
ALIKE = 0.45
#: Smoothing of the field, voxels, where images are of different contrasts: the less
#: the images tell, the smoother.
_SIGMA_CURVE, _SIGMA_WEAK, _SIGMA_MIND = 1.0, 1.4, 1.2


class IntensityMapping(NamedTuple):
    """A function of intensity, linear between the middles of bins, constant beyond.

    Attributes
    ----------
    values : Tensor, shape (K,)
        What the middle of each bin becomes.
    highest : float
        Upper end of the last bin; the first begins at 0.
    """

    values: torch.Tensor
    highest: float

    def __call__(self, image):
        """The function of an image.

        Parameters
        ----------
        image : Tensor
            Intensities from 0 to about 1.

        Returns
        -------
        shown : Tensor
            Of the same shape.
        """
        last = len(self.values) - 1
        place = (image * ((last + 1) / self.highest) - 0.5).clamp_(0, last)
        low = place.floor().clamp_(max=last - 1)
        index = low.long()
        return torch.lerp(self.values[index], self.values[index + 1], place - low)


class MetricChoice(NamedTuple):
    """How two images are to be compared.

    Attributes
    ----------
    metric : Metric
        What measures their difference.
    sigma_field : float
        Smoothing of the field that suits it, voxels.
    across : bool
        Whether the images are of different contrasts.
    curve : IntensityMapping or None
        How the moving image is to be shown first, if at all.
    reason : str
        Sentences for the log: the values that decided, with their ranges.
    """

    metric: Metric
    sigma_field: float
    across: bool
    curve: IntensityMapping | None
    reason: str

    def apply_to(self, pair):
        """The pair with its moving image as it is to be compared.

        Parameters
        ----------
        pair : Pair
            The images.

        Returns
        -------
        pair : Pair
            With static's contrast, as far as the curve gives it.
        """
        if self.curve is None:
            return pair
        return pair._replace(moving=self.curve(pair.moving))


def select_metric(pair, *, aligned=False):
    """How to compare two images that are roughly aligned.

    By local correlation where `mean_local_correlation` is 0 or more, with a smoother
    field where it is weak.  Where it is negative, by local correlation with the moving
    image mapped to static's contrast, if a function of intensity explains enough of
    static; else by self-similarity.

    Parameters
    ----------
    pair : Pair
        The images.
    aligned : bool, optional
        Whether a network has brought them together already: only then is a weak
        agreement a matter of contrast, and not of a few mm.

    Returns
    -------
    choice : MetricChoice
        Metric, smoothing of the field and intensity mapping.
    """
    told = mean_local_correlation(pair)
    said = _describe(told)
    if told is None or told >= 0:
        weak = aligned and told is not None and told < ALIKE
        if weak:
            said += (
                f" Below {ALIKE} after the network's alignment, contrasts differ and "
                "the field is smoothed more."
            )
        sigma = _SIGMA_WEAK if weak else CCMetric.sigma_field
        return MetricChoice(CCMetric(), sigma, weak, None, said)
    curve, explained = _curve(*_together(pair, _FOR_CURVE))
    said += (
        " An intensity mapping from moving to static explains "
        f"{100 * max(explained, 0):.0f} % of static's variance "
        f"({100 * _LEAST_EXPLAINED:.0f} % needed)."
    )
    if explained >= _LEAST_EXPLAINED:
        return MetricChoice(CCMetric(), _SIGMA_CURVE, True, curve, said)
    return MetricChoice(MINDMetric(), _SIGMA_MIND, True, None, said)


def _describe(correlation):
    """The mean local correlation as a sentence for the log."""
    if correlation is None:
        return (
            "Mean local correlation of the images is unknown: too few windows hold "
            "structure in both."
        )
    return (
        f"Mean local correlation of the images is {correlation:.2f} (range -1 to 1; "
        "below 0 means different contrasts)."
    )


def mean_local_correlation(pair):
    """Mean signed local correlation of two images, where there is something in both.

    In windows of 5 voxels of 3 mm (of images smaller than heads, of 1/48 of the longest
    side), ``cov(s, m) / sqrt(var(s) var(m))``, averaged over
    those whose middle is no background in either image.

    Parameters
    ----------
    pair : Pair
        The images, roughly aligned.

    Returns
    -------
    agreement : float or None
        Between -1 and 1; None where hardly any window tells.
    """
    static, moving, _, inside = _together(pair)
    *variances, covariance = window_moments(static, moving, inside, _RADIUS)
    tells = inside & (torch.minimum(*variances) > _LEAST_VARIANCE)
    if int(tells.sum()) < _ENOUGH:
        return None
    correlation = covariance[tells] / (variances[0] * variances[1])[tells].sqrt()
    return float(correlation.mean())


def _together(pair, factor=1.0):
    """Both images on one grid; what counts of it, and where something is in both."""
    grid = pair.static_grid
    spacing = factor * min(_SPACING, grid.longest_side / _PARTS)
    pair = coarsen(pair, spacing, sigma_factor=_SIGMA_FACTOR)
    static, frame = pair.static, pair.frame()
    still = static.new_zeros(1, static.ndim - 2, *static.shape[2:])
    moving = warp(pair.moving, still, frame_=frame)
    counts = compared_voxels(pair, still, frame)
    return (
        static,
        moving,
        counts,
        counts & ((static > _SOMETHING) & (moving > _SOMETHING)),
    )


def _curve(static, moving, counts, inside):
    """Mean of static for every intensity of moving; what it explains of static.

    The background takes part, so that nothing remains nothing; but not what is masked.
    """
    values = moving[inside]
    kept = max(1, int(_BRIGHTEST * len(values)))
    highest = float(values.topk(kept).values[-1])
    bins = (moving[counts] * (_BINS / highest)).long().clamp_(0, _BINS - 1)
    count = torch.bincount(bins, minlength=_BINS).to(static)
    total = sum_by_index(bins, static[counts], _BINS)
    # The empty bin between two full ones is between them, too.
    count, total = _smoothed(torch.stack([count, total.to(static)]))
    curve = IntensityMapping(total / count.clamp_min(1e-6), highest)
    left = (static - curve(moving))[inside]
    return curve, 1 - float(left.square().mean() / static[inside].var())


def _smoothed(rows):
    """Rows (R, K) smoothed along the second axis, zeros beyond."""
    half = gaussian_taps(_SMOOTHING)
    taps = rows.new_tensor([*half[:0:-1], *half])[None, None]
    padding = len(half) - 1
    return torch.nn.functional.conv1d(rows[:, None], taps, padding=padding)[:, 0]
