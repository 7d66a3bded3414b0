"""The network that a training begins with: new, the user's own, or a trained one."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from dipy_dl_reg.networks import NETWORKS
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.checkpoint import load_network
from dipy_dl_reg.networks.pretrained import list_models, load_model
from dipy_dl_reg.validation import wrong_value


def load_initial_network(
    init: str | Path,
    network: RegistrationNetwork | str | None = None,
    arguments: dict[str, Any] | None = None,
    spacing: float | None = None,
) -> RegistrationNetwork:
    """Load a trained network, from which a training begins.

    Parameters
    ----------
    init : str or Path
        Name of a network that comes with the package (`list_models`), or a file of
        `save_network`.
    network : str, optional
        Type of the network to be trained, one of `NETWORKS`; by default that of `init`.
    arguments : dict, optional
        Arguments of its class; they must be those of `init`.
    spacing : float, optional
        Voxel size, mm; it must be that of `init`, if `init` has one.

    Returns
    -------
    network : RegistrationNetwork
        With the weights and the card of `init`; changes to it change no other network.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If `init` is no trained network, or if it contradicts another argument.
    """
    if isinstance(network, RegistrationNetwork):
        raise ValueError(
            "init requires a network given by its name or None: a network given as an "
            "object has weights of its own"
        )
    loaded = _load(init)
    if network is not None and network != loaded.name:
        raise ValueError(
            f"network is {network!r}, but init={str(init)!r} is a {loaded.name!r}"
        )
    given = dict(arguments or {})
    if spacing is not None and loaded.spacing is not None:
        given["spacing"] = float(spacing)
    for name, value in given.items():
        _check_argument(name, value, loaded, init)
    return loaded


def _load(init: object) -> RegistrationNetwork:
    """Load a network by its name or from its file."""
    if not isinstance(init, (str, PathLike)):
        wanted = "the name or the file of a trained network, or None"
        raise wrong_value("init", wanted, init)
    name = str(init)
    if name in list_models():
        return load_model(name)
    trained = f"one of {list_models()} or a file that fit or dipy_train_deep saved"
    if name in NETWORKS:
        raise ValueError(
            f"init={name!r} is a type of network, which has no weights: give {trained}"
        )
    if not Path(init).is_file():
        raise FileNotFoundError(f"init: there is no file {name}: give {trained}")
    return load_network(Path(init))


def _check_argument(
    name: str, value: object, loaded: RegistrationNetwork, init: str | Path
) -> None:
    """Check that an argument is that of a loaded network."""
    if name not in loaded.arguments:
        known = sorted(loaded.arguments)
        raise ValueError(f"{loaded.name}: there is no argument {name!r}, only {known}")
    own = loaded.arguments[name]
    value = list(value) if isinstance(value, tuple) else value
    if value != own:
        raise ValueError(
            f"{name} is {value!r}, but that of init={str(init)!r} is {own!r}"
        )
