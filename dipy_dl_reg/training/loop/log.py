"""Progress of a training: rows in a file, events, a progress bar or lines of a log."""

import csv
import logging
from pathlib import Path
from time import monotonic

from tqdm.auto import tqdm

from dipy_dl_reg.training.loop.clock import TimeLimit

#: DIPY's logger, to which this package writes; by its name, for dipy is not imported
#: here.
_logger = logging.getLogger("dipy")
#: Seconds to the first line where there is no bar, and from one line to the next.
_FIRST_LINE, _NEXT_LINE = 10, 60


class Log:
    """Rows of numbers in a CSV file, as TensorBoard events, and on a progress bar.

    Parameters
    ----------
    path : str or Path, optional
        A file ``....csv``; or a folder for TensorBoard's events with ``log.csv`` in
        it.  By default nothing is written.
    steps : int
        Steps in all, for the bar.
    done : int, optional
        Steps done before.
    rows : sequence of dict, optional
        Rows of the interrupted training that goes on: the file is written anew with
        them.
    progress : bool, optional
        Show a bar.  By default there is a bar if the output is a terminal; else a line
        of the log after 10 s, and every 60 s from then on.
    limit : TimeLimit, optional
        When the training stops, for the time that is left.

    Raises
    ------
    ImportError
        If a folder is given and TensorBoard is not installed.
    """

    def __init__(self, path=None, *, steps, done=0, rows=(), progress=None, limit=None):
        self.file = self.events = None
        if path is not None:
            self._open(Path(path), done)
        for row in rows:
            self._line(row)
        disable = None if progress is None else not progress
        self.bar = tqdm(total=steps, initial=done, disable=disable, unit="step")
        self._lines = progress is None and self.bar.disable
        self._steps, self._first, self._done = steps, done, done
        self._limit = TimeLimit() if limit is None else limit
        self._start, self._losses = monotonic(), []
        self._next_line = self._start + _FIRST_LINE
        self._validation = rows[-1].get("validation") if rows else None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()
        if self.events is not None:
            self.events.close()
        if self.file is not None:
            self.file.close()

    def step(self, loss):
        """One step is done.

        Parameters
        ----------
        loss : float
            Of this step.
        """
        self.bar.update()
        self._done += 1
        self._losses.append(loss)
        if self._lines and monotonic() >= self._next_line:
            self._write_line()

    def row(self, row):
        """Add a row.

        Parameters
        ----------
        row : dict
            Numbers by their names, "step" among them, the same names each time.
        """
        self._line(row)
        self._validation = row.get("validation")
        for name, value in row.items():
            if self.events is not None and name != "step":
                self.events.add_scalar(name, value, row["step"])
        shown = ("total", "validation")
        self.bar.set_postfix({k: f"{row[k]:.4g}" for k in shown if k in row})

    def _write_line(self):
        """How far the training is, as a line of the log."""
        now, steps = monotonic(), self._done - self._first
        left = (now - self._start) / steps * (self._steps - self._done)
        mean = sum(self._losses) / len(self._losses)
        said = f"Step {self._done} of {self._steps}: loss {mean:.4g}"
        if self._validation is not None:
            said += f", validation {self._validation:.4g}"
        if self._limit.left() < left:
            said += f"; stops at the time limit in {_duration(self._limit.left())}"
        else:
            said += f"; about {_duration(left)} left"
        _logger.info(said)
        self._next_line, self._losses = now + _NEXT_LINE, []

    def _open(self, path, done):
        if _table(path) != path:
            self.events = _writer(path, done)
        path = _table(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(path, "w", newline="")
        self.table = None

    def _line(self, row):
        if self.file is None:
            return
        if self.table is None:
            self.table = csv.DictWriter(self.file, list(row))
            self.table.writeheader()
        self.table.writerow(row)
        # Whoever reads along, or finds the training dead, has all that is known.
        self.file.flush()


def check_log(path, *, overwrite=False):
    """Whether a log can be written, before any work.

    Parameters
    ----------
    path : str, Path or None
        As `Log` takes it.
    overwrite : bool, optional
        Whether the file may exist.

    Raises
    ------
    ImportError
        If a folder is given and TensorBoard is not installed.
    FileExistsError
        If there is such a file, or one in the folder.
    """
    if path is None:
        return
    if Path(path).suffix.lower() != ".csv":
        _summary_writer()
    if _table(path).exists() and not overwrite:
        raise FileExistsError(
            f"log {_table(path)} exists; name another, or resume that training."
        )


def report_stop(history, steps, *, resumable):
    """Say in the log why a training ended, and which weights it leaves.

    Parameters
    ----------
    history : History
        How it went.
    steps : int
        Steps that were asked for.
    resumable : bool
        Whether a checkpoint was written.
    """
    done = f"after {history.steps} of {steps} steps"
    if history.best is None:
        kept = "The weights are those of the last step; there was no validation."
    else:
        kept = f"The weights are the best in validation, with loss {history.best:.4g}."
    if history.stopped == "time":
        go_on = " resume goes on from the checkpoint." if resumable else ""
        _logger.warning(f"Stopped by time_limit {done}. {kept}{go_on}")
    elif history.stopped == "patience":
        _logger.info(f"Stopped by patience {done}. {kept}")
    else:
        _logger.info(f"Trained for {history.steps} steps. {kept}")


def _duration(seconds):
    """A time in seconds, minutes or hours, as text."""
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _table(path):
    """The file of the rows."""
    path = Path(path)
    return path if path.suffix.lower() == ".csv" else path / "log.csv"


def _summary_writer():
    """TensorBoard's writer, or how to get it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError(
            "log names a folder, for TensorBoard, which is not installed: "
            "pip install 'dipy_dl_reg[tensorboard]', or name a .csv file."
        ) from None
    return SummaryWriter


def _writer(folder, done):
    """A writer of events; of what a resumed training did twice, the later counts."""
    return _summary_writer()(str(folder), purge_step=done + 1 if done else None)
