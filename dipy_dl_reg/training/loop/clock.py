"""The time that a training may take."""

import math
from time import monotonic


class TimeLimit:
    """A number of seconds, counted from when this is made.

    Parameters
    ----------
    seconds : float, optional
        By default there is no limit.
    """

    def __init__(self, seconds=None):
        self.seconds, self._start = seconds, monotonic()

    def left(self):
        """Seconds that are left.

        Returns
        -------
        seconds : float
            Below 0 once the time is over; infinity where there is no limit.
        """
        if self.seconds is None:
            return math.inf
        return self.seconds - (monotonic() - self._start)

    def exceeded(self):
        """Whether the time is over.

        Returns
        -------
        exceeded : bool
            False where there is no limit.
        """
        return self.left() < 0

    def stop(self, before):
        """Raise because the time is over before there is anything to keep.

        Parameters
        ----------
        before : str
            What had to be done first.

        Raises
        ------
        TimeoutError
            Always.
        """
        raise TimeoutError(
            f"time_limit was reached before {before}: no step of training was done, "
            "and nothing is saved; give more time"
        )
