"""Networks in files: plain arrays and one JSON header, in a zip.

The file is an ``.npz`` that `numpy.load` opens too; what it holds can run no code, and
reads the same in every version of Torch.  Arrays ``weights/...`` are the network's;
a training adds its own state as ``training/...``, which `load_network` passes over.
"""

from hashlib import sha256
import json
import os
from pathlib import Path
import zipfile
import zlib

import numpy as np
import torch

from dipy_dl_reg.networks import NETWORKS
from dipy_dl_reg.networks.layers import torch_defaults

FORMAT, VERSION = "dipy_dl_reg network", 1
_HEADER = "header.json"
#: What is always said of a network, if only that nothing is known.
CARD = {
    "preprocessing": None,
    "licence": None,
    "recipe": None,
    "scores": None,
}
#: All that a damaged file can lead to; a missing one is met before.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    EOFError,
    OSError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)


def save_network(path, network, *, card=None, overwrite=False):
    """Write a network to a file.

    Parameters
    ----------
    path : str or Path
        The file; ``.npz`` by custom.
    network : RegistrationNetwork
        On any device.
    card : dict, optional
        What is known about it: "licence", "recipe", "scores", "preprocessing" (of the
        images in training; it tells, and nothing acts on it), and anything else that
        JSON holds.  By default that of the network, if it has one.
    overwrite : bool, optional
        Replace an existing file.

    Raises
    ------
    FileExistsError
        If there is such a file, and `overwrite` is not set.
    ValueError
        If a weight is not finite, or the card is unfit.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; overwrite=True replaces it.")
    card = getattr(network, "card", None) if card is None else card
    write_arrays(path, network_header(network, card), network_arrays(network))


def load_network(path, *, device="cpu"):
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
        Ready for use (in evaluation mode); ``network.card`` is what is known about it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is anything but a whole file of this kind.
    """
    header, arrays = read_arrays(path)
    with blaming(path):
        network = _made(header)
        network.load_state_dict(checked_weights(network, part(arrays, "weights")))
        network.card = checked_card(header.get("card"))
    return network.to(device).eval()


def network_header(network, card=None):
    """What a file says about a network.

    Parameters
    ----------
    network : RegistrationNetwork
        One of the classes in `NETWORKS`.
    card : dict, optional
        See `save_network`.

    Returns
    -------
    header : dict
        Its architecture, arguments, and card.

    Raises
    ------
    ValueError
        If its class has no name in `NETWORKS`, or the card is unfit.
    """
    if NETWORKS.get(network.name) is not type(network):
        raise ValueError(
            f"network must be one of {sorted(NETWORKS)} to be kept in a file, got "
            f"{type(network).__name__}."
        )
    card = checked_card({**CARD, **(card or {})})
    return {"architecture": network.name, "arguments": network.arguments, "card": card}


def checked_card(card):
    """What is known about a network, if it says so in the right form.

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
        If JSON cannot hold it, or a part of it is of another type.
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


def network_arrays(network, prefix="weights"):
    """All parameters and running statistics of a network as arrays.

    Parameters
    ----------
    network : torch.nn.Module
        On any device.
    prefix : str, optional
        First part of their names.

    Returns
    -------
    arrays : dict of ndarray
        ``prefix/name`` of each.
    """
    state = network.state_dict()
    return {f"{prefix}/{name}": to_array(tensor) for name, tensor in state.items()}


def checked_weights(network, weights):
    """The weights of a file, if they are those of a network.

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


def write_arrays(path, header, arrays):
    """Write arrays and a header to a file, whole or not at all.

    Parameters
    ----------
    path : str or Path
        Replaced if it exists.
    header : dict
        What JSON holds; the format and a checksum of it and all arrays are added.
    arrays : dict of ndarray
        Numbers, by their names.

    Raises
    ------
    ValueError
        If an array is not finite.
    """
    path = Path(path)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite and is not written to {path}.")
    header = {"format": FORMAT, "version": VERSION, **header}
    header = {"sha256": _checksum(header, arrays), **header}
    text = json.dumps(header, indent=1, allow_nan=False)
    part_written = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(part_written, "w") as file:
            file.writestr(zipfile.ZipInfo(_HEADER), text)
            for name, array in sorted(arrays.items()):
                entry = zipfile.ZipInfo(f"{name}.npy")
                with file.open(entry, "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
        os.replace(part_written, path)
    finally:
        part_written.unlink(missing_ok=True)


def read_arrays(path):
    """Read what `write_arrays` wrote.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    header : dict
        With "format", "version" and "sha256".
    arrays : dict of ndarray
        By their names.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is anything but a whole file of this kind.
    """
    with open(path, "rb") as stream, blaming(path):
        with zipfile.ZipFile(stream) as file:
            header = json.loads(file.read(_HEADER))
            _check_format(header)
            names = [n for n in file.namelist() if n != _HEADER]
            arrays = {n.removesuffix(".npy"): _read(file, n) for n in names}
        if _checksum(header, arrays) != header.get("sha256"):
            raise ValueError("its checksum is another: it was damaged or changed")
    return header, arrays


def part(arrays, prefix):
    """The arrays whose names begin with a prefix.

    Parameters
    ----------
    arrays : dict of ndarray
        All.
    prefix : str
        Without the slash.

    Returns
    -------
    part : dict of ndarray
        By the rest of their names.
    """
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


def to_array(tensor):
    """A tensor as an array of its own that NumPy knows.

    Parameters
    ----------
    tensor : Tensor
        Of any type and device.

    Returns
    -------
    array : ndarray
        Half precisions become float32.
    """
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return np.array(tensor.detach().cpu().numpy())


class blaming:
    """Turn whatever goes wrong into one error that names the file.

    Parameters
    ----------
    path : str or Path
        The file.
    what : str, optional
        What it should be.
    """

    def __init__(self, path, what="a network that can be read"):
        self.path, self.what = path, what

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, _DAMAGE):
            said = str(error) or kind.__name__
            said = f"{self.path} is not {self.what}: {said.rstrip('.')}."
            raise ValueError(said) from None


def _made(header):
    """The untrained network that a header describes."""
    name, arguments = header.get("architecture"), header.get("arguments")
    if not isinstance(name, str) or name not in NETWORKS:
        names = sorted(NETWORKS)
        raise ValueError(f"its architecture is {name!r}, and must be one of {names}")
    if not isinstance(arguments, dict):
        raise ValueError(f"its arguments must be a dict, got {arguments!r}")
    # What it begins with is replaced: nobody's random numbers should change by it.
    with torch.random.fork_rng(devices=[]):
        try:
            with torch_defaults():
                network = NETWORKS[name](**arguments)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"its arguments are not {name}'s: {error}") from None
    if _canonical(network.arguments) != _canonical(arguments):
        raise ValueError(f"its arguments {arguments} are read as {network.arguments}")
    return network


def _check_format(header):
    """Whether a file is of this kind and not from the future."""
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError("it is another kind of file")
    if header.get("version") != VERSION:
        raise ValueError(
            f"it is of version {header.get('version')!r}, this program reads {VERSION}"
        )


def _read(file, name):
    """One array of a zip."""
    with file.open(name) as entry:
        return np.lib.format.read_array(entry, allow_pickle=False)


def _canonical(header):
    """One text for all headers that JSON takes for the same."""
    return json.dumps(json.loads(json.dumps(header)), sort_keys=True)


def _checksum(header, arrays):
    """SHA-256 over the header but itself, and names, types, shapes and values."""
    rest = {key: value for key, value in header.items() if key != "sha256"}
    total = sha256(_canonical(rest).encode())
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
