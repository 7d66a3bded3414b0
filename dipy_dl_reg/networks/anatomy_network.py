"""The network `anatomy`: fractions of coarse structures of a head, from one image.

It is no registration network: it sees one image, at 2 mm, and is trained on images
that are drawn from label maps (``tools/recipes/train_anatomy.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
import torch.nn.functional as F

from dipy_dl_reg.networks.array_file import (
    arrays_under,
    errors_name_file,
    read_arrays,
    write_arrays,
)
from dipy_dl_reg.networks.checkpoint import check_card, name_arrays, to_state
from dipy_dl_reg.networks.layers import torch_defaults

#: Its name in the header of a file.
ARCHITECTURE = "anatomy"
#: Voxels of the image that enter as one voxel of eight channels, along each axis.
_BLOCK = 2


class AnatomyNetwork(nn.Module):
    """A U-Net whose finest features have twice the voxel size of the image.

    The image enters as blocks of two by two by two voxels, eight channels, and the
    classes leave in the same form: at the same accuracy this takes a quarter of the
    time of features at full resolution.

    Parameters
    ----------
    classes : int, optional
        Number of classes.
    widths : sequence of int, optional
        Channels of each level of features, from the finest.

    Attributes
    ----------
    multiple : int
        Each side of an image must be a multiple of this number of voxels.
    card : dict
        Information about the training, from the file.
    """

    card: dict[str, Any]

    def __init__(
        self, classes: int = 35, widths: tuple[int, ...] = (32, 64, 96, 112)
    ) -> None:
        super().__init__()
        first = widths[0]
        self.classes, self.card = classes, {}
        self.arguments = {"classes": classes, "widths": list(widths)}
        self.multiple = _BLOCK ** len(widths)
        self.enter = nn.Sequential(_block(_BLOCK**3, first), _block(first, first))
        self.down = nn.ModuleList(
            nn.Sequential(_block(a, b, 2), _block(b, b))
            for a, b in zip(widths, widths[1:])
        )
        self.up = nn.ModuleList(_block(a + b, a) for a, b in zip(widths, widths[1:]))
        self.last = _block(first, first)
        self.leave = nn.Conv3d(first, _BLOCK**3 * classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Compute the logits of the classes.

        Parameters
        ----------
        image : Tensor, shape (B, 1, *shape)
            Axes to the right, to the front and upwards; background 0, the brightest
            tissue about 1.

        Returns
        -------
        logits : Tensor, shape (B, K, *shape)
            Their softmax is the fraction of each class.
        """
        return self.split(self.leave(self.last(self.features(image))))

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """Compute the finest features.

        Parameters
        ----------
        image : Tensor, shape (B, 1, *shape)
            See `forward`.

        Returns
        -------
        features : Tensor, shape (B, C, *shape / 2)
            On a grid of twice the voxel size.
        """
        batch, _, *shape = image.shape
        half = [n // _BLOCK for n in shape]
        x = image.view(batch, *(n for h in half for n in (h, _BLOCK)))
        x = x.permute(0, 2, 4, 6, 1, 3, 5).reshape(batch, _BLOCK**3, *half)
        levels = [self.enter(x)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up in reversed(self.up):
            beside = levels.pop()
            x = F.interpolate(x, size=beside.shape[2:])
            x = up(torch.cat([x, beside], 1))
        return x

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """Arrange the channels of each block as voxels.

        Parameters
        ----------
        x : Tensor, shape (B, 8 K, *half)
            Values of blocks of two by two by two voxels.

        Returns
        -------
        values : Tensor, shape (B, K, *shape)
            Values of the voxels; ``shape`` is twice ``half``.
        """
        batch, _, *half = x.shape
        x = x.view(batch, self.classes, _BLOCK, _BLOCK, _BLOCK, *half)
        x = x.permute(0, 1, 5, 2, 6, 3, 7, 4)
        return x.reshape(batch, self.classes, *(_BLOCK * n for n in half))


def save_anatomy_network(path: Any, network: AnatomyNetwork) -> None:
    """Write a network to a file, its weights in half precision.

    Parameters
    ----------
    path : str or Path
        The file; it is replaced if it exists.
    network : AnatomyNetwork
        With its card.

    Raises
    ------
    ValueError
        If a weight is not finite in half precision, or the card cannot be stored.
    """
    header = {
        "architecture": ARCHITECTURE,
        "arguments": network.arguments,
        "card": check_card(network.card),
    }
    arrays = name_arrays("weights", network.state_dict())
    write_arrays(path, header, {k: x.astype("float16") for k, x in arrays.items()})


def load_anatomy_network(
    path: Any, *, device: torch.device | str = "cpu"
) -> AnatomyNetwork:
    """Read a network from a file.

    Parameters
    ----------
    path : str or Path
        Written by `save_anatomy_network`.
    device : torch.device or str, optional
        Device of its weights.

    Returns
    -------
    network : AnatomyNetwork
        In evaluation mode.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a complete file of this kind.
    """
    header, arrays = read_arrays(path)
    with errors_name_file(path):
        if header.get("architecture") != ARCHITECTURE:
            raise ValueError(f"its architecture must be {ARCHITECTURE!r}")
        # Its initial weights are replaced; drawing them must not change the global
        # random state.
        with torch.random.fork_rng(devices=[]), torch_defaults():
            network = AnatomyNetwork(**header["arguments"])
        network.load_state_dict(to_state(network, arrays_under(arrays, "weights")))
        network.card = check_card(header.get("card"))
    return network.to(device).eval()


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Convolution, normalization and leaky ReLU."""
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.InstanceNorm3d(outputs, affine=True),
        nn.LeakyReLU(0.1, inplace=True),
    )
