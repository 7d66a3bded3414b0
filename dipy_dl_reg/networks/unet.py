"""U-Net: the plain encoder and decoder with skips."""

import torch
from torch import nn

from dipy_dl_reg.metrics.base import whole_number
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.layers import MAX_POOL, conv, flow_conv, upsample


class UNet(RegistrationNetwork):
    """Convolutional encoder and decoder with skips :footcite:p:`Ronneberger2015`.

    Two convolutions at each resolution on the way down, with 2-wide maximum pooling
    between resolutions; two again on the way up, after the coarser features have been
    repeated and those of the same resolution joined.  All are 3 voxels wide, followed
    by a ReLU.  A last, linear one, begun near zero, gives the field.

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
        self, dim, *, features=(16, 32, 64), output="displacement", spacing=None
    ):
        widths = [whole_number("features", width, 1) for width in features]
        super().__init__(dim, spacing=spacing, output=output, features=widths)
        if not widths:
            raise ValueError("features must name at least one resolution, got none.")
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

    def _fields(self, images):
        first, *rest = self.down
        skips = [first(images)]
        for block in rest:
            skips.append(block(self.pool(skips[-1])))
        x = skips.pop()
        for block in self.up:
            skip = skips.pop()
            x = block(torch.cat([upsample(x, skip), skip], 1))
        return (self.flow(x),)


def _block(dim, inputs, outputs):
    """Two convolutions at one resolution."""
    first, second = conv(dim, inputs, outputs), conv(dim, outputs, outputs)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
