"""VoxelMorph: a U-Net that predicts a field :footcite:p:`Balakrishnan2018`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dipy_dl_reg.geometry.fields import resize
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.layers import conv, flow_conv, upsample
from dipy_dl_reg.validation import check_choice

#: Channels of the layers of the encoder and the decoder.
ENCODER = (16, 32, 32, 32)
DECODERS = {
    "vm1": (32, 32, 32, 32, 8, 8),
    "vm2": (32, 32, 32, 32, 32, 16, 16),
}


class VoxelMorph(RegistrationNetwork):
    """U-Net with five resolutions, as in VoxelMorph :footcite:p:`Balakrishnan2018`.

    The encoder has four convolutions of stride 2 with 16, 32, 32, 32 channels.  The
    decoder has a convolution at each resolution; its input is concatenated with the
    encoder's features of this resolution.  The last convolutions are at full
    resolution; the input of the first of them is concatenated with the images.  All are
    3 voxels wide, followed by a leaky ReLU (0.2).  A last, linear convolution, with
    initial weights near zero, gives the field.

    Parameters
    ----------
    dim : {2, 3}
        Dimension of the images.
    variant : {"vm1", "vm2"}, optional
        Channels of the decoder: 32, 32, 32, 32, 8, 8 or 32, 32, 32, 32, 32, 16, 16.
    output : {"velocity", "displacement"}, optional
        "velocity" is the diffeomorphic variant :footcite:p:`Dalca2018`, "displacement"
        the original one.
    half_resolution : bool, optional
        Omit the layers at full resolution, and interpolate the field from half the
        resolution, as the diffeomorphic variant does; this needs a third of the time.
    spacing : float, optional
        See `RegistrationNetwork`.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Parameters: 3D vm1 259675, vm2 300547; 2D vm1 86658, vm2 100242.

    References
    ----------
    .. footbibliography::
    """

    name = "voxelmorph"
    multiple, remainder = 16, 1

    def __init__(
        self,
        dim: int,
        *,
        variant: str = "vm1",
        output: str = "velocity",
        half_resolution: bool = False,
        spacing: float | None = None,
    ) -> None:
        super().__init__(
            dim,
            spacing=spacing,
            output=output,
            variant=variant,
            half_resolution=bool(half_resolution),
        )
        check_choice("variant", variant, sorted(DECODERS))
        self.down = nn.ModuleList(
            conv(dim, a, b, stride=2) for a, b in zip([2, *ENCODER], ENCODER)
        )
        # At 1/16, 1/8, 1/4, 1/2, and once more at 1/2; then at full resolution.
        widths = DECODERS[variant]
        joined = (0, *reversed(ENCODER[:-1]), 0, 2)
        if half_resolution:
            widths = widths[:5]
        inputs = (ENCODER[-1], *widths)
        extra = (*joined, *[0] * len(widths))
        self.up = nn.ModuleList(
            conv(dim, inputs[i] + extra[i], width) for i, width in enumerate(widths)
        )
        self.flow = flow_conv(dim, widths[-1])
        self.activation = nn.LeakyReLU(0.2)

    def _fields(self, images: torch.Tensor) -> Sequence[torch.Tensor]:
        skips, x = [images], images
        for layer in self.down:
            x = self.activation(layer(x))
            skips.append(x)
        skips.pop()
        for index, layer in enumerate(self.up):
            if index in (1, 2, 3, 5):
                x = torch.cat([upsample(x, skips[-1]), skips.pop()], 1)
            x = self.activation(layer(x))
        flow = self.flow(x)
        return (resize(flow, images.shape[2:]),)
