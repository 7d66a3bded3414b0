"""The log of a command, on the terminal and in a file; options of the log.

DIPY's `run_flow` configures the root logger, to which DIPY's own logger does not
propagate.  Here DIPY's logger is configured instead, while a workflow runs, and with it
the progress of long computations: bars at a terminal, lines in a log file.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import logging
from pathlib import Path
import sys
from typing import Any
import warnings

from dipy.utils.logging import logger

from dipy_dl_reg.workflows.exit_codes import (
    ERRORS,
    PartialFailure,
    UsageError,
    format_error,
)

LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG", "NOTSET")
#: Options of how much the terminal shows, with their descriptions.
VERBOSITY_HELP = {
    "quiet": "Show warnings, errors and the last line only, and no progress.",
    "verbose": "Show every step, such as the energy of each iteration, and the "
    "traceback of an error.",
}
_FORMAT = "[%(asctime)s][%(name)s] %(levelname)s: %(message)s"


class LogOptions:
    """Options of a command's log.

    Attributes
    ----------
    values : dict
        The options that were given: `log_level`, `log_file`, `quiet`, `verbose`.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.file: logging.FileHandler | None = None

    @property
    def quiet(self) -> bool:
        """Whether the terminal shows warnings, errors and the last line only."""
        return self.values.get("quiet", False)

    @property
    def verbose(self) -> bool:
        """Whether every step is logged, and tracebacks are shown."""
        level = str(self.values.get("log_level") or "INFO").upper()
        return self.values.get("verbose", False) or level in ("DEBUG", "NOTSET")

    @property
    def level(self) -> int:
        """The level, as a number of `logging`."""
        name = str(self.values.get("log_level") or "INFO").upper()
        if name not in LEVELS:
            raise UsageError(
                f"log_level must be one of {', '.join(LEVELS)}, got {name}"
            )
        level = getattr(logging, name)
        return min(level, logging.DEBUG) if self.values.get("verbose") else level

    @contextlib.contextmanager
    def configure(self, arguments: dict[str, Any]) -> Iterator[LogOptions]:
        """Configure the log by the options; Python's warnings are logged, too.

        Parameters
        ----------
        arguments : dict
            Arguments of the workflow; the log file must not be one of its inputs.

        Yields
        ------
        log : LogOptions
            This object.

        Raises
        ------
        UsageError
            If an option is wrong.
        OSError
            If the log file cannot be written.
        """
        from dipy_dl_reg.progress import show_progress

        if self.quiet and self.values.get("verbose"):
            raise UsageError("give either --quiet or --verbose, not both")
        level = self.level
        self.file = self._open_file(arguments)
        handlers: list[logging.Handler] = [_Screen(quiet=self.quiet)]
        if self.file is not None:
            handlers.append(self.file)
        for handler in handlers:
            handler.setFormatter(logging.Formatter(_FORMAT, "%Y-%m-%d %H:%M:%S"))
        before = logger.handlers[:], logger.level, warnings.showwarning
        logger.handlers[:] = handlers
        logger.setLevel(level or 1)  # 0 would mean the level of the root logger
        warnings.showwarning = _log_warning
        lines = True if self.file is not None else None
        try:
            with show_progress(bars=False if self.quiet else None, lines=lines):
                yield self
        finally:
            logger.handlers[:], warnings.showwarning = before[0], before[2]
            logger.setLevel(before[1])
            if self.file is not None:
                self.file.close()

    def _open_file(self, arguments: dict[str, Any]) -> logging.FileHandler | None:
        """The handler of the log file; None if there is no such file."""
        path = self.values.get("log_file")
        if not path:
            return None
        values = [v if isinstance(v, list) else [v] for v in arguments.values()]
        inputs = {Path(v).resolve() for vs in values for v in vs if isinstance(v, str)}
        if Path(path).resolve() in inputs or Path(path).is_dir():
            raise UsageError(f"log_file: {path} is an input or a folder")
        if not Path(path).absolute().parent.is_dir():
            raise FileNotFoundError(f"log_file: the folder of {path} does not exist")
        return logging.FileHandler(path, encoding="utf-8")

    def write_error(self, error: BaseException) -> None:
        """Write an error to the log file; `run_command` shows it on the terminal.

        Parameters
        ----------
        error : BaseException
            The error. Its traceback is written if the command is verbose, or if it is a
            fault of the program.
        """
        if self.file is None:
            return
        interrupted = isinstance(error, KeyboardInterrupt)
        is_fault = not isinstance(error, (*ERRORS, PartialFailure, KeyboardInterrupt))
        trace = (type(error), error, error.__traceback__)
        self.file.handle(
            logger.makeRecord(
                logger.name,
                logging.ERROR,
                __file__,
                0,
                "interrupted" if interrupted else format_error(error),
                (),
                trace if is_fault or self.verbose else None,
            )
        )


class _Screen(logging.StreamHandler):
    """Shows the log on the terminal, above a progress bar if there is one."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(sys.stdout)
        self.quiet = quiet
        self.shows_bars = sys.stderr.isatty()

    def filter(self, record: logging.LogRecord) -> Any:
        """Whether a line is shown: with --quiet, results and warnings are.

        Lines about progress are for the log file if a bar is shown.
        """
        if self.quiet and record.levelno < logging.WARNING:
            return getattr(record, "result", False)
        if self.shows_bars and getattr(record, "progress", False):
            return False
        return super().filter(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, and draw the bar again below it."""
        from tqdm import tqdm

        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def _log_warning(
    message: object,
    category: object,
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    """Log a Python warning."""
    logger.warning(" ".join(str(message).split()))
