"""The training loop.

In each step the network predicts the field of a pair, moving is warped by this field
and compared with static, and Adam updates the weights by the gradient of the loss.  The
result does not depend on the number of processes or on interruptions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
import math
from pathlib import Path
import random
import signal
import threading
from typing import Any, NamedTuple

import torch

from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.checkpoint import CARD
from dipy_dl_reg.training.examples import SINGLE
from dipy_dl_reg.training.loop.batches import Batches, collate, to_device
from dipy_dl_reg.training.loop.clock import TimeLimit
from dipy_dl_reg.training.loop.distributed import Group
from dipy_dl_reg.training.loop.log import Log
from dipy_dl_reg.training.loop.losses import LossTerms, TrainingLoss
from dipy_dl_reg.training.loop.state import (
    Progress,
    copy_state,
    read_state,
    write_state,
)
from dipy_dl_reg.training.training_options import TrainingOptions
from dipy_dl_reg.training.training_set import Example, Pairs

#: Maximum number of validation pairs; if there are more, a fixed subset is used.
_VALIDATION_PAIRS = 100


class History(NamedTuple):
    """History of a training.

    Attributes
    ----------
    steps : int
        Number of steps done, including those before an interruption.
    rows : list of dict
        The log.  Each row has the means of the terms of the loss since the previous
        row, the learning rate, and the loss on the validation pairs.  The last row has
        no validation loss if the time limit was reached.
    best : float or None
        Lowest loss on the validation pairs, which is that of the returned network; None
        if there was no validation.
    stopped : {"steps", "patience", "time"}
        Reason for the end: all steps done, no progress in validation, or time limit.
    """

    steps: int
    rows: list[dict[str, float]]
    best: float | None
    stopped: str


class Training:
    """A network, its optimizer, and the progress of the training.

    Parameters
    ----------
    network : RegistrationNetwork
        Trained in place.
    loss : TrainingLoss
        The function that training minimizes.
    group : Group
        The processes that train together.
    settings : dict
        Everything that determines the result, see `collect_settings`.
    batch_size : int
        Number of validation pairs in a batch.
    validation : pairs, optional
        Pairs that are not trained on.
    card : dict, optional
        Information about the network, see `save_network`.
    """

    def __init__(
        self,
        network: RegistrationNetwork,
        loss: TrainingLoss,
        group: Group,
        *,
        settings: dict[str, Any],
        batch_size: int,
        validation: Pairs | None = None,
        card: dict[str, Any] | None = None,
    ) -> None:
        self.network, self.loss, self.group = network.to(group.device), loss, group
        self.settings, self.batch_size = settings, batch_size
        self.validation = validation
        rate, amsgrad = settings["learning_rate"], settings["amsgrad"]
        self.adam = torch.optim.Adam(network.parameters(), lr=rate, amsgrad=amsgrad)
        self.mixed_precision = settings["mixed_precision"]
        if self.mixed_precision is None:
            cuda = group.device.type == "cuda"
            self.mixed_precision = cuda and torch.cuda.is_bf16_supported()
        known = {"recipe": settings, "scores": None, **(card or {})}
        self.card = CARD | (getattr(network, "card", None) or {}) | known
        self.progress = Progress()
        self.best: dict[str, torch.Tensor] | None = None
        group.broadcast(network.state_dict().values())

    def restore(self, path: str | Path) -> None:
        """Continue from a checkpoint.

        Parameters
        ----------
        path : str or Path
            Checkpoint of a training with the same settings.
        """
        self.progress, self.best = read_state(
            path, self.network, self.adam, settings=self.settings
        )

    def run(
        self,
        batches: Batches,
        options: TrainingOptions,
        *,
        log: Log,
        limit: TimeLimit,
    ) -> History:
        """Train.

        Parameters
        ----------
        batches : Batches
            The training batches.
        options : TrainingOptions
            Options of the loop.
        log : Log
            The log, which must be open.
        limit : TimeLimit
            The time limit.

        Returns
        -------
        history : History
            History of the training.
        """
        progress, self.limit = self.progress, limit
        self.network.train()
        # The time limit may have prevented a validation before this training was
        # resumed.
        late = _lacks_row(progress, options.validate_every) and not self._add_row(log)
        ended = late or _is_out_of_patience(progress, options)
        steps = batches.steps(
            options.steps if ended else progress.step, options.steps,
            workers=options.workers, device=self.group.device,
        )  # fmt: skip
        try:
            for batch in steps:
                with _interruption_put_off():
                    loss, late = self._step(batch, late=limit.exceeded())
                    log.step(loss)
                    if progress.step % options.validate_every == 0:
                        late = not self._add_row(log) or late
                    if progress.step % options.checkpoint_every == 0:
                        self._save(options.checkpoint)
                if late or _is_out_of_patience(progress, options):
                    break  # before the next batch is drawn
        except KeyboardInterrupt:
            if progress.step:
                self._save(options.checkpoint)
            raise
        stopped = "steps"
        if progress.step < options.steps:
            stopped = "time" if late else "patience"
        return self._finish(stopped, log, options.checkpoint)

    def _step(self, batch: Example, *, late: bool) -> tuple[float, bool]:
        """Update the weights once.

        Returns the loss, and whether the time is over for any process.
        """
        for group in self.adam.param_groups:
            group["lr"] = _learning_rate(self.settings, self.progress.step)
        self.adam.zero_grad()
        terms = self._loss_terms(batch)
        terms.total.backward()
        shared = [*(x.detach() for x in terms), terms.total.new_tensor(late)]
        numbers = torch.stack(shared)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        self.group.average([*gradients, numbers])
        *values, any_late = numbers.tolist()
        self.adam.step()
        self.progress.step += 1
        self.progress.sums = [a + b for a, b in zip(self.progress.sums, values)]
        return values[LossTerms._fields.index("total")], any_late > 0

    def _loss_terms(self, batch: Example) -> LossTerms:
        """Terms of the loss of a batch."""
        precision: AbstractContextManager = nullcontext()
        if self.mixed_precision:
            precision = torch.autocast(self.group.device.type, torch.bfloat16)
        with precision:
            prediction = self.network(batch.static, batch.moving)
        terms = self.loss(prediction, batch, self.network.level_weights)
        fields = prediction.displacement, *prediction.coarse
        sums = torch.stack([terms.total, *(u.sum() for u in fields)]).detach()
        # This is checked before the gradient is computed, because the gradient of
        # sampling at NaN can end the process.
        if not all(map(math.isfinite, sums.tolist())):
            raise RuntimeError(
                f"The loss is not finite after {self.progress.step} steps; a lower "
                "learning_rate or a larger weight may help. The last checkpoint stays."
            )
        return terms

    def _make_row(self) -> dict[str, float]:
        """Make a row of the log: means since the last row, and the validation loss."""
        progress = self.progress
        before = progress.rows[-1]["step"] if progress.rows else 0
        means = [x / (progress.step - before) for x in progress.sums]
        row = {"step": progress.step, **dict(zip(LossTerms._fields, means))}
        row["learning_rate"] = _learning_rate(self.settings, progress.step - 1)
        loss = None if self.validation is None else self._validate(self.validation)
        return row if loss is None else {**row, "validation": loss}

    def _add_row(self, log: Log) -> bool:
        """Add a row, and copy the weights if they are the best so far.

        If the time limit is reached before the validation ends, nothing is changed, and
        False is returned: a resumed training begins with this row.
        """
        progress, row = self.progress, self._make_row()
        if self.validation is not None and "validation" not in row:
            return False
        progress.rows.append(row)
        progress.sums = [0.0] * len(progress.sums)
        log.row(row)
        if self.validation is None:
            return True
        progress.stale += 1
        if progress.best is None or row["validation"] < progress.best:
            progress.best, progress.stale = row["validation"], 0
            self.best = copy_state(self.network.state_dict())
        return True

    def _validate(self, pairs: Pairs) -> float | None:
        """Mean loss over the validation pairs, divided among the processes.

        None if the time limit is reached in any process before the end.
        """
        chosen = list(range(len(pairs)))
        if len(chosen) > _VALIDATION_PAIRS:
            chosen = sorted(random.Random(0).sample(chosen, _VALIDATION_PAIRS))
        mine, late = chosen[self.group.rank :: self.group.size], False
        total = torch.zeros(1, **SINGLE)
        self.network.eval()
        for first in range(0, len(mine), self.batch_size):
            late = self.limit.exceeded()
            if late:
                break
            some = [pairs[i] for i in mine[first : first + self.batch_size]]
            with torch.no_grad():
                terms = self._loss_terms(to_device(collate(some), self.group.device))
            total += len(some) * terms.total.cpu()
        self.network.train()
        shared = torch.cat([total, total.new_tensor([late])]).to(self.group.device)
        self.group.average([shared])
        mean, any_late = shared.tolist()
        return None if any_late else mean * self.group.size / len(chosen)

    def _save(self, path: str | Path | None) -> None:
        """Write a checkpoint, if a path is given."""
        if path is not None:
            card = self._complete_card(None, self.progress.best)
            self._write(path, use_best=self.best is not None, card=card)

    def _write(self, path: str | Path, *, use_best: bool, card: dict[str, Any]) -> None:
        """Write a checkpoint; its network has the best or the latest weights."""
        if self.group.leads:
            write_state(
                path, self.network, self.adam, self.progress, best=self.best,
                use_best=use_best, settings=self.settings, card=card,
            )  # fmt: skip

    def _complete_card(self, stopped: str | None, best: float | None) -> dict[str, Any]:
        """The card with the steps done, why the training stopped, and its score."""
        recipe, scores = self.card["recipe"], self.card["scores"]
        if isinstance(recipe, dict):
            recipe = {**recipe, "steps": self.progress.step, "stopped": stopped}
        if scores is None and best is not None:
            scores = {"validation loss": best}
        return {**self.card, "recipe": recipe, "scores": scores}

    def _finish(self, stopped: str, log: Log, checkpoint: str | Path | None) -> History:
        """Validate the weights of the last step, and set the best weights.

        The row that is added here is not part of the checkpoint, so that a longer
        training can be resumed without an effect of this stop.
        """
        progress = self.progress
        rows, best, use_best = list(progress.rows), progress.best, self.best is not None
        if not rows or rows[-1]["step"] < progress.step:
            rows.append(self._make_row())
            log.row(rows[-1])
            last = rows[-1].get("validation")
            if last is not None and (best is None or last < best):
                best, use_best = last, False
        self.card = self._complete_card(stopped, best)
        if checkpoint is not None:
            self._write(checkpoint, use_best=use_best, card=self.card)
            self.group.wait()
        if use_best and self.best is not None:
            self.network.load_state_dict(self.best)
        self.network.eval()
        self.network.card = self.card
        return History(progress.step, rows, best, stopped)


def _learning_rate(settings: dict[str, Any], step: int) -> float:
    """Learning rate of a step, counted from 0."""
    rate = settings["learning_rate"]
    if settings["schedule"] is None:
        return rate
    return rate * 0.5 * (1 + math.cos(math.pi * step / settings["steps"]))


def _lacks_row(progress: Progress, validate_every: int) -> bool:
    """Whether the row of the last step is missing because of the time limit."""
    due = progress.step > 0 and progress.step % validate_every == 0
    return due and (not progress.rows or progress.rows[-1]["step"] < progress.step)


def _is_out_of_patience(progress: Progress, options: TrainingOptions) -> bool:
    """Whether validation has been without progress for too long."""
    return options.patience is not None and progress.stale >= options.patience


@contextmanager
def _interruption_put_off() -> Iterator[None]:
    """Delay an interruption (Ctrl-C) until the current step is complete."""
    before, received = signal.getsignal(signal.SIGINT), []
    main = threading.current_thread() is threading.main_thread()
    if not main or not callable(before):
        yield
        return
    signal.signal(signal.SIGINT, lambda *about: received.append(about))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        before(*received[0])
