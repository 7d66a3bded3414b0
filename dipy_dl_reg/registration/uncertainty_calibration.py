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

#: Levels of the factors.
LEVELS = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99)


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
            (0.054, 0.22, 0.401, 0.609, 0.87, 1.257, 1.556, 1.749, 1.94, 2.055),
            (0.007, 0.029, 0.049, 0.071, 0.109, 0.2, 0.454, 0.869, 1.58, 2.139),
        ),
        FactorTable(
            (0.465, 0.837, 1.112, 1.397, 1.735, 1.918, 2.09, 2.199, 2.276, 2.357),
            (0.072, 0.072, 0.072, 0.072, 0.072, 0.585, 1.271, 2.151, 3.053, 4.09),
        ),
        Factors(1.495, 0.518),
    ),
    ("different", 2): Calibration(
        FactorTable(
            (0.042, 0.17, 0.31, 0.471, 0.682, 0.992, 1.256, 1.388, 1.509, 1.578),
            (0.012, 0.045, 0.077, 0.109, 0.154, 0.253, 0.498, 0.918, 1.622, 2.187),
        ),
        FactorTable(
            (0.199, 0.433, 0.628, 0.834, 1.087, 1.342, 1.477, 1.554, 1.668, 1.743),
            (0.063, 0.097, 0.097, 0.117, 0.17, 0.407, 0.884, 1.597, 2.392, 3.088),
        ),
        Factors(0.946, 0.404),
    ),
    ("same", 3): Calibration(
        FactorTable(
            (0.054, 0.22, 0.401, 0.609, 0.87, 1.257, 1.556, 1.749, 1.94, 2.055),
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.09, 0.162, 0.251, 0.315),
        ),
        FactorTable(
            (0.465, 0.837, 1.112, 1.397, 1.735, 1.918, 2.09, 2.199, 2.276, 2.357),
            (0.0, 0.0, 0.0, 0.0, 0.022, 0.146, 0.241, 0.327, 0.432, 0.505),
        ),
        Factors(1.495, 0.019),
    ),
    ("same", 2): Calibration(
        FactorTable(
            (0.042, 0.17, 0.31, 0.471, 0.682, 0.992, 1.256, 1.388, 1.509, 1.578),
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.151, 0.294, 0.458, 0.596),
        ),
        FactorTable(
            (0.199, 0.433, 0.628, 0.834, 1.087, 1.342, 1.477, 1.554, 1.668, 1.743),
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.153, 0.328, 0.481, 0.674, 0.838),
        ),
        Factors(0.946, 0.0),
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
