"""Registration driven by the directions of diffusion tensors.

FA and b0 show where white matter is, but not which bundle: neighbouring bundles of
different directions have the same intensity.  `register_tensors` compares the tensors
themselves, and reorients them in every iteration, as DTI-TK does
:footcite:p:`Zhang2006`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dipy.align.imwarp import DiffeomorphicMap
from dipy.testing.decorators import warning_for_keywords
import numpy as np

from dipy_dl_reg.diffusion.direction_images import (
    TENSOR_WEIGHTS,
    choose_tensor_frame,
    make_tensor_images,
    read_direction_images,
)
from dipy_dl_reg.diffusion.reorienting_registration import ReorientingRegistration
from dipy_dl_reg.diffusion.tensors import (
    INTERPOLATIONS,
    METHODS,
    transform_tensors,
)
from dipy_dl_reg.geometry.reorientation import TensorRotation
from dipy_dl_reg.metrics.orientation import OrientationMetric
from dipy_dl_reg.registration.pipeline import split_pipeline
from dipy_dl_reg.validation import check_choice, check_number

#: Options of `DeepRegistration` that these functions determine.
_FIXED_OPTIONS = ("metric", "model", "channel_weights", "phase_encoding", "modulate")


@warning_for_keywords()
def register_tensors(
    moving: Any,
    static: Any,
    *,
    moving_affine: np.ndarray | None = None,
    static_affine: np.ndarray | None = None,
    prealign: Any = None,
    order: str = "dipy",
    frame: str | None = None,
    static_mask: Any = None,
    moving_mask: Any = None,
    pipeline: Sequence[str] | None = None,
    affine_options: dict[str, Any] | None = None,
    fa_weight: float = 0.1,
    method: str = "ppd",
    interpolation: str = "log-euclidean",
    num_threads: int | None = None,
    **options: Any,
) -> tuple[np.ndarray, DiffeomorphicMap]:
    r"""Register an image of diffusion tensors to another one by their directions.

    In every iteration, the tensors of moving are warped, and rotated by the local
    rotation of the whole map (finite strain). What is compared is the deviatoric part
    of each tensor, scaled so that its norm is FA, and FA itself:

    .. math::

        \mathrm{mean}\,\lVert A_s - A_m \rVert^2
        + k\,\big(1 - \mathrm{cc}(\mathrm{FA}_s, \mathrm{FA}_m)\big), \qquad
        A = \sqrt{\tfrac{3}{2}}\,
        \frac{D - \mathrm{tr}(D)\,I / 3}{\lVert D \rVert},\quad
        \lVert A \rVert = \mathrm{FA}

    with local correlation cc (`CCMetric`). The first term is the distance of
    :footcite:t:`Zhang2006` for tensors divided by their norm, so that diffusivities,
    which depend on the b-value, need not be equal in both images.

    Parameters
    ----------
    moving, static : ndarray, nibabel image, str, Path or TensorFit
        The tensors: six components, of shape (X, Y, Z, 6) or (X, Y, Z, 1, 6), or
        matrices, of shape (X, Y, Z, 3, 3), as DIPY's ``TensorFit.quadratic_form``.
        Tensors that are zero or not finite are background.
    moving_affine, static_affine : array, shape (4, 4), optional
        Voxels to world of the images; by default the affines in the files. For arrays,
        give both or neither; without them, both are the identity.
    prealign : array or AffineMap, optional
        Static world to moving world, as `deep_affine_registration` of the two FA images
        returns it; affine steps of a pipeline start from it.
    order : {"dipy", "fsl", "mrtrix"}, optional
        Order of six components, in both images; see `transform_tensors`.
    frame : {"voxel", "fsl", "world"}, optional
        Axes in which the components of both images are given; see `transform_tensors`,
        also for the default. A wrong frame is not detected: the registration is then
        driven by directions of other anatomy.
    static_mask, moving_mask : ndarray, nibabel image, str or Path, optional
        Only voxels other than 0 are compared.
    pipeline : sequence of str, optional
        Affine steps, then ``"deform"``; see `deep_registration`. Affine steps register
        the FA images. By default ``["deform"]``: the images must already be aligned, or
        `prealign` must align them.
    affine_options : dict, optional
        Passed to `deep_affine_registration`.
    fa_weight : float, optional
        Weight :math:`k` of FA. Without it, FA agrees less well after the registration,
        and directions slightly better (``doc/benchmark/orientation.txt``).
    method : {"ppd", "finite_strain"}, optional
        Reorientation of the result; see `transform_tensors`.
    interpolation : {"log-euclidean", "linear", "nearest"}, optional
        Interpolation of the result; see `transform_tensors`.
    num_threads : int, optional
        See `DeepRegistration.optimize`.
    **options : dict
        Options of `DeepRegistration`, except `metric`, `model`,
        `channel_weights`, `phase_encoding` and `modulate`.

    Returns
    -------
    warped : ndarray of float32
        The tensors of moving on static's grid, reoriented, in the form, the order and
        the frame of moving.
    mapping : dipy.align.imwarp.DiffeomorphicMap
        The map from static to moving, as of `deep_registration`.

    Raises
    ------
    ValueError
        If an image holds no tensors, an option cannot be used, one image has an affine
        and the other has none, or the images do not overlap.
    FileNotFoundError
        If a file is missing.

    See Also
    --------
    transform_tensors : applies a map to tensors.
    register_fods : the same for FODs.
    register_dwi_to_template : by b0 and FA, without directions.

    Notes
    -----
    The rotation of finite strain is :math:`R = F (F^\top F)^{-1/2}` with :math:`F =
    J^{-1}`, the inverse of the Jacobian matrix of the map.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    A fibre that bends more in moving than in static:

    >>> import numpy as np
    >>> from dipy_dl_reg import register_tensors
    >>> def bundle(bend):
    ...     x, y, z = np.mgrid[-1:1:20j, -1:1:20j, -1:1:8j]
    ...     slope = np.stack([np.ones_like(x), 2 * bend * x, np.zeros_like(x)], -1)
    ...     slope /= np.linalg.norm(slope, axis=-1, keepdims=True)
    ...     tensors = 3e-4 * np.eye(3) + 1.4e-3 * slope[..., None] * slope[..., None, :]
    ...     tensors[np.abs(y - bend * x**2) > 0.4] = 1e-3 * np.eye(3)
    ...     return tensors
    >>> static = bundle(0.2)
    >>> warped, mapping = register_tensors(bundle(0.5), static)
    >>> before = np.abs(bundle(0.5) - static).mean()
    >>> bool(np.abs(warped - static).mean() < 0.6 * before)
    True
    """
    check_choice("method", method, METHODS)
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    weight = check_number("fa_weight", fa_weight)
    metric = OrientationMetric(TENSOR_WEIGHTS, scalar_weight=weight)
    steps = check_options(pipeline, options, affine_options)
    registration = ReorientingRegistration(TensorRotation(), metric, **options)
    images = read_direction_images(
        (moving, static), (moving_affine, static_affine), (moving_mask, static_mask)
    )
    frame = choose_tensor_frame(images, order, frame)
    mapping = registration.register(
        *make_tensor_images(images, order, frame),
        prealign=prealign,
        steps=steps,
        affine_options=affine_options,
        num_threads=num_threads,
    )
    warped = transform_tensors(
        mapping,
        images[0].values,
        method=method,
        order=order,
        frame=frame,
        image_grid2world=images[0].grid2world,
        interpolation=interpolation,
    )
    return warped, mapping


def check_options(
    pipeline: Sequence[str] | None,
    options: dict[str, Any],
    affine_options: dict[str, Any] | None,
) -> list[str]:
    """Check the options of the affine and the deformable steps.

    Parameters
    ----------
    pipeline : sequence of str or None
        Affine steps, and ``"deform"``.
    options : dict
        Options of `DeepRegistration`.
    affine_options : dict or None
        Options of `deep_affine_registration`.

    Returns
    -------
    steps : list of str
        The affine steps.

    Raises
    ------
    ValueError
        If a step is unknown, "deform" is missing, there are affine options without
        affine steps, or an option cannot be chosen.
    """
    steps, deforms = split_pipeline(pipeline)
    if not deforms:
        raise ValueError(
            "pipeline must end with 'deform': for affine steps alone, use "
            "deep_affine_registration of FA."
        )
    if affine_options and not steps:
        raise ValueError("affine_options requires affine steps in the pipeline.")
    fixed = sorted(set(options) & set(_FIXED_OPTIONS))
    if fixed:
        raise ValueError(
            f"{fixed[0]} cannot be chosen for a registration by directions."
        )
    return steps
