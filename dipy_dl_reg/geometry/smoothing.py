"""Separable smoothing of images and fields: sums of shifted slices.

Matrix products, pooling and convolutions are not used, because for short kernels sums
of shifted slices are the fastest torch code on a CPU; they are also exact, and the same
on every device.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
import math

import torch

from dipy_dl_reg.geometry.kernels import dispatch
from dipy_dl_reg.geometry.kernels import functions as kernels


def gaussian_taps(sigma: float) -> tuple[float, ...]:
    """Half of a normalized Gaussian kernel, centre first, cut at 3 sigma.

    Parameters
    ----------
    sigma : float
        Standard deviation, in voxels.

    Returns
    -------
    taps : tuple of float
        Weights at distances 0, 1, 2, ...; one tap of 1 if `sigma` is 0.
    """
    if sigma <= 0:
        return (1.0,)
    radius = max(1, math.ceil(3 * sigma - 0.5))
    half = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(radius + 1)]
    total = half[0] + 2 * sum(half[1:])
    return tuple(value / total for value in half)


def _correlate(
    x: torch.Tensor, axis: int, taps: Sequence[float], out: torch.Tensor
) -> torch.Tensor:
    """Correlate `x` with a symmetric kernel along one axis, zeros beyond the ends."""
    dim, size = axis + 2, x.shape[axis + 2]
    torch.mul(x, taps[0], out=out)
    for k, weight in enumerate(taps[1:], start=1):
        if k >= size:
            break
        out.narrow(dim, 0, size - k).add_(x.narrow(dim, k, size - k), alpha=weight)
        out.narrow(dim, k, size - k).add_(x.narrow(dim, 0, size - k), alpha=weight)
    return out


@lru_cache(maxsize=256)
def _border_scales(taps: tuple[float, ...], size: int) -> tuple[float, ...]:
    """One over the sum of the taps that lie inside, at every position of an axis."""
    reach = len(taps) - 1
    return tuple(
        1.0
        if reach <= position < size - reach
        else 1
        / sum(taps[abs(position - k)] for k in _taps_inside(position, reach, size))
        for position in range(size)
    )


def _taps_inside(position: int, reach: int, size: int) -> range:
    """Positions of an axis that a kernel covers."""
    return range(max(0, position - reach), min(size, position + reach + 1))


def _renormalise(x: torch.Tensor, axis: int, taps: tuple[float, ...]) -> torch.Tensor:
    """Divide the ends of one axis by the sum of the taps that lay inside, in place."""
    for position, scale in enumerate(_border_scales(taps, x.shape[axis + 2])):
        if scale != 1:
            x.narrow(axis + 2, position, 1).mul_(scale)
    return x


def smooth(
    x: torch.Tensor,
    sigma: float | Sequence[float],
    *,
    out: torch.Tensor | None = None,
    scratch: torch.Tensor | None = None,
) -> torch.Tensor:
    """Gaussian smoothing along every spatial axis, renormalised at the borders.

    Parameters
    ----------
    x : Tensor, shape (B, C, *shape)
        Images or fields; not changed unless it is `out`.
    sigma : float or sequence of float
        Standard deviation in voxels, one for all axes or one per axis.
    out : Tensor, optional
        Tensor for the result; it may be `x` itself.
    scratch : Tensor, optional
        A buffer of the same shape, to save an allocation; it may be `x` if `x` is not
        `out` and may be overwritten.

    Returns
    -------
    smoothed : Tensor, same shape as `x`
        `out` if it was given.
    """
    dim = x.ndim - 2
    sigmas = list(sigma) if isinstance(sigma, Iterable) else [float(sigma)] * dim
    axes = [a for a in range(dim) if sigmas[a] > 0 and x.shape[a + 2] > 1]
    out = torch.empty_like(x) if out is None else out
    if not axes:
        return out if out is x else out.copy_(x)
    if dispatch.supports(x, out):
        each = [gaussian_taps(s if a in axes else 0) for a, s in enumerate(sigmas)]
        scales = [_border_scales(taps, n) for taps, n in zip(each, x.shape[2:])]
        return _separable(x, each, scales, out, scratch)
    scratch = torch.empty_like(x) if scratch is None else scratch
    source = x
    for axis in axes:
        taps = gaussian_taps(sigmas[axis])
        target = scratch if source is out else out
        _renormalise(_correlate(source, axis, taps, target), axis, taps)
        source = target
    return source if source is out else out.copy_(source)


def _separable(
    x: torch.Tensor,
    taps: Sequence[Sequence[float]],
    scales: Sequence[Sequence[float]] | None,
    out: torch.Tensor,
    scratch: torch.Tensor | None,
) -> torch.Tensor:
    """Call the compiled loop, whose output must not be its input."""
    target = scratch if out is x else out
    if target is not None and not target.is_contiguous():
        target = None
    result = kernels.separable(x, taps, scales=scales, out=target)
    return result if result is out else out.copy_(result)


def box_sum(
    x: torch.Tensor,
    radius: int,
    *,
    out: torch.Tensor | None = None,
    scratch: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum over the ``2 radius + 1`` wide cube around every voxel, zeros beyond.

    Parameters
    ----------
    x : Tensor, shape (B, C, *shape)
        Images.
    radius : int
        Half-width of the window, in voxels.
    out : Tensor, optional
        Tensor for the result; it may be `x` itself.
    scratch : Tensor, optional
        A buffer of the same shape, to save an allocation.

    Returns
    -------
    sums : Tensor, same shape as `x`
        `out` if it was given.
    """
    taps = (1.0,) * (radius + 1)
    out = torch.empty_like(x) if out is None else out
    if dispatch.supports(x, out):
        return _separable(x, [taps] * (x.ndim - 2), None, out, scratch)
    scratch = torch.empty_like(x) if scratch is None else scratch
    source = x
    for axis in range(x.ndim - 2):
        target = scratch if source is out else out
        source = _correlate(source, axis, taps, target)
    return source if source is out else out.copy_(source)


def window_moments(
    static: torch.Tensor, moving: torch.Tensor, counts: torch.Tensor, radius: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Variances and covariance of two images in a window around each voxel.

    Parameters
    ----------
    static, moving : Tensor, shape (1, 1, *shape)
        The images on one grid.
    counts : Tensor of bool, shape (1, 1, *shape)
        The moments are over the voxels within the window where this is True.
    radius : int
        The window is a cube ``2 radius + 1`` voxels wide.

    Returns
    -------
    static_variance, moving_variance, covariance : Tensor, shape (1, 1, *shape)
        Variances may be negative by round-off.
    """
    inside = counts.to(static)
    s, m = static * inside, moving * inside
    sums = box_sum(torch.cat([inside, s, m, s * s, m * m, s * m], 1), radius)
    count, *sums = sums.split(1, 1)
    s, m, ss, mm, sm = (x / count.clamp_min(1) for x in sums)
    return ss - s * s, mm - m * m, sm - s * m
