"""Python functions for the compiled loops, one for each loop.

`fields`, `smoothing`, `inversion` and others call these functions if
`dispatch.supports` returns True; the functions do not check this again.  A 2D image is
passed as a 3D image whose middle axis has one voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
import ctypes
from ctypes import c_double, c_float, c_int64, c_void_p
from functools import lru_cache
from typing import Any

import torch

from dipy_dl_reg.geometry.kernels.arguments import address, make_output, three_sizes
from dipy_dl_reg.geometry.kernels.dispatch import run

_Sizes, _Pointers = c_int64 * 3, c_void_p * 3
#: Type and device of the tensors made here, whatever torch's defaults are.
_SINGLE: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
_DOUBLE: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}


class _Stencil(ctypes.Structure):
    """A separable kernel: ``struct stencil`` of the C code."""

    _fields_ = [("radius", _Sizes), ("taps", _Pointers), ("scale", _Pointers)]


class _Window(ctypes.Structure):
    """Images and sizes of local correlation: ``struct window`` of the C code."""

    _fields_ = [
        *((name, c_void_p) for name in ("fixed", "mean", "precision")),
        *((name, c_void_p) for name in ("inverse_count", "mask", "ones")),
        ("radius", _Sizes),
        ("floor", c_float),
        ("scale", c_float),
    ]


def warp(
    image: torch.Tensor,
    displacement: torch.Tensor,
    *,
    affine: torch.Tensor | None = None,
    plus: torch.Tensor | None = None,
    sign: float = 1.0,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute ``plus + sign * image(A (x + u(x)))`` by linear interpolation.

    Parameters
    ----------
    image : Tensor, shape (1, C, *image_shape)
        The image to sample.
    displacement : Tensor, shape (1, D, *shape)
        Field `u` in voxels of its own grid.
    affine : Tensor, shape (D + 1, D + 1), optional
        `A`, from grid to image voxels; by default the identity.
    plus : Tensor, shape (1, C, *shape), optional
        Tensor to which the result is added.
    sign : float, optional
        Factor of the sampled image.
    out : Tensor, shape (1, C, *shape), optional
        Tensor for the result.  It must be none of the other tensors, except `plus` if
        `plus` may be overwritten.

    Returns
    -------
    warped : Tensor, shape (1, C, *shape)
        `out` if it was given.
    """
    image, u = image.contiguous(), displacement.contiguous()
    plus = None if plus is None else plus.contiguous()
    out = make_output(u, out, image.shape[1])
    run(
        "warp",
        u,
        *(address(image), three_sizes(image), image.shape[1]),
        *(address(u), three_sizes(u), u.shape[1]),
        *(_rows(affine, u.shape[1]), address(plus), sign, address(out)),
    )
    return out


def _rows(affine: torch.Tensor | None, dim: int) -> ctypes.Array | None:
    """Rows of an affine for three axes; in 2D the middle one is the identity's."""
    if affine is None:
        return None
    axes = [*range(0, 3, 4 - dim), 3]
    full = torch.eye(4, **_DOUBLE)
    for axis, row in zip(axes, affine):
        full[axis, axes] = row
    return (c_double * 12)(*full.flatten()[:12].tolist())


def weighted_gradient(
    image: torch.Tensor, factor: torch.Tensor, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Derivatives of images along every axis, times other images, and their sum.

    Parameters
    ----------
    image : Tensor, shape (1, C, *shape)
        Differentiated by central differences, one-sided at the ends.
    factor : Tensor, shape (1, C, *shape)
        Factor of each channel's derivatives at each voxel.
    out : Tensor, shape (1, D, *shape), optional
        Tensor for the result; it must be neither of the other tensors.

    Returns
    -------
    gradient : Tensor, shape (1, D, *shape)
        The sum over channels; `out` if it was given.
    """
    image, factor, dim = image.contiguous(), factor.contiguous(), image.ndim - 2
    out = make_output(image, out, dim)
    pointers = address(image), address(factor), three_sizes(image)
    run("slopes", image, *pointers, image.shape[1], dim, address(out))
    return out


def half_newton_step(
    u: torch.Tensor,
    v: torch.Tensor,
    *,
    longest: float,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Move a field half a Newton step towards the inverse of another.

    Parameters
    ----------
    u, v : Tensor, shape (1, D, *shape)
        Fields in voxels; see
        `dipy_dl_reg.geometry.inversion.enforce_inverse_consistency`.
    longest : float
        Greatest length of the correction of a vector, in voxels.
    out : Tensor, shape (1, D, *shape), optional
        Tensor for the result; it must be neither of the other tensors.

    Returns
    -------
    u : Tensor, shape (1, D, *shape)
        `out` if it was given.
    """
    u, v = u.contiguous(), v.contiguous()
    out = make_output(u, out)
    pointers = address(u), address(v), three_sizes(u)
    run("corrected", u, *pointers, u.shape[1], longest, address(out))
    return out


def measure_inverse(
    u: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Measure a field's Jacobian determinant and inverse consistency error.

    Parameters
    ----------
    u, v : Tensor, shape (1, D, *shape)
        Fields in voxels.

    Returns
    -------
    determinant : Tensor, shape (1, 1, *shape)
        Jacobian determinant of ``x + u(x)``.
    distance : Tensor, shape (1, 1, *shape)
        ``|u(x) + v(x + u(x))|``; 0 where ``x + u(x)`` is not on the grid.
    mean : float
        Mean distance of the points that are on the grid.
    """
    u, v = u.contiguous(), v.contiguous()
    determinant, distance = make_output(u, None, 1), make_output(u, None, 1)
    sums = torch.empty(u.shape[2], 2, **_DOUBLE)
    results = address(determinant), address(distance), address(sums, torch.float64)
    run("checked", u, address(u), address(v), three_sizes(u), u.shape[1], *results)
    total, count = sums.sum(0).tolist()
    return determinant, distance, total / max(count, 1)


def separable(
    x: torch.Tensor,
    taps: Sequence[Sequence[float]],
    *,
    scales: Sequence[Sequence[float]] | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Correlate images with a symmetric kernel along every axis, zeros beyond.

    Parameters
    ----------
    x : Tensor, shape (1, C, *shape)
        Images or fields.
    taps : sequence of sequence of float
        Half of each axis's kernel, centre first.
    scales : sequence of sequence of float, optional
        Factors of the result at each position along each axis, other than 1 only where
        the kernel reaches beyond an end; by default all are 1.
    out : Tensor, shape (1, C, *shape), optional
        Tensor for the result; it must not be `x`.

    Returns
    -------
    sums : Tensor, shape (1, C, *shape)
        `out` if it was given.
    """
    x, sizes = x.contiguous(), three_sizes(x)
    out = make_output(x, out)
    scales = [(1.0,) * n for n in x.shape[2:]] if scales is None else scales
    if x.ndim == 4:
        taps, scales = ([both[0], (1.0,), both[1]] for both in (taps, scales))
    halves = [_array(tuple(half)[:n]) for half, n in zip(taps, sizes)]
    factors = [_array(tuple(scale)) for scale in scales]
    stencil = _Stencil(
        _Sizes(*(len(half) - 1 for half in halves)),
        _Pointers(*map(address, halves)),
        _Pointers(*map(address, factors)),
    )
    where = address(x), sizes, x.shape[1], ctypes.addressof(stencil), address(out)
    run("separable", x, *where)
    return out


@lru_cache(maxsize=256)
def _array(values: tuple[float, ...]) -> torch.Tensor:
    """Convert numbers to a tensor, which is cached."""
    return torch.tensor(values, **_SINGLE)


class LocalCorrelation:
    """Local correlation with one image; see `metrics.local_correlation.CCMetric`.

    Parameters
    ----------
    fixed, mean, precision, inverse_count : Tensor, shape (1, 1, *shape)
        The image within the mask, its mean and inverse variance within each window, and
        one over the window's number of voxels.
    mask : Tensor, shape (1, 1, *shape), or None
        1 at voxels that are compared.
    radius : int
        Half-width of the window.
    floor : float
        Added to variances.
    total : Tensor, shape ()
        Number of voxels that count.
    """

    def __init__(
        self,
        fixed: torch.Tensor,
        mean: torch.Tensor,
        precision: torch.Tensor,
        inverse_count: torch.Tensor,
        mask: torch.Tensor | None,
        *,
        radius: int,
        floor: float,
        total: torch.Tensor,
    ) -> None:
        given = (fixed, mean, precision, inverse_count, mask)
        images = [None if x is None else x.contiguous() for x in given]
        ones = torch.ones(radius + 1, **_SINGLE)
        radii = _Sizes(*(min(radius, n - 1) for n in three_sizes(fixed)))
        pointers = (address(x) for x in (*images, ones))
        self._window = _Window(*pointers, radii, floor, float(-2 / total))
        # The structure stores addresses; therefore the tensors must not be freed.
        self._tensors, self._total = (*images, ones), total

    def __call__(self, warped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compare with another image.

        Parameters
        ----------
        warped : Tensor, shape (1, 1, *shape)
            The other image.

        Returns
        -------
        value : Tensor, shape ()
            One minus the mean of squared local correlations.
        gradient : Tensor, shape (1, 1, *shape)
            Derivative of the value by `warped`.
        """
        warped = warped.contiguous()
        gradient = torch.empty_like(warped)
        values = torch.empty(warped.shape[2], **_DOUBLE)
        where = address(warped), ctypes.addressof(self._window), three_sizes(warped)
        results = address(gradient), address(values, torch.float64)
        run("local_correlation", warped, *where, *results)
        return (1 - values.sum() / self._total).to(warped.dtype), gradient


def update_moments(
    gradient: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    *,
    betas: tuple[float, float],
) -> torch.Tensor:
    """Update Adam's moments in place; the second is one for each vector.

    Parameters
    ----------
    gradient : Tensor, shape (1, D, *shape)
        The new gradient.
    first : Tensor, shape (1, D, *shape)
        Running mean of the gradient; contiguous.
    second : Tensor, shape (1, 1, *shape)
        Running mean of its squared length; contiguous.
    betas : tuple of float
        Weights of the former first and second moment in the new ones.

    Returns
    -------
    largest : Tensor, shape ()
        The largest second moment.
    """
    gradient = gradient.contiguous()
    largest = torch.empty(gradient.shape[2], **_SINGLE)
    where = *map(address, (gradient, first, second)), three_sizes(gradient)
    run("moments", gradient, *where, gradient.shape[1], *betas, address(largest))
    return largest.amax()


def adam_direction(
    first: torch.Tensor,
    second: torch.Tensor,
    *,
    unbias: float,
    floor: float,
    rate: float,
    out: torch.Tensor,
) -> torch.Tensor:
    """Compute ``rate * first / (sqrt(second * unbias) + floor)``.

    Parameters
    ----------
    first : Tensor, shape (1, D, *shape)
        Running mean of the gradient; contiguous.
    second : Tensor, shape (1, 1, *shape)
        Running mean of its squared length; contiguous.
    unbias, floor, rate : float
        Of the formula above.
    out : Tensor, shape (1, D, *shape)
        Tensor for the result.

    Returns
    -------
    out : Tensor, shape (1, D, *shape)
        As given.
    """
    out = make_output(first, out)
    where = address(first), address(second), three_sizes(first), first.shape[1]
    run("direction", first, *where, unbias, floor, rate, address(out))
    return out
