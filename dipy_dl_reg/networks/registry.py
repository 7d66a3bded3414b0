"""Networks by name: each has one file in this folder and one line in the table below.

Error messages, the help of the command, documentation and tests use this table.  Torch
is imported only when a network is made, so that ``--help`` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dipy_dl_reg.validation import wrong_value

if TYPE_CHECKING:
    from dipy_dl_reg.networks.base import RegistrationNetwork

#: Class of each network: a subclass of `RegistrationNetwork`, or where it is in this
#: folder, as ``module.Class``.
NETWORKS: dict[str, str | type[RegistrationNetwork]] = {
    "dirnet": "dirnet.DIRNet",
    "pyramid": "pyramid_network.Pyramid",
    "selfsup-fcn": "selfsup_fcn.SelfSupFCN",
    "unet": "unet.UNet",
    "voxelmorph": "voxelmorph.VoxelMorph",
}


def network_class(name: str) -> type[RegistrationNetwork]:
    """Find the class of a network.

    Parameters
    ----------
    name : str
        One of `NETWORKS`.

    Returns
    -------
    network_class : type
        A subclass of `RegistrationNetwork`.

    Raises
    ------
    ValueError
        If there is no such network.
    """
    if not isinstance(name, str) or name not in NETWORKS:
        raise wrong_value("network", f"one of {sorted(NETWORKS)}", name)
    found = NETWORKS[name]
    if isinstance(found, str):
        module, _, class_name = found.rpartition(".")
        return getattr(import_module(f"dipy_dl_reg.networks.{module}"), class_name)
    return found


def make_network(
    name: str, dim: int, *, seed: int | None = None, **arguments: Any
) -> RegistrationNetwork:
    """Make a new, untrained network.

    Parameters
    ----------
    name : {"dirnet", "pyramid", "selfsup-fcn", "unet", "voxelmorph"}
        The architecture.
    dim : {2, 3}
        Dimension of the images.
    seed : int, optional
        Determines the weights; by default they are drawn from Torch's global generator.
    **arguments : dict
        Arguments of the network's class.

    Returns
    -------
    network : RegistrationNetwork
        A network on the CPU, in float32, independently of Torch's defaults.

    Raises
    ------
    ValueError
        If there is no such network, or it has no such argument.

    See Also
    --------
    fit : trains a network.
    save_network, load_network : files of networks.
    load_model : the trained networks that come with the package.

    Notes
    -----
    "dirnet" is the network of :footcite:t:`deVos2017`, "selfsup-fcn" that of
    :footcite:t:`Li2017`, "voxelmorph" that of :footcite:t:`Balakrishnan2018`, with a
    velocity that of :footcite:t:`Dalca2018`, and "unet" that of
    :footcite:t:`Ronneberger2015`.  "pyramid" predicts a velocity from coarse to fine,
    antisymmetric in the images.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> from dipy_dl_reg import make_network
    >>> network = make_network("unet", dim=2, seed=0)
    >>> network.dim
    2
    """
    import torch

    from dipy_dl_reg.networks.layers import torch_defaults

    kind = network_class(name)
    if seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return make_network(name, dim, **arguments)
    try:
        with torch_defaults():
            return kind(dim, **arguments)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None
