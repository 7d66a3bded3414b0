"""Global correlation of two images."""

import torch

from dipy_dl_reg.metrics.base import BoundMetric, Metric


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

    See Also
    --------
    DeepRegistration : takes the metric, or its name ``"NCC"``.
    CCMetric : the same in windows, squared; it follows a bias field.

    Notes
    -----
    With ``a`` and ``b`` the images minus their means over the mask,
    ``value = 1 - sum(a b) / sqrt(sum(a a) sum(b b))`` and
    ``d value / d warped = -(a / |a| - r b / |b|) / |b|``, ``r`` the correlation.

    Examples
    --------
    >>> import torch
    >>> from dipy_dl_reg import NCCMetric
    >>> static = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> metric = NCCMetric(2)
    >>> values = metric(static, 3 * static + 1), metric(static, -static)
    >>> [round(float(value), 3) for value in values]
    [0.0, 2.0]
    """

    name = "NCC"
    batched = True

    def _bind(
        self,
        static: torch.Tensor,
        mask: torch.Tensor | None,
        moving: torch.Tensor | None,
    ) -> BoundMetric:
        axes = tuple(range(1, static.ndim))
        weight = torch.ones_like(static) if mask is None else mask
        weight = weight / weight.sum(axes, keepdim=True).clamp_min(1)
        tiny = torch.finfo(static.dtype).eps ** 2

        def centre(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            b = image - (weight * image).sum(axes, keepdim=True)
            norm = (weight * b * b).sum(axes, keepdim=True).clamp_min(tiny).sqrt()
            return b, norm

        a, a_norm = centre(static)
        a = a / a_norm

        def evaluate(warped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            b, b_norm = centre(warped)
            b = b / b_norm
            r = (weight * a * b).sum(axes, keepdim=True)
            gradient = (r * b - a) * weight / (b_norm * len(warped))
            return (1 - r).mean(), gradient

        return evaluate
