"""Correlation ratio of two images."""

import torch

from dipy_dl_reg.geometry.intensity import histogram_limits
from dipy_dl_reg.metrics.base import BoundMetric, Metric, on_selected_voxels
from dipy_dl_reg.metrics.histogram import sum_by_index
from dipy_dl_reg.validation import check_whole_number

#: The range of the levels is found from about this number of voxels.
_MOST_VOXELS = 1_000_000


class CRMetric(Metric):
    """Correlation ratio: the fraction of the warped image's variance not explained.

    The best function of static's intensity is used to predict moving's intensity, so
    that the contrasts may differ :footcite:p:`Roche1998`.  DIPY's EMMetric uses the
    same principle, with the mean of moving for each level of static.  The correlation
    ratio is more robust than mutual information.  However, only mutual information can
    match one intensity of static to two intensities of moving.

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

    See Also
    --------
    DeepRegistration : takes the metric, or its name ``"CR"``.
    MIMetric : one intensity of static may correspond to two of moving.
    dipy.align.metrics.EMMetric : the metric of DIPY with the same principle.

    Notes
    -----
    Let ``f`` be the continuous function, linear between the levels, with the best
    least-squares fit to the warped image, and ``m`` the mean of the warped image.  Then
    ``value = sum((w - f(s))**2) / sum((w - m)**2) = N / D`` and
    ``d value / d w = 2 (w - f(s)) / D - 2 (w - m) N / D**2``.  ``f`` and ``m`` need not
    be differentiated, because they minimize the sums.  If ``f`` were a mean for each
    level, the minimum would not be at identical images: intensities would move towards
    the centres of the levels.  Voxels with the lowest and the highest thousandth of
    static's intensities are excluded.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import torch
    >>> from dipy_dl_reg import CRMetric
    >>> static = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> metric = CRMetric(2, nbins=8)
    >>> metric(static, 1 - static) < metric(static, static.flip(-1))
    tensor(True)
    """

    name = "CR"
    gradient_floor = 0.1

    def __init__(
        self, dim: int | None = None, *, sigma_diff: float = 1.0, nbins: int = 64
    ) -> None:
        super().__init__(dim, sigma_diff=sigma_diff)
        self.nbins = check_whole_number("nbins", nbins, low=8)

    def _bind(
        self,
        static: torch.Tensor,
        mask: torch.Tensor | None,
        moving: torch.Tensor | None,
    ) -> BoundMetric:
        inside = None if mask is None else mask.flatten() > 0
        chosen = static.flatten() if inside is None else static.flatten()[inside]
        low, high = histogram_limits(chosen, most=_MOST_VOXELS)
        counts = (chosen >= low) & (chosen <= high)
        if not bool(counts.all()):
            every = torch.ones_like(static, dtype=torch.bool).flatten()
            inside = every if inside is None else inside
            inside = inside.masked_scatter(inside, counts)
            chosen = chosen[counts]
        rate = (self.nbins - 1) / (high - low).clamp_min(torch.finfo(low.dtype).eps)
        curve = PiecewiseLinear((chosen - low) * rate, self.nbins)
        least = len(chosen) * torch.finfo(low.dtype).eps ** 2  # due to rounding

        def compare(warped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            rest, spread = warped - curve.fit_to(warped), warped - warped.mean()
            total = spread.square().sum().clamp_min(least)
            value = rest.square().sum() / total
            slope = rest.mul_(2 / total).sub_(spread.mul_(2 * value / total))
            return value, slope

        return on_selected_voxels(compare, inside)


class PiecewiseLinear:
    """Functions of one image's intensities, linear between nodes.

    Parameters
    ----------
    positions : Tensor, shape (N,)
        The image's intensities, counted in nodes: from 0 to ``nodes - 1``.
    nodes : int
        Number of nodes.
    """

    def __init__(self, positions: torch.Tensor, nodes: int) -> None:
        lower = positions.floor().clamp_(0, nodes - 2)
        self.t, self.lower, self.nodes = positions - lower, lower.long(), nodes
        t, u = self.t, 1 - self.t
        first, both, second = (
            sum_by_index(self.lower, x, nodes).cpu().double()
            for x in (u * u, u * t, t * t)
        )
        first[1:] += second[:-1]
        both = both[:-1]
        gram = first.diag() + both.diag(1) + both.diag(-1)
        # Without intensities near a node the fit is not unique; the pseudoinverse gives
        # the solution of least norm.
        self._inverse = torch.linalg.pinv(gram, hermitian=True, rtol=1e-10)

    def fit_to(self, values: torch.Tensor) -> torch.Tensor:
        """Fit a function of the intensities to another image, by least squares.

        Parameters
        ----------
        values : Tensor, shape (N,)
            The other image.

        Returns
        -------
        fitted : Tensor, shape (N,)
            The function's value at each intensity.
        """
        upper = values * self.t
        sums = sum_by_index(self.lower, values - upper, self.nodes)
        # The last sum is 0, which `roll` brings to the first node.
        sums += sum_by_index(self.lower, upper, self.nodes).roll(1)
        nodes = (self._inverse @ sums.cpu().double()).to(values.dtype).to(values.device)
        return torch.lerp(nodes[self.lower], nodes[self.lower + 1], self.t)
