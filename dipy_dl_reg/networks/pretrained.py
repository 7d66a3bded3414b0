"""Trained networks that come with the package, by name.

Each is one file of `save_network` in the folder ``trained``, which is installed with
the package: nothing is downloaded.  Loading checks the file against the table.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dipy_dl_reg.networks.anatomy_network import (
    AnatomyNetwork,
    load_anatomy_network,
)
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.checkpoint import load_network

_FOLDER = Path(__file__).parent / "trained"


class Weights(NamedTuple):
    """Entry of the table of trained networks; the card in the file has more details.

    Attributes
    ----------
    file : str
        Name of the file.
    checksum : str
        SHA-256 of the file.
    about : str
        Purpose of the network.
    licence : str
        Licence under which it may be used.
    recipe : str
        The command with which it was trained.
    scores : dict
        Measured results of a script of this repository.
    """

    file: str
    checksum: str
    about: str
    licence: str
    recipe: str
    scores: dict[str, Any]


#: Trained networks by the names that `DeepRegistration(model=...)` takes.
WEIGHTS: dict[str, Weights] = {
    "pyramid-brain": Weights(
        file="pyramid_brain.npz",
        checksum="c4eb9675c0273f38856bb17f9c560795bbd7167baaea598093f81e85abbb8908",
        about="pyramid for skull-stripped brains of any contrast, 3D, at 2 mm",
        licence=(
            "BSD-3-Clause; trained on label maps of SynthSeg (Apache-2.0) and T1 "
            "images of OpenNeuro ds002748 (CC0)"
        ),
        recipe="python -m tools.recipes.average_networks",
        # tools/experiments/contrasts.py, three pairs of real brains at 2 mm: mean Dice
        # of the network alone, the moving image as T1, b0 and FA.
        scores={"affine": 0.405, "T1": 0.590, "b0": 0.536, "FA": 0.578},
    ),
    "pyramid-slices": Weights(
        file="pyramid_slices.npz",
        checksum="db6473d74e327dfd6acb30bb9ee801faef8856656226753d4499d4a2b21f3e70",
        about="pyramid for slices of any contrast and spacing, 2D",
        licence="BSD-3-Clause",
        recipe="python -m tools.recipes.train_pyramid --dim 2",
        # python -m tools.experiments.contrasts --slices, 18 deformed T1 slices: mean
        # error, mm; refined by self-similarity without and with it.
        scores={"deformed": 7.61, "alone": 1.34, "refined": 1.15, "with it": 0.65},
    ),
    "voxelmorph-t1": Weights(
        file="voxelmorph_t1.npz",
        checksum="95569233eb909df5894b340d30a48142d4f87c4c5ebddc62d23466ee9aa4666d",
        about="VoxelMorph (vm1, velocity) for skull-stripped T1 brains, 3D, at 3 mm",
        licence="BSD-3-Clause; trained on label maps of SynthSeg (Apache-2.0)",
        recipe="python -m tools.recipes.train_brains",
        # tools/benchmarks/deformable.py, six pairs of real brains at 2 mm: median Dice.
        scores={"affine": 0.395, "alone": 0.494, "with 10 iterations": 0.597},
    ),
}

#: The network that segments an image; it registers nothing by itself.
ANATOMY = Weights(
    file="anatomy.npz",
    checksum="894179bdf66f604d784846820d77f47a420ca9467c278a9a26c3607218746123",
    about="anatomy: structures of heads and brains of any contrast, 3D, at 2 mm",
    licence="BSD-3-Clause; trained on label maps of SynthSeg (Apache-2.0)",
    recipe="python -m tools.recipes.train_anatomy",
    # tools/experiments/anatomy.py, images kept apart: mean Dice over structures.
    scores={"drawn, held out": 0.660, "T1": 0.715, "b0-like": 0.711, "b0": 0.671},
)

#: Default networks, by dimension, for ``DeepRegistration(model="auto")``.
DEFAULT_MODELS = {2: "pyramid-slices", 3: "pyramid-brain"}


def list_models() -> list[str]:
    """List the names of the trained networks that come with the package.

    Returns
    -------
    names : list of str
        For `load_model` and ``DeepRegistration(model=...)``.

    See Also
    --------
    load_model : loads one of them; :doc:`/model_cards` describes them.

    Examples
    --------
    >>> from dipy_dl_reg import list_models
    >>> list_models()
    ['pyramid-brain', 'pyramid-slices', 'voxelmorph-t1']
    """
    return sorted(WEIGHTS)


def load_model(name: str, *, device: torch.device | str = "cpu") -> RegistrationNetwork:
    """Load a trained network that comes with the package.

    Parameters
    ----------
    name : str
        One of `list_models`.
    device : torch.device or str, optional
        Device of its weights.

    Returns
    -------
    network : RegistrationNetwork
        In evaluation mode; ``network.card`` is the information about it.

    Raises
    ------
    ValueError
        If there is no such model, or its file is not the one that was released.

    See Also
    --------
    list_models : the names.
    load_network : a file of your own.
    DeepRegistration : takes the name itself (`model`).

    Examples
    --------
    >>> from dipy_dl_reg import load_model
    >>> network = load_model("pyramid-slices")
    >>> network.dim, network.card["licence"].split(";")[0]
    (2, 'BSD-3-Clause')
    """
    if name not in WEIGHTS:
        raise ValueError(f"model must be one of {list_models()}, got {name!r}.")
    return load_network(_checked_file(WEIGHTS[name]), device=device)


def load_anatomy(*, device: torch.device | str = "cpu") -> AnatomyNetwork:
    """Load the network that segments an image.

    Parameters
    ----------
    device : torch.device or str, optional
        Device of its weights.

    Returns
    -------
    network : AnatomyNetwork
        In evaluation mode; ``network.card`` is the information about it.

    Raises
    ------
    ValueError
        If its file is not the one that was released.
    """
    return load_anatomy_network(_checked_file(ANATOMY), device=device)


def _checked_file(weights: Weights) -> Path:
    """Path of a file of weights, after its checksum was compared."""
    path = _FOLDER / weights.file
    if sha256(path.read_bytes()).hexdigest() != weights.checksum:
        raise ValueError(f"{path} is damaged: install the package again.")
    return path
