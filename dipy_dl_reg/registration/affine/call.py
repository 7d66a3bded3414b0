"""Affine registration of files, NIfTI images or arrays, in several steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from os import PathLike
from typing import Any, Literal

from dipy.testing.decorators import warning_for_keywords
import numpy as np

from dipy_dl_reg.io.input_image import InputImage, read_input_image
from dipy_dl_reg.maps.interpolation import interpolate_linearly
from dipy_dl_reg.maps.verdict import log_verdict
from dipy_dl_reg.options import document_options
from dipy_dl_reg.registration.affine.options import (
    AffineOptions,
    VerbosityLevels,
    make_affine_metric,
)
from dipy_dl_reg.registration.affine.orientation import warn_if_turned
from dipy_dl_reg.registration.affine.poses import make_affine_pair
from dipy_dl_reg.registration.affine.steps import (
    AffineResult,
    check_pipeline,
    make_steps,
    run_steps,
    warn_if_apart,
)
from dipy_dl_reg.registration.devices import threads
from dipy_dl_reg.registration.user_warnings import warn_user
from dipy_dl_reg.validation import check_affine


@document_options(AffineOptions)
@warning_for_keywords()
def deep_affine_registration(
    moving: Any,
    static: Any,
    *,
    moving_affine: np.ndarray | None = None,
    static_affine: np.ndarray | None = None,
    pipeline: Sequence[str | Callable] | None = None,
    starting_affine: np.ndarray | None = None,
    metric: Any = "MI",
    level_iters: Sequence[int] | None = None,
    sigmas: Sequence[float] | None = None,
    factors: Sequence[float] | None = None,
    ret_metric: bool = False,
    moving_mask: str | PathLike | Any | None = None,
    static_mask: str | PathLike | Any | None = None,
    optimizer_options: dict[str, Any] | None = None,
    optimizer_method: str | None = None,
    starts: Literal["one", "auto", "all"] = "auto",
    device: Any = "auto",
    num_threads: int | None = None,
    **metric_kwargs: Any,
) -> tuple[Any, ...]:
    """Register files, NIfTI images or arrays affinely, in several steps.

    The order of arguments is that of `dipy.align.affine_registration`: moving comes
    first.  `DeepAffineRegistration.optimize` takes static first.

    Parameters
    ----------
    moving, static : array, nibabel image, str or Path
        The images, 2D or 3D; moving is first.  Masked values of a
        `numpy.ma.MaskedArray` and NaN are missing data.
    moving_affine, static_affine : array, shape (dim + 1, dim + 1), optional
        Voxels to world (mm).  Required for arrays; by default the affine in the file.
        For a slice, a 4x4 matrix is accepted.
    pipeline : sequence of str or callable, optional
        Steps: ``"center_of_mass"``, ``"translation"``, ``"rigid"``,
        ``"rigid_isoscaling"``, ``"rigid_scaling"``, ``"affine"``, or DIPY's functions
        of these names.  By default centre of mass, translation, rigid, affine.  If an
        image has large negative values (for example, an image of mean 0), its smallest
        value is subtracted before its centre of mass is computed.
    starting_affine : array, shape (dim + 1, dim + 1), optional
        From static's world to moving's; by default the identity.
    metric, level_iters, sigmas, factors : AffineOptions
    ret_metric : bool, optional
        Also return the parameters and the metric of the last step.
    moving_mask, static_mask : array, nibabel image, str or Path, optional
        Only voxels other than 0 are compared.  A mask in a file or nibabel image is
        resampled to the image's grid if its grid differs (nearest neighbour, through
        both affines).  A mask in an array must have the image's shape.
    optimizer_options : dict, optional
        Accepted without effect.
    optimizer_method : str, optional
        Accepted without effect; an option of DIPY's function from DIPY 1.13 on.
    starts : {"auto", "one", "all"}, optional
        Whether the step ``"center_of_mass"`` also searches rotations by any angle (see
        `DeepAffineRegistration`).  ``"one"`` only aligns the centres of mass, as DIPY
        does.  The others search if one of the steps can rotate the image.
    device : AffineOptions
    num_threads : int, optional
        Threads on the CPU; None uses Torch's default, -1 all processors.
    **metric_kwargs : dict
        Options of the metric, if it is a name or None: `nbins` of MI; `radius` (by
        default 2) and `variance_floor` of CC; and `sampling_proportion`.

    Returns
    -------
    resampled : ndarray, shape of static
        The moving image on the static grid; NaN as in `apply_mapping`.
    final_affine : ndarray, shape (dim + 1, dim + 1)
        From static's world to moving's.
    xopt : ndarray
        Parameters of the last step, if `ret_metric`.
    fopt : float
        Metric of the last step, if `ret_metric`.

    Raises
    ------
    ValueError
        If an image or an option cannot be used, or a mask does not cover its image.
    FileNotFoundError
        If a file is missing.

    Warns
    -----
    UserWarning
        If the two images hardly overlap after the registration, or if it rotated a head
        by more than 60 degrees that is not upright in the orientation of its header.

    See Also
    --------
    DeepAffineRegistration : one step, as a class.
    deep_registration : with a deformation after the affine steps.
    write_affine, read_affine : matrices for other programs.
    dipy.align.affine_registration : the function that this one replaces.

    Notes
    -----
    Unless `level_iters` is given, all steps but the last omit the finest levels,
    because the next step would repeat them.  Mutual information is that of
    :footcite:t:`Mattes2003`, minimized by a quasi-Newton method
    :footcite:p:`Nocedal2006`.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import deep_affine_registration
    >>> x, y = np.mgrid[-1:1:32j, -1:1:32j]
    >>> static, moving = (np.exp(-9 * (x + s) ** 2 - 4 * y**2) for s in (0, 0.25))
    >>> resampled, matrix = deep_affine_registration(
    ...     moving,
    ...     static,
    ...     moving_affine=np.eye(3),
    ...     static_affine=np.eye(3),
    ...     pipeline=["translation"],
    ...     metric="SSD",
    ... )
    >>> float(matrix[0, 2].round(1))  # static world to moving world, in mm
    -3.9
    """
    steps = check_pipeline(pipeline, ret_metric)
    options = make_call_options(
        metric=metric,
        level_iters=level_iters,
        sigmas=sigmas,
        factors=factors,
        optimizer_options=optimizer_options,
        optimizer_method=optimizer_method,
        starts=starts,
        device=device,
        **metric_kwargs,
    )
    images = _read_images(
        static, moving, static_affine, moving_affine, static_mask, moving_mask
    )
    result = align_images(
        *images,
        steps,
        options,
        starting_affine=starting_affine,
        num_threads=num_threads,
    )
    if result.verdict is not None:
        log_verdict(result.verdict, "affine registration", quiet=True)
    found = (result.matrix, result.parameters, result.value)
    resampled = interpolate_linearly(result.affine_map.transform, images[1].values)
    return (resampled, *(found if ret_metric else found[:1]))


def find_affine(
    moving: Any,
    static: Any,
    *,
    moving_affine: np.ndarray | None,
    static_affine: np.ndarray | None,
    pipeline: Sequence[str | Callable] | None = None,
    starting_affine: np.ndarray | None = None,
    moving_mask: Any | None = None,
    static_mask: Any | None = None,
    num_threads: int | None = None,
    **options: Any,
) -> AffineResult:
    """Register images affinely in steps; return matrix, parameters, poses and verdict.

    Parameters
    ----------
    moving, static, moving_affine, static_affine
        As in `deep_affine_registration`.
    pipeline, starting_affine, moving_mask, static_mask, num_threads
        As in `deep_affine_registration`.
    **options : dict
        See `make_call_options`.

    Returns
    -------
    result : AffineResult
        The verdict is not logged, because a deformable registration may follow.

    Raises
    ------
    ValueError
        If an image or an option cannot be used.
    """
    steps = check_pipeline(pipeline)
    call_options = make_call_options(**options)
    images = _read_images(
        static, moving, static_affine, moving_affine, static_mask, moving_mask
    )
    return align_images(
        *images,
        steps,
        call_options,
        starting_affine=starting_affine,
        num_threads=num_threads,
    )


def find_prealign(
    static: np.ndarray,
    moving: np.ndarray,
    static_affine: np.ndarray,
    moving_affine: np.ndarray,
    *,
    static_mask: np.ndarray | None = None,
    moving_mask: np.ndarray | None = None,
    pipeline: Sequence[str] | None = None,
    starting_affine: np.ndarray | None = None,
    num_threads: int | None = None,
) -> np.ndarray:
    """Find the affine from static to moving, including a search over rotations.

    Parameters
    ----------
    static, moving : ndarray, 3D or 2D
        The images; NaN is missing data.
    static_affine, moving_affine : ndarray, shape (dim + 1, dim + 1)
        Voxels to world, mm.
    static_mask, moving_mask : ndarray of bool, optional
        True at voxels that are compared.
    pipeline : sequence of str, optional
        Steps of `deep_affine_registration`; by default centre of mass, translation,
        rigid, affine, with mutual information.
    starting_affine : ndarray, shape (dim + 1, dim + 1), optional
        Initial affine from static's world to moving's.
    num_threads : int, optional
        Threads on the CPU.

    Returns
    -------
    prealign : ndarray, shape (dim + 1, dim + 1)
        Static world to moving world.

    Raises
    ------
    ValueError
        If the affine found is not invertible.
    """
    found = find_affine(
        moving=moving,
        static=static,
        moving_affine=moving_affine,
        static_affine=static_affine,
        static_mask=static_mask,
        moving_mask=moving_mask,
        pipeline=pipeline,
        starting_affine=starting_affine,
        num_threads=num_threads,
    )
    if found.verdict is not None:
        log_verdict(found.verdict, "affine registration", quiet=True)
    return check_affine(found.matrix, np.ndim(static), "the affine found")


def make_call_options(
    *,
    metric: Any = "MI",
    optimizer_options: dict[str, Any] | None = None,
    optimizer_method: str | None = None,
    starts: Literal["one", "auto", "all"] = "auto",
    **options: Any,
) -> AffineOptions:
    """Make the options of an affine registration in steps.

    Parameters
    ----------
    metric, optimizer_options, optimizer_method, starts
        As in `deep_affine_registration`.
    **options : dict
        Other fields of `AffineOptions`; all remaining ones are options of the metric.

    Returns
    -------
    options : AffineOptions
        The options, after validation.

    Raises
    ------
    ValueError
        If an option cannot be used.
    """
    known = {field.name for field in fields(AffineOptions)}
    own = {name: value for name, value in options.items() if name in known}
    for_metric = {name: options[name] for name in options if name not in known}
    return AffineOptions(
        metric=make_affine_metric(metric, **for_metric) if for_metric else metric,
        options=optimizer_options,
        method=optimizer_method or "L-BFGS-B",
        verbosity=VerbosityLevels.NONE,
        starts=starts,
        **own,
    )


def align_images(
    static: InputImage,
    moving: InputImage,
    steps: Sequence[str],
    options: AffineOptions,
    *,
    starting_affine: np.ndarray | None = None,
    num_threads: int | None = None,
) -> AffineResult:
    """Register images that are already read, affinely and in steps.

    Parameters
    ----------
    static, moving : InputImage
        The images.
    steps : sequence of str
        Names from `check_pipeline`.
    options : AffineOptions
        From `make_call_options`.
    starting_affine : array, shape (dim + 1, dim + 1), optional
        From static's world to moving's; by default the identity.
    num_threads : int, optional
        Threads on the CPU.

    Returns
    -------
    result : AffineResult
        The verdict is not logged, because a deformable registration may follow.

    Raises
    ------
    ValueError
        If an image, mask or matrix cannot be used.

    Warns
    -----
    UserWarning
        If the step center_of_mass replaces `starting_affine`, the images hardly
        overlap, or one shows a head that is turned against its header.
    """
    if "center_of_mass" in steps and starting_affine is not None:
        warn_user("starting_affine overwritten by center_of_mass transform")
    with threads(num_threads):
        pair = make_affine_pair(static, moving, starting_affine, options)
        images = static.values, moving.values
        all_steps = make_steps(steps, pair, images, options.starts)
        result = run_steps(pair, pair.prealign, all_steps, options)
        warn_if_turned(result.matrix, static, moving)
    warn_if_apart(result.overlap)
    return result


def _read_images(
    static: Any,
    moving: Any,
    static_affine: np.ndarray | None,
    moving_affine: np.ndarray | None,
    static_mask: Any | None,
    moving_mask: Any | None,
) -> tuple[InputImage, InputImage]:
    """Read static and moving; both must have a grid-to-world matrix."""
    moving = read_input_image(moving, moving_affine, moving_mask, name="moving")
    static = read_input_image(static, static_affine, static_mask, name="static")
    for name, image in (("moving", moving), ("static", static)):
        if image.grid2world is None:
            raise ValueError(f"{name}_affine is required if {name} is an array.")
    return static, moving
