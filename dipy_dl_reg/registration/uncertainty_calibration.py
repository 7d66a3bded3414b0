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
            (0.065, 0.266, 0.483, 0.731, 1.029, 1.39, 1.703, 1.927, 2.134, 2.242),
            (0.002, 0.002, 0.002, 0.033, 0.079, 0.188, 0.445, 0.852, 1.565, 2.132),
        ),
        FactorTable(
            (0.564, 1.012, 1.346, 1.681, 1.917, 2.142, 2.309, 2.413, 2.528, 2.683),
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.583, 1.32, 2.27, 3.388, 4.401),
        ),
        Factors(1.686, 0.53),
    ),
    ("different", 2): Calibration(
        FactorTable(
            (0.047, 0.192, 0.348, 0.525, 0.749, 1.07, 1.323, 1.454, 1.577, 1.64),
            (0.011, 0.041, 0.071, 0.104, 0.15, 0.251, 0.495, 0.913, 1.617, 2.195),
        ),
        FactorTable(
            (0.23, 0.494, 0.705, 0.92, 1.181, 1.428, 1.538, 1.625, 1.736, 1.815),
            (0.05, 0.075, 0.075, 0.075, 0.149, 0.413, 0.924, 1.646, 2.527, 3.243),
        ),
        Factors(1.044, 0.407),
    ),
    ("same", 3): Calibration(
        FactorTable(
            (0.065, 0.266, 0.483, 0.731, 1.029, 1.39, 1.703, 1.927, 2.134, 2.242),
            (0.0, 0.0, 0.0, 0.0, 0.013, 0.052, 0.105, 0.162, 0.244, 0.308),
        ),
        FactorTable(
            (0.564, 1.012, 1.346, 1.681, 1.917, 2.142, 2.309, 2.413, 2.528, 2.683),
            (0.0, 0.0, 0.0, 0.0, 0.081, 0.155, 0.237, 0.319, 0.419, 0.487),
        ),
        Factors(1.686, 0.071),
    ),
    ("same", 2): Calibration(
        FactorTable(
            (0.047, 0.192, 0.348, 0.525, 0.749, 1.07, 1.323, 1.454, 1.577, 1.64),
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.164, 0.307, 0.474, 0.617),
        ),
        FactorTable(
            (0.23, 0.494, 0.705, 0.92, 1.181, 1.428, 1.538, 1.625, 1.736, 1.815),
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.167, 0.35, 0.496, 0.692, 0.849),
        ),
        Factors(1.044, 0.0),
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
