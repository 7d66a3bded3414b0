"""A fully convolutional network that is guided at three resolutions."""

from torch import nn

from dipy_dl_reg.metrics.base import whole_number
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.layers import MAX_POOL, TRANSPOSED, BatchNorm, conv, flow_conv


class SelfSupFCN(RegistrationNetwork):
    """Fully convolutional network with deep self-supervision :footcite:p:`Li2017`.

    Two times a convolution and a pooling of stride 2, a convolution at a quarter of
    the resolution, and back by transposed convolutions of stride 2, with one more
    convolution between them.  All are 3 voxels wide, followed by batch normalisation
    and a ReLU.  A linear convolution, begun near zero, gives a field at each of the
    three resolutions, and the images are compared at each: that is enough guidance for
    a network to be trained on a single pair, so that optimising one pair is itself the
    training.

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

    The source leaves two things open: pooling here takes the maximum, and there is
    one voxel of padding, so that voxel ``i`` of a coarser grid stands at voxel ``2 i``
    of the finer one.

    References
    ----------
    .. footbibliography::
    """

    name = "selfsup-fcn"
    multiple, remainder = 4, 1
    level_weights = (1.0, 0.6, 0.3)

    def __init__(
        self, dim, *, features=(32, 64, 128), output="displacement", spacing=None
    ):
        widths = [whole_number("features", width, 1) for width in features]
        super().__init__(dim, spacing=spacing, output=output, features=widths)
        if len(widths) != 3:
            raise ValueError(f"features must be 3 numbers, got {widths}.")
        full, half, quarter = widths
        pool = MAX_POOL[dim](3, stride=2, padding=1)
        self.to_quarter = nn.Sequential(
            *_normalised(conv(dim, 2, full)),
            pool,
            *_normalised(conv(dim, full, half)),
            pool,
            *_normalised(conv(dim, half, quarter)),
        )
        self.to_half = nn.Sequential(
            *_normalised(_double(dim, quarter, half)),
            *_normalised(conv(dim, half, half)),
        )
        self.to_full = nn.Sequential(*_normalised(_double(dim, half, full)))
        self.flows = nn.ModuleList(flow_conv(dim, width) for width in widths)

    def _fields(self, images):
        quarter = self.to_quarter(images)
        half = self.to_half(quarter)
        features = self.to_full(half), half, quarter
        return tuple(flow(x) for flow, x in zip(self.flows, features))


def _double(dim, inputs, outputs):
    """A transposed convolution from n voxels to 2 n - 1."""
    return TRANSPOSED[dim](inputs, outputs, 3, stride=2, padding=1)


def _normalised(layer):
    """A convolution, batch normalisation, ReLU."""
    return layer, BatchNorm(layer.out_channels), nn.ReLU()
