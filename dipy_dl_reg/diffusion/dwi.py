r"""Raw diffusion-weighted series transformed by a map, reoriented in q-space.

Each volume is interpolated at the corresponding points of the input image.  The signal
of each voxel, as a function of the gradient direction, is then rotated, so that the
same gradient table is valid in all voxels of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
from dipy.core.gradients import GradientTable
from dipy.reconst.dti import TensorModel
import numpy as np

from dipy_dl_reg.diffusion.gradient_tables import (
    LEAST_DIRECTIONS,
    GradientTableLike,
    check_gradient_table,
    find_shells,
    frame_of_table,
)
from dipy_dl_reg.diffusion.harmonics import HarmonicBasis
from dipy_dl_reg.diffusion.jacobians import rotation_of
from dipy_dl_reg.diffusion.resampling import find_known, plan_resampling
from dipy_dl_reg.diffusion.spherical_functions import evaluate_harmonics, power_matrix
from dipy_dl_reg.diffusion.tensors import METHODS, reorient_axes
from dipy_dl_reg.io.images import ImageLike, read_image
from dipy_dl_reg.validation import check_choice

#: Harmonics of a shell: up to this order, if the directions determine them.
_MAX_ORDER = 8
#: Directions determine an order if the noise of no combination of its coefficients is
#: larger than this many times the smallest.
_MAX_CONDITION = 4.0
#: Voxels that are computed at once.
_CHUNK = 2048


def transform_dwi(
    mapping: DiffeomorphicMap | AffineMap | np.ndarray,
    data: ImageLike,
    gtab: GradientTableLike,
    *,
    method: str = "ppd",
    frame: str | None = None,
    mask: np.ndarray | None = None,
    image_grid2world: np.ndarray | None = None,
    out_shape: Sequence[int] | None = None,
    out_grid2world: np.ndarray | None = None,
    inverse: bool = False,
) -> np.ndarray:
    r"""Transform a diffusion-weighted series by a map, so that its table stays valid.

    All volumes are interpolated linearly. b0 volumes are then complete. In each shell,
    the signal is rotated by the rotation :math:`R` of the voxel:

    .. math:: S'(g_k) = S(R^\top g_k)

    A series on the output grid results whose gradient table is the one given, in the
    axes of the output grid. To evaluate the signal between the directions measured, it
    is written as the signal of a diffusion tensor, which is known at all directions,
    plus a remainder, of which the harmonics that the shell determines are rotated
    (order 2 with 6 directions, 4 with 15, up to 8). What they do not represent, which
    is noise above all, is left where it is: the identity changes nothing, and the level
    of noise is kept.

    Parameters
    ----------
    mapping : DiffeomorphicMap, AffineMap or ndarray of shape (4, 4)
        The map, in 3D. A matrix, from static's world to moving's, requires
        `image_grid2world`, `out_shape` and `out_grid2world`.
    data : ndarray, nibabel image, str or Path
        The series, of shape (X, Y, Z, N), in moving's world (in static's with
        `inverse`).
    gtab : GradientTable or pair (bvals, bvecs)
        Its gradient table, with at least one b0 volume. Each shell needs 6 directions.
    method : {"ppd", "finite_strain"}, optional
        The rotation of each voxel. With :math:`F` the inverse of the map's Jacobian
        matrix, "finite_strain" is :math:`F (F^\top F)^{-1/2}`. "ppd", preservation of
        the principal direction, takes the first eigenvector :math:`e_1` of the tensor
        of the voxel to :math:`F e_1`, and the second to the plane of :math:`F e_1` and
        :math:`F e_2` :footcite:p:`Alexander2001`: fibres stay parallel to the deformed
        anatomy under shears and stretches too.
    frame : {"voxel", "fsl", "world"}, optional
        Axes of the b-vectors, those of the input and of the result; see
        :ref:`frames`. By default "fsl" for b-vectors in a file, else "voxel", with a
        warning where "fsl" differs.
    mask : ndarray, shape (X, Y, Z), optional
        Voxels of the input image where it is not 0 are used; others are missing.
    image_grid2world, out_shape, out_grid2world : optional
        As in `apply_mapping`.
    inverse : bool, optional
        Transform from static to moving.

    Returns
    -------
    warped : ndarray of float32, shape (*out_shape, N)
        The series on the output grid; 0 outside the image and where missing data have
        half of the weight of the interpolation or more. Not negative if the input is
        not.

    Raises
    ------
    ValueError
        If the map is not 3D; the table has no b0 volume, b-vectors that are transposed
        or not of length 1, another number of entries than there are volumes, or
        encodings that are not linear; a shell has directions fewer than 6 or in one
        plane; or a name is unknown.

    See Also
    --------
    reorient_gradients : rotates the table instead, for an affine map.
    transform_tensors, transform_fods : after a fit; each fibre of a crossing turns by
        itself.
    deep_motion_correction : aligns the volumes of a series first.

    Notes
    -----
    One rotation turns all fibres of a voxel. Where fibres cross, it is right for the
    main one, or with "finite_strain" on average; to turn each separately, fit FODs
    first and use `transform_fods`. Series without shells (Cartesian grids in q-space)
    cannot be reoriented this way: `local_rotations` gives the rotations of the voxels.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import numpy as np
    >>> from dipy.align.imaffine import AffineMap
    >>> from dipy.core.gradients import gradient_table
    >>> from dipy_dl_reg import transform_dwi
    >>> bvecs = np.array(
    ...     [
    ...         [0.0, 0, 0],
    ...         [1, 1, 0],
    ...         [1, -1, 0],
    ...         [1, 0, 1],
    ...         [1, 0, -1],
    ...         [0, 1, 1],
    ...         [0, 1, -1],
    ...     ]
    ... )
    >>> bvecs[1:] /= np.sqrt(2)
    >>> gtab = gradient_table(np.array([0.0] + 6 * [1000]), bvecs=bvecs)
    >>> series = np.full((5, 5, 5, 7), 300.0)
    >>> series[..., 0] = 1000
    >>> grid = dict(domain_grid_shape=(5, 5, 5), codomain_grid_shape=(5, 5, 5))
    >>> transform_dwi(AffineMap(np.eye(4), **grid), series, gtab).shape
    (5, 5, 5, 7)
    """
    check_choice("method", method, METHODS)
    series, image_grid2world = read_image(data, image_grid2world, name="data")
    if series.ndim != 4 or series.dtype.kind not in "iuf" or 0 in series.shape:
        raise ValueError(
            "data must be a series of real numbers of shape (X, Y, Z, N), got "
            f"{series.dtype} of shape {series.shape}"
        )
    default_frame = frame_of_table(gtab)
    gtab = check_gradient_table(gtab, series.shape[3])
    shells = _make_shells(gtab)
    resampling = plan_resampling(
        mapping,
        series.shape,
        image_grid2world=image_grid2world,
        out_shape=out_shape,
        out_grid2world=out_grid2world,
        frame=frame,
        default_frame=default_frame,
        inverse=inverse,
    )
    known = find_known(np.isfinite(series).all(-1), mask, "data")
    signals, inside = resampling.interpolate(series, known)
    not_zero = (signals != 0).any(-1)
    inside[inside] = not_zero
    warped = np.zeros((*inside.shape, series.shape[3]), dtype=np.float32)
    warped[inside] = _reorient_signals(
        signals[not_zero], resampling.direction_matrices(inside), gtab, shells, method
    )
    return warped


def check_shells(gtab: GradientTable, *, name: str = "gtab") -> None:
    """Check that the signals of all shells of a gradient table can be reoriented.

    Parameters
    ----------
    gtab : GradientTable
        The table.
    name : str, optional
        Its name in error messages.

    Raises
    ------
    ValueError
        As `transform_dwi`, about the encodings and the directions of the shells.
    """
    _make_shells(gtab, name)


class _Shell(NamedTuple):
    """One shell and its harmonics."""

    volumes: np.ndarray  # of int
    functions: np.ndarray  # (N, count), harmonics at the b-vectors
    fit: np.ndarray  # (count, N), pseudo-inverse
    powers: np.ndarray  # of `power_matrix`


def _make_shells(gtab: GradientTable, name: str = "gtab") -> list[_Shell]:
    """Find the shells, and check that each can be reoriented."""
    if gtab.btens is not None:
        raise ValueError(
            f"{name} must describe linear diffusion encoding, without btens: the "
            "signal of other encodings is no function of the b-vector"
        )
    found = find_shells(gtab)[1:]
    if not found:
        raise ValueError(
            f"{name} must have diffusion-weighted volumes, got b0 volumes alone: "
            "apply_mapping transforms them"
        )
    return [_make_shell(gtab, volumes, name) for volumes in found]


def _make_shell(gtab: GradientTable, volumes: np.ndarray, name: str) -> _Shell:
    """Harmonics of the highest order that the directions of a shell determine."""
    bvecs = gtab.bvecs[volumes]
    for order in range(_MAX_ORDER, 0, -2):
        basis = HarmonicBasis("descoteaux07", order, False)
        if len(basis.degrees) <= len(volumes):
            functions = basis.evaluate(bvecs)
            if np.linalg.cond(functions) <= _MAX_CONDITION or order == 2:
                break
    if len(volumes) < LEAST_DIRECTIONS or np.linalg.matrix_rank(functions) < 6:
        raise ValueError(
            f"{name} must have {LEAST_DIRECTIONS} directions or more, not in one "
            f"plane, in each shell to reorient its signal: the shell at b = "
            f"{np.mean(gtab.bvals[volumes]):.0f} has {len(volumes)} "
            f"(volumes {_list_some(volumes)}). Leave these volumes out, or use "
            "local_rotations"
        )
    return _Shell(volumes, functions, np.linalg.pinv(functions), power_matrix(basis))


def _list_some(volumes: np.ndarray) -> str:
    """The first numbers of a list."""
    return ", ".join(map(str, volumes[:5])) + (" ..." if len(volumes) > 5 else "")


def _reorient_signals(
    signals: np.ndarray,
    matrices: np.ndarray,
    gtab: GradientTable,
    shells: list[_Shell],
    method: str,
) -> np.ndarray:
    """Reorient the signals of voxels, shape (V, N), by matrices, shape (V, 3, 3)."""
    model = TensorModel(gtab, fit_method="WLS", return_S0_hat=True)
    reoriented = np.empty(signals.shape, dtype=np.float32)
    for start in range(0, len(signals), _CHUNK):
        part = np.s_[start : start + _CHUNK]
        reoriented[part] = _reorient_chunk(
            signals[part], matrices[part], model, gtab, shells, method
        )
    return reoriented


def _reorient_chunk(
    signals: np.ndarray,
    matrices: np.ndarray,
    model: TensorModel,
    gtab: GradientTable,
    shells: list[_Shell],
    method: str,
) -> np.ndarray:
    """`_reorient_signals` of some voxels."""
    # DIPY's estimate of S0 overflows where signals are 0; `limits` bounds it below.
    with np.errstate(over="ignore"):
        fit = model.fit(signals)
    if method == "ppd":
        rotations = _preserve_principal_direction(fit.evecs, matrices)
    else:
        rotations = rotation_of(matrices)
    limits = 2 * signals.max(-1, keepdims=True)
    least_signals = np.minimum(signals.min(-1, keepdims=True), 0)
    result = signals.copy()
    for shell in shells:
        # R^T g for each direction g: rows times R.
        bvecs, bvals = gtab.bvecs[shell.volumes], gtab.bvals[shell.volumes]
        before = np.broadcast_to(bvecs, (len(signals), *bvecs.shape))
        after = bvecs @ rotations
        predicted = _tensor_signals(fit, before, bvals, limits)
        measured = signals[:, shell.volumes]
        remainder = (measured - predicted) @ shell.fit.T
        result[:, shell.volumes] += (
            _tensor_signals(fit, after, bvals, limits)
            - predicted
            + evaluate_harmonics(shell.powers, after, remainder)
            - remainder @ shell.functions.T
        )
    return np.maximum(result, least_signals)


def _tensor_signals(
    fit: object, directions: np.ndarray, bvals: np.ndarray, limits: np.ndarray
) -> np.ndarray:
    """Signals of fitted tensors at directions, shape (V, K, 3), of each voxel."""
    tensors = fit.quadratic_form  # type: ignore[attr-defined]
    diffusivities = np.einsum("vki,vij,vkj->vk", directions, tensors, directions)
    starts = np.minimum(fit.S0_hat[:, None], limits)  # type: ignore[attr-defined]
    return starts * np.exp(-bvals * np.maximum(diffusivities, 0))


def _preserve_principal_direction(
    evecs: np.ndarray, matrices: np.ndarray
) -> np.ndarray:
    """Orthogonal matrices that take eigenvectors to those of `reorient_axes`.

    Those of tensors have no sign.  Here the third keeps its own, so that the result
    reflects where the matrix does, as between grids of unlike handedness.
    """
    before = evecs.copy()
    before[..., 2] = np.cross(evecs[..., 0], evecs[..., 1])
    after = reorient_axes(evecs, matrices, "ppd")
    after[..., 2] *= np.sign(np.linalg.det(matrices))[:, None]
    return after @ before.swapaxes(-1, -2)
