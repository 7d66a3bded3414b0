"""Piecewise linear functions of intensity, estimated from histograms."""

from __future__ import annotations

from typing import NamedTuple

import torch

from dipy_dl_reg.geometry.smoothing import gaussian_taps

#: Bins of an intensity mapping, and the standard deviation, in bins, that smooths it.
BINS, _SMOOTHING = 64, 1.5
#: Part of the brightest voxels that the last bin holds.
_BRIGHTEST = 0.001


class IntensityMapping(NamedTuple):
    """A piecewise linear function of intensity.

    Attributes
    ----------
    values : Tensor, shape (K,)
        Function values at the centres of K bins.
    highest : float
        Upper end of the last bin; the first begins at 0.
    """

    values: torch.Tensor
    highest: float

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Apply the function to an image.

        Parameters
        ----------
        image : Tensor
            Intensities from 0 to about 1.

        Returns
        -------
        mapped : Tensor
            Of the same shape.
        """
        last = len(self.values) - 1
        place = (image * ((last + 1) / self.highest) - 0.5).clamp_(0, last)
        low = place.floor().clamp_(max=last - 1)
        index = low.long()
        return torch.lerp(self.values[index], self.values[index + 1], place - low)


def find_highest(values: torch.Tensor) -> float:
    """Find the upper end of the last bin.

    Parameters
    ----------
    values : Tensor, shape (N,)
        Intensities of the foreground.

    Returns
    -------
    highest : float
        The value that 0.1 % of them exceed.
    """
    brightest = max(1, int(_BRIGHTEST * len(values)))
    return float(values.topk(brightest).values[-1])


def find_bins(values: torch.Tensor, highest: float) -> torch.Tensor:
    """Find the bins of intensities.

    Parameters
    ----------
    values : Tensor, shape (N,)
        Intensities.
    highest : float
        Upper end of the last bin.

    Returns
    -------
    bins : Tensor of int64, shape (N,)
        Numbers from 0 to `BINS` - 1.
    """
    return (values * (BINS / highest)).long().clamp_(0, BINS - 1)


def smooth_rows(rows: torch.Tensor) -> torch.Tensor:
    """Smooth histograms, so that an empty bin gets the values of its neighbours.

    Parameters
    ----------
    rows : Tensor, shape (R, K)
        Histograms.

    Returns
    -------
    smoothed : Tensor, shape (R, K)
        Smoothed along the second axis, with zeros beyond the ends.
    """
    half = gaussian_taps(_SMOOTHING)
    taps = rows.new_tensor([*half[:0:-1], *half])[None, None]
    padding = len(half) - 1
    return torch.nn.functional.conv1d(rows[:, None], taps, padding=padding)[:, 0]
