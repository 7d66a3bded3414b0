"""What a training tells while it runs: rows in a file, events, a bar."""

import csv
from pathlib import Path

from tqdm.auto import tqdm


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
        Show a bar; by default if the output is a terminal.

    Raises
    ------
    ImportError
        If a folder is given and TensorBoard is not installed.
    """

    def __init__(self, path=None, *, steps, done=0, rows=(), progress=None):
        self.file = self.events = None
        if path is not None:
            self._open(Path(path), done)
        for row in rows:
            self._line(row)
        disable = None if progress is None else not progress
        self.bar = tqdm(total=steps, initial=done, disable=disable, unit="step")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()
        if self.events is not None:
            self.events.close()
        if self.file is not None:
            self.file.close()

    def step(self):
        """One step is done."""
        self.bar.update()

    def row(self, row):
        """Add a row.

        Parameters
        ----------
        row : dict
            Numbers by their names, "step" among them, the same names each time.
        """
        self._line(row)
        for name, value in row.items():
            if self.events is not None and name != "step":
                self.events.add_scalar(name, value, row["step"])
        shown = ("total", "validation")
        self.bar.set_postfix({k: f"{row[k]:.4g}" for k in shown if k in row})

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
