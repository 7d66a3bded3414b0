"""Squared local correlation of two images, the metric of SyN."""

from __future__ import annotations

from copy import copy
from functools import cached_property

import torch

from dipy_dl_reg.geometry.kernels import dispatch
from dipy_dl_reg.geometry.kernels import functions as kernels
from dipy_dl_reg.geometry.smoothing import box_sum
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.metrics.base import BoundMetric, Metric
from dipy_dl_reg.validation import check_number, check_whole_number

#: Windows without a voxel are divided by this instead of 0.
_LEAST_WINDOW = 1e-6
#: Default width of a window in refinement, mm, and its upper bound, as a part of the
#: longest axis of the image.
_WINDOW_WIDTH, _LARGEST_WINDOW = 7.0, 1 / 8


class CCMetric(Metric):
    """One minus the squared local correlation, averaged over the image.

    This is the metric of SyN :footcite:p:`Avants2008`.  It does not depend on the sign
    and the scale of the intensities within each window.

    Parameters
    ----------
    dim : {2, 3}, optional
        Dimension of the images.
    sigma_diff : float, optional
        Standard deviation, in voxels, of the Gaussian that smooths the update of
        the field.
    radius : int, optional
        The window is a cube ``2 radius + 1`` voxels wide.  By default refinement uses
        about 7 mm at each level, and at least 3 voxels (`for_grid`): radius 3 for
        voxels of 1 mm, 1 for 2 mm and more.  In other uses the default is 1.  Radius 3
        at 1 mm gave a higher overlap on the pairs of brains on which it was chosen; a
        pair that was kept out did not confirm this (`doc/benchmark/fine_1mm.txt`).
    variance_floor : float, optional
        Added to the variances and the covariance of each window, as if both images had
        the same additional texture of this variance.  Windows with a lower variance,
        which contain mainly noise, then contribute little.  The value is for images
        scaled to about [0, 1].

    Raises
    ------
    ValueError
        If an option is out of range.

    See Also
    --------
    DeepRegistration : takes the metric, or its name ``"CC"``.
    NCCMetric : the correlation over the whole image.
    MINDMetric : local, for images of different contrasts.
    dipy.align.metrics.CCMetric : the metric of DIPY, which is replaced by this one.

    Notes
    -----
    With means over the window's voxels inside image and mask, at each voxel
    ``cross = mean(s w) - mean(s) mean(w) + floor``,
    ``var = mean(w w) - mean(w)**2 + floor`` (and so for s),
    ``cc = cross**2 / (var_s var_w)``; ``value = 1 - mean(cc)``.  With the floor in
    ``cross``, too, ``cc <= 1`` with equality for equal images; without it, a higher
    contrast would increase ``cc``, and the optimum would not be at identical images.
    By the chain rule, because box sums are their own transpose,
    ``d sum(cc) / d w = s box[2 a] - w box[2 b] + box[2 b mean(w) - 2 a mean(s)]``
    with ``a = cross / (var_s var_w)`` and ``b = cc / var_w``, each over the
    window's count.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import torch
    >>> from dipy_dl_reg import CCMetric
    >>> static = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> metric = CCMetric(2, radius=2)
    >>> metric(static, 0.5 * static + 0.1) < metric(static, static.flip(-1))
    tensor(True)
    """

    name = "CC"
    batched = True
    # Long steps where the images differ most, short steps where the gradient is weak:
    # with equal steps the field is rougher, and the overlap is not higher.
    gradient_floor = 0.3
    max_step_factor = 2.8
    # Coarse levels need only the large displacements: smoother fields there give a
    # smoother result at the same overlap.
    coarse_smoothing = 1.4
    symmetric = True
    bytes_per_voxel = 300

    def __init__(
        self,
        dim: int | None = None,
        *,
        sigma_diff: float = 1.0,
        radius: int | None = None,
        variance_floor: float = 1e-3,
    ) -> None:
        super().__init__(dim, sigma_diff=sigma_diff)
        if radius is not None:
            radius = check_whole_number("radius", radius, low=1)
        self.radius = radius
        self.variance_floor = check_number("variance_floor", variance_floor, above=True)

    def for_grid(self, grid: Grid) -> CCMetric:
        """Choose the radius for the voxels of a level, unless the user has set it.

        Parameters
        ----------
        grid : Grid
            Grid of the static image at the level.

        Returns
        -------
        metric : CCMetric
            With windows about 7 mm wide, but at most an eighth of the longest axis,
            and at least 3 voxels.
        """
        if self.radius is not None:
            return self
        axes = [(s, n) for s, n in zip(grid.spacing, grid.shape) if n > 1]
        spacing = min((s for s, _ in axes), default=_WINDOW_WIDTH)
        width = min(_WINDOW_WIDTH / spacing, max(grid.shape) * _LARGEST_WINDOW)
        chosen = copy(self)
        chosen.radius = max(1, round((width - 1) / 2))
        return chosen

    def _bind(
        self,
        static: torch.Tensor,
        mask: torch.Tensor | None,
        moving: torch.Tensor | None,
    ) -> BoundMetric:
        return LocalCorrelation(static, mask, self.radius or 1, self.variance_floor)


class LocalCorrelation:
    """Local correlation with one static image; buffers are reused between calls.

    Parameters
    ----------
    static : Tensor, shape (B, 1, *shape)
        The static image, which is treated as constant.
    mask : Tensor, shape (B, 1, *shape), or None
        1 at voxels that are compared, 0 elsewhere.
    radius : int
        The window is a cube ``2 radius + 1`` voxels wide.
    floor : float
        Added to variances.

    Notes
    -----
    See `CCMetric` for the formula.
    """

    def __init__(
        self,
        static: torch.Tensor,
        mask: torch.Tensor | None,
        radius: int,
        floor: float,
    ) -> None:
        self.radius, self.floor = radius, floor
        self.mask = mask
        ones = torch.ones_like(static) if mask is None else mask
        count = box_sum(ones, radius).clamp_min_(_LEAST_WINDOW)
        self.inverse_count = count.reciprocal_()
        self.total = ones.sum()
        self.static = static if mask is None else static * mask
        self.static_mean = box_sum(self.static, radius).mul_(self.inverse_count)
        var = box_sum(self.static * static, radius).mul_(self.inverse_count)
        # Rounding can make a variance of 0 negative: clamp, then add the floor.
        var.addcmul_(self.static_mean, self.static_mean, value=-1)
        self.static_precision = var.clamp_min_(0).add_(floor).reciprocal_()

    @cached_property
    def _sums(self) -> torch.Tensor:
        """Three channels to sum over windows."""
        return self.static.new_empty(len(self.static), 3, *self.static.shape[2:])

    @cached_property
    def _scratch(self) -> torch.Tensor:
        """A buffer of the same shape."""
        return torch.empty_like(self._sums)

    @cached_property
    def _kernel(self) -> kernels.LocalCorrelation:
        """The compiled loop."""
        images = self.static, self.static_mean, self.static_precision
        return kernels.LocalCorrelation(
            *images,
            self.inverse_count,
            self.mask,
            radius=self.radius,
            floor=self.floor,
            total=self.total,
        )

    def __call__(self, warped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compare with another image.

        Parameters
        ----------
        warped : Tensor, shape (B, 1, *shape)
            The other image.

        Returns
        -------
        value : Tensor, shape ()
            One minus the mean of squared local correlations.
        gradient : Tensor, shape (B, 1, *shape)
            Derivative of the value by `warped`.
        """
        if dispatch.supports(warped, self.static, self.mask):
            return self._kernel(warped)
        if self.mask is not None:
            warped = warped * self.mask
        self._box(warped, warped * warped, warped * self.static)
        mean, square, product = self._sums.mul_(self.inverse_count).split(1, 1)
        cross = product.addcmul_(mean, self.static_mean, value=-1).add_(self.floor)
        var = square.addcmul_(mean, mean, value=-1).clamp_min_(0).add_(self.floor)
        precision = var.reciprocal_()
        a = cross * self.static_precision
        a *= precision
        cc = cross.mul_(a)
        if self.mask is not None:
            a *= self.mask
            cc *= self.mask
        value = 1 - cc.sum() / self.total
        a *= self.inverse_count
        b = cc.mul_(precision).mul_(self.inverse_count)
        c = (b * mean).addcmul_(a, self.static_mean, value=-1)
        self._box(a, b.clone(), c)
        a, b, c = self._sums.split(1, 1)
        gradient = a * self.static
        gradient.addcmul_(b, warped, value=-1).add_(c).mul_(-2 / self.total)
        return value, gradient if self.mask is None else gradient.mul_(self.mask)

    def _box(self, *channels: torch.Tensor) -> None:
        """Write the box sums of three images to ``self._sums``."""
        for channel, image in enumerate(channels):
            self._sums[:, channel : channel + 1].copy_(image)
        box_sum(self._sums, self.radius, out=self._sums, scratch=self._scratch)
