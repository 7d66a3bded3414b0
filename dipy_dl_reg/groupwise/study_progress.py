"""Shows how many subjects of a study are finished, while other processes work.

The engines return all results together at the end.  Therefore each process leaves an
empty file for each subject that it has finished, and a thread counts these files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
import contextvars
from pathlib import Path
import shutil
import tempfile
import threading

from dipy_dl_reg.progress import Progress

#: Seconds between two counts.
_PAUSE = 1.0


def mark_finished(folder: Path | None, name: str) -> None:
    """Leave a file for a subject that is finished, done or failed.

    Parameters
    ----------
    folder : Path or None
        Folder of these files; None leaves no file.
    name : str
        Name of the subject.
    """
    if folder is not None:
        with suppress(OSError):  # nothing but the display depends on it
            (folder / name).touch()


@contextmanager
def watch_progress(folder: Path, total: int) -> Iterator[Path]:
    """Show the progress of a study, as `dipy_dl_reg.progress` says, in a block.

    Parameters
    ----------
    folder : Path
        A folder that all processes see.
    total : int
        Number of subjects.

    Yields
    ------
    marks : Path
        The folder for `mark_finished`; it is removed at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marks, ended = Path(tempfile.mkdtemp(dir=folder)), threading.Event()
    with Progress("Cohort", total, unit="subject") as progress:

        def watch() -> None:
            while not ended.wait(_PAUSE):
                _count(marks, progress)

        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(watch,), daemon=True)
        thread.start()
        try:
            yield marks
        finally:
            ended.set()
            thread.join()
            _count(marks, progress)
            shutil.rmtree(marks, ignore_errors=True)


def _count(marks: Path, progress: Progress) -> None:
    """Count the subjects that are finished."""
    finished = len(list(marks.iterdir()))
    for _ in range(finished - progress.done):
        progress.update()
