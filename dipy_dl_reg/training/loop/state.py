"""Stores the state of a training in a file, from which the training is resumed.

The file is also a file of the network (`dipy_dl_reg.networks.checkpoint`): its
``weights`` are the best weights so far, for use in registration.  The file also
contains the averages of the optimizer, and the weights of the last step if they differ.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
import json
import math
from pathlib import Path
import re
from typing import Any

import numpy as np
import torch

from dipy_dl_reg.networks.array_file import (
    arrays_under,
    errors_name_file,
    read_arrays,
    write_arrays,
)
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.checkpoint import name_arrays, network_header, to_state
from dipy_dl_reg.training.loop.losses import LossTerms

State = dict[str, torch.Tensor]
#: Fingerprints among the settings, and words for an error if they differ.
_DATA = {"images": "other images", "validation images": "other validation images"}
#: Accepted relative difference of fingerprints of the same images: much larger than
#: rounding, and much smaller than the effect of one image among thousands.
_ROUNDING = 1e-8


@dataclass
class Progress:
    """Progress of a training, without its tensors.

    Parameters
    ----------
    step : int
        Steps done.
    rows : list of dict
        The log.
    sums : list of float
        Sum of each term of the loss since the last row.
    best : float, optional
        Lowest loss on the validation pairs.
    stale : int
        Number of validations since the best one.
    """

    step: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    best: float | None = None
    stale: int = 0


def write_state(
    path: str | Path,
    network: RegistrationNetwork,
    adam: torch.optim.Adam,
    progress: Progress,
    *,
    best: State | None,
    use_best: bool,
    settings: dict[str, Any],
    card: dict[str, Any],
) -> None:
    """Write a checkpoint.

    Parameters
    ----------
    path : str or Path
        Replaced if it exists.
    network : RegistrationNetwork
        The network after ``progress.step`` steps.
    adam : torch.optim.Adam
        Its optimizer.
    progress : Progress
        Progress of the training.
    best : dict of Tensor or None
        State of the network with the best validation.
    use_best : bool
        Whether `load_network` is to load this state instead of the latest.
    settings : dict
        Settings that a resumed training must have, too.
    card : dict
        Card of the network.
    """
    header = network_header(network, card)
    averaged = [n for n, p in network.named_parameters() if adam.state.get(p)]
    header["training"] = {
        "settings": settings, "averaged": averaged, **asdict(progress)
    }  # fmt: skip
    latest = network.state_dict()
    arrays = name_arrays("weights", best if use_best else latest)
    if use_best:
        arrays |= name_arrays("training/latest", latest)
    elif best is not None:
        arrays |= name_arrays("training/best", best)
    for name, parameter in network.named_parameters():
        arrays |= name_arrays(f"training/adam/{name}", adam.state.get(parameter))
    write_arrays(path, header, arrays)


def read_state(
    path: str | Path,
    network: RegistrationNetwork,
    adam: torch.optim.Adam,
    *,
    settings: dict[str, Any],
) -> tuple[Progress, State | None]:
    """Continue from a checkpoint.

    Parameters
    ----------
    path : str or Path
        Written by `write_state`.
    network : RegistrationNetwork
        The network; its weights are set to those of the last step.
    adam : torch.optim.Adam
        Its optimizer, whose averages are set.
    settings : dict
        The settings, which must be those of the interrupted training.

    Returns
    -------
    progress : Progress
        Progress of the interrupted training.
    best : dict of Tensor or None
        State of the network with the best validation.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, contains no training, or a training with other settings.
    """
    header, arrays = read_arrays(path)
    if not header.get("training"):
        raise ValueError(f"{path} contains a network, but no training to resume.")
    with errors_name_file(path, "a training that can be resumed"):
        state = dict(header["training"])
        stored, averaged = dict(state.pop("settings")), list(state.pop("averaged"))
        progress = _check_progress(state)
    _check_same(path, stored, settings)
    with errors_name_file(path, "a training that can be resumed"):
        states = {
            name: to_state(network, weights)
            for name in ("weights", "training/latest", "training/best")
            if (weights := arrays_under(arrays, name)) or name == "weights"
        }
        amsgrad = bool(settings.get("amsgrad"))
        averages = _read_averages(network, arrays, averaged, amsgrad, progress.step)
    # Network and optimizer are changed only after all checks.
    best = None
    if progress.best is not None:
        network.load_state_dict(states.get("training/best", states["weights"]))
        best = copy_state(network.state_dict())
    network.load_state_dict(states.get("training/latest", states["weights"]))
    adam.state.update(averages)
    return progress, best


def copy_state(state: State) -> State:
    """Copy a network's state, which changes while the network is trained.

    Parameters
    ----------
    state : dict of Tensor
        ``network.state_dict()``.

    Returns
    -------
    state : dict of Tensor
        A copy.
    """
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def fingerprint(pairs: object) -> dict[str, list[float]]:
    """Compute numbers that differ between trainings on different images.

    The fingerprint contains, for every tensor and list of tensors of the pairs, their
    number and two means.  The means are almost unaffected by rounding, but change with
    another image, order or orientation.  A checksum would depend on the last digit,
    which differs between processors.

    Parameters
    ----------
    pairs : object
        The training pairs; if they have no tensors, the fingerprint is empty.

    Returns
    -------
    numbers : dict of list of float
        Numbers by attribute of the pairs; the names of these attributes are therefore
        part of checkpoints.
    """
    numbers: dict[str, list[float]] = {}
    for name, value in getattr(pairs, "__dict__", {}).items():
        held = [value] if isinstance(value, torch.Tensor) else value
        if not isinstance(held, (list, tuple)):
            continue
        tensors = [x for x in held if isinstance(x, torch.Tensor)]
        if tensors:
            sums = torch.stack([_means(x) * (1 + i) for i, x in enumerate(tensors)])
            numbers[name] = [float(len(tensors)), *sums.mean(0).tolist()]
    return numbers


def _means(tensor: torch.Tensor) -> torch.Tensor:
    """Mean of a tensor, and the mean weighted by the square of the values' position."""
    flat = tensor.detach().cpu().double().flatten()
    place = torch.linspace(0, 1, len(flat), dtype=flat.dtype, device="cpu").square()
    return torch.stack([flat.mean(), (flat * place).mean()])


def to_json_values(settings: dict[str, Any]) -> dict[str, Any]:
    """Convert settings to the values that are read from a file after saving.

    Parameters
    ----------
    settings : dict
        Of anything.

    Returns
    -------
    settings : dict
        Numbers, text, lists and dicts; of other objects their `repr`, without the
        address in memory that it may contain.
    """
    return json.loads(re.sub(r" at 0x\w+", "", json.dumps(settings, default=repr)))


def _check_progress(state: dict[str, Any]) -> Progress:
    """The progress of a file, if each of its values is possible."""
    wanted = {entry.name for entry in fields(Progress)}
    if state.keys() != wanted:
        raise ValueError(f"it must have {sorted(wanted)}, got {sorted(state)}")
    sums, best, rows = state["sums"], state["best"], state["rows"]
    valid = {
        "step": _is_count(state["step"]),
        "stale": _is_count(state["stale"]),
        "best": best is None or _is_number(best),
        "sums": len(sums) == len(LossTerms._fields) and all(map(_is_number, sums)),
        "rows": all(_is_row(row) and row.keys() == rows[0].keys() for row in rows),
    }
    for name, is_valid in valid.items():
        if not is_valid:
            raise ValueError(f"{name} cannot be {state[name]!r}")
    steps = [0, *(row["step"] for row in rows), state["step"]]
    if steps != sorted(steps):
        raise ValueError(f"its rows cannot be of steps {steps[1:-1]} of {steps[-1]}")
    return Progress(**state)


def _is_row(row: dict[str, Any]) -> bool:
    """Whether this is a row of the log."""
    wanted = {"step", *LossTerms._fields, "learning_rate"}
    complete = row.keys() - {"validation"} == wanted
    return complete and all(map(_is_number, row.values())) and _is_count(row["step"])


def _is_number(value: Any) -> bool:
    """Whether this is a finite number of JSON."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _is_count(value: object) -> bool:
    """Whether this is a whole number from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_averages(
    network: RegistrationNetwork,
    arrays: dict[str, np.ndarray],
    averaged: list[str],
    amsgrad: bool,
    step: int,
) -> dict[torch.Tensor, State]:
    """Adam's averages of each parameter, complete and nothing else."""
    parameters = dict(network.named_parameters())
    if bool(step) != bool(averaged):
        raise ValueError(f"it has averages of {averaged} after {step} steps")
    kinds = {"step", "exp_avg", "exp_avg_sq", *["max_exp_avg_sq"][: int(amsgrad)]}
    wanted = {f"{name}/{kind}" for name in averaged for kind in kinds}
    found = arrays_under(arrays, "training/adam")
    if found.keys() != wanted:
        raise ValueError(f"its averages are not these: {found.keys() ^ wanted}")
    averages: dict[torch.Tensor, State] = {}
    for name in averaged:
        parameter = parameters[name]
        for kind in kinds:
            key = f"{name}/{kind}"
            shape = () if kind == "step" else tuple(parameter.shape)
            _check_average(key, found[key], shape, step)
        tensors = {kind: torch.from_numpy(found[f"{name}/{kind}"]) for kind in kinds}
        averages[parameter] = {
            kind: tensor if kind == "step" else tensor.to(parameter)
            for kind, tensor in tensors.items()
        }
    return averages


def _check_average(
    name: str, array: np.ndarray, shape: tuple[int, ...], step: int
) -> None:
    """Check that an array can be one of Adam's averages."""
    if array.shape != shape or array.dtype.kind != "f":
        raise ValueError(
            f"average {name} must be of shape {shape}, got {array.dtype} of shape "
            f"{array.shape}"
        )
    if name.endswith("/step") and not 0 < array <= step:
        raise ValueError(f"average {name} is of step {array}, the training of {step}")
    if name.endswith("_sq") and (array < 0).any():
        raise ValueError(f"average {name} is of squares, and below 0")


def _check_same(
    path: str | Path, stored: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Check that the settings of a resumed training are the stored ones."""
    differences = [
        f"{name}={stored.get(name)!r} (now {settings.get(name)!r})"
        for name in sorted((stored.keys() | settings.keys()) - _DATA.keys())
        if stored.get(name) != settings.get(name)
    ]
    for name, words in _DATA.items():
        if not differences and not _are_close(stored.get(name), settings.get(name)):
            differences.append(words)
    if differences:
        raise ValueError(f"resume: {path} was trained with {', '.join(differences)}.")


def _are_close(stored: object, now: object) -> bool:
    """Whether two fingerprints are equal up to rounding."""
    if not isinstance(stored, dict) or not isinstance(now, dict):
        return stored == now
    return stored.keys() == now.keys() and all(
        len(stored[k]) == len(now[k])
        and all(
            math.isclose(a, b, rel_tol=_ROUNDING) for a, b in zip(stored[k], now[k])
        )
        for k in now
    )
