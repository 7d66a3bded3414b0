"""`train_network`: trains a network on pairs of images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.checkpoint import network_header
from dipy_dl_reg.options import takes_options
from dipy_dl_reg.training.image_tensors import INTENSITY
from dipy_dl_reg.training.loop.batches import Batches
from dipy_dl_reg.training.loop.clock import TimeLimit
from dipy_dl_reg.training.loop.distributed import Group, join
from dipy_dl_reg.training.loop.log import Log, check_log
from dipy_dl_reg.training.loop.losses import TrainingLoss
from dipy_dl_reg.training.loop.state import fingerprint, to_json_values
from dipy_dl_reg.training.loop.trainer import History, Training
from dipy_dl_reg.training.training_options import TrainingOptions
from dipy_dl_reg.training.training_set import Example, Pairs, as_pairs

#: DIPY's logger, to which this package writes; dipy itself is not imported here.
_logger = logging.getLogger("dipy")


@takes_options(TrainingOptions)
def train_network(
    network: RegistrationNetwork,
    pairs: Any,
    *,
    validation: Any = None,
    device: torch.device | str | None = None,
    card: dict[str, Any] | None = None,
    options: TrainingOptions,
) -> History:
    """Train a network on pairs of images.

    If the program is started by ``torchrun``, all processes train together, and each
    computes a part of every step.  On the CPU, a resumed training gives exactly the
    same numbers as a training without interruption.

    Parameters
    ----------
    network : RegistrationNetwork
        The network, which is trained in place, and is in evaluation mode afterwards.
        Its initial weights are drawn earlier, when it is made; all other random numbers
        are determined by `seed`.
    pairs : array, sequence or pairs
        Images of shape ``(N, *shape)``, which are paired with each other; a list of one
        or more pairs (static, moving); or an object of
        `dipy_dl_reg.training.training_set`.
    validation : array, sequence or pairs, optional
        Like `pairs`, but of images that are not used for training; at most 100 pairs
        are used.  The trained network has the weights with the lowest validation loss.
    device : torch.device or str, optional
        Device of the training; by default the network's device.
    card : dict, optional
        Information about the network, see `save_network`; the steps done, the best
        validation and the scaling of intensities are added.
    options : TrainingOptions
        Options of the loss and of the loop.

    Returns
    -------
    history : History
        Steps, rows of the log, best validation, and why the training stopped.

    Raises
    ------
    ValueError
        If an option is out of range, the images cannot be trained on, or a resumed
        training has other settings or images than the interrupted one.
    FileExistsError
        If the checkpoint or the log exists and `resume` is not set.
    ImportError
        If the log is a folder and TensorBoard is not installed.
    RuntimeError
        If the loss is not finite; the last checkpoint is not changed.

    References
    ----------
    .. footbibliography::
    """
    limit = TimeLimit(options.time_limit)
    if not isinstance(network, RegistrationNetwork):
        raise ValueError(
            f"network must be a RegistrationNetwork, got {type(network).__name__}."
        )
    options.check_validation(validation is not None)
    loss = TrainingLoss.from_options(options)
    check_files(options)
    pairs = as_pairs(pairs)
    validation = None if validation is None else as_pairs(validation)
    if loss.dice_weight and validation is not None:
        _check_labels(validation[0])
    group = join(next(network.parameters()).device if device is None else device)
    scaling = INTENSITY if getattr(pairs, "scaled", False) else "as the pairs gave them"
    training = Training(
        network, loss, group,
        settings=collect_settings(network, pairs, validation, loss, group, options),
        batch_size=options.batch_size, validation=validation,
        card={"preprocessing": {"intensity": scaling}, **(card or {})},
    )  # fmt: skip
    if options.checkpoint is not None:
        network_header(network, training.card)  # raise errors now, not at the end
        if options.is_resumed:
            training.restore(options.checkpoint)
    history = _run(training, pairs, options, limit)
    if group.leads:
        _report_stop(history, options.steps, resumable=options.checkpoint is not None)
    return history


def _run(
    training: Training, pairs: Pairs, options: TrainingOptions, limit: TimeLimit
) -> History:
    """Train with the log open."""
    group, progress = training.group, training.progress
    batches = Batches(
        pairs, options.batch_size, seed=options.seed, augment=options.augment,
        rank=group.rank, size=group.size,
    )  # fmt: skip
    with Log(
        options.log if group.leads else None, steps=options.steps, done=progress.step,
        rows=progress.rows, progress=options.progress if group.leads else False,
        limit=limit,
    ) as log:  # fmt: skip
        return training.run(batches, options, log=log, limit=limit)


def collect_settings(
    network: RegistrationNetwork,
    pairs: Pairs,
    validation: Pairs | None,
    loss: TrainingLoss,
    group: Group,
    options: TrainingOptions,
) -> dict[str, Any]:
    """Collect the settings that determine the result of a training.

    Parameters
    ----------
    network : RegistrationNetwork
        The network; its architecture and arguments are settings, its weights are not.
    pairs, validation : pairs
        Pairs for training and for validation.
    loss : TrainingLoss
        The function that training minimizes.
    group : Group
        The processes that train together.
    options : TrainingOptions
        All other options.

    Returns
    -------
    settings : dict
        Values that JSON can hold; a training that is resumed must have the same.
    """
    settings = {
        "architecture": network.name, "arguments": network.arguments,
        "pairs": len(pairs), "batch": options.batch_size * group.size,
        "validation": 0 if validation is None else len(validation),
        "images": fingerprint(pairs),
        "validation images": None if validation is None else fingerprint(validation),
        **loss.settings(), **options.loop_settings(),
    }  # fmt: skip
    return to_json_values(settings)


def check_files(options: TrainingOptions) -> None:
    """Check before the training that the checkpoint and the log can be written.

    Parameters
    ----------
    options : TrainingOptions
        The options, of which those with file names are checked.

    Raises
    ------
    FileExistsError
        If the checkpoint or the log exists and `resume` is not set.
    ImportError
        If the log is a folder and TensorBoard is not installed.
    """
    check_log(options.log, overwrite=options.resume)
    if options.checkpoint is None:
        return
    path = Path(options.checkpoint)
    if path.exists() and not options.resume:
        raise FileExistsError(
            f"checkpoint {path} exists; resume=True continues from it."
        )
    path.parent.mkdir(parents=True, exist_ok=True)


def _check_labels(example: Example) -> None:
    """Raise the error of the first validation at once, not only after hours."""
    if example.static_labels is None or example.moving_labels is None:
        raise ValueError("dice_weight is above 0, but validation has no labels.")


def _report_stop(history: History, steps: int, *, resumable: bool) -> None:
    """Log why a training ended, and which weights it returns."""
    done = f"after {history.steps} of {steps} steps"
    if history.best is None:
        weights = "The weights are those of the last step; there was no validation."
    else:
        weights = (
            f"The weights are the best in validation, with loss {history.best:.4g}."
        )
    if history.stopped == "time":
        hint = " resume continues from the checkpoint." if resumable else ""
        _logger.warning(f"Stopped by time_limit {done}. {weights}{hint}")
    elif history.stopped == "patience":
        _logger.info(f"Stopped by patience {done}. {weights}")
    else:
        _logger.info(f"Trained for {history.steps} steps. {weights}")
