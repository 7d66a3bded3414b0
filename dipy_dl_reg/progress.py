"""How much of a long computation is done: a bar at a terminal, lines in the log.

Functions that take long count their steps with `Progress`.  `show_progress` decides for
all of them where that is shown; the commands call it as their options say.  By default
a bar is shown at a terminal; elsewhere, as in a batch job, a line is logged after 10 s,
and one every minute from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
import logging
from time import monotonic
from typing import NamedTuple, TypeVar

from tqdm.auto import tqdm

#: DIPY's logger, to which this package writes; dipy itself is not imported here.
_logger = logging.getLogger("dipy")
#: Seconds to the first line of the log, and between lines.
_FIRST_LINE, _NEXT_LINE = 10, 60
_Item = TypeVar("_Item")


class Display(NamedTuple):
    """Where progress is shown.

    Attributes
    ----------
    bars : bool or None
        Show bars; None shows them at a terminal only.
    lines : bool or None
        Log lines; None logs them where no bar is shown.
    """

    bars: bool | None = None
    lines: bool | None = None


_DEFAULT = Display()
_display: ContextVar[Display] = ContextVar("display", default=_DEFAULT)


@contextmanager
def show_progress(
    *, bars: bool | None = None, lines: bool | None = None
) -> Iterator[None]:
    """Decide where progress is shown by the functions that are called meanwhile.

    Parameters
    ----------
    bars : bool, optional
        Show bars; by default at a terminal only.
    lines : bool, optional
        Log lines; by default where no bar is shown.

    Yields
    ------
    None
    """
    token = _display.set(Display(bars, lines))
    try:
        yield
    finally:
        _display.reset(token)


class Progress(AbstractContextManager):
    """Counts the steps of a computation, and shows how many are done.

    Use it in a ``with`` statement.

    Parameters
    ----------
    text : str
        What is done, such as "Motion correction".
    total : int or None
        Number of steps; None if it is unknown.
    unit : str, optional
        What a step is, in the singular, such as "volume".
    done : int, optional
        Number of steps that are already done.
    shown : bool, optional
        False shows nothing, and True a bar everywhere; by default as `show_progress`
        says.
    format_line : callable, optional
        Makes a line of the log; by default a line says how many steps are done, and
        estimates the time left.

    Attributes
    ----------
    done : int
        Number of steps that are done.

    Examples
    --------
    >>> from dipy_dl_reg.progress import Progress
    >>> with Progress("Interpolation", 3, unit="volume") as progress:
    ...     for volume in range(3):
    ...         progress.update()
    >>> progress.done
    3
    """

    def __init__(
        self,
        text: str,
        total: int | None,
        *,
        unit: str = "step",
        done: int = 0,
        shown: bool | None = None,
        format_line: Callable[[], str] | None = None,
    ) -> None:
        display = _display.get() if shown is None else Display(shown, False)
        self.text, self.total, self.unit, self.done = text, total, unit, done
        self.bar = tqdm(
            total=total,
            initial=done,
            desc=text,
            unit=unit,
            disable=None if display.bars is None else not display.bars,
            leave=False,
        )
        self._lines = self.bar.disable if display.lines is None else display.lines
        self._format_line = format_line or self._describe
        self._first, self._start = done, monotonic()
        self._next_line = self._start + _FIRST_LINE

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def update(self, count: int = 1) -> None:
        """Count steps that have been done.

        Parameters
        ----------
        count : int, optional
            Their number.
        """
        self.done += count
        self.bar.update(count)
        if self._lines and monotonic() >= self._next_line:
            # Commands show the bar instead of these lines at a terminal.
            _logger.info(self._format_line(), extra={"progress": True})
            self._next_line = monotonic() + _NEXT_LINE

    def describe(self, text: str) -> None:
        """Change the text before the number of steps.

        Parameters
        ----------
        text : str
            What is done now.
        """
        self.text = text
        self.bar.set_description(text)

    def seconds_left(self) -> float | None:
        """Estimate the time that the remaining steps take.

        Returns
        -------
        seconds : float or None
            As long per step as until now; None if the number of steps is unknown.
        """
        counted = self.done - self._first
        if self.total is None or not counted:
            return None
        return (monotonic() - self._start) / counted * (self.total - self.done)

    def _describe(self) -> str:
        """A line of the log."""
        units = self.unit if self.total == 1 else f"{self.unit}s"
        if self.total is None:
            return f"{self.text}: {self.done} {units}"
        text = f"{self.text}: {self.done} of {self.total} {units}"
        left = self.seconds_left()
        return text if left is None else f"{text}, about {format_duration(left)} left"


def track(
    items: Iterable[_Item],
    text: str,
    total: int | None,
    *,
    unit: str = "step",
    shown: bool | None = None,
) -> Iterator[_Item]:
    """Pass items on, and show how many have been worked on.

    Parameters
    ----------
    items : iterable
        The items.
    text, total, unit, shown
        As in `Progress`.

    Yields
    ------
    item : object
        Each of the items.  It counts when the next one is asked for.
    """
    with Progress(text, total, unit=unit, shown=shown) as progress:
        for item in items:
            yield item
            progress.update()


def format_duration(seconds: float) -> str:
    """Format a time in seconds, minutes or hours.

    Parameters
    ----------
    seconds : float
        The time.

    Returns
    -------
    text : str
        Such as "45 s", "12 min" or "2 h 5 min".

    Examples
    --------
    >>> from dipy_dl_reg.progress import format_duration
    >>> format_duration(7500)
    '2 h 5 min'
    """
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
