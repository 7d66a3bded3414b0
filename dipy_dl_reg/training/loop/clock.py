"""The time limit of a training."""

from __future__ import annotations

import math
from time import monotonic
from typing import NoReturn


class TimeLimit:
    """A number of seconds, counted from the construction of this object.

    Parameters
    ----------
    seconds : float, optional
        By default there is no limit.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds, self._start = seconds, monotonic()

    def left(self) -> float:
        """Seconds that are left.

        Returns
        -------
        seconds : float
            Below 0 once the time is over; infinity where there is no limit.
        """
        if self.seconds is None:
            return math.inf
        return self.seconds - (monotonic() - self._start)

    def exceeded(self) -> bool:
        """Whether the time is over.

        Returns
        -------
        exceeded : bool
            False where there is no limit.
        """
        return self.left() < 0

    def stop(self, before: str) -> NoReturn:
        """Raise because the time limit is reached before the first step.

        Parameters
        ----------
        before : str
            Description of the work that was not finished.

        Raises
        ------
        TimeoutError
            Always.
        """
        raise TimeoutError(
            f"time_limit was reached before {before}: no training step was done, and "
            "nothing is saved; increase time_limit"
        )
