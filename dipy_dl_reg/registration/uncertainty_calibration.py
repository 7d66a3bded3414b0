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
            (0.072, 0.295, 0.529, 0.782, 1.076, 1.426, 1.716, 1.902),
            (0.002, 0.013, 0.043, 0.083, 0.133, 0.242, 0.474, 0.872),
        ),
        FactorTable(
            (0.659, 1.193, 1.542, 1.775, 1.955, 2.123, 2.241, 2.296),
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.697, 1.522, 2.747),
        ),
        Factors(1.686, 0.672),
    ),
    ("different", 2): Calibration(
        FactorTable(
            (0.043, 0.177, 0.321, 0.489, 0.702, 1.021, 1.259, 1.403),
            (0.011, 0.047, 0.084, 0.124, 0.18, 0.282, 0.514, 0.921),
        ),
        FactorTable(
            (0.208, 0.45, 0.65, 0.858, 1.109, 1.361, 1.487, 1.588),
            (0.049, 0.095, 0.108, 0.13, 0.203, 0.454, 0.999, 1.829),
        ),
        Factors(0.953, 0.474),
    ),
    ("same", 3): Calibration(
        FactorTable(
            (0.072, 0.295, 0.529, 0.782, 1.076, 1.426, 1.716, 1.902),
            (0.003, 0.011, 0.022, 0.037, 0.059, 0.1, 0.159, 0.223),
        ),
        FactorTable(
            (0.659, 1.193, 1.542, 1.775, 1.955, 2.123, 2.241, 2.296),
            (0.0, 0.0, 0.043, 0.09, 0.144, 0.219, 0.306, 0.39),
        ),
        Factors(1.686, 0.124),
    ),
    ("same", 2): Calibration(
        FactorTable(
            (0.043, 0.177, 0.321, 0.489, 0.702, 1.021, 1.259, 1.403),
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.18, 0.312),
        ),
        FactorTable(
            (0.208, 0.45, 0.65, 0.858, 1.109, 1.361, 1.487, 1.588),
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.172, 0.351, 0.496),
        ),
        Factors(0.953, 0.0),
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
