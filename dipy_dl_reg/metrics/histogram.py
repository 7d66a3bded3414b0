"""Joint histograms by cubic B-splines, and sums by index in double precision.

Each intensity is distributed over four neighbouring bins with the weights of a cubic
B-spline.  If each intensity were assigned to one bin only, the optimum of the metric
would not be at identical images: intensities would move towards the centres of the
bins.
"""

from collections.abc import Iterable
import math
from typing import Any, NamedTuple

import torch

#: Numbers converted and summed at a time: as many as a processor's cache holds.
_AT_ONCE = 2**16
#: Bins at each end of a histogram that contain no position, only weights of the spline.
_PADDING = 2
#: The four bins that a position contributes to, counted from the one below it.
_OFFSETS = (-1, 0, 1, 2)
#: Positions among bins are rounded to this part of a bin where weights are tabulated.
BIN_FRACTION = 1 / 16


def choose_bin_count(count: int, *, per_bin: float = 20, fewest: int = 12) -> int:
    """Choose the number of bins by the number of intensities.

    With too many bins, independent images have a high mutual information by chance.

    Parameters
    ----------
    count : int
        Number of voxels or points.
    per_bin : float, optional
        Mean number of them in each bin of the joint histogram.
    fewest : int, optional
        Least number of bins along each axis.

    Returns
    -------
    nbins : int
        ``sqrt(count / per_bin)``, rounded, from `fewest` to 32.
    """
    return max(fewest, min(32, round(math.sqrt(count / per_bin))))


def bin_positions(
    values: torch.Tensor, nbins: int, low: torch.Tensor, high: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of intensities among the bins.

    Parameters
    ----------
    values : Tensor
        Intensities.
    nbins : int
        Number of bins.
    low, high : Tensor, shape ()
        Intensities of the first and last position; intensities outside are clipped.

    Returns
    -------
    positions : Tensor, shaped as `values`
        From 2 to ``nbins - 3``, which leaves room for the spline.
    rate : Tensor, shape ()
        Bins per unit of intensity.
    """
    room = nbins - 1 - 2 * _PADDING
    rate = room / (high - low).clamp_min(torch.finfo(values.dtype).eps)
    return ((values - low) * rate).clamp_(0, room).add_(_PADDING), rate


def split_positions(
    positions: torch.Tensor, nbins: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split positions into the bin below and the distance from it.

    Parameters
    ----------
    positions : Tensor
        From `bin_positions`; overwritten.
    nbins : int
        Number of bins.

    Returns
    -------
    lower : Tensor of int64, shaped as `positions`
        Bin below each position.
    t : Tensor, shaped as `positions`
        From 0 to 1: the position less that bin.
    """
    lower = positions.floor().clamp_(max=nbins - 1 - _PADDING)
    return lower.long(), positions.sub_(lower)


def bspline_weights(t: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cubic B-spline weights of the four bins around a position.

    Parameters
    ----------
    t : Tensor
        Positions between bins 0 and 1.

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


def bspline_derivatives(t: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Derivatives of the four weights of `bspline_weights`.

    Parameters
    ----------
    t : Tensor
        Positions between bins 0 and 1.

    Returns
    -------
    derivatives : tuple of Tensor
        By `t`, of bins -1, 0, 1 and 2.
    """
    s = 1 - t
    return -s * s / 2, t * (1.5 * t - 2), s * (2 - 1.5 * s), t * t / 2


def tabulate_weights(nbins: int, like: torch.Tensor) -> torch.Tensor:
    """Cubic B-spline weights of all bins, at evenly spaced positions among them.

    Parameters
    ----------
    nbins : int
        Number of bins.
    like : Tensor
        Of the type and device wanted.

    Returns
    -------
    weights : Tensor, shape (R, nbins)
        One row for each of the positions 0, 1/16, 2/16, ..., ``nbins - 1``.
    """
    kind: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    count = round((nbins - 1) / BIN_FRACTION) + 1
    positions = torch.arange(count, **kind) * BIN_FRACTION
    near = (positions[:, None] - torch.arange(nbins, **kind)).abs()
    far = (2 - near).clamp_min(0)
    return torch.where(near < 1, 2 / 3 - near**2 * (2 - near) / 2, far**3 / 6)


def sum_into_bins(
    index: torch.Tensor, weights: Iterable[torch.Tensor], size: int
) -> torch.Tensor:
    """Sum the weights of four bins around each position.

    Parameters
    ----------
    index : Tensor of int64
        Index of the bin below each position, among all `size` sums.
    weights : iterable of Tensor
        From `bspline_weights`, each shaped as `index`.
    size : int
        Number of sums.

    Returns
    -------
    sums : Tensor, shape (size,)
        As of `sum_by_index`.
    """
    parts = [
        sum_by_index((index + offset).flatten(), weight.flatten(), size)
        for offset, weight in zip(_OFFSETS, weights)
    ]
    return parts[0] + parts[1] + parts[2] + parts[3]


class LookUp(NamedTuple):
    """One sum over the four bins around each position, see `add_from_bins`.

    Attributes
    ----------
    out : Tensor
        Tensor to which the sum is added.
    table : Tensor, shape (size,)
        A number for each bin.
    weights : tuple of Tensor
        From `bspline_weights` or `bspline_derivatives`.
    sign : int
        1 or -1, the factor of the sum.
    """

    out: torch.Tensor
    table: torch.Tensor
    weights: tuple[torch.Tensor, ...]
    sign: int = 1


def add_from_bins(index: torch.Tensor, *terms: LookUp) -> None:
    """Add ``sign * sum_k weights[k] table[index + k]`` to tensors, in place.

    The transpose of `sum_into_bins`.

    Parameters
    ----------
    index : Tensor of int64
        Index of the bin below each position.
    *terms : LookUp
        The sums to compute, and the tensors to which they are added.
    """
    for k, offset in enumerate(_OFFSETS):
        shifted = index + offset
        for term in terms:
            term.out.addcmul_(term.weights[k], term.table[shifted], value=term.sign)


def mutual_information(joint: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mutual information of a joint histogram, ``sum p log(p / (p_1 p_2))``.

    Parameters
    ----------
    joint : Tensor, shape (n, n)
        Sums to 1.

    Returns
    -------
    value : Tensor, shape ()
        In nats.
    ratio : Tensor, shape (n, n)
        Its derivatives, up to a constant: ``log(p / (p_1 p_2))``, 0 for empty bins.
    """
    tiny = torch.finfo(joint.dtype).tiny
    sums = (joint.sum(axis, keepdim=True).clamp_min(tiny) for axis in (0, 1))
    first, second = (x.log() for x in sums)
    ratio = joint.clamp_min(tiny).log() - first - second
    ratio = torch.where(joint > 0, ratio, torch.zeros_like(ratio))
    return (joint * ratio).sum(), ratio


def sum_by_index(index: torch.Tensor, weight: torch.Tensor, size: int) -> torch.Tensor:
    """Sum weights by index.

    Parameters
    ----------
    index : Tensor of int64, shape (N,)
        From 0 to `size` - 1.
    weight : Tensor, shape (N,)
        The values to sum.
    size : int
        Number of sums.

    Returns
    -------
    sums : Tensor, shape (size,)
        In float64; on devices without float64, in float32, summed in parts.  The result
        is reproducible if `torch.use_deterministic_algorithms` requires it.
    """
    if index.is_cuda:
        weight = weight.double()
        if torch.are_deterministic_algorithms_enabled():
            return weight.new_zeros(size).index_add_(0, index, weight)
        return torch.bincount(index, weight, minlength=size)
    kind = torch.float32 if index.device.type == "mps" else torch.float64
    each = max(_AT_ONCE, 4 * size)
    parts = zip(index.split(each), weight.split(each))
    sums = torch.zeros(size, dtype=kind, device=index.device)
    for part, weights in parts:
        sums += torch.bincount(part, weights.to(kind), minlength=size)
    return sums
