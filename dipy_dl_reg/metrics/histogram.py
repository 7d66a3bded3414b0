"""Histograms that metrics rest on: bins, and sums in double precision.

Where each intensity falls into one bin, a second image gains by moving towards the
middles of the bins: a metric of such bins moves an image away from itself.
"""

import torch

#: Numbers converted and summed at a time: as many as a processor's cache holds.
_AT_ONCE = 2**16
#: Places among bins are rounded to this part of a bin.
PART = 1 / 16


def bin_weights(nbins, like):
    """Weights of all bins, by a cubic B-spline, at evenly spaced places among them.

    Parameters
    ----------
    nbins : int
        Number of bins.
    like : Tensor
        Of the type and device wanted.

    Returns
    -------
    bin_weights : Tensor, shape (R, nbins)
        One row for each of the places 0, 1/16, 2/16, ..., ``nbins - 1``.
    """
    kind = {"dtype": like.dtype, "device": like.device}
    count = round((nbins - 1) / PART) + 1
    places = torch.arange(count, **kind) * PART
    near = (places[:, None] - torch.arange(nbins, **kind)).abs()
    far = (2 - near).clamp_min(0)
    return torch.where(near < 1, 2 / 3 - near**2 * (2 - near) / 2, far**3 / 6)


def bspline_weights(t):
    """Cubic B-spline weights of four bins.

    Parameters
    ----------
    t : Tensor
        Places between bins 0 and 1.

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


def bspline_derivatives(t):
    """Slopes of the four weights.

    Parameters
    ----------
    t : Tensor
        Places between bins 0 and 1.

    Returns
    -------
    slopes : tuple of Tensor
        Derivatives of `bspline_weights` by `t`.
    """
    s = 1 - t
    return -s * s / 2, t * (1.5 * t - 2), s * (2 - 1.5 * s), t * t / 2


def mutual_information(joint):
    """Mutual information of a joint histogram.

    Parameters
    ----------
    joint : Tensor, shape (n, n)
        Sums to 1.

    Returns
    -------
    value : Tensor, shape ()
        In nats.
    ratio : Tensor, shape (n, n)
        Its derivatives, but for a constant: ``log(p / (p_1 p_2))``, 0 where empty.
    """
    tiny = torch.finfo(joint.dtype).tiny
    sums = (joint.sum(axis, keepdim=True).clamp_min(tiny) for axis in (0, 1))
    first, second = (x.log() for x in sums)
    ratio = joint.clamp_min(tiny).log() - first - second
    ratio = torch.where(joint > 0, ratio, torch.zeros_like(ratio))
    return (joint * ratio).sum(), ratio


class PiecewiseLinear:
    """Functions of one image's intensities, linear between nodes.

    Parameters
    ----------
    places : Tensor, shape (N,)
        The image's intensities, in nodes; from 0 to ``nodes - 1``.
    nodes : int
        Number of nodes.
    """

    def __init__(self, places, nodes):
        lower = places.floor().clamp_(0, nodes - 2)
        self.t, self.lower, self.nodes = places - lower, lower.long(), nodes
        t, u = self.t, 1 - self.t
        first, both, second = (
            sum_by_index(self.lower, x, nodes).cpu().double()
            for x in (u * u, u * t, t * t)
        )
        first[1:] += second[:-1]
        both = both[:-1]
        gram = first.diag() + both.diag(1) + both.diag(-1)
        # Nodes without an intensity leave the fit open: take the one of least norm.
        self._inverse = torch.linalg.pinv(gram, hermitian=True, rtol=1e-10)

    def nearest(self, values):
        """The function that is nearest to another image, in least squares.

        Parameters
        ----------
        values : Tensor, shape (N,)
            The other image.

        Returns
        -------
        nearest : Tensor, shape (N,)
            The function at each intensity.
        """
        upper = values * self.t
        sums = sum_by_index(self.lower, values - upper, self.nodes)
        # The last sum is 0, which `roll` brings to the first node.
        sums += sum_by_index(self.lower, upper, self.nodes).roll(1)
        nodes = (self._inverse @ sums.cpu().double()).to(values.dtype).to(values.device)
        return torch.lerp(nodes[self.lower], nodes[self.lower + 1], self.t)


def choose_bin_count(count):
    """Bins for a joint histogram of so many voxels.

    Parameters
    ----------
    count : int
        Number of voxels.

    Returns
    -------
    nbins : int
        From 12 to 32: with too many, chance alone makes images informative.
    """
    return max(12, min(32, round((count / 20) ** 0.5)))


def sum_by_index(index, weight, size):
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
