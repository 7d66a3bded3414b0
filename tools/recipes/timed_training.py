"""Training in pieces of a few minutes, on a device that is lent for a limited time.

The learning rate is a function of the time that all pieces together have used, not of
the number of steps, so that it ends at zero when the time is used up. Every checkpoint
is a few files of less than 16 MiB, from which the next piece continues.
"""

from copy import deepcopy
import csv
import json
import math
from pathlib import Path
import time

import torch

#: Rate at which the mean of the weights follows the weights, and the number of steps
#: in which the learning rate rises from zero.
_FOLLOW, _RISE = 0.999, 200
#: Largest norm of a gradient.
_LONGEST = 1.0


class TimedTraining:
    """A network, the running mean of its weights, its optimizer and its log.

    Parameters
    ----------
    network : torch.nn.Module
        On its device.
    learning_rate : float
        Its highest value.
    seconds : float
        Duration of the whole training, in all pieces.
    """

    def __init__(self, network, *, learning_rate, seconds):
        self.network, self.mean = network, deepcopy(network).requires_grad_(False)
        self.adam = torch.optim.AdamW(
            network.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-4
        )
        self.learning_rate, self.seconds = learning_rate, seconds
        self.step, self.elapsed, self.rows = 0, 0.0, []

    def run(self, loss_of, *, limit, folder, validate=None, every=60.0):
        """Train until `limit` seconds of this piece or all seconds are used.

        ``loss_of(step)`` returns a dict of scalars, of which "loss" is minimized;
        ``validate(mean_network)`` returns a dict of numbers, every `every` seconds.
        """
        begin = last = time.monotonic()
        before, sums, count = self.elapsed, {}, 0
        while True:
            self._set_rate()
            terms = loss_of(self.step)
            self._update(terms["loss"])
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach()
            count, now = count + 1, time.monotonic()
            self.elapsed = before + now - begin
            over = now - begin >= limit or self.elapsed >= self.seconds
            if over or now - last >= every:
                means = {name: float(total) / count for name, total in sums.items()}
                self._report(means, validate)
                self.save(folder)
                sums, count, last = {}, 0, time.monotonic()
            if over or time.monotonic() - begin >= limit:
                return

    def _set_rate(self):
        """Rise, then follow half a cosine of the elapsed time."""
        part = min(1.0, self.elapsed / self.seconds)
        rate = self.learning_rate * (1 + math.cos(math.pi * part)) / 2
        self.adam.param_groups[0]["lr"] = rate * min(1.0, (self.step + 1) / _RISE)

    def _update(self, loss):
        """One step of the optimizer; one with an infinite gradient is left out."""
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), _LONGEST)
        finite = torch.isfinite(norm)
        for weight in self.network.parameters():
            if weight.grad is not None:
                weight.grad.nan_to_num_(0, 0, 0).mul_(finite)
        self.adam.step()
        self.step += 1
        follow = min(_FOLLOW, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = list(zip(self.mean.parameters(), self.network.parameters()))
            torch._foreach_lerp_(
                [m for m, _ in pairs], [w for _, w in pairs], 1 - follow
            )

    def _report(self, means, validate):
        """Add a row to the log and print it."""
        row = {"step": self.step, "seconds": round(self.elapsed, 1)} | means
        if validate is not None:
            with torch.no_grad():
                row |= validate(self.mean.eval())
        self.rows.append(row)
        words = (f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}"
                 for k, v in row.items())  # fmt: skip
        print(" ".join(words), flush=True)

    def save(self, folder):
        """Write the checkpoint: weights, their mean, the optimizer, and the log."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        moments = [
            (s["exp_avg"].bfloat16(), s["exp_avg_sq"].bfloat16())
            for s in (self.adam.state[w] for w in self.network.parameters())
            if s
        ]
        parts = {
            "weights": self.network.state_dict(),
            "mean": self.mean.state_dict(),
            "moments": moments,
        }
        for name, part in parts.items():
            temporary = folder / f".{name}.part"
            torch.save(part, temporary)
            temporary.replace(folder / f"{name}.pt")
        state = {"step": self.step, "elapsed": self.elapsed, "rows": self.rows}
        (folder / "state.json").write_text(json.dumps(state))

    def load(self, folder):
        """Continue from a checkpoint; return whether there is one."""
        folder = Path(folder)
        if not (folder / "state.json").exists():
            return False
        state = json.loads((folder / "state.json").read_text())
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.rows = state["rows"]
        device = next(self.network.parameters()).device
        parts = {
            name: torch.load(folder / f"{name}.pt", map_location=device)
            for name in ("weights", "mean", "moments")
        }
        self.network.load_state_dict(parts["weights"])
        self.mean.load_state_dict(parts["mean"])
        for weight, (first, second) in zip(self.network.parameters(), parts["moments"]):
            self.adam.state[weight] = {
                "step": torch.tensor(float(self.step)),
                "exp_avg": first.float(),
                "exp_avg_sq": second.float(),
            }
        return True

    def write_log(self, path):
        """Write the log as CSV."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        with Path(path).open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)
