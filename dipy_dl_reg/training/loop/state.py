"""A training's state in a file, from which it goes on as if never interrupted.

The file is the network's own (`dipy_dl_reg.networks.checkpoint`): its ``weights`` are
those to be used, the best so far.  Beside them stand the optimiser's averages, and the
weights of the last step where they are others.
"""

from dataclasses import asdict, dataclass, field, fields
import json
import math
import re

import torch

from dipy_dl_reg.networks.checkpoint import (
    blaming,
    checked_weights,
    network_header,
    part,
    read_arrays,
    to_array,
    write_arrays,
)
from dipy_dl_reg.training.loop.losses import LossTerms

#: Fingerprints among the settings, and what is said if they are others.
_DATA = {"images": "other images", "validation images": "other validation images"}
#: In which they may differ: far above rounding, far below one image of thousands.
_ROUNDING = 1e-8


@dataclass
class Progress:
    """How far a training has come, but for its tensors.

    Parameters
    ----------
    step : int
        Steps done.
    rows : list of dict
        The log.
    sums : list of float
        Of each term of the loss, since the last row.
    best : float, optional
        Least loss on the validation pairs.
    stale : int
        Validations since then.
    """

    step: int = 0
    rows: list = field(default_factory=list)
    sums: list = field(default_factory=lambda: [0.0] * 4)
    best: float | None = None
    stale: int = 0


def write_state(path, network, adam, progress, *, best, use_best, settings, card):
    """Write a checkpoint.

    Parameters
    ----------
    path : str or Path
        Replaced if it exists.
    network : RegistrationNetwork
        As it is after ``progress.step`` steps.
    adam : torch.optim.Adam
        Its optimiser.
    progress : Progress
        How far it is.
    best : dict of Tensor or None
        State of the network when it was best in validation.
    use_best : bool
        Whether that is the state to be loaded for use, or the latest.
    settings : dict
        What a training that goes on must share.
    card : dict
        Of the network.
    """
    header = network_header(network, card)
    averaged = [n for n, p in network.named_parameters() if adam.state.get(p)]
    header["training"] = {
        "settings": settings, "averaged": averaged, **asdict(progress)
    }  # fmt: skip
    latest = network.state_dict()
    arrays = _named("weights", best if use_best else latest)
    if use_best:
        arrays |= _named("training/latest", latest)
    elif best is not None:
        arrays |= _named("training/best", best)
    for name, parameter in network.named_parameters():
        arrays |= _named(f"training/adam/{name}", adam.state.get(parameter, {}))
    write_arrays(path, header, arrays)


def read_state(path, network, adam, *, settings):
    """Go on from a checkpoint.

    Parameters
    ----------
    path : str or Path
        Written by `write_state`.
    network : RegistrationNetwork
        Given the weights of the last step.
    adam : torch.optim.Adam
        Its optimiser, given its averages.
    settings : dict
        Must be those of the interrupted training.

    Returns
    -------
    progress : Progress
        How far it was.
    best : dict of Tensor or None
        State of the network when it was best.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, holds no training, or one with other settings.
    """
    header, arrays = read_arrays(path)
    if not header.get("training"):
        raise ValueError(f"{path} holds a network, but no training to go on with.")
    with blaming(path, "a training that can go on"):
        state = dict(header["training"])
        stored, averaged = dict(state.pop("settings")), list(state.pop("averaged"))
        progress = _checked(state)
    _check_same(path, stored, settings)
    with blaming(path, "a training that can go on"):
        kept = {
            name: checked_weights(network, weights)
            for name in ("weights", "training/latest", "training/best")
            if (weights := part(arrays, name)) or name == "weights"
        }
        amsgrad = bool(settings.get("amsgrad"))
        averages = _averages(network, arrays, averaged, amsgrad, progress.step)
    # Only now, when all is known to be whole, is anything changed.
    best = None
    if progress.best is not None:
        network.load_state_dict(kept.get("training/best", kept["weights"]))
        best = copy_of(network.state_dict())
    network.load_state_dict(kept.get("training/latest", kept["weights"]))
    adam.state.update(averages)
    return progress, best


def copy_of(state):
    """A network's state that stays as it is while the network is trained on.

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


def fingerprint(pairs):
    """Numbers by which the images of two trainings can be told apart.

    Of every tensor that the pairs hold, and of every list of them: how many there are,
    and two sums that rounding hardly changes, but another image, order or orientation
    does.  A checksum would not stand the last digit, in which processors differ.

    Parameters
    ----------
    pairs : object
        What is trained on; one that holds no tensors has an empty fingerprint.

    Returns
    -------
    numbers : dict of list of float
        By the attributes of the pairs.
    """
    numbers = {}
    for name, value in getattr(pairs, "__dict__", {}).items():
        held = [value] if isinstance(value, torch.Tensor) else value
        if not isinstance(held, (list, tuple)):
            continue
        tensors = [x for x in held if isinstance(x, torch.Tensor)]
        if tensors:
            sums = torch.stack([_sums(x) * (1 + i) for i, x in enumerate(tensors)])
            numbers[name] = [float(len(tensors)), *sums.mean(0).tolist()]
    return numbers


def _sums(tensor):
    """Mean of a tensor, and the mean weighted by where its values stand."""
    flat = tensor.detach().cpu().double().flatten()
    place = torch.linspace(0, 1, len(flat), dtype=flat.dtype, device="cpu").square()
    return torch.stack([flat.mean(), (flat * place).mean()])


def plain(settings):
    """Settings as they come back from a file.

    Parameters
    ----------
    settings : dict
        Of anything.

    Returns
    -------
    settings : dict
        Numbers, text, lists and dicts; of other things their `repr`, without the
        address in memory that it may name.
    """
    return json.loads(re.sub(r" at 0x\w+", "", json.dumps(settings, default=repr)))


def _named(prefix, tensors):
    """Arrays of a dict of tensors."""
    return {f"{prefix}/{name}": to_array(tensor) for name, tensor in tensors.items()}


def _checked(state):
    """The progress of a file, if each of its numbers can be one."""
    wanted = {entry.name for entry in fields(Progress)}
    if state.keys() != wanted:
        raise ValueError(f"it must say {sorted(wanted)}, and says {sorted(state)}")
    sums, best, rows = state["sums"], state["best"], state["rows"]
    good = {
        "step": _is_count(state["step"]),
        "stale": _is_count(state["stale"]),
        "best": best is None or _is_number(best),
        "sums": len(sums) == len(LossTerms._fields) and all(map(_is_number, sums)),
        "rows": all(_is_row(row) and row.keys() == rows[0].keys() for row in rows),
    }
    for name, fine in good.items():
        if not fine:
            raise ValueError(f"{name} cannot be {state[name]!r}")
    steps = [0, *(row["step"] for row in rows), state["step"]]
    if steps != sorted(steps):
        raise ValueError(f"its rows cannot be of steps {steps[1:-1]} of {steps[-1]}")
    return Progress(**state)


def _is_row(row):
    """Whether a row of the log."""
    wanted = {"step", *LossTerms._fields, "learning_rate"}
    named = row.keys() - {"validation"} == wanted
    return named and all(map(_is_number, row.values())) and _is_count(row["step"])


def _is_number(value):
    """Whether JSON's number, and finite."""
    kind = isinstance(value, (int, float)) and not isinstance(value, bool)
    return kind and math.isfinite(value)


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _averages(network, arrays, averaged, amsgrad, step):
    """What Adam knows of each parameter, all of it and nothing else."""
    parameters = dict(network.named_parameters())
    if bool(step) != bool(averaged):
        raise ValueError(f"it has averages of {averaged} after {step} steps")
    kinds = {"step", "exp_avg", "exp_avg_sq", *["max_exp_avg_sq"][: int(amsgrad)]}
    wanted = {f"{name}/{kind}" for name in averaged for kind in kinds}
    found = part(arrays, "training/adam")
    if found.keys() != wanted:
        raise ValueError(f"its averages are not these: {found.keys() ^ wanted}")
    averages = {}
    for name in averaged:
        parameter = parameters[name]
        shapes = {kind: tuple(parameter.shape) for kind in kinds} | {"step": ()}
        for kind, shape in shapes.items():
            _check_average(f"{name}/{kind}", found[f"{name}/{kind}"], shape, step)
        tensors = {kind: torch.from_numpy(found[f"{name}/{kind}"]) for kind in kinds}
        averages[parameter] = {
            kind: tensor if kind == "step" else tensor.to(parameter)
            for kind, tensor in tensors.items()
        }
    return averages


def _check_average(name, array, shape, step):
    """Whether an array can be what Adam knows."""
    if array.shape != shape or array.dtype.kind != "f":
        raise ValueError(
            f"average {name} must be of shape {shape}, got {array.dtype} of shape "
            f"{array.shape}"
        )
    if name.endswith("/step") and not 0 < array <= step:
        raise ValueError(f"average {name} is of step {array}, the training of {step}")
    if name.endswith("_sq") and (array < 0).any():
        raise ValueError(f"average {name} is of squares, and below 0")


def _check_same(path, stored, settings):
    """Whether a training goes on as it began."""
    told = [
        f"{name}={stored.get(name)!r} (now {settings.get(name)!r})"
        for name in sorted((stored.keys() | settings.keys()) - _DATA.keys())
        if stored.get(name) != settings.get(name)
    ]
    for name, words in _DATA.items():
        if not told and not _alike(stored.get(name), settings.get(name)):
            told.append(words)
    if told:
        raise ValueError(f"resume: {path} was trained with {', '.join(told)}.")


def _alike(stored, now):
    """Whether two fingerprints are the same but for rounding."""
    if not isinstance(stored, dict) or not isinstance(now, dict):
        return stored == now
    return stored.keys() == now.keys() and all(
        len(stored[k]) == len(now[k])
        and all(
            math.isclose(a, b, rel_tol=_ROUNDING) for a, b in zip(stored[k], now[k])
        )
        for k in now
    )
