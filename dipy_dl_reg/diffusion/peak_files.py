"""DIPY's peaks, read from memory or a file and checked."""

from __future__ import annotations

import os
from typing import TypeAlias
import warnings

from dipy.direction.peaks import PeaksAndMetrics
from dipy.io.peaks import load_pam
from dipy.reconst.shm import sh_to_sf_matrix
import numpy as np

from dipy_dl_reg.diffusion.harmonics import harmonic_order

#: Bases of DIPY and whether they are the older definition; the first is its default.
BASES = (
    ("descoteaux07", True),
    ("descoteaux07", False),
    ("tournier07", True),
    ("tournier07", False),
)
#: Peaks in memory, or their file.
PeaksLike: TypeAlias = PeaksAndMetrics | str | os.PathLike


def read_peaks(peaks: PeaksLike, *, name: str = "peaks") -> PeaksAndMetrics:
    """Read and check DIPY's peaks.

    Parameters
    ----------
    peaks : PeaksAndMetrics, str or Path
        The peaks, or their ``.pam5`` file.
    name : str, optional
        Their name in error messages.

    Returns
    -------
    peaks : PeaksAndMetrics
        With directions, and values of the same shape.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or there are no peaks, or arrays of unlike shapes.
    """
    if isinstance(peaks, (str, os.PathLike)):
        path = os.fspath(peaks)
        if not os.path.exists(path):
            raise FileNotFoundError(f"{name}: no such file: {path}")
        try:
            peaks = load_pam(path)
        except Exception as error:  # a damaged file can raise errors of any type
            raise ValueError(f"{name}: {path} is no file of peaks: {error}") from error
    _check_peaks(peaks)
    return peaks


def _check_peaks(pam: PeaksAndMetrics) -> None:
    """Check that an object holds directions and values of peaks."""
    shape = np.shape(getattr(pam, "peak_dirs", ()))
    if len(shape) != 5 or shape[-1] != 3:
        raise ValueError(
            "peaks must have peak_dirs of shape (X, Y, Z, K, 3), got "
            f"{type(pam).__name__} with shape {shape}"
        )
    wanted = {"peak_values": shape[:-1], "qa": shape[:-1], "gfa": shape[:3]}
    for attribute, expected in wanted.items():
        values = getattr(pam, attribute, None)
        if values is None and attribute != "peak_values":
            continue
        got = np.asarray(values).shape
        if got != expected:
            raise ValueError(
                f"peaks must have {attribute} of shape {expected}, got shape {got}"
            )


def find_basis(pam: PeaksAndMetrics) -> tuple[str, bool]:
    """Find the basis of the coefficients of peaks: its matrix for the sphere is ``B``.

    Parameters
    ----------
    pam : PeaksAndMetrics
        Peaks with coefficients.

    Returns
    -------
    basis : str
        DIPY's name.
    legacy : bool
        Whether it is the older definition.

    Raises
    ------
    ValueError
        If it is none of DIPY's bases.
    """
    if pam.B is None or pam.sphere is None:
        return BASES[0]
    order = harmonic_order(pam.shm_coeff.shape[-1])
    for basis, legacy in BASES:
        options = {"sh_order_max": order, "basis_type": basis, "legacy": legacy}
        with warnings.catch_warnings():  # DIPY's, about its older definition
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            matrix = sh_to_sf_matrix(pam.sphere, return_inv=False, **options)
        if matrix.shape == pam.B.shape and np.allclose(matrix, pam.B, atol=1e-5):
            return basis, legacy
    raise ValueError(
        "peaks must have a matrix B of one of DIPY's bases for shm_coeff: "
        f"{sorted({name for name, _ in BASES})}"
    )
