"""Networks that predict a field from two images."""

import torch

from dipy_dl_reg.networks.dirnet import DIRNet
from dipy_dl_reg.networks.layers import torch_defaults
from dipy_dl_reg.networks.pyramid_network import Pyramid
from dipy_dl_reg.networks.selfsup_fcn import SelfSupFCN
from dipy_dl_reg.networks.unet import UNet
from dipy_dl_reg.networks.voxelmorph import VoxelMorph

#: Networks by name.
NETWORKS = {
    "dirnet": DIRNet,
    "pyramid": Pyramid,
    "selfsup-fcn": SelfSupFCN,
    "unet": UNet,
    "voxelmorph": VoxelMorph,
}


def make_network(name, dim, *, seed=None, **arguments):
    """A new, untrained network.

    Parameters
    ----------
    name : str
        One of `NETWORKS`.
    dim : {2, 3}
        Dimension of the images.
    seed : int, optional
        Determines the weights; by default they are drawn from Torch's global generator.
    **arguments : dict
        Of the network's class.

    Returns
    -------
    network : RegistrationNetwork
        On the CPU, in float32, whatever torch's defaults are.

    Raises
    ------
    ValueError
        If there is no such network, or it has no such argument.
    """
    if name not in NETWORKS:
        raise ValueError(f"network must be one of {sorted(NETWORKS)}, got {name!r}.")
    if seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return make_network(name, dim, **arguments)
    try:
        with torch_defaults():
            return NETWORKS[name](dim, **arguments)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None
