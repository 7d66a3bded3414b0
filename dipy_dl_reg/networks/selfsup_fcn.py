"""A fully convolutional network with a loss at three resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.layers import MAX_POOL, TRANSPOSED, BatchNorm, conv, flow_conv
from dipy_dl_reg.validation import check_whole_number


class SelfSupFCN(RegistrationNetwork):
    """Fully convolutional network with deep self-supervision :footcite:p:`Li2017`.

    The encoder has two blocks of a convolution and a pooling of stride 2, and a
    convolution at a quarter of the resolution.  The decoder has two transposed
    convolutions of stride 2, with a convolution between them.  All are 3 voxels wide,
    followed by batch normalization and a ReLU.  At each of the three resolutions a
    linear convolution, with initial weights near zero, gives a field, and the images
    are compared.  Such a network can be trained on a single pair.

    Parameters
    ----------
    dim : {2, 3}
        Dimension of the images.
    features : sequence of 3 int, optional
        Channels at full, half and quarter resolution.
    output : {"displacement", "velocity"}, optional
        See `RegistrationNetwork`.
    spacing : float, optional
        See `RegistrationNetwork`.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Parameters: 2D 226950, 3D 684585.

    The publication does not specify pooling and padding.  Here, pooling uses the
    maximum, and one voxel is padded, so that voxel ``i`` of a coarser grid is at voxel
    ``2 i`` of the finer grid.

    References
    ----------
    .. footbibliography::
    """

    name = "selfsup-fcn"
    multiple, remainder = 4, 1
    level_weights = (1.0, 0.6, 0.3)

    def __init__(
        self,
        dim: int,
        *,
        features: Sequence[int] = (32, 64, 128),
        output: str = "displacement",
        spacing: float | None = None,
    ) -> None:
        widths = [check_whole_number("features", width, low=1) for width in features]
        super().__init__(dim, spacing=spacing, output=output, features=widths)
        if len(widths) != 3:
            raise ValueError(f"features must be 3 numbers, got {widths}.")
        full, half, quarter = widths
        pool = MAX_POOL[dim](3, stride=2, padding=1)
        self.to_quarter = nn.Sequential(
            *_with_normalisation(conv(dim, 2, full)),
            pool,
            *_with_normalisation(conv(dim, full, half)),
            pool,
            *_with_normalisation(conv(dim, half, quarter)),
        )
        self.to_half = nn.Sequential(
            *_with_normalisation(_double(dim, quarter, half)),
            *_with_normalisation(conv(dim, half, half)),
        )
        self.to_full = nn.Sequential(*_with_normalisation(_double(dim, half, full)))
        self.flows = nn.ModuleList(flow_conv(dim, width) for width in widths)

    def _fields(self, images: torch.Tensor) -> Sequence[torch.Tensor]:
        quarter = self.to_quarter(images)
        half = self.to_half(quarter)
        features = self.to_full(half), half, quarter
        return tuple(flow(x) for flow, x in zip(self.flows, features))


def _double(dim: int, inputs: int, outputs: int) -> nn.Module:
    """Make a transposed convolution from n to 2 n - 1 voxels."""
    return TRANSPOSED[dim](inputs, outputs, 3, stride=2, padding=1)


def _with_normalisation(layer: Any) -> tuple[nn.Module, ...]:
    """Return a layer, followed by batch normalization and a ReLU."""
    return layer, BatchNorm(layer.out_channels), nn.ReLU()
