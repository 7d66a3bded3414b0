"""Bases of real spherical harmonics: DIPY's and MRtrix3's, their counts and orders.

DIPY computes the functions.  MRtrix3's basis is DIPY's "tournier07" with
``legacy=False``: same functions, same order, same normalization.
"""

from __future__ import annotations

from dataclasses import dataclass
import warnings

from dipy.core.geometry import cart2sphere
from dipy.reconst.shm import (
    real_sh_descoteaux_from_index,
    real_sh_tournier_from_index,
    sph_harm_ind_list,
)
import numpy as np

from dipy_dl_reg.diffusion.frames import FRAMES, change_of_frame
from dipy_dl_reg.geometry.sphere import spread_directions
from dipy_dl_reg.validation import check_choice, wrong_value

#: Names of the bases.
BASES = ("descoteaux07", "tournier07", "mrtrix")
#: Axes in which each program gives directions, and so its harmonics.
FRAME_OF_BASIS = {"descoteaux07": "voxel", "tournier07": "voxel", "mrtrix": "world"}
#: The highest order; beyond it the directions used are not dense enough.
MAX_ORDER = 16
_COUNTS = ", ".join(str((n + 1) * (n + 2) // 2) for n in range(0, MAX_ORDER + 1, 2))
_FULL_COUNTS = ", ".join(str((n + 1) ** 2) for n in range(MAX_ORDER + 1))


@dataclass(frozen=True)
class HarmonicBasis:
    """A basis of real spherical harmonics up to an order.

    Attributes
    ----------
    name : {"descoteaux07", "tournier07", "mrtrix"}
        The functions.
    order : int
        The highest degree l.
    legacy : bool
        DIPY's older definition; not for "mrtrix".
    full : bool
        Whether odd degrees are included.
    """

    name: str
    order: int
    legacy: bool = True
    full: bool = False

    @property
    def degrees(self) -> np.ndarray:
        """Degree l of each function."""
        return sph_harm_ind_list(self.order, full_basis=self.full)[1]

    @property
    def norms(self) -> np.ndarray:
        """Root of the integral of the square of each function over the sphere.

        1, except for those of "tournier07" with ``legacy=True``.
        """
        m = sph_harm_ind_list(self.order, full_basis=self.full)[0]
        if self.name == "tournier07" and self.legacy:
            return np.where(m == 0, 1.0, np.sqrt(0.5))
        return np.ones(len(m))

    def evaluate(self, directions: np.ndarray) -> np.ndarray:
        """Compute the functions at directions.

        Parameters
        ----------
        directions : ndarray, shape (N, 3)
            The directions, of any length above 0.

        Returns
        -------
        values : ndarray of float64, shape (N, count)
            One column for each function.
        """
        m, degrees = sph_harm_ind_list(self.order, full_basis=self.full)
        _, theta, phi = cart2sphere(*np.asarray(directions, dtype=np.float64).T)
        functions, legacy = real_sh_tournier_from_index, self.legacy
        if self.name == "descoteaux07":
            functions = real_sh_descoteaux_from_index
        elif self.name == "mrtrix":
            legacy = False
        with warnings.catch_warnings():  # DIPY announces the end of its own default
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            return functions(m, degrees, theta[:, None], phi[:, None], legacy=legacy)

    def rotation(self, matrix: np.ndarray) -> np.ndarray:
        """Matrix that rotates or reflects functions, given by their coefficients.

        Parameters
        ----------
        matrix : ndarray, shape (3, 3)
            An orthogonal matrix :math:`R`.

        Returns
        -------
        rotation : ndarray, shape (count, count)
            ``rotation @ sh`` are the coefficients of :math:`f(R^{-1} d)`.
        """
        directions = spread_directions(2 * len(self.degrees) + 20)
        values = self.evaluate(directions @ np.asarray(matrix))
        return np.linalg.lstsq(self.evaluate(directions), values, rcond=None)[0]


def make_basis(
    name: str | None, count: int, *, legacy: bool = True, full_basis: bool = False
) -> HarmonicBasis:
    """Make the basis of an image of coefficients.

    Parameters
    ----------
    name : {"descoteaux07", "tournier07", "mrtrix"} or None
        The functions; None is DIPY's default, "descoteaux07".
    count : int
        Number of coefficients.
    legacy : bool, optional
        DIPY's older definition, which is DIPY's default. "mrtrix" has one only.
    full_basis : bool, optional
        Whether odd degrees are included.

    Returns
    -------
    basis : HarmonicBasis
        The basis.

    Raises
    ------
    ValueError
        If the name is unknown, or no order has this number of coefficients.
    """
    name = check_choice("basis", "descoteaux07" if name is None else name, BASES)
    order = harmonic_order(count, full_basis=full_basis)
    return HarmonicBasis(name, order, name != "mrtrix" and bool(legacy), full_basis)


def harmonic_order(count: int, *, full_basis: bool = False) -> int:
    """Order of spherical harmonics from the number of coefficients.

    Parameters
    ----------
    count : int
        Number of coefficients: (L + 1)(L + 2) / 2 for even degrees up to L, and
        (L + 1) squared for all degrees.
    full_basis : bool, optional
        Whether odd degrees are included.

    Returns
    -------
    order : int
        The highest degree L.

    Raises
    ------
    ValueError
        If no order up to 16 has this number of coefficients.

    Examples
    --------
    >>> from dipy_dl_reg.diffusion.harmonics import harmonic_order
    >>> harmonic_order(45)
    8
    >>> harmonic_order(16, full_basis=True)
    3
    """
    root = int(round(count**0.5)) if full_basis else int((2 * count) ** 0.5)
    order = root - 1
    fits = order >= 0 and count == (order + 1) ** 2
    if not full_basis:
        fits = order % 2 == 0 and count == (order + 1) * (order + 2) // 2
    if not fits or order > MAX_ORDER:
        raise ValueError(_describe_wrong_count(count, full_basis))
    return order


def _describe_wrong_count(count: int, full_basis: bool) -> str:
    """Message on a number of coefficients that no order has."""
    kind = "all degrees" if full_basis else "even degrees"
    wanted = _FULL_COUNTS if full_basis else _COUNTS
    hint = ""
    if not full_basis and round(count**0.5) ** 2 == count:
        hint = "; give full_basis=True if odd degrees are included"
    return (
        f"sh must have, on its last axis, one of {wanted} coefficients of spherical "
        f"harmonics of {kind}, got {count}{hint}"
    )


def convert_harmonics(
    sh: np.ndarray,
    from_basis: str,
    to_basis: str,
    *,
    from_legacy: bool = True,
    to_legacy: bool = True,
    full_basis: bool = False,
    affine: np.ndarray | None = None,
    from_frame: str | None = None,
    to_frame: str | None = None,
) -> np.ndarray:
    """Convert coefficients of spherical harmonics between bases and between frames.

    Parameters
    ----------
    sh : ndarray, shape (..., count)
        The coefficients.
    from_basis, to_basis : {"descoteaux07", "tournier07", "mrtrix"}
        The bases before and after.
    from_legacy, to_legacy : bool, optional
        DIPY's older definition of each basis, which is DIPY's default; without effect
        on "mrtrix".
    full_basis : bool, optional
        Whether odd degrees are included.
    affine : ndarray, shape (4, 4), optional
        Voxel-to-world matrix of the image, required if the frames are not the same.
    from_frame, to_frame : {"voxel", "fsl", "world"}, optional
        Axes in which directions are given before and after; see :ref:`frames`. By
        default "world" for "mrtrix" and "voxel" for the other bases.

    Returns
    -------
    converted : ndarray of float64, shape (..., count)
        The coefficients of the same functions.

    Raises
    ------
    ValueError
        If a name is unknown, no order has this number of coefficients, or `affine` is
        missing.

    See Also
    --------
    transform_fods, register_fods : take the bases by the same names.

    Notes
    -----
    The coefficients change, the function on the sphere does not.  The bases are those
    of :footcite:t:`Descoteaux2007` and :footcite:t:`Tournier2007`, and MRtrix3's; they
    differ in the order, the signs and the normalization of the harmonics.  Frames
    differ by the orthogonal matrix that takes directions from one to the other
    (:ref:`frames`).

    References
    ----------
    .. footbibliography::

    Examples
    --------
    FODs of DIPY, as MRtrix3 reads them:

    >>> import numpy as np
    >>> from dipy_dl_reg import convert_harmonics
    >>> affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    >>> sh = np.zeros((4, 4, 4, 45))
    >>> convert_harmonics(sh, "descoteaux07", "mrtrix", affine=affine).shape
    (4, 4, 4, 45)
    """
    sh = np.asarray(sh, dtype=np.float64)
    if sh.ndim == 0:
        raise wrong_value("sh", "an array of shape (..., count)", sh)
    options = {"count": sh.shape[-1], "full_basis": full_basis}
    before = make_basis(from_basis, legacy=from_legacy, **options)
    after = make_basis(to_basis, legacy=to_legacy, **options)
    if from_frame is None:
        from_frame = FRAME_OF_BASIS[before.name]
    if to_frame is None:
        to_frame = FRAME_OF_BASIS[after.name]
    check_choice("from_frame", from_frame, FRAMES)
    check_choice("to_frame", to_frame, FRAMES)
    turn = np.eye(3)
    if from_frame != to_frame:
        if affine is None:
            raise wrong_value("affine", f"given from {from_frame} to {to_frame}", None)
        turn = change_of_frame(affine, from_frame, affine, to_frame)
    directions = spread_directions(2 * sh.shape[-1] + 20)
    matrix = np.linalg.lstsq(
        after.evaluate(directions), before.evaluate(directions @ turn), rcond=None
    )[0]
    matrix[np.abs(matrix) < 1e-12] = 0
    return sh @ matrix.T
