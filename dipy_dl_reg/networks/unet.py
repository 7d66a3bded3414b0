"""U-Net: encoder and decoder with skip connections."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.layers import MAX_POOL, conv, flow_conv, upsample
from dipy_dl_reg.validation import check_whole_number


class UNet(RegistrationNetwork):
    """Encoder and decoder with skip connections :footcite:p:`Ronneberger2015`.

    The encoder has two convolutions at each resolution, with maximum pooling 2 voxels
    wide between resolutions.  The decoder also has two convolutions at each resolution;
    their input is the upsampled coarser features, concatenated with the encoder's
    features of the same resolution.  All convolutions are 3 voxels wide, followed by a
    ReLU.  A last, linear convolution, with initial weights near zero, gives the field.

    Parameters
    ----------
    dim : {2, 3}
        Dimension of the images.
    features : sequence of int, optional
        Channels at each resolution, the finest first.
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
    Parameters: 2D 118402, 3D 354995.

    References
    ----------
    .. footbibliography::
    """

    name = "unet"

    def __init__(
        self,
        dim: int,
        *,
        features: Sequence[int] = (16, 32, 64),
        output: str = "displacement",
        spacing: float | None = None,
    ) -> None:
        widths = [check_whole_number("features", width, low=1) for width in features]
        super().__init__(dim, spacing=spacing, output=output, features=widths)
        if not widths:
            raise ValueError("features must have at least one number, got none.")
        self.multiple = 2 ** (len(widths) - 1)
        self.down = nn.ModuleList(
            _block(dim, above, width) for above, width in zip([2, *widths], widths)
        )
        widths = widths[::-1]
        self.up = nn.ModuleList(
            _block(dim, below + skip, skip) for below, skip in zip(widths, widths[1:])
        )
        self.pool = MAX_POOL[dim](2)
        self.flow = flow_conv(dim, widths[-1])

    def _fields(self, images: torch.Tensor) -> Sequence[torch.Tensor]:
        first, *rest = self.down
        skips = [first(images)]
        for block in rest:
            skips.append(block(self.pool(skips[-1])))
        x = skips.pop()
        for block in self.up:
            skip = skips.pop()
            x = block(torch.cat([upsample(x, skip), skip], 1))
        return (self.flow(x),)


def _block(dim: int, inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions at one resolution."""
    first, second = conv(dim, inputs, outputs), conv(dim, outputs, outputs)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
