"""`train_network`: a network and pairs of images in, a trained network out."""

from pathlib import Path

from dipy_dl_reg.metrics.base import whole_number
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.checkpoint import network_header
from dipy_dl_reg.training.loop.batches import Batches
from dipy_dl_reg.training.loop.clock import TimeLimit
from dipy_dl_reg.training.loop.distributed import join
from dipy_dl_reg.training.loop.log import Log, check_log, report_stop
from dipy_dl_reg.training.loop.losses import TrainingLoss
from dipy_dl_reg.training.loop.state import fingerprint, plain
from dipy_dl_reg.training.loop.trainer import Training
from dipy_dl_reg.training.training_set import INTENSITY, as_pairs


def train_network(
    network, pairs, *, steps, batch_size=1, metric="NCC", regularizer="diffusion",
    weight=0.1, dice_weight=0.0, learning_rate=1e-4, amsgrad=False, schedule=None,
    validation=None, validate_every=100, patience=None, augment=None, seed=0,
    device=None, workers=0, mixed_precision=None, checkpoint=None,
    checkpoint_every=500, resume=False, time_limit=None, log=None, progress=None,
    card=None,
):  # fmt: skip
    """Train a network on pairs of images.

    Started by ``torchrun``, all its processes train together, each on its part of
    every step; on the CPU a resumed training gives the very numbers of one that was
    not interrupted.

    Parameters
    ----------
    network : RegistrationNetwork
        Trained in place, and in evaluation mode afterwards.
    pairs : array, sequence or pairs
        Images of shape ``(N, *shape)``, of which any two make a pair; a list of
        (static, moving), one is enough; or an object of
        `dipy_dl_reg.training.training_set`.
    steps : int
        Updates of the weights, those before an interruption included.
    batch_size : int, optional
        Pairs per step and process.
    metric, regularizer, weight, dice_weight : optional
        The loss, see `TrainingLoss`.
    learning_rate : float, optional
        Of Adam :footcite:p:`Kingma2015`.
    amsgrad : bool, optional
        Divide by the largest second moment so far :footcite:p:`Reddi2018`.
    schedule : {None, "cosine"}, optional
        The learning rate stays, or goes down to 0 along half a cosine.
    validation : array, sequence or pairs, optional
        Like `pairs`, of images that are not trained on; at most 100 pairs of them are
        used.  The network ends with the weights that were best on them.
    validate_every : int, optional
        Steps between rows of the log, and validations.
    patience : int, optional
        Validations without a new best one after which training stops.
    augment : callable, optional
        ``augment(example, generator) -> example``, such as `Augment`.
    seed : int, optional
        Determines all examples.  The weights that a network begins with are drawn
        before, from Torch's global generator.
    device : torch.device or str, optional
        Where to train; by default where the network is.
    workers : int, optional
        Processes that prepare examples; the examples stay the same.
    mixed_precision : bool, optional
        Run the network in bfloat16 and all else in float32; by default on CUDA.
    checkpoint : str or Path, optional
        File for the network and the training's state; `load_network` reads it.  On
        several machines it must be one that all see.
    checkpoint_every : int, optional
        Steps between checkpoints; the last is written at the end, or where the
        training is interrupted (KeyboardInterrupt).
    resume : bool, optional
        Go on from the checkpoint, if there is one.
    time_limit : float, optional
        Seconds from the call after which training stops, with its checkpoint written:
        when the current step is done, and without the validation that would follow.
    log : str or Path, optional
        A file ``....csv``, or a folder for TensorBoard; a training that is resumed
        writes all its rows anew.
    progress : bool, optional
        Show a progress bar; by default if the output is a terminal, and where it is
        none a line of the log every minute.
    card : dict, optional
        What the file is to say about the network, see `save_network`; how far the
        training came, its best validation and the scaling of intensities are added.

    Returns
    -------
    history : History
        How it went.

    Raises
    ------
    ValueError
        If an option is out of range, the images are unfit, or a resumed training has
        other settings or images than the interrupted one.
    FileExistsError
        If the checkpoint or the log exists and `resume` is not set.
    ImportError
        If the log is a folder and TensorBoard is not installed.
    RuntimeError
        If the loss is not finite; the last checkpoint stays.

    References
    ----------
    .. footbibliography::
    """
    given, limit = dict(locals()), TimeLimit(time_limit)
    if not isinstance(network, RegistrationNetwork):
        raise ValueError(
            f"network must be a RegistrationNetwork, got {type(network).__name__}."
        )
    check_options(given)
    loss = TrainingLoss(metric, regularizer, weight=weight, dice_weight=dice_weight)
    pairs = as_pairs(pairs)
    validation = None if validation is None else as_pairs(validation)
    if loss.dice_weight and validation is not None:
        _check_labels(validation[0])
    group = join(next(network.parameters()).device if device is None else device)
    settings = {
        "architecture": network.name, "arguments": network.arguments, "seed": seed,
        "pairs": len(pairs), "batch": batch_size * group.size, **loss.settings(),
        "learning_rate": learning_rate, "amsgrad": amsgrad, "schedule": schedule,
        "augment": augment, "validate_every": validate_every,
        "validation": 0 if validation is None else len(validation),
        "mixed_precision": mixed_precision,
        "images": fingerprint(pairs),
        "validation images": None if validation is None else fingerprint(validation),
    }  # fmt: skip
    scaled = INTENSITY if getattr(pairs, "scaled", False) else "as the pairs gave them"
    if schedule is not None:
        settings["steps"] = steps
    training = Training(
        network, loss, group, settings=plain(settings), batch_size=batch_size,
        validation=validation,
        card={"preprocessing": {"intensity": scaled}, **(card or {})},
    )  # fmt: skip
    if checkpoint is not None:
        network_header(network, training.card)
        if resume and Path(checkpoint).exists():
            training.restore(checkpoint)
    batches = Batches(
        pairs, batch_size, seed=seed, augment=augment, rank=group.rank, size=group.size
    )
    with Log(
        log if group.leads else None, steps=steps, done=training.progress.step,
        rows=training.progress.rows, progress=progress if group.leads else False,
        limit=limit,
    ) as lines:  # fmt: skip
        history = training.run(
            batches, steps=steps, workers=workers, validate_every=validate_every,
            patience=patience, limit=limit, log=lines, checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
        )  # fmt: skip
    if group.leads:
        report_stop(history, steps, resumable=checkpoint is not None)
    return history


def check_options(options):
    """Raise what a training with these options would begin with, before any work.

    Parameters
    ----------
    options : dict
        All arguments of `train_network` but the network and the pairs, by their names;
        of "validation" it only matters whether it is None.

    Raises
    ------
    ValueError, FileExistsError, ImportError
        As `train_network` does.
    """
    for name in (
        "steps",
        "batch_size",
        "patience",
        "validate_every",
        "checkpoint_every",
    ):
        if options[name] is not None:
            whole_number(name, options[name], 1)
    whole_number("workers", options["workers"], 0)
    rate, limit = options["learning_rate"], options["time_limit"]
    if not 0 < rate < float("inf"):
        raise ValueError(f"learning_rate must be above 0, got {rate!r}.")
    if options["schedule"] not in (None, "cosine"):
        raise ValueError(
            f"schedule must be None or 'cosine', got {options['schedule']!r}."
        )
    if options["patience"] is not None and options["validation"] is None:
        raise ValueError("patience needs validation pairs, got none.")
    if limit is not None and not limit > 0:
        raise ValueError(f"time_limit must be above 0 s, got {limit!r}.")
    loss = ("metric", "regularizer", "weight", "dice_weight")
    TrainingLoss(**{name: options[name] for name in loss})
    _check_files(*(options[name] for name in ("checkpoint", "resume", "log")))


def _check_labels(example):
    """Raise now what the first validation would, perhaps hours later."""
    if example.static_labels is None or example.moving_labels is None:
        raise ValueError("dice_weight is above 0, and validation has no labels.")


def _check_files(checkpoint, resume, log):
    """Whether files can be written, before any work."""
    check_log(log, overwrite=resume)
    if checkpoint is None:
        if resume:
            raise ValueError("resume needs a checkpoint to go on from, got none.")
        return
    if Path(checkpoint).exists() and not resume:
        raise FileExistsError(
            f"checkpoint {checkpoint} exists; resume=True goes on from it."
        )
    Path(checkpoint).parent.mkdir(parents=True, exist_ok=True)
