"""The outputs of a subject: written completely or not at all, and not written twice.

All files of a subject are first written to a staging folder.  When all are there, they
are moved to their places, and the record last: it lists all outputs, and the inputs and
options they were made from.  A subject is done if its record fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
import json
import os
from pathlib import Path
import shutil
from typing import Any

from filelock import FileLock, Timeout

from dipy_dl_reg.groupwise.provenance import write_json

#: Folder for locks and staging in the folder of the outputs.
HIDDEN = ".cohort"


class SubjectFolder:
    """The places of a subject's outputs.

    Parameters
    ----------
    out_dir : str or Path
        Folder of all outputs.
    name : str
        Name of the subject.
    record : Path
        Its record, relative to `out_dir`.
    """

    def __init__(self, out_dir: str | os.PathLike, name: str, record: Path) -> None:
        self.out_dir = Path(out_dir)
        self.record = self.out_dir / record
        # The record's name tells apart the spaces of several templates.
        key = record.name.removesuffix(".json")
        self.staging = self.out_dir / HIDDEN / "staging" / key
        self._lock = self.out_dir / HIDDEN / "locks" / f"{key}.lock"
        self.name = name

    @contextmanager
    def lock(self, *, wait: bool) -> Iterator[bool]:
        """Exclude other processes from this subject.

        Parameters
        ----------
        wait : bool
            Wait until no other process works on the subject.

        Yields
        ------
        locked : bool
            False if another process works on it, and `wait` is False.
        """
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock)
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def read_record(self) -> dict[str, Any] | None:
        """Read the record of a subject that was done.

        Returns
        -------
        record : dict or None
            None if there is no record, or not all its outputs are complete.
        """
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            outputs = dict(record["Outputs"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        complete = all(
            (self.out_dir / path).is_file()
            and (self.out_dir / path).stat().st_size == size
            for path, size in outputs.items()
        )
        return record if complete else None

    def clear(self) -> None:
        """Remove the outputs of an earlier run, and what an interrupted run left."""
        shutil.rmtree(self.staging, ignore_errors=True)
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(self.record.read_text(encoding="utf-8"))
            self.record.unlink()  # first: without it, the subject is not done
            for path in record["Outputs"]:
                (self.out_dir / path).unlink(missing_ok=True)

    def stage(self, path: Path) -> Path:
        """Name the place where an output is first written.

        Parameters
        ----------
        path : Path
            The output, relative to the folder of all outputs.

        Returns
        -------
        staged : Path
            A path in the staging folder; its folder is made.
        """
        staged = self.staging / path
        staged.parent.mkdir(parents=True, exist_ok=True)
        return staged

    def publish(self, paths: Iterable[Path], record: Mapping[str, Any]) -> None:
        """Move all outputs to their places, and write the record.

        Parameters
        ----------
        paths : iterable of Path
            The outputs, relative to the folder of all outputs.
        record : mapping
            The record; the sizes of all outputs are added.
        """
        paths = list(paths)
        sizes = {str(path): (self.staging / path).stat().st_size for path in paths}
        for path in paths:
            target = self.out_dir / path
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.staging / path, target)
        write_json(self.record, {**record, "Outputs": sizes}, overwrite=True)
        shutil.rmtree(self.staging, ignore_errors=True)
