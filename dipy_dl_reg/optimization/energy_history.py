"""The energies of a level of refinement, and when the level has converged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: For convergence, the mean energy of this number of last iterations is compared with
#: the mean of the same number of iterations before.
_WINDOW = 10


class Energy(NamedTuple):
    """The value that a level minimizes.

    Attributes
    ----------
    total : float
        Objective and penalty on landmarks.
    images : float
        The objective alone.
    """

    total: float
    images: float


class EnergyHistory:
    """The energies of a level's iterations.

    With landmarks, a level has converged or become worse only if this holds both for
    the total energy and for the images alone.  The reason is that the gradient of the
    penalty is bounded: the landmark error can increase slightly, and a large weight
    would exaggerate the corresponding increase of the total energy.
    """

    def __init__(self) -> None:
        self.totals: list[float] = []
        self.images: list[float] = []

    def append(self, energy: Energy) -> None:
        """Add the energy of an iteration.

        Parameters
        ----------
        energy : Energy
            The energy before the step of the iteration.
        """
        self.totals.append(energy.total)
        self.images.append(energy.images)

    def has_converged(self, tolerance: float) -> bool:
        """Whether the decrease has become small, see `refine`.

        Parameters
        ----------
        tolerance : float
            Bound of the mean decrease of an iteration, as a part of the whole decrease.

        Returns
        -------
        converged : bool
            False during the first 20 iterations.
        """
        records = self.totals, self.images
        return all(_has_converged(energies, tolerance) for energies in records)

    def has_increased(self) -> bool:
        """Whether the last energy is higher than the first.

        Returns
        -------
        increased : bool
            True if the level has become worse.
        """
        return all(e[-1] > e[0] for e in (self.totals, self.images))


def _has_converged(energies: Sequence[float], tolerance: float) -> bool:
    """Whether the recent decrease is below a part of the decrease of the level."""
    if len(energies) < 2 * _WINDOW:
        return False
    recent = sum(energies[-_WINDOW:]) / _WINDOW
    before = sum(energies[-2 * _WINDOW : -_WINDOW]) / _WINDOW
    decrease = max(energies[0] - recent, 0)
    return (before - recent) / _WINDOW < tolerance * decrease
