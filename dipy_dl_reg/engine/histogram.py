"""Sums of weights by index, in double precision, for the histograms of metrics."""

import torch

#: Numbers converted and summed at a time: as many as a processor's cache holds.
_AT_ONCE = 2**16


def add_up(index, weight, size):
    """Sum weights by index.

    Parameters
    ----------
    index : Tensor of int64, shape (N,)
        From 0 to `size` - 1.
    weight : Tensor, shape (N,)
        What is added up.
    size : int
        Number of sums.

    Returns
    -------
    sums : Tensor, shape (size,)
        In float64; in float32, summed by parts, on devices that have no more.  The same
        from run to run where `torch.use_deterministic_algorithms` asks for it.
    """
    if index.is_cuda:
        weight = weight.double()
        if torch.are_deterministic_algorithms_enabled():
            return weight.new_zeros(size).index_add_(0, index, weight)
        return torch.bincount(index, weight, minlength=size)
    kind = torch.float32 if index.device.type == "mps" else torch.float64
    each = max(_AT_ONCE, 4 * size)
    parts = zip(index.split(each), weight.split(each))
    return sum(torch.bincount(i, w.to(kind), minlength=size) for i, w in parts)
