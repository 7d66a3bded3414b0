"""The log of a command: its options, and where it goes.

DIPY's `run_flow` takes `--log_level` and `--log_file`, and sets up the root logger,
to which DIPY's own logger does not pass anything on. Here that logger is set up, for as
long as a workflow runs.
"""

import argparse
import contextlib
import logging
from pathlib import Path
import sys
import warnings

from dipy.utils.logging import logger

LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG", "NOTSET")


class _Keep(argparse.Action):
    """Keeps an option's value in a dict, and out of what a workflow is given."""

    def __init__(self, option_strings, dest, *, kept, **options):
        super().__init__(option_strings, dest, **options)
        self.kept = kept

    def __call__(self, parser, namespace, values, option_string=None):
        """Keep the value; True for a switch."""
        name = self.option_strings[0].lstrip("-")
        self.kept[name] = True if self.nargs == 0 else values


class LogOptions:
    """Options of a command's log.

    Attributes
    ----------
    kept : dict
        The options that were given: `log_level`, `log_file`, `quiet`, `verbose`.
    """

    def __init__(self):
        self.kept = {}

    @property
    def quiet(self):
        """Whether the terminal shows warnings, errors and the last line only."""
        return self.kept.get("quiet", False)

    @property
    def verbose(self):
        """Whether every step is wanted."""
        return self.kept.get("verbose", False) or self.level < logging.INFO

    @property
    def level(self):
        """The level as a number of `logging`."""
        name = str(self.kept.get("log_level") or "INFO").upper()
        if name not in LEVELS:
            raise ValueError(
                f"log_level must be one of {', '.join(LEVELS)}, got {name}"
            )
        level = getattr(logging, name)
        return min(level, logging.DEBUG) if self.kept.get("verbose") else level

    def arguments(self):
        """The options, as `run_flow` takes further arguments.

        Returns
        -------
        arguments : dict of dict
            Arguments of `argparse.ArgumentParser.add_argument` by option.
        """
        text = {"action": _Keep, "kept": self.kept, "metavar": "string"}
        switch = {"action": _Keep, "kept": self.kept, "nargs": 0}
        switch |= {"dest": argparse.SUPPRESS, "default": argparse.SUPPRESS}
        return {
            "log_level": {
                **text,
                "dest": "log_level",
                "default": "INFO",
                "help": f"What is logged: {', '.join(LEVELS)} (default: INFO). "
                "DEBUG is as --verbose.",
            },
            "log_file": {
                **text,
                "dest": "log_file",
                "default": "",
                "help": "File to which the log is appended, errors included; --quiet "
                "does not shorten it.",
            },
            "quiet": {
                **switch,
                "help": "Show warnings, errors and the last line only.",
            },
            "verbose": {
                **switch,
                "help": "Show every step, such as the energy of each iteration.",
            },
        }

    @contextlib.contextmanager
    def logging(self, arguments):
        """Log as the options say, warnings of Python included.

        Parameters
        ----------
        arguments : dict
            The workflow's arguments: the log file must be none of its inputs.

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
        if self.quiet and self.kept.get("verbose"):
            raise ValueError("give either --quiet or --verbose, not both")
        level, format_ = (
            self.level,
            "[%(asctime)s][%(name)s] %(levelname)s: %(message)s",
        )
        screen = logging.StreamHandler(sys.stdout)
        if self.quiet:
            screen.addFilter(_is_needed)
        self.file = self._open_file(arguments)
        handlers = [h for h in (screen, self.file) if h is not None]
        for handler in handlers:
            handler.setFormatter(logging.Formatter(format_, "%Y-%m-%d %H:%M:%S"))
        before = logger.handlers[:], logger.level, warnings.showwarning
        others = logging.root.level
        logger.handlers[:] = handlers
        logger.setLevel(level or 1)  # 0 would leave it to the root logger
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

    def _open_file(self, arguments):
        """The handler of the log file; None if there is none."""
        path = self.kept.get("log_file")
        if not path:
            return None
        words = [w if isinstance(w, list) else [w] for w in arguments.values()]
        given = {Path(w).resolve() for ws in words for w in ws if isinstance(w, str)}
        if Path(path).resolve() in given or Path(path).is_dir():
            raise ValueError(f"log_file: {path} is an input or a folder")
        if not Path(path).absolute().parent.is_dir():
            raise FileNotFoundError(f"log_file: the folder of {path} does not exist")
        return logging.FileHandler(path, encoding="utf-8")

    def write_error(self, text):
        """Write an error to the log file; the terminal shows it when the command ends.

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


def _is_needed(record):
    """Whether a line is shown in spite of --quiet."""
    return record.levelno >= logging.WARNING or getattr(record, "result", False)


def _log_warning(message, category, filename, lineno, file=None, line=None):
    """A warning of Python, as a line of the log."""
    logger.warning(" ".join(str(message).split()))
