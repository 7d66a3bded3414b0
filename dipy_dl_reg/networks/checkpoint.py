"""Reads and writes networks: weights, architecture, and a card with information.

The arrays ``weights/...`` are the weights of the network.  A training also stores its
state as ``training/...``, which `load_network` ignores.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dipy_dl_reg.networks.array_file import (
    arrays_under,
    canonical_json,
    errors_name_file,
    read_arrays,
    to_array,
    write_arrays,
)
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.layers import torch_defaults
from dipy_dl_reg.networks.registry import NETWORKS, network_class

#: Entries of every card; None if unknown.
CARD: dict[str, Any] = {
    "preprocessing": None,
    "licence": None,
    "recipe": None,
    "scores": None,
}


def save_network(
    path: str | Path,
    network: RegistrationNetwork,
    *,
    card: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a network to a file.

    Parameters
    ----------
    path : str or Path
        The file; ``.npz`` by custom.
    network : RegistrationNetwork
        On any device.
    card : dict, optional
        Information about the network: "licence", "recipe", "scores", "preprocessing"
        (of the training images; for information only), and other values that JSON can
        store.  By default ``network.card``.
    overwrite : bool, optional
        Replace an existing file.

    Raises
    ------
    FileExistsError
        If there is such a file, and `overwrite` is not set.
    ValueError
        If a weight is not finite, or the card cannot be stored.

    See Also
    --------
    load_network : the opposite.
    fit : trains a network, and saves it (`save`).

    Notes
    -----
    The file contains arrays and text alone: reading it runs no code.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from dipy_dl_reg import load_network, make_network, save_network
    >>> network = make_network("unet", dim=2)
    >>> path = f"{mkdtemp()}/network.npz"
    >>> save_network(path, network, card={"licence": "CC0"})
    >>> load_network(path).arguments == network.arguments
    True
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; overwrite=True replaces it.")
    card = getattr(network, "card", None) if card is None else card
    write_arrays(
        path,
        network_header(network, card),
        name_arrays("weights", network.state_dict()),
    )


def load_network(
    path: str | Path, *, device: torch.device | str = "cpu"
) -> RegistrationNetwork:
    """Read a network from a file.

    Parameters
    ----------
    path : str or Path
        Written by `save_network`, or as the checkpoint of a training.
    device : torch.device or str, optional
        Where its weights go.

    Returns
    -------
    network : RegistrationNetwork
        In evaluation mode; ``network.card`` is the information about it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a complete file of this kind.

    See Also
    --------
    save_network : the opposite.
    load_model : the trained networks that come with the package.
    DeepRegistration : takes the file itself (`model`).

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from dipy_dl_reg import load_network, make_network, save_network
    >>> path = f"{mkdtemp()}/network.npz"
    >>> save_network(path, make_network("unet", dim=2), card={"licence": "CC0"})
    >>> load_network(path).card["licence"]
    'CC0'
    """
    header, arrays = read_arrays(path)
    with errors_name_file(path):
        network = _make_from_header(header)
        network.load_state_dict(to_state(network, arrays_under(arrays, "weights")))
        network.card = check_card(header.get("card"))
    return network.to(device).eval()


def network_header(
    network: RegistrationNetwork, card: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Describe a network for the header of its file.

    Parameters
    ----------
    network : RegistrationNetwork
        Of one of the classes in `NETWORKS`.
    card : dict, optional
        See `save_network`.

    Returns
    -------
    header : dict
        Its architecture, arguments, and card.

    Raises
    ------
    ValueError
        If its class has no name in `NETWORKS`, or the card cannot be stored.
    """
    name = network.name
    if name is None or name not in NETWORKS or network_class(name) is not type(network):
        raise ValueError(
            f"network must be one of {sorted(NETWORKS)} to be saved in a file, got "
            f"{type(network).__name__}."
        )
    card = check_card({**CARD, **(card or {})})
    return {"architecture": name, "arguments": network.arguments, "card": card}


def check_card(card: object) -> dict[str, Any]:
    """Check the card of a network.

    Parameters
    ----------
    card : dict
        See `save_network`.

    Returns
    -------
    card : dict
        The same.

    Raises
    ------
    ValueError
        If JSON cannot hold it, or an entry is of another type.
    """
    if not isinstance(card, dict):
        raise ValueError(f"card must be a dict, got {card!r}")
    for name, kind in (("licence", str), ("preprocessing", dict), ("scores", dict)):
        got = card.get(name)
        if not isinstance(got, (kind, type(None))):
            raise ValueError(f"{name} of the card must be a {kind.__name__}, got {got}")
    try:
        json.dumps(card, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"card must be what JSON can hold: {error}") from None
    return card


def name_arrays(
    prefix: str, tensors: dict[str, torch.Tensor] | None
) -> dict[str, np.ndarray]:
    """Convert tensors to arrays whose names have a prefix.

    Parameters
    ----------
    prefix : str
        First part of the names.
    tensors : dict of Tensor or None
        Tensors by name; None is an empty dict.

    Returns
    -------
    arrays : dict of ndarray
        ``prefix/name`` of each.
    """
    return {f"{prefix}/{name}": to_array(x) for name, x in (tensors or {}).items()}


def to_state(
    network: nn.Module, weights: dict[str, np.ndarray]
) -> dict[str, torch.Tensor]:
    """Check that the weights of a file fit a network, and convert them to tensors.

    Parameters
    ----------
    network : torch.nn.Module
        Not changed.
    weights : dict of ndarray
        By the names of its ``state_dict()``.

    Returns
    -------
    state : dict of Tensor
        For ``network.load_state_dict``.

    Raises
    ------
    ValueError
        If any is missing, unknown, of another shape, or not finite.
    """
    wanted = network.state_dict()
    for what, names in (
        ("lacks", wanted.keys() - weights.keys()),
        ("has unknown", weights.keys() - wanted.keys()),
    ):
        if names:
            raise ValueError(f"{what} weights {sorted(names)}")
    for name, array in weights.items():
        if array.shape != tuple(wanted[name].shape) or array.dtype.kind not in "biuf":
            raise ValueError(
                f"weights {name} must be numbers of shape {tuple(wanted[name].shape)}, "
                f"got {array.dtype} of shape {array.shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"weights {name} are not finite")
    return {name: torch.from_numpy(array) for name, array in weights.items()}


def _make_from_header(header: dict[str, Any]) -> RegistrationNetwork:
    """Make the untrained network that a header describes."""
    name, arguments = header.get("architecture"), header.get("arguments")
    if not isinstance(name, str) or name not in NETWORKS:
        names = sorted(NETWORKS)
        raise ValueError(f"its architecture must be one of {names}, got {name!r}")
    if not isinstance(arguments, dict):
        raise ValueError(f"its arguments must be a dict, got {arguments!r}")
    # Its initial weights are replaced; drawing them must not change the global random
    # state.
    with torch.random.fork_rng(devices=[]):
        try:
            with torch_defaults():
                network = network_class(name)(**arguments)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"its arguments do not fit {name}: {error}") from None
    if canonical_json(network.arguments) != canonical_json(arguments):
        raise ValueError(f"its arguments {arguments} are read as {network.arguments}")
    return network
