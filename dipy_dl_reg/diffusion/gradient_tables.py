"""Gradient tables: reading, checks, and rotation of the b-vectors with the images."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

from dipy.core.gradients import GradientTable, gradient_table
from dipy.io.gradients import read_bvals_bvecs
import numpy as np

from dipy_dl_reg.diffusion.frames import choose_frame, frame_to_world
from dipy_dl_reg.diffusion.jacobians import rotation_of
from dipy_dl_reg.validation import wrong_value

#: A gradient table, or b-values and b-vectors in files or arrays.
GradientTableLike: TypeAlias = GradientTable | tuple[Any, Any] | list[Any]

#: Number of directions that determine a tensor, or harmonics of order 2.
LEAST_DIRECTIONS = 6
#: Largest difference between the length of a b-vector and 1.
_TOLERANCE = 1e-2


def check_gradient_table(
    gtab: GradientTableLike,
    count: int | None = None,
    *,
    b0_threshold: float = 50.0,
    atol: float = _TOLERANCE,
    name: str = "gtab",
) -> GradientTable:
    """Read and check a gradient table.

    Parameters
    ----------
    gtab : GradientTable or pair (bvals, bvecs)
        DIPY's table, or b-values, shape (N,), and b-vectors, shape (N, 3), each as an
        array or a file.  In a file, b-vectors may also have the shape (3, N), as FSL
        writes them.
    count : int, optional
        Number of volumes that the table must describe.
    b0_threshold : float, optional
        b-value, s/mm^2, up to which a volume is a b0 volume, if `gtab` is a pair.
    atol : float, optional
        Largest difference between the length of a b-vector and 1.
    name : str, optional
        Name of the table in error messages.

    Returns
    -------
    gtab : GradientTable
        The table; the same object if it was one.

    Raises
    ------
    ValueError
        If the table cannot be read, b-vectors are transposed or do not have length 1,
        a value is not finite, there is no b0 volume, or the number of entries is not
        `count`.
    FileNotFoundError
        If a file is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg.diffusion.gradient_tables import check_gradient_table
    >>> gtab = check_gradient_table((np.array([0, 1000]), np.eye(3)[[0, 1]]), 2)
    >>> gtab.b0s_mask
    array([ True, False])
    """
    if not isinstance(gtab, GradientTable):
        bvals, bvecs = _read_pair(gtab, name)
        _check_values(bvals, bvecs, name)
        _check_lengths(bvals, bvecs, b0_threshold, atol, name)
        gtab = gradient_table(bvals, bvecs=bvecs, b0_threshold=b0_threshold, atol=atol)
    if not np.isfinite(gtab.gradients).all():
        raise ValueError(f"{name} must hold finite b-values and b-vectors")
    if count is not None and len(gtab.bvals) != count:
        raise ValueError(
            f"{name} must have as many entries as the series has volumes: got "
            f"{len(gtab.bvals)} entries for {count} volumes"
        )
    if not gtab.b0s_mask.any():
        raise ValueError(
            f"{name} must have a b0 volume: its smallest b-value is "
            f"{gtab.bvals.min():g}, and b0_threshold is {gtab.b0_threshold:g}"
        )
    return gtab


def describe_shells(gtab: GradientTable) -> str:
    """Describe the shells of a table in a few words.

    Parameters
    ----------
    gtab : GradientTable
        The gradient table.

    Returns
    -------
    text : str
        Such as "2 volumes of b0, 30 of b = 1000".
    """
    b0s, *shells = find_shells(gtab)
    parts = [f"{len(b0s)} volume{'s' * (len(b0s) > 1)} of b0"]
    for shell in shells:
        parts.append(f"{len(shell)} of b = {gtab.bvals[shell].mean():.0f}")
    return ", ".join(parts)


def frame_of_table(gtab: GradientTableLike) -> str:
    """Return the frame of a table's b-vectors if none is given.

    Parameters
    ----------
    gtab : GradientTable or pair (bvals, bvecs)
        The user's table, see `check_gradient_table`.

    Returns
    -------
    frame : {"fsl", "voxel"}
        "fsl" for b-vectors in a file, which is FSL's format; else "voxel", DIPY's.
    """
    is_pair = isinstance(gtab, (list, tuple)) and len(gtab) == 2
    is_file = is_pair and isinstance(gtab[1], (str, os.PathLike))
    return "fsl" if is_file else "voxel"


def _read_pair(gtab: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read b-values and b-vectors from a pair of files or arrays."""
    if not isinstance(gtab, (list, tuple)) or len(gtab) != 2:
        wanted = "a GradientTable or a pair (bvals, bvecs)"
        raise wrong_value(name, wanted, type(gtab).__name__)
    bvals, bvecs = _read_files(gtab, name)
    try:
        return (
            np.atleast_1d(np.squeeze(np.asarray(bvals, dtype=np.float64))),
            np.atleast_2d(np.asarray(bvecs, dtype=np.float64)),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: b-values and b-vectors must be numbers") from error


def _read_files(pair: Any, name: str) -> tuple[Any, Any]:
    """Replace those of b-values and b-vectors that are files by their content."""
    files = [
        os.fspath(part) if isinstance(part, (str, os.PathLike)) else None
        for part in pair
    ]
    given = [file for file in files if file is not None]
    for file in given:
        if not os.path.isfile(file):
            raise FileNotFoundError(f"{name}: no such file: {file}")
    if not given:
        return pair[0], pair[1]
    try:
        read = read_bvals_bvecs(*files)
    except (OSError, ValueError, TypeError) as error:
        verb = "are" if len(given) == 2 else "is"
        raise ValueError(
            f"{name}: {' and '.join(given)} {verb} no gradient table: {error}"
        ) from error
    bvals, bvecs = (
        part if file is None else content
        for part, file, content in zip(pair, files, read, strict=True)
    )
    return bvals, bvecs


def _check_values(bvals: np.ndarray, bvecs: np.ndarray, name: str) -> None:
    """Check the shapes and the ranges of b-values and b-vectors."""
    if bvals.ndim != 1 or not np.isfinite(bvals).all() or (bvals < 0).any():
        raise ValueError(f"{name}: b-values must be finite numbers from 0, shape (N,)")
    wanted = (len(bvals), 3)
    if bvecs.shape != wanted:
        turned = ": they are transposed" if bvecs.shape == wanted[::-1] else ""
        raise ValueError(
            f"{name}: b-vectors must have the shape {wanted}, as there are "
            f"{len(bvals)} b-values, got {bvecs.shape}{turned}"
        )


def _check_lengths(
    bvals: np.ndarray, bvecs: np.ndarray, b0_threshold: float, atol: float, name: str
) -> None:
    """Check that the b-vectors of diffusion-weighted volumes have length 1."""
    weighted = bvals > b0_threshold
    lengths = np.linalg.norm(bvecs, axis=1)
    wrong = weighted & ~(np.abs(lengths - 1) <= atol)
    if not wrong.any():
        return
    across = np.linalg.norm(bvecs, axis=0)
    turned = len(bvecs) == 3 and (np.abs(across[weighted] - 1) <= atol).all()
    first = int(np.flatnonzero(wrong)[0])
    if turned:
        hint = ": they are transposed"
    elif lengths[first] == 0:
        hint = (
            f": if this is a b0 volume, b0_threshold must be at least its b-value, "
            f"{bvals[first]:g} (it is {b0_threshold:g}); a GradientTable has its own"
        )
    else:
        hint = ""
    raise ValueError(
        f"{name}: b-vectors of diffusion-weighted volumes must have length 1, but that "
        f"of volume {first} is {lengths[first]:.4g} long ({wrong.sum()} of "
        f"{weighted.sum()} differ from 1 by more than {atol:g}){hint}"
    )


def rotate_gradients(
    gtab: GradientTableLike,
    affines: np.ndarray,
    *,
    grid2world: np.ndarray,
    frame: str | None = None,
) -> GradientTable:
    r"""Rotate b-vectors with the volumes of a series that was corrected for motion.

    With :math:`R_k` the rotation of the affine of volume k, which maps the corrected
    series to this volume as it was measured, and :math:`F` the matrix from the frame
    of the b-vectors to the world,

    .. math:: g'_k = F^\top R_k^\top F \, g_k

    so that a fibre has the same angle with :math:`g'_k` in the corrected series as with
    :math:`g_k` in the measured volume :footcite:p:`Leemans2009`.

    Parameters
    ----------
    gtab : GradientTable or pair (bvals, bvecs)
        The table of the measurement; bvals and bvecs may be files.
    affines : ndarray, shape (4, 4, N) or (3, 3, N)
        From `deep_motion_correction`, one for each volume, b0 volumes included.
    grid2world : ndarray, shape (4, 4)
        Voxel-to-world matrix of the series.
    frame : {"voxel", "fsl", "world"}, optional
        The axes of the b-vectors, see :ref:`frames`.  By default "fsl" for b-vectors
        in a file, else "voxel", with a warning where "fsl" differs.

    Returns
    -------
    gtab : GradientTable
        The table of the corrected series, in the same frame.

    Raises
    ------
    ValueError
        If the table, the affines or the frame cannot be used.

    See Also
    --------
    deep_motion_correction : gives the affines.
    reorient_gradients :
        for a series that is transformed as a whole by one map, to the space of another
        image.
    dipy.core.gradients.reorient_bvecs : the function of DIPY, see the notes.

    Notes
    -----
    `dipy.core.gradients.reorient_bvecs` multiplies b-vectors with :math:`R_k^\top`
    itself, without :math:`F`: that is right for the frame "world" only.  It takes the
    affines of diffusion-weighted volumes alone.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    A head that turned by 90 degrees about z before the second volume:

    >>> import numpy as np
    >>> from dipy_dl_reg import rotate_gradients
    >>> turn = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    >>> affines = np.stack([np.eye(4), turn], axis=-1)
    >>> table = np.array([0, 1000]), np.array([[0, 0, 0], [0, 1, 0]])
    >>> gtab = rotate_gradients(table, affines, grid2world=np.eye(4))
    >>> bool(np.allclose(gtab.bvecs[1], [1, 0, 0]))
    True
    """
    affines = np.asarray(affines, dtype=np.float64)
    if affines.ndim != 3 or affines.shape[:2] not in ((4, 4), (3, 3)):
        raise wrong_value("affines", "of shape (4, 4, N) or (3, 3, N)", affines.shape)
    default = frame_of_table(gtab)
    gtab = check_gradient_table(gtab, affines.shape[2])
    grid2world = np.asarray(grid2world, dtype=np.float64)
    frame = choose_frame(frame, grid2world, default=default)
    to_world = frame_to_world(grid2world, frame)
    rotations = rotation_of(np.moveaxis(affines[:3, :3], -1, 0))
    # Rows: the inverse rotation is the transpose.
    turn = to_world.T @ np.swapaxes(rotations, 1, 2) @ to_world
    bvecs = np.einsum("kij,kj->ki", turn, gtab.bvecs)
    btens = gtab.btens
    if btens is not None:
        btens = turn @ btens @ np.swapaxes(turn, 1, 2)
    return gradient_table(
        gtab.bvals,
        bvecs=bvecs,
        big_delta=gtab.big_delta,
        small_delta=gtab.small_delta,
        b0_threshold=gtab.b0_threshold,
        btens=btens,
        atol=np.inf,  # lengths were checked, and a rotation does not change them
    )


def find_shells(gtab: GradientTable) -> list[np.ndarray]:
    """Group the volumes of a series by b-value.

    Parameters
    ----------
    gtab : GradientTable
        The gradient table.

    Returns
    -------
    shells : list of ndarray of int
        Volumes of each shell, by increasing b-value; the first are the b0 volumes.
        A shell ends where the next b-value is larger by more than 50 s/mm^2 and 5 %.
    """
    shells = [np.flatnonzero(gtab.b0s_mask)]
    weighted = np.flatnonzero(~gtab.b0s_mask)
    if not len(weighted):
        return shells
    ordered = weighted[np.argsort(gtab.bvals[weighted], kind="stable")]
    bvals = gtab.bvals[ordered]
    ends = np.flatnonzero(np.diff(bvals) > np.maximum(50, 0.05 * bvals[:-1])) + 1
    return shells + [np.sort(part) for part in np.split(ordered, ends)]
