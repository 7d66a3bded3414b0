"""The exit codes of the commands, the errors behind them, and what is shown of errors.

A workflow raises `ValueError` or another error of `ERRORS` if it fails, `UsageError` if
the options cannot be used together, and `PartialFailure` if it has finished what could
be done of many inputs.  `exit_with_code` shows the error in one line and ends the
process with the code.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import signal
import sys
import threading
import traceback
from typing import Any, NoReturn

#: Meanings of the exit codes, for the help.
EXIT_CODES = {
    0: "all is done, or there was nothing to do",
    1: "failed, or all of many inputs failed; what failed is not written",
    2: "wrong usage: an option is unknown, missing, or has a wrong value",
    3: "some of many inputs failed, and the others are done",
    130: "interrupted by Ctrl-C; nothing is left half written (kill: 143)",
}
#: Errors of inputs, options and the machine, which an error message explains fully.
ERRORS = (ValueError, OSError, ImportError, MemoryError, RuntimeError, EOFError)


class UsageError(ValueError):
    """Options of a command that are wrong: exit code 2."""


class PartialFailure(Exception):
    """Some of many inputs failed, and the others are done: exit code 3.

    If none is done, a workflow raises a RuntimeError instead: exit code 1.
    """


class CommandExit(SystemExit):
    """The end of a command that did not succeed.

    Parameters
    ----------
    code : int
        The exit code.
    text : str
        The error in one line, with the name of the command.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code)
        self.text = text

    def __str__(self) -> str:
        return self.text


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Make a ValueError of options a `UsageError`, before any file is read.

    Yields
    ------
    None

    Raises
    ------
    UsageError
        With the text of the ValueError.
    """
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


@contextlib.contextmanager
def exit_with_code(name: str, *, is_verbose: Any) -> Iterator[None]:
    """Show an error in one line, and end the process with its code.

    Parameters
    ----------
    name : str
        Name of the command.
    is_verbose : callable
        Says whether the traceback is shown, too.

    Yields
    ------
    None

    Raises
    ------
    CommandExit
        Instead of any other error.
    """
    try:
        with _raise_on_signals():
            yield
    except KeyboardInterrupt:
        _exit(130, f"{name}: interrupted")
    except Exception as error:
        if is_verbose() and not isinstance(error, UsageError):
            traceback.print_exception(error)
        _exit(find_code(error), f"{name}: error: {format_error(error)}")


def _exit(code: int, text: str) -> NoReturn:
    """Show a line on the terminal, and end the process."""
    print(text, file=sys.stderr)
    raise CommandExit(code, text) from None


def find_code(error: BaseException) -> int:
    """The exit code of an error.

    Parameters
    ----------
    error : BaseException
        The error.

    Returns
    -------
    code : int
        One of `EXIT_CODES`.
    """
    if isinstance(error, UsageError):
        return 2
    return 3 if isinstance(error, PartialFailure) else 1


def format_error(error: BaseException) -> str:
    """Format an error as one line.

    Parameters
    ----------
    error : BaseException
        The error.

    Returns
    -------
    text : str
        Its message.  Of an error that is not one of `ERRORS`, which is a fault of the
        program, also its type and how the place is found.
    """
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if isinstance(error, (*ERRORS, PartialFailure)):
        return text or kind
    where = "; this is a fault of the program, and --verbose shows its place"
    return f"{kind}: {text}{where}" if text else f"{kind}{where}"


@contextlib.contextmanager
def _raise_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit, so that temporary files are removed."""
    before: dict[int, Any] = {}

    def leave(number: int, frame: object) -> NoReturn:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # do not interrupt the clean-up
        raise SystemExit(128 + number)

    numbers = [getattr(signal, n, None) for n in ("SIGTERM", "SIGHUP")]
    if threading.current_thread() is threading.main_thread():
        for number in filter(None, numbers):
            if signal.getsignal(number) == signal.SIG_DFL:  # nohup sets SIG_IGN
                before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
