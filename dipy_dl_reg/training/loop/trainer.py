"""The training loop: one process or many, interrupted or not, with the same result.

A pair goes into the network, which gives a field; moving is sampled through it and
compared with static; the gradient of that and of the field's roughness goes back to the
weights; again with the next pairs.
"""

from contextlib import contextmanager, nullcontext
import math
import random
import signal
import threading
from typing import NamedTuple

import torch

from dipy_dl_reg.networks.checkpoint import CARD
from dipy_dl_reg.training.examples import SINGLE
from dipy_dl_reg.training.loop.batches import collate, to_device
from dipy_dl_reg.training.loop.losses import LossTerms
from dipy_dl_reg.training.loop.state import Progress, copy_of, read_state, write_state

#: Of more validation pairs than this, so many are picked, the same each time.
_VALIDATION_PAIRS = 100


class History(NamedTuple):
    """How a training went.

    Attributes
    ----------
    steps : int
        Steps done, those of an interrupted training before included.
    rows : list of dict
        The log: every so many steps, the means of the loss's terms since the row
        before, the learning rate, and the loss on the validation pairs, which the
        last row lacks if the time was over.
    best : float or None
        Least loss on the validation pairs, which is that of the network returned; None
        if there was no validation.
    stopped : {"steps", "patience", "time"}
        Why it ended: all steps done, no progress in validation, or time used up.
    """

    steps: int
    rows: list
    best: float | None
    stopped: str


class Training:
    """A network, its optimiser, and how far they are.

    Parameters
    ----------
    network : RegistrationNetwork
        Trained in place.
    loss : TrainingLoss
        What is minimised.
    group : Group
        The processes that train together.
    settings : dict
        All that determines the result, as `train_network` collects it.
    batch_size : int
        Validation pairs at a time.
    validation : pairs, optional
        See `train_network`.
    card : dict, optional
        See `train_network`.
    """

    def __init__(
        self, network, loss, group, *, settings, batch_size, validation=None, card=None
    ):
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
        self.progress, self.best = Progress(), None
        group.spread(network.state_dict().values())

    def restore(self, path):
        """Go on from a checkpoint.

        Parameters
        ----------
        path : str or Path
            With the same settings.
        """
        self.progress, self.best = read_state(
            path, self.network, self.adam, settings=self.settings
        )

    def run(
        self, batches, *, steps, log, limit, workers=0, validate_every=100,
        patience=None, checkpoint=None, checkpoint_every=500,
    ):  # fmt: skip
        """Train.

        Parameters
        ----------
        batches : Batches
            What is trained on.
        steps : int
            See `train_network`, as for all others.
        log : Log
            Open.
        limit : TimeLimit
            When to stop.
        workers, validate_every, patience : optional
            See `train_network`.
        checkpoint, checkpoint_every : optional
            See `train_network`.

        Returns
        -------
        history : History
            How it went.
        """
        progress, device, self.limit = self.progress, self.group.device, limit
        self.network.train()
        # A validation that the time limit cut off before this training was resumed.
        owed = progress.step and progress.step % validate_every == 0
        owed = owed and (not progress.rows or progress.rows[-1]["step"] < progress.step)
        late = bool(owed) and not self._note(log)
        first = steps if late or self._exhausted(patience) else progress.step
        drawn = batches.steps(first, steps, workers=workers, device=device)
        try:
            for batch in drawn:
                with _undivided():
                    loss, late = self._step(batch, late=limit.exceeded())
                    log.step(loss)
                    if progress.step % validate_every == 0:
                        late = not self._note(log) or late
                    if checkpoint is not None and progress.step % checkpoint_every == 0:
                        self._save(checkpoint, latest=self.best is None)
                if late or self._exhausted(patience):
                    break  # before the next batch is drawn
        except KeyboardInterrupt:
            if checkpoint is not None and progress.step:
                self._save(checkpoint, latest=self.best is None)
            raise
        stopped = "steps"
        if progress.step < steps:
            stopped = "time" if late else "patience"
        return self._finished(stopped, log, checkpoint)

    def _exhausted(self, patience):
        """Whether validation has been without progress for too long."""
        return patience is not None and self.progress.stale >= patience

    def _step(self, batch, *, late):
        """Update the weights once; the loss, and if time is over for any process."""
        for group in self.adam.param_groups:
            group["lr"] = self._rate(self.progress.step)
        self.adam.zero_grad()
        terms = self._terms(batch)
        terms.total.backward()
        told = torch.stack([*(x.detach() for x in terms), terms.total.new_tensor(late)])
        parameters = self.network.parameters()
        self.group.average([p.grad for p in parameters if p.grad is not None] + [told])
        *values, late = told.tolist()
        self.adam.step()
        self.progress.step += 1
        self.progress.sums = [a + b for a, b in zip(self.progress.sums, values)]
        return values[LossTerms._fields.index("total")], late > 0

    def _rate(self, step):
        """Learning rate of a step, counted from 0."""
        rate = self.settings["learning_rate"]
        if self.settings["schedule"] is None:
            return rate
        return rate * 0.5 * (1 + math.cos(math.pi * step / self.settings["steps"]))

    def _terms(self, batch):
        """The loss of a batch."""
        precision = nullcontext()
        if self.mixed_precision:
            precision = torch.autocast(self.group.device.type, torch.bfloat16)
        with precision:
            prediction = self.network(batch.static, batch.moving)
        terms = self.loss(prediction, batch, self.network.level_weights)
        fields = prediction.displacement, *prediction.coarse
        told = torch.stack([terms.total, *(u.sum() for u in fields)]).detach()
        # Before the way back: sampling at NaN passes there, but its gradient can end
        # the process.
        if not all(map(math.isfinite, told.tolist())):
            raise RuntimeError(
                f"The loss is not finite after {self.progress.step} steps; a lower "
                "learning_rate or a larger weight may help. The last checkpoint stays."
            )
        return terms

    def _row(self):
        """A row of the log: means since the last one, and the validation."""
        progress = self.progress
        before = progress.rows[-1]["step"] if progress.rows else 0
        means = [x / (progress.step - before) for x in progress.sums]
        row = {"step": progress.step, **dict(zip(LossTerms._fields, means))}
        row["learning_rate"] = self._rate(progress.step - 1)
        validation = None if self.validation is None else self._validated()
        return row if validation is None else {**row, "validation": validation}

    def _note(self, log):
        """Add a row, and keep the weights if they are the best so far.

        If time is over before the validation ends, nothing changes, and False is
        returned: a training that goes on begins with that row.
        """
        progress, row = self.progress, self._row()
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
            self.best = copy_of(self.network.state_dict())
        return True

    def _validated(self):
        """Mean loss over the validation pairs, shared out among the processes.

        None if time is over for any of them before it is known.
        """
        chosen = range(len(self.validation))
        if len(chosen) > _VALIDATION_PAIRS:
            chosen = sorted(random.Random(0).sample(chosen, _VALIDATION_PAIRS))
        mine, late = chosen[self.group.rank :: self.group.size], False
        total = torch.zeros(1, **SINGLE)
        self.network.eval()
        for first in range(0, len(mine), self.batch_size):
            late = self.limit.exceeded()
            if late:
                break
            some = [self.validation[i] for i in mine[first : first + self.batch_size]]
            with torch.no_grad():
                terms = self._terms(to_device(collate(some), self.group.device))
            total += len(some) * terms.total.cpu()
        self.network.train()
        shared = torch.cat([total, total.new_tensor([late])]).to(self.group.device)
        self.group.average([shared])
        total, late = shared.tolist()
        return None if late else total * self.group.size / len(chosen)

    def _save(self, path, *, latest, card=None):
        """Write a checkpoint whose weights for use are the latest, or the best."""
        card = self._told(None, self.progress.best) if card is None else card
        if self.group.leads:
            write_state(
                path, self.network, self.adam, self.progress, best=self.best,
                use_best=not latest, settings=self.settings, card=card,
            )  # fmt: skip

    def _told(self, stopped, best):
        """The card, with how far it came, and why it stopped if it did."""
        recipe, scores = self.card["recipe"], self.card["scores"]
        if isinstance(recipe, dict):
            recipe = {**recipe, "steps": self.progress.step, "stopped": stopped}
        if scores is None and best is not None:
            scores = {"validation loss": best}
        return {**self.card, "recipe": recipe, "scores": scores}

    def _finished(self, stopped, log, checkpoint):
        """End with the best weights, those of the last step tried too.

        The row that is added for that is no part of the checkpoint, so that a longer
        training can go on as if it had not stopped here.
        """
        progress = self.progress
        rows, best, latest = list(progress.rows), progress.best, self.best is None
        if not rows or rows[-1]["step"] < progress.step:
            rows.append(self._row())
            log.row(rows[-1])
            last = rows[-1].get("validation")
            if last is not None and (best is None or last < best):
                best, latest = last, True
        self.card = self._told(stopped, best)
        if checkpoint is not None:
            self._save(checkpoint, latest=latest, card=self.card)
            self.group.wait()
        if not latest:
            self.network.load_state_dict(self.best)
        self.network.eval()
        self.network.card = self.card
        return History(progress.step, rows, best, stopped)


@contextmanager
def _undivided():
    """Put off an interruption (Ctrl-C) until a step is done, with all it changes."""
    before, came = signal.getsignal(signal.SIGINT), []
    main = threading.current_thread() is threading.main_thread()
    if not main or not callable(before):
        yield
        return
    signal.signal(signal.SIGINT, lambda *about: came.append(about))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        before(*came[0])
