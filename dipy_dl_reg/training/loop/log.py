"""Progress of a training: rows of a file, TensorBoard events, progress bar, log."""

from __future__ import annotations

from collections.abc import Sequence
import csv
from pathlib import Path
from typing import Any, TextIO

from dipy_dl_reg.progress import Progress, format_duration
from dipy_dl_reg.training.loop.clock import TimeLimit


class Log:
    """Writes rows to a CSV file, TensorBoard events, and a progress bar.

    Parameters
    ----------
    path : str or Path, optional
        A file ``....csv``; or a folder for TensorBoard's events with ``log.csv`` in
        it.  By default nothing is written.
    steps : int
        Total number of steps, for the bar.
    done : int, optional
        Number of steps that are already done.
    rows : sequence of dict, optional
        Rows of the interrupted training that is resumed: they are written to the file
        first.
    progress : bool, optional
        Show a bar.  By default there is a bar if the output is a terminal, else lines
        of the log (see `dipy_dl_reg.progress`).
    limit : TimeLimit, optional
        Time limit of the training, to show the remaining time.

    Raises
    ------
    ImportError
        If a folder is given and TensorBoard is not installed.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        steps: int,
        done: int = 0,
        rows: Sequence[dict[str, float]] = (),
        progress: bool | None = None,
        limit: TimeLimit | None = None,
    ) -> None:
        self.file: TextIO | None = None
        self.events: Any = None
        if path is not None:
            self._open(Path(path), done)
        for row in rows:
            self._write_row(row)
        self.progress = Progress(
            "Training", steps, done=done, shown=progress, format_line=self._format_line
        )
        self._limit = TimeLimit() if limit is None else limit
        self._losses: list[float] = []
        self._validation = rows[-1].get("validation") if rows else None

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.__exit__(*exception)
        if self.events is not None:
            self.events.close()
        if self.file is not None:
            self.file.close()

    def step(self, loss: float) -> None:
        """Count one step.

        Parameters
        ----------
        loss : float
            Loss of this step.
        """
        self._losses.append(loss)
        self.progress.update()

    def row(self, row: dict[str, float]) -> None:
        """Add a row.

        Parameters
        ----------
        row : dict
            Numbers by their names, "step" among them, the same names each time.
        """
        self._write_row(row)
        self._validation = row.get("validation")
        for name, value in row.items():
            if self.events is not None and name != "step":
                self.events.add_scalar(name, value, row["step"])
        shown = ("total", "validation")
        self.progress.bar.set_postfix({k: f"{row[k]:.4g}" for k in shown if k in row})

    def _format_line(self) -> str:
        """A line of the log: steps done, loss since the last line, time left."""
        progress, left = self.progress, self.progress.seconds_left() or 0.0
        mean = sum(self._losses) / len(self._losses)
        self._losses = []
        text = f"Step {progress.done} of {progress.total}: loss {mean:.4g}"
        if self._validation is not None:
            text += f", validation {self._validation:.4g}"
        if self._limit.left() < left:
            limit = format_duration(self._limit.left())
            return f"{text}; stops at the time limit in {limit}"
        return f"{text}; about {format_duration(left)} left"

    def _open(self, path: Path, done: int) -> None:
        """Open the file of the rows, and that of the events."""
        if _csv_path(path) != path:
            self.events = _event_writer(path, done)
        path = _csv_path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(path, "w", newline="")
        self.table: csv.DictWriter | None = None

    def _write_row(self, row: dict[str, float]) -> None:
        """Write a row to the file, if there is one."""
        if self.file is None:
            return
        if self.table is None:
            self.table = csv.DictWriter(self.file, list(row))
            self.table.writeheader()
        self.table.writerow(row)
        # Write the row at once, so that it can be read during training or after a
        # crash.
        self.file.flush()


def check_log(path: str | Path | None, *, overwrite: bool = False) -> None:
    """Check that a log can be written, before the computation begins.

    Parameters
    ----------
    path : str, Path or None
        As for `Log`.
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
    if _csv_path(path).exists() and not overwrite:
        raise FileExistsError(
            f"log {_csv_path(path)} exists; give another name, or resume that training."
        )


def _csv_path(path: str | Path) -> Path:
    """The file of the rows."""
    path = Path(path)
    return path if path.suffix.lower() == ".csv" else path / "log.csv"


def _summary_writer() -> Any:
    """Import TensorBoard's writer; raise an error if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError(
            "log is a folder for TensorBoard, which is not installed: "
            "pip install 'dipy_dl_reg[tensorboard]', or give a .csv file."
        ) from None
    return SummaryWriter


def _event_writer(folder: Path, done: int) -> Any:
    """Make a writer of events; a resumed training replaces events of repeated steps."""
    return _summary_writer()(str(folder), purge_step=done + 1 if done else None)
