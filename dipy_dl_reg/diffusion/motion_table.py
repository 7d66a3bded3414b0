"""Measures of the motion in a series: translations, rotations, displacements."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from dipy_dl_reg.diffusion.jacobians import rotation_of
from dipy_dl_reg.io.atomic_files import write_atomically
from dipy_dl_reg.validation import check_affine, check_number, check_shape, wrong_value

#: Radius of the head in the framewise displacement of Power et al., mm.
_POWER_RADIUS = 50.0
#: Radius of the head in the displacement of Jenkinson et al., mm.
_JENKINSON_RADIUS = 80.0
_COLUMNS = (
    *("trans_x_mm", "trans_y_mm", "trans_z_mm"),
    *("rot_x_deg", "rot_y_deg", "rot_z_deg"),
    *("framewise_displacement_mm", "rms_step_mm", "rms_mm"),
)


class Motion(NamedTuple):
    """Motion of the head in each volume of a series, relative to the reference volume.

    Attributes
    ----------
    translations : ndarray, shape (N, 3)
        Translation of the centre of the image along the axes of the world, mm.
    rotations : ndarray, shape (N, 3)
        Angles about the axes x, y and z of the world, degrees.
    framewise_displacement : ndarray, shape (N,)
        Displacement since the volume before by Power et al., mm; NaN for the first.
    rms_step : ndarray, shape (N,)
        Root mean square displacement since the volume before, mm; NaN for the first.
    rms : ndarray, shape (N,)
        Root mean square displacement from the reference volume, mm.
    """

    translations: np.ndarray
    rotations: np.ndarray
    framewise_displacement: np.ndarray
    rms_step: np.ndarray
    rms: np.ndarray


def measure_motion(
    affines: np.ndarray,
    shape: tuple[int, ...],
    grid2world: np.ndarray,
    *,
    radius: float = _JENKINSON_RADIUS,
) -> Motion:
    r"""Measure the motion in a series from the affines of its volumes.

    With :math:`A_k` the affine of volume k, :math:`c` the centre of the image and
    :math:`R_k = R_z(\gamma) R_y(\beta) R_x(\alpha)` the rotation in :math:`A_k`, the
    translation is :math:`t_k = A_k c - c` and the rotations are :math:`\alpha, \beta,
    \gamma`.  The framewise displacement of :footcite:t:`Power2012` is, with angles in
    radians on a sphere of 50 mm,

    .. math::

        FD_k = \sum_{x, y, z} |t_k - t_{k-1}|
               + 50 \sum_{x, y, z} |\alpha_k - \alpha_{k-1}|

    The root mean square displacement of :footcite:t:`Jenkinson1999` over a sphere of
    radius r about the centre is, with :math:`\begin{pmatrix} M & t \end{pmatrix}` the
    upper rows of :math:`A_k A_{k-1}^{-1} - I` (or of :math:`A_k - I`),

    .. math:: RMS = \sqrt{\tfrac{r^2}{5} \mathrm{tr}(M^\top M) + |t + M c|^2}

    Parameters
    ----------
    affines : ndarray, shape (4, 4, N)
        From `deep_motion_correction`.
    shape : tuple of int
        Shape of the series, or of one volume.
    grid2world : ndarray, shape (4, 4)
        Voxels to world.
    radius : float, optional
        Radius r, mm; FSL uses 80.

    Returns
    -------
    motion : Motion
        The measures.  Scales and shears of affines count in the root mean square
        displacements alone.

    Raises
    ------
    ValueError
        If the affines, the shape or the matrix cannot be used.

    See Also
    --------
    deep_motion_correction : gives the affines.
    plot_motion, write_motion_table : a figure and a table of the measures.
    Motion : what is returned.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import measure_motion
    >>> affines = np.repeat(np.eye(4)[..., None], 3, axis=-1)
    >>> affines[0, 3, 1] = 2
    >>> motion = measure_motion(affines, (96, 96, 60, 3), np.eye(4))
    >>> motion.framewise_displacement
    array([nan,  2.,  2.])
    """
    affines = np.asarray(affines, dtype=np.float64)
    if affines.ndim != 3 or affines.shape[:2] != (4, 4) or not affines.size:
        raise wrong_value("affines", "of shape (4, 4, N)", affines.shape)
    grid2world = check_affine(grid2world, 3, "grid2world")
    sizes = check_shape(tuple(shape)[:3], 3, "shape")
    radius = check_number("radius", radius)
    centre = grid2world @ np.append((np.array(sizes) - 1) / 2, 1)
    each = np.moveaxis(affines, -1, 0)
    translations = (each @ centre - centre)[:, :3]
    turns = rotation_of(each[:, :3, :3])
    rotations = Rotation.from_matrix(turns).as_euler("xyz", degrees=True)
    steps = each[1:] @ np.linalg.inv(each[:-1])
    power = np.abs(np.diff(translations, axis=0)).sum(1) + _POWER_RADIUS * np.abs(
        np.radians(np.diff(rotations, axis=0))
    ).sum(1)
    return Motion(
        translations,
        rotations,
        np.append(np.nan, power),
        np.append(np.nan, _rms_displacement(steps, centre, radius)),
        _rms_displacement(each, centre, radius),
    )


def _rms_displacement(
    matrices: np.ndarray, centre: np.ndarray, radius: float
) -> np.ndarray:
    """Root mean square displacement over a sphere about the centre, mm."""
    change = matrices - np.eye(4)
    linear = (change[:, :3, :3] ** 2).sum((1, 2))
    shift = ((change @ centre)[:, :3] ** 2).sum(1)
    return np.sqrt(radius**2 / 5 * linear + shift)


def write_motion_table(
    path: str | os.PathLike,
    motion: Motion,
    *,
    bvals: np.ndarray | None = None,
    overwrite: bool = False,
) -> None:
    """Write the measures of the motion as a table of tab-separated values.

    Parameters
    ----------
    path : str or Path
        The file, such as ``motion.tsv``.
    motion : Motion
        From `measure_motion`.
    bvals : ndarray, shape (N,), optional
        b-values, for a column of their own.
    overwrite : bool, optional
        Replace the file if it exists.

    Raises
    ------
    ValueError
        If the number of b-values is not that of the volumes.
    OSError
        If the file exists or cannot be written.

    See Also
    --------
    measure_motion : computes what is written.
    plot_motion : the same as a figure.

    Notes
    -----
    One row for each volume, from 0; "n/a" where a value is not defined, as in BIDS.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> import numpy as np
    >>> from dipy_dl_reg import measure_motion, write_motion_table
    >>> affines = np.repeat(np.eye(4)[..., None], 3, axis=-1)
    >>> affines[0, 3, 1] = 2
    >>> motion = measure_motion(affines, (96, 96, 60, 3), np.eye(4))
    >>> path = Path(mkdtemp(), "motion.tsv")
    >>> write_motion_table(path, motion)
    >>> len(path.read_text().splitlines())  # the titles and three volumes
    4
    """
    table = np.column_stack(motion)
    names = ["volume", *_COLUMNS]
    rows = [[f"{k}", *map(_format, row)] for k, row in enumerate(table)]
    if bvals is not None:
        bvals = np.asarray(bvals, dtype=np.float64)
        if bvals.shape != (len(table),):
            raise wrong_value("bvals", f"of shape ({len(table)},)", bvals.shape)
        names.insert(1, "bval")
        rows = [[row[0], f"{b:g}", *row[1:]] for row, b in zip(rows, bvals)]
    lines = ["\t".join(row) for row in [names, *rows]]
    with write_atomically(path, overwrite=overwrite) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def _format(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.4f}"
