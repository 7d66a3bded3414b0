"""Mutual information of two images."""

import torch

from dipy_dl_reg.geometry.intensity import histogram_limits
from dipy_dl_reg.metrics.base import BoundMetric, Metric, on_selected_voxels
from dipy_dl_reg.metrics.histogram import (
    BIN_FRACTION,
    LookUp,
    add_from_bins,
    bin_positions,
    bspline_derivatives,
    bspline_weights,
    choose_bin_count,
    mutual_information,
    split_positions,
    sum_by_index,
    sum_into_bins,
    tabulate_weights,
)
from dipy_dl_reg.validation import check_whole_number

#: The range of the bins is found from about this number of voxels.
_MOST_VOXELS = 1_000_000


class MIMetric(Metric):
    """Minus the mutual information of the two images, normalized.

    This metric is suitable for different contrasts, such as b0 and T1
    :footcite:p:`Mattes2003`.

    Parameters
    ----------
    dim : {2, 3}, optional
        Dimension of the images.
    sigma_diff : float, optional
        Standard deviation, in voxels, of the Gaussian that smooths the update of
        the field.
    nbins : int, optional
        Number of bins of the joint histogram along each axis.  By default it depends on
        the number of voxels that are compared: 32 for 20000 and more, down to 12.

    Raises
    ------
    ValueError
        If an option is out of range.

    See Also
    --------
    DeepRegistration : takes the metric, or its name ``"MI"``.
    MINDMetric : local; for images with a bias field, and contrasts that differ by
        region.
    CRMetric : one intensity of moving for each of static.

    Notes
    -----
    Intensities are distributed over bins by a cubic B-spline ``h``; ``p`` is the joint
    histogram, ``I(s, w) = sum p log(p / (p_s p_w))`` and
    ``value = -I(s, w) / sqrt(I(w, w))``.  With ``t`` the position of a voxel's
    intensity among the bins of warped, and ``s`` its position among the bins of static,
    rounded to a sixteenth of a bin,
    ``d I(s, w) / d t = sum_ik h(s - i) h'(t - k) log(p[i, k] / p_w[k]) / N``.

    The maximum of ``I(s, w)`` alone is not at equal images: the spline distributes
    frequent intensities over the bins of rare intensities, and ``I(s, w)`` increases if
    the rare intensities move away from these bins.  ``I(w, w)`` then increases by twice
    as much, so that the quotient does not increase.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import torch
    >>> from dipy_dl_reg import MIMetric
    >>> static = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> metric = MIMetric(2, nbins=8)
    >>> metric(static, 1 - static) < metric(static, static.flip(-1))
    tensor(True)
    """

    name = "MI"
    gradient_floor = 0.4

    def __init__(
        self,
        dim: int | None = None,
        *,
        sigma_diff: float = 1.0,
        nbins: int | None = None,
    ) -> None:
        super().__init__(dim, sigma_diff=sigma_diff)
        self.nbins = nbins
        if nbins is not None:
            self.nbins = check_whole_number("nbins", nbins, low=8)

    def _bind(
        self,
        static: torch.Tensor,
        mask: torch.Tensor | None,
        moving: torch.Tensor | None,
    ) -> BoundMetric:
        inside = None if mask is None else mask.flatten() > 0
        chosen = static.flatten() if inside is None else static.flatten()[inside]
        nbins = choose_bin_count(len(chosen)) if self.nbins is None else self.nbins
        compare = BoundInformation(chosen, nbins, static if moving is None else moving)
        return on_selected_voxels(compare, inside)


class BoundInformation:
    """Mutual information with one static image; see `MIMetric` for the formula.

    Parameters
    ----------
    static : Tensor, shape (N,)
        Intensities of the voxels that count.
    nbins : int
        Number of bins.
    moving : Tensor
        The moving image before it is warped, for the range of its intensities.
    """

    def __init__(self, static: torch.Tensor, nbins: int, moving: torch.Tensor) -> None:
        self.weights = tabulate_weights(nbins, static)
        low, high = histogram_limits(static, most=_MOST_VOXELS)
        positions, _ = bin_positions(static, nbins, low, high)
        self.rows = (positions / BIN_FRACTION).round_().long() * nbins
        self.limits = histogram_limits(moving.flatten(), most=_MOST_VOXELS)

    def __call__(self, warped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compare with a warped image.

        Parameters
        ----------
        warped : Tensor, shape (N,)
            Intensities of the same voxels.

        Returns
        -------
        value : Tensor, shape ()
            ``-I(s, w) / sqrt(I(w, w))``.
        slope : Tensor, shape (N,)
            Derivative of the value by `warped`.
        """
        (rows, nbins), count = self.weights.shape, len(warped)
        low, high = self.limits
        positions, rate = bin_positions(warped, nbins, low, high)
        own, slope = self._own_information(positions)
        lower, t = split_positions(positions, nbins)
        index = lower.add_(self.rows)
        sums = sum_into_bins(index, bspline_weights(t), rows * nbins)
        joint = self.weights.T.to(sums) @ (sums.view(rows, nbins) / count)
        shared, ratio = mutual_information(joint.to(warped))
        slope.mul_(shared / (2 * own))
        table = (self.weights @ ratio).flatten()
        add_from_bins(index, LookUp(slope, table, bspline_derivatives(t), sign=-1))
        slope *= rate / (count * own.sqrt())
        slope[(warped < low) | (warped > high)] = 0
        return -shared / own.sqrt(), slope

    def _own_information(
        self, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``I(w, w)`` of an image and its derivative by each position."""
        rows, count = len(self.weights), len(positions)
        lower = (positions / BIN_FRACTION).floor_().clamp_(0, rows - 2)
        t, index = positions / BIN_FRACTION - lower, lower.long()
        density = sum_by_index(index, 1 - t, rows) + sum_by_index(index + 1, t, rows)
        density = (density / count).to(positions)
        weighted = density[:, None] * self.weights
        value, ratio = mutual_information(self.weights.T @ weighted)
        by_row = ((self.weights @ ratio) * self.weights).sum(1)
        slope = (by_row.diff() / BIN_FRACTION)[index]
        return value.clamp_min(torch.finfo(positions.dtype).eps), slope
