"""Diffusion tensors transformed by a map: interpolated, and their axes reoriented.

Tensors are interpolated in the input image's frame, rotated to the world's axes,
reoriented there by the map's local deformation, and rotated to the output's frame.
"""

from __future__ import annotations

from collections.abc import Sequence

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
from dipy.reconst.dti import TensorFit, decompose_tensor
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.diffusion.jacobians import rotation_of
from dipy_dl_reg.diffusion.resampling import Resampling, find_known, plan_resampling
from dipy_dl_reg.diffusion.tensor_components import (
    join_tensors,
    split_tensors,
    tensor_components,
    tensor_matrices,
)
from dipy_dl_reg.io.images import ImageLike, read_image
from dipy_dl_reg.validation import check_choice

METHODS = ("ppd", "finite_strain")
INTERPOLATIONS = ("log-euclidean", "linear", "nearest")
#: Eigenvalues below this fraction of the voxel's largest are raised to it before the
#: logarithm.  A fit that meets its positivity constraint leaves values such as 1e-12,
#: whose logarithms would outweigh all neighbours.
_LEAST_RATIO = 0.01


def transform_tensors(
    mapping: DiffeomorphicMap | AffineMap | np.ndarray,
    tensors: ImageLike,
    *,
    method: str = "ppd",
    order: str = "dipy",
    frame: str | None = None,
    mask: np.ndarray | None = None,
    image_grid2world: np.ndarray | None = None,
    out_shape: Sequence[int] | None = None,
    out_grid2world: np.ndarray | None = None,
    interpolation: str = "log-euclidean",
    inverse: bool = False,
) -> np.ndarray:
    r"""Transform an image of diffusion tensors by a map, with reorientation.

    The tensor at a voxel is interpolated at the corresponding point of the input image,
    as by `apply_mapping`, and rotated:

    .. math:: D'(x) = R(x)\, D(T(x))\, R(x)^\top, \qquad F(x) = J(x)^{-1}

    where :math:`T` is the map from the output to the input space, prealign included,
    and :math:`J` its Jacobian matrix. The rotation :math:`R` is computed from
    :math:`F`, which deforms directions of the input, as by :footcite:t:`Alexander2001`:

    - preservation of principal direction (``"ppd"``): the first eigenvector
      :math:`e_1` becomes :math:`n_1 = F e_1 / |F e_1|`, and the second the part of
      :math:`F e_2` perpendicular to :math:`n_1`, normalized. Fibres stay parallel to
      the deformed anatomy under shears and stretches too.
    - finite strain (``"finite_strain"``): :math:`R = F (F^\top F)^{-1/2}`, the same for
      all tensors at a voxel.

    The eigenvalues are not changed by reorientation.

    Parameters
    ----------
    mapping : DiffeomorphicMap, AffineMap or ndarray of shape (4, 4)
        The map, in 3D. A matrix, from static's world to moving's, requires
        `image_grid2world`, `out_shape` and `out_grid2world`.
    tensors : ndarray, nibabel image, str or Path
        Tensors in moving's world (in static's with `inverse`): six components, of shape
        (X, Y, Z, 6) or (X, Y, Z, 1, 6), or matrices, of shape (X, Y, Z, 3, 3), as
        DIPY's ``TensorFit.quadratic_form``. Tensors that are zero or not finite are
        background.
    method : {"ppd", "finite_strain"}, optional
        The reorientation.
    order : {"dipy", "fsl", "mrtrix"}, optional
        Order of six components: "dipy" (and NIfTI, ANTs) Dxx, Dxy, Dyy, Dxz, Dyz, Dzz;
        "fsl" Dxx, Dxy, Dxz, Dyy, Dyz, Dzz; "mrtrix" Dxx, Dyy, Dzz, Dxy, Dxz, Dyz.
    frame : {"voxel", "fsl", "world"}, optional
        Axes in which the components are given, those of the input and of the result;
        see :ref:`frames`. By default those of the program that `order` names:
        "voxel" for "dipy" and matrices, "fsl" for "fsl" and "world" for "mrtrix".
        Tensors that DIPY fitted with FSL's b-vectors, unchanged, are in the frame
        "fsl", which differs from "voxel" if the determinant of the affine of the image
        or of the result is positive; a warning is logged if the frame is not given
        there.
    mask : ndarray, shape (X, Y, Z), optional
        Voxels of the input image where it is not 0 are used; others are background.
    image_grid2world, out_shape, out_grid2world : optional
        As in `apply_mapping`.
    interpolation : {"log-euclidean", "linear", "nearest"}, optional
        "log-euclidean" averages the logarithms of tensors :footcite:p:`Arsigny2006`:
        determinants are interpolated without swelling, and results are positive.
        "linear" averages the tensors.
    inverse : bool, optional
        Transform from static to moving.

    Returns
    -------
    warped : ndarray of float32
        Tensors on the output grid, in the form, the order and the frame of the input,
        along the axes of the output grid. Background, where the tensors known have less
        than half of the weight of the interpolation, is 0.

    Raises
    ------
    ValueError
        If the map is not 3D, the tensors have another shape, matrices are not
        symmetric, the mask has another shape or is empty, a name is unknown, or a shape
        does not fit its grid.

    See Also
    --------
    transform_tensor_fit : for a tensor fit of DIPY.
    register_tensors : registers two images of tensors.
    tensor_matrices, tensor_components : convert six components to matrices and back.
    transform_fods : for FODs; each fibre of a crossing turns by itself.

    Notes
    -----
    With "log-euclidean", eigenvalues below 1 % of the voxel's largest, negative ones
    too, are raised to that value before the logarithm, and voxels whose mean
    diffusivity is not positive are background. The log states how many there were.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import numpy as np
    >>> from dipy.align.imaffine import AffineMap
    >>> from dipy_dl_reg import transform_tensors
    >>> tensors = np.zeros((5, 5, 5, 3, 3))
    >>> tensors[:] = np.diag([1.7e-3, 0.3e-3, 0.3e-3])
    >>> quarter_turn = np.array(
    ...     [[0, 1, 0, 0], [-1, 0, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]]
    ... )
    >>> grid = dict(domain_grid_shape=(5, 5, 5), codomain_grid_shape=(5, 5, 5))
    >>> warped = transform_tensors(AffineMap(quarter_turn, **grid), tensors)
    >>> np.round(1e3 * np.diag(warped[2, 2, 2]), 3)
    array([0.3, 1.7, 0.3], dtype=float32)
    """
    check_choice("method", method, METHODS)
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    data, image_grid2world = read_image(tensors, image_grid2world, name="tensors")
    given = split_tensors(data, order)
    resampling = plan_resampling(
        mapping,
        data.shape,
        image_grid2world=image_grid2world,
        out_shape=out_shape,
        out_grid2world=out_grid2world,
        frame=frame,
        default_frame=given.default_frame,
        inverse=inverse,
    )
    known = find_known(_hold_tensors(given.components), mask, "tensors")
    evals, evecs, inside = _interpolate(
        resampling, given.components, known, interpolation
    )
    matrices = resampling.direction_matrices(inside)
    axes = reorient_axes(evecs, matrices, method)
    warped = np.zeros((*inside.shape, 6), dtype=np.float32)
    warped[inside] = tensor_components((axes * evals[:, None]) @ axes.swapaxes(1, 2))
    return join_tensors(warped, given)


def transform_tensor_fit(
    mapping: DiffeomorphicMap | AffineMap | np.ndarray,
    fit: TensorFit,
    *,
    method: str = "ppd",
    frame: str | None = None,
    mask: np.ndarray | None = None,
    image_grid2world: np.ndarray | None = None,
    out_shape: Sequence[int] | None = None,
    out_grid2world: np.ndarray | None = None,
    interpolation: str = "log-euclidean",
    inverse: bool = False,
) -> TensorFit:
    r"""Transform DIPY's tensor fit of an image by a map, with reorientation.

    Parameters
    ----------
    mapping : DiffeomorphicMap, AffineMap or ndarray of shape (4, 4)
        The map, in 3D. A matrix, from static's world to moving's, requires
        `image_grid2world`, `out_shape` and `out_grid2world`.
    fit : TensorFit
        What ``TensorModel(gtab).fit(data)`` returned.
    method, frame, mask, image_grid2world, out_shape, out_grid2world : optional
        As in `transform_tensors`.
    interpolation : {"log-euclidean", "linear", "nearest"}, optional
        As in `transform_tensors`.
    inverse : bool, optional
        Transform from static to moving.

    Returns
    -------
    warped : TensorFit
        The fit on the output grid, with all maps that DIPY derives from one (``fa``,
        ``md``, ``evecs``, ``color_fa``). The signal without diffusion weighting is not
        part of it: ``predict`` needs ``S0``.

    Raises
    ------
    ValueError
        As `transform_tensors`.

    See Also
    --------
    transform_tensors : the method, for tensors in an array or a file.
    transform_dwi : transforms the series, before a fit.
    dipy.reconst.dti.TensorFit : the class of the input and of the result.

    Notes
    -----
    The tensors are rotated in each voxel, :math:`D'(x) = R(x)\, D(T(x))\, R(x)^\top`,
    as `transform_tensors` describes.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy.align.imaffine import AffineMap
    >>> from dipy.core.gradients import gradient_table
    >>> from dipy.reconst.dti import TensorModel
    >>> from dipy_dl_reg import transform_tensor_fit
    >>> diagonals = [
    ...     [1, 1, 0],
    ...     [1, -1, 0],
    ...     [1, 0, 1],
    ...     [1, 0, -1],
    ...     [0, 1, 1],
    ...     [0, 1, -1],
    ... ]
    >>> bvecs = np.vstack([np.zeros(3), np.array(diagonals) / np.sqrt(2)])
    >>> gtab = gradient_table(np.array([0.0] + 6 * [1000]), bvecs=bvecs)
    >>> signal = 1000 * np.exp(-gtab.bvals * (3e-4 + 1.4e-3 * bvecs[:, 0] ** 2))
    >>> fit = TensorModel(gtab).fit(np.broadcast_to(signal, (5, 5, 5, 7)))
    >>> quarter_turn = np.array(
    ...     [[0, 1, 0, 0], [-1, 0, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]]
    ... )
    >>> grid = dict(domain_grid_shape=(5, 5, 5), codomain_grid_shape=(5, 5, 5))
    >>> warped = transform_tensor_fit(AffineMap(quarter_turn, **grid), fit)
    >>> first = warped.evecs[2, 2, 2, :, 0]  # turned from the first axis to the second
    >>> np.abs(first).round(3)
    array([0., 1., 0.], dtype=float32)
    """
    matrices = transform_tensors(
        mapping,
        fit.quadratic_form,
        method=method,
        frame=frame,
        mask=mask,
        image_grid2world=image_grid2world,
        out_shape=out_shape,
        out_grid2world=out_grid2world,
        interpolation=interpolation,
        inverse=inverse,
    )
    evals, evecs = decompose_tensor(matrices)
    return TensorFit(
        fit.model, np.concatenate((evals, evecs.reshape(*evals.shape[:3], 9)), axis=-1)
    )


def reorient_axes(
    evecs: np.ndarray, matrices: np.ndarray, method: str = "ppd"
) -> np.ndarray:
    r"""Reorient the eigenvectors of tensors by matrices that deform directions.

    Parameters
    ----------
    evecs : ndarray, shape (..., 3, 3)
        Eigenvectors in the columns, that of the largest eigenvalue first.
    matrices : ndarray, shape (..., 3, 3)
        Matrices :math:`F` that deform directions, in the axes of the eigenvectors.
    method : {"ppd", "finite_strain"}, optional
        The reorientation; see `transform_tensors`.

    Returns
    -------
    axes : ndarray of float64, shape (..., 3, 3)
        The new eigenvectors, orthonormal.

    Raises
    ------
    ValueError
        If the method is unknown.

    Notes
    -----
    "ppd" is the rotation of :footcite:t:`Alexander2001` that takes :math:`e_1` to
    :math:`n_1` around :math:`e_1 \times n_1`, followed by the one around :math:`n_1`
    that takes the second eigenvector to the part of :math:`F e_2` perpendicular to
    :math:`n_1`. The new eigenvectors are therefore :math:`n_1`, this part, and their
    cross product.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    A shear of the x-y plane turns fibres along y; those along x it does not.

    >>> import numpy as np
    >>> from dipy_dl_reg.diffusion.tensors import reorient_axes
    >>> shear = np.array([[1.0, 1, 0], [0, 1, 0], [0, 0, 1]])
    >>> along_y = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
    >>> np.round(reorient_axes(along_y, shear)[:, 0], 3)
    array([0.707, 0.707, 0.   ])
    >>> np.round(reorient_axes(np.eye(3), shear)[:, 0], 3)
    array([1., 0., 0.])
    """
    check_choice("method", method, METHODS)
    if method == "finite_strain":
        return rotation_of(matrices) @ evecs
    first, second = np.moveaxis((matrices @ evecs)[..., :2], -1, 0)
    first = first / np.linalg.norm(first, axis=-1, keepdims=True)
    second = second - (first * second).sum(-1, keepdims=True) * first
    second = second / np.linalg.norm(second, axis=-1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def _hold_tensors(components: np.ndarray) -> np.ndarray:
    """Voxels whose components are finite and not all zero."""
    return np.isfinite(components).all(-1) & (components != 0).any(-1)


def _interpolate(
    resampling: Resampling,
    components: np.ndarray,
    known: np.ndarray,
    interpolation: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors, largest first, at the voxels of the result."""
    if interpolation == "nearest":
        values, inside = resampling.pick_nearest(components, known)
        return (*_decompose(values), inside)
    if interpolation == "linear":
        values, inside = resampling.interpolate(components, known)
        return (*_decompose(values), inside)
    logs, known = _logarithms(components, known)
    values, inside = resampling.interpolate(logs, known)
    evals, evecs = _decompose(values)
    return np.exp(evals), evecs, inside


def _decompose(components: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors, the largest first; none is clipped."""
    matrices = tensor_matrices(np.asarray(components, dtype=np.float64))
    evals, evecs = np.linalg.eigh(matrices)
    return evals[..., ::-1], evecs[..., ::-1]


def _logarithms(
    components: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of tensors, and the voxels that have one."""
    evals, evecs = _decompose(components[known])
    positive = evals.sum(-1) > 0
    least = _LEAST_RATIO * evals[:, :1]
    raised = int((evals[positive] < least[positive]).any(-1).sum())
    if raised or not positive.all():
        logger.info(
            f"Log-Euclidean interpolation of {len(evals)} tensors: {raised} had "
            f"eigenvalues below {_LEAST_RATIO:.0%} of the largest, which were raised "
            f"to that; {int((~positive).sum())} without a positive mean diffusivity "
            "are background."
        )
    found = np.zeros_like(known)
    found[known] = positive
    if not positive.any():
        raise ValueError(
            "tensors must have a positive mean diffusivity somewhere for "
            'interpolation="log-euclidean"'
        )
    evals, evecs = np.log(np.maximum(evals, least)[positive]), evecs[positive]
    logs = np.zeros(components.shape, dtype=np.float32)
    logs[found] = tensor_components((evecs * evals[:, None]) @ evecs.swapaxes(1, 2))
    return logs, found
