"""Factors from local measures to the error of a map, found on known errors.

``tools/experiments/uncertainty.py`` computes them; doc/uncertainty.rst says from which
images.  The half-width of an interval is

    h(level) = sqrt((a(level) d)^2 + (b(level) p)^2)

with ``d`` the disagreement of repeated maps and ``p`` the precision.  ``a`` and ``b``
are those for which errors of other pairs lie within ``h`` as often as the level says:
split conformal prediction with a local scale
:footcite:p:`Lei2018,Angelopoulos2023`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dipy_dl_reg.validation import check_choice, check_number

#: Levels of the factors.  Beyond the last, errors are too rare to be calibrated.
LEVELS = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)


class Factors(NamedTuple):
    """Factors of the two measures.

    Attributes
    ----------
    disagreement, precision : float
        ``a`` and ``b``.
    """

    disagreement: float
    precision: float

    def apply(self, disagreement: np.ndarray, precision: np.ndarray) -> np.ndarray:
        """Multiply the two measures by the factors, and combine them.

        Parameters
        ----------
        disagreement, precision : ndarray
            The measures, mm, of one shape.

        Returns
        -------
        error : ndarray
            The root of the sum of squares, mm.
        """
        return np.hypot(self.disagreement * disagreement, self.precision * precision)


class FactorTable(NamedTuple):
    """Factors at each of `LEVELS`; both increase with the level.

    Attributes
    ----------
    disagreement, precision : tuple of float
        ``a`` and ``b``.
    """

    disagreement: tuple[float, ...]
    precision: tuple[float, ...]

    def at(self, level: float) -> Factors:
        """Interpolate the factors.

        Parameters
        ----------
        level : float
            From the first to the last of `LEVELS`.

        Returns
        -------
        factors : Factors
            At this level.

        Raises
        ------
        ValueError
            If the level lies outside of the calibrated range.
        """
        level = check_number("level", level, low=LEVELS[0], high=LEVELS[-1])
        # Tails are nearly exponential: on this scale the tables are smooth.
        known, wanted = (-np.log1p(-np.array(x)) for x in (LEVELS, level))
        return Factors(*(float(np.interp(wanted, known, table)) for table in self))


class Calibration(NamedTuple):
    """Factors of one kind of pair.

    Attributes
    ----------
    component : FactorTable
        For the absolute error along one direction.
    length : FactorTable
        For the length of the error.
    mean : Factors
        For the mean length of the error.
    """

    component: FactorTable
    length: FactorTable
    mean: Factors


#: By the kind of pair ("different" people or the "same"), and the dimension.
CALIBRATIONS = {
    ("different", 3): Calibration(
        FactorTable(
            (0.068, 0.272, 0.491, 0.733, 1.027, 1.389, 1.695, 1.911),
            (0.0, 0.0, 0.028, 0.071, 0.124, 0.241, 0.503, 0.951),
        ),
        FactorTable(
            (0.604, 1.076, 1.417, 1.679, 1.894, 2.105, 2.256, 2.36),
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.646, 1.555, 2.706),
        ),
        Factors(1.658, 0.638),
    ),
    ("different", 2): Calibration(
        FactorTable(
            (0.046, 0.189, 0.342, 0.52, 0.748, 1.088, 1.307, 1.425),
            (0.01, 0.041, 0.075, 0.115, 0.169, 0.28, 0.548, 1.002),
        ),
        FactorTable(
            (0.216, 0.474, 0.689, 0.912, 1.181, 1.403, 1.532, 1.616),
            (0.044, 0.071, 0.071, 0.098, 0.178, 0.479, 1.087, 1.896),
        ),
        Factors(1.025, 0.477),
    ),
    ("same", 3): Calibration(
        FactorTable(
            (0.068, 0.272, 0.491, 0.733, 1.027, 1.389, 1.695, 1.911),
            (0.002, 0.009, 0.016, 0.026, 0.041, 0.072, 0.121, 0.176),
        ),
        FactorTable(
            (0.604, 1.076, 1.417, 1.679, 1.894, 2.105, 2.256, 2.36),
            (0.0, 0.0, 0.027, 0.061, 0.105, 0.169, 0.246, 0.324),
        ),
        Factors(1.658, 0.092),
    ),
    ("same", 2): Calibration(
        FactorTable(
            (0.046, 0.189, 0.342, 0.52, 0.748, 1.088, 1.307, 1.425),
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.222, 0.387),
        ),
        FactorTable(
            (0.216, 0.474, 0.689, 0.912, 1.181, 1.403, 1.532, 1.616),
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.222, 0.416, 0.598),
        ),
        Factors(1.025, 0.0),
    ),
}


def find_calibration(subjects: str, dim: int) -> Calibration:
    """Find the factors for a kind of pair.

    Parameters
    ----------
    subjects : {"different", "same"}
        Whether the two images show different people or the same.
    dim : {2, 3}
        Number of dimensions.

    Returns
    -------
    calibration : Calibration
        The factors.

    Raises
    ------
    ValueError
        If `subjects` is another value.
    """
    choices = list(dict.fromkeys(kind for kind, _ in CALIBRATIONS))
    return CALIBRATIONS[check_choice("subjects", subjects, choices), dim]
