"""Squared local correlation of two images and its gradient: what CCMetric computes."""

from functools import cached_property

import torch

from dipy_dl_reg.geometry.kernels import dispatch
from dipy_dl_reg.geometry.kernels import functions as kernels
from dipy_dl_reg.geometry.smoothing import box_sum

#: Windows without a voxel are divided by this instead of 0.
_LEAST_WINDOW = 1e-6


class LocalCorrelation:
    """Local correlation against one static image, on buffers kept between calls.

    Parameters
    ----------
    static : Tensor, shape (B, 1, *shape)
        Taken as constant.
    mask : Tensor, shape (B, 1, *shape), or None
        1 where a voxel counts, 0 elsewhere.
    radius : int
        The window is a cube ``2 radius + 1`` voxels wide.
    floor : float
        Added to variances.

    Notes
    -----
    The formula stands in `dipy_dl_reg.metrics.metrics.CCMetric`.
    """

    def __init__(self, static, mask, radius, floor):
        self.radius, self.floor = radius, floor
        self.mask = mask
        ones = torch.ones_like(static) if mask is None else mask
        count = box_sum(ones, radius).clamp_min_(_LEAST_WINDOW)
        self.inverse_count = count.reciprocal_()
        self.total = ones.sum()
        self.static = static if mask is None else static * mask
        self.static_mean = box_sum(self.static, radius).mul_(self.inverse_count)
        var = box_sum(self.static * static, radius).mul_(self.inverse_count)
        # Rounding leaves a variance of nothing slightly negative: clamp, then floor.
        var.addcmul_(self.static_mean, self.static_mean, value=-1)
        self.static_precision = var.clamp_min_(0).add_(floor).reciprocal_()

    @cached_property
    def _sums(self):
        """Three channels to sum over windows."""
        return self.static.new_empty(len(self.static), 3, *self.static.shape[2:])

    @cached_property
    def _scratch(self):
        """As many again."""
        return torch.empty_like(self._sums)

    @cached_property
    def _kernel(self):
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

    def __call__(self, warped):
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
            Its derivative by `warped`.
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

    def _box(self, *channels):
        """Box sums of three images, left in ``self._sums``."""
        for channel, image in enumerate(channels):
            self._sums[:, channel : channel + 1].copy_(image)
        box_sum(self._sums, self.radius, out=self._sums, scratch=self._scratch)
