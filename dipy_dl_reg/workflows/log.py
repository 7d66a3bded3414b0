"""The log of a command, on the terminal and in a file; options of the log.

DIPY's `run_flow` has `--log_level` and `--log_file`, and configures the root logger, to
which DIPY's own logger does not propagate.  Here DIPY's logger is configured instead,
while a workflow runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import contextlib
import logging
from pathlib import Path
import sys
from typing import Any
import warnings

from dipy.utils.logging import logger

LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG", "NOTSET")


class _Store(argparse.Action):
    """Stores an option in a dict, so that it is not passed to the workflow."""

    def __init__(
        self, option_strings: Any, dest: str, *, values: dict[str, Any], **options: Any
    ):
        super().__init__(option_strings, dest, **options)
        self.values = values

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: Any = None
    ) -> None:
        """Store the value; True for a flag."""
        name = self.option_strings[0].lstrip("-")
        self.values[name] = True if self.nargs == 0 else values


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
        """Whether every step is logged."""
        return self.values.get("verbose", False) or self.level < logging.INFO

    @property
    def level(self) -> int:
        """The level, as a number of `logging`."""
        name = str(self.values.get("log_level") or "INFO").upper()
        if name not in LEVELS:
            raise ValueError(
                f"log_level must be one of {', '.join(LEVELS)}, got {name}"
            )
        level = getattr(logging, name)
        return min(level, logging.DEBUG) if self.values.get("verbose") else level

    def arguments(self) -> dict[str, dict[str, Any]]:
        """The options as additional arguments of `run_flow`.

        Returns
        -------
        arguments : dict of dict
            By option, arguments of `argparse.ArgumentParser.add_argument`.
        """
        store = {"action": _Store, "values": self.values}
        text = {**store, "metavar": "string"}
        flag = {**store, "nargs": 0}
        flag |= {"dest": argparse.SUPPRESS, "default": argparse.SUPPRESS}
        return {
            "log_level": {
                **text,
                "dest": "log_level",
                "default": "INFO",
                "help": f"Level of the log: {', '.join(LEVELS)} (default: INFO). "
                "DEBUG is the same as --verbose.",
            },
            "log_file": {
                **text,
                "dest": "log_file",
                "default": "",
                "help": "File to which the log is appended, errors included; --quiet "
                "has no effect on it.",
            },
            "quiet": {
                **flag,
                "help": "Show warnings, errors and the last line only.",
            },
            "verbose": {
                **flag,
                "help": "Show every step, such as the energy of each iteration.",
            },
        }

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
        ValueError
            If an option is wrong.
        OSError
            If the log file cannot be written.
        """
        if self.quiet and self.values.get("verbose"):
            raise ValueError("give either --quiet or --verbose, not both")
        level = self.level
        format_ = "[%(asctime)s][%(name)s] %(levelname)s: %(message)s"
        screen = logging.StreamHandler(sys.stdout)
        if self.quiet:
            screen.addFilter(_is_shown_when_quiet)
        self.file = self._open_file(arguments)
        handlers: list[logging.Handler] = [screen]
        if self.file is not None:
            handlers.append(self.file)
        for handler in handlers:
            handler.setFormatter(logging.Formatter(format_, "%Y-%m-%d %H:%M:%S"))
        before = logger.handlers[:], logger.level, warnings.showwarning
        others = logging.root.level
        logger.handlers[:] = handlers
        logger.setLevel(level or 1)  # 0 would mean the level of the root logger
        logging.root.setLevel(max(level, logging.WARNING) if self.quiet else level)
        warnings.showwarning = _log_warning
        try:
            yield self
        finally:
            logger.handlers[:], warnings.showwarning = before[0], before[2]
            logger.setLevel(before[1])
            logging.root.setLevel(others)
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
            raise ValueError(f"log_file: {path} is an input or a folder")
        if not Path(path).absolute().parent.is_dir():
            raise FileNotFoundError(f"log_file: the folder of {path} does not exist")
        return logging.FileHandler(path, encoding="utf-8")

    def write_error(self, text: str) -> None:
        """Write an error to the log file; `run_command` shows it on the terminal.

        Parameters
        ----------
        text : str
            The error.
        """
        if self.file is not None:
            record = logger.makeRecord(
                logger.name, logging.ERROR, __file__, 0, text, (), None
            )
            self.file.handle(record)


def _is_shown_when_quiet(record: logging.LogRecord) -> bool:
    """Whether a line is also shown with --quiet."""
    return record.levelno >= logging.WARNING or getattr(record, "result", False)


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
