"""Registration in one function call: affine steps and deformable registration.

`deep_registration` replaces DIPY's `syn_registration` and, with a `pipeline`, also the
call of `affine_registration` before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from os import PathLike
from typing import Any, NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
from dipy.testing.decorators import warning_for_keywords
import numpy as np

from dipy_dl_reg.io.image_kinds import is_slice, match_dimensions, plane_axes
from dipy_dl_reg.io.input_channels import read_input_channels
from dipy_dl_reg.io.input_image import InputImage
from dipy_dl_reg.maps.apply import transform_array
from dipy_dl_reg.registration import factory
from dipy_dl_reg.registration.affine.call import align_images, make_call_options
from dipy_dl_reg.registration.affine.steps import AffineResult, check_pipeline
from dipy_dl_reg.registration.deformable import DeepRegistration
from dipy_dl_reg.registration.head_masks import mask_heads_of_channels

#: The last step of a pipeline that deforms.
DEFORM = "deform"
#: Options that require a displacement in the map.
_DISPLACING = ("level_iters", "model", "landmarks", "initialization")


class _Images(NamedTuple):
    """The values and affines of two images."""

    static: InputImage
    moving: InputImage


@warning_for_keywords()
def deep_registration(
    moving: Any,
    static: Any,
    *,
    moving_affine: np.ndarray | None = None,
    static_affine: np.ndarray | None = None,
    step_length: float | None = None,
    metric: Any = None,
    dim: int | None = None,
    level_iters: Sequence[int] | None = None,
    prealign: Any = None,
    static_mask: str | PathLike | Any | None = None,
    moving_mask: str | PathLike | Any | None = None,
    num_threads: int | None = None,
    pipeline: Sequence[str | Callable] | None = None,
    affine_options: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[np.ndarray, DiffeomorphicMap]:
    """Register a moving image to a static image: files, NIfTI images or arrays.

    The order of arguments is that of `dipy.align.syn_registration`: moving comes first.
    `DeepRegistration.optimize` and the commands take static first.  With a `pipeline`,
    this function also does the affine registration; without one, the images must
    already be aligned affinely.

    Parameters
    ----------
    moving, static : str, Path, nibabel image or array, or sequence of these
        The images, 2D or 3D; moving is first.  Masked values of a
        `numpy.ma.MaskedArray` and NaN are missing data.  Several images a side, such as
        ``moving=[b0, fa], static=[t1, fa]``, are channels that are warped by one map:
        the first moving image is compared with the first static one, and so on.  Those
        of a side whose grids differ are resampled to the grid of the first, through
        both affines.  The affine steps of a pipeline use the first image of each side.
    moving_affine, static_affine : array, shape (dim + 1, dim + 1), optional
        Voxels to world of the images; by default the affines in the files.  For arrays,
        give both or neither; without them, both affines are the identity.  For several
        images, one matrix for all or a sequence of matrices.
    step_length : float, optional
        See `DeepRegistration`.
    metric : str, metric, or sequence of these, optional
        See `DeepRegistration`; for several images, one for all or one for each.
    dim : {2, 3}, optional
        Dimension of the images; by default it is taken from their shapes.
    level_iters : sequence of int, optional
        See `DeepRegistration`.
    prealign : array or AffineMap, optional
        Static world to moving world; the affine steps of a pipeline start from it (the
        step ``"center_of_mass"`` replaces it, with a warning).
    static_mask, moving_mask : str, Path, nibabel image or array, optional
        Only voxels other than 0 are compared.  A mask in a file or nibabel image is
        resampled to the image's grid if its grid differs (nearest neighbour, through
        both affines).  A mask in an array must have the image's shape.  For several
        images, one mask for all or a sequence with one for each (or None).
    num_threads : int, optional
        See `DeepRegistration.optimize`.
    pipeline : sequence of str, optional
        Steps, in order: those of `deep_affine_registration`, such as
        ``"center_of_mass"``, ``"rigid"``, ``"affine"``, and then ``"deform"``.  Without
        ``"deform"`` the map contains no displacement, and options that require one are
        an error.  By default ``["deform"]``: the images must already be aligned, or
        `prealign` must align them.
    affine_options : dict, optional
        Passed to `deep_affine_registration`; only with affine steps.
    **options : dict
        Options of `DeepRegistration`.  All others, such as ``radius``, are passed to
        the metric if `metric` is a name, or to local correlation if it is None.

    Returns
    -------
    warped : ndarray, shape of static
        The moving image on the static grid; several images are on its last axis.
    mapping : dipy.align.imwarp.DiffeomorphicMap
        The map from static to moving.  It is 2D if both images are single slices, of
        shape (X, Y) or (X, Y, 1).

    Raises
    ------
    ValueError
        If an image or an option cannot be used, if one image has an affine and the
        other has none, or if a mask does not cover its image.
    FileNotFoundError
        If a file is missing.

    See Also
    --------
    DeepRegistration : the same as a class, for images that are aligned.
    deep_affine_registration : the affine steps alone.
    apply_mapping : transforms further images, such as labels.
    register_dwi_to_template : for a diffusion series.
    dipy.align.syn_registration : the function that this one replaces.

    Notes
    -----
    Without `pipeline` only the deformation is computed, as by
    `dipy.align.syn_registration`, and the images must be aligned.  For two files as
    they come from the scanner, give all steps.

    ``mapping.prealign`` is the **inverse** of the affine from static world to moving
    world; ``mapping.prealign_inv`` is the affine itself.

    Examples
    --------
    Two files that are not aligned:

    >>> from dipy_dl_reg import deep_registration
    >>> warped, mapping = deep_registration(
    ...     "subject.nii.gz",
    ...     "template.nii.gz",
    ...     pipeline=["center_of_mass", "rigid", "affine", "deform"],
    ... )  # doctest: +SKIP

    Two arrays, of which one is displaced by 4 mm:

    >>> import numpy as np
    >>> x, y = np.mgrid[-1:1:32j, -1:1:32j]
    >>> static, moving = (
    ...     np.exp(-8 * ((x - d) ** 2 + k * y**2)) for d, k in [(0, 1), (0.25, 2)]
    ... )
    >>> warped, mapping = deep_registration(
    ...     moving, static, pipeline=["center_of_mass", "deform"], metric="SSD"
    ... )
    >>> bool(np.square(static - warped).sum() < 0.1 * np.square(static - moving).sum())
    True
    >>> np.round(mapping.prealign_inv[:2, 2], 1)  # static world to moving world
    array([3.9, 0. ])
    """
    steps, deforms = split_pipeline(pipeline)
    options |= {"level_iters": level_iters, "step_length": step_length}
    several = _count_channels(static, moving)
    registration = _make_registration(metric, dim, options, deforms, several)
    affine_options = _check_affine_options(affine_options, steps)
    channels = _read_channels(
        (static, static_affine, static_mask), (moving, moving_affine, moving_mask)
    )
    images, prealign = channels[0], getattr(prealign, "affine", prealign)
    shape = images.static.values.shape
    if dim is not None and len(shape) != dim:
        raise ValueError(f"dim is {dim}, but static has {len(shape)} axes.")
    _check_both_or_none(images)
    if all(is_slice(image.values.shape) for image in images):
        flat = [_drop_slice_axis(each, prealign) for each in channels]
        channels, (prealign, *_) = [list(part) for part in zip(*flat)]
        images = channels[0]
    if steps:
        masked = mask_heads_of_channels(channels, num_threads=num_threads)
        channels = [_Images(*both) for both in masked]
        images = channels[0]
        given = {"device": registration.device, "num_threads": num_threads}
        if prealign is not None:
            given["starting_affine"] = prealign
        result = _align(images, steps, **given | affine_options)
        prealign, registration.poses = result.matrix, result.poses
    if several:
        images = _stack_channels(channels)
    mapping = _deform(registration, images, prealign, num_threads)
    warped = transform_array(mapping, images.moving.values)
    return warped.reshape(*shape, *warped.shape[mapping.dim :]), mapping


def _are_channels(images: Any) -> bool:
    """Whether a user gave a list of images, and not one image as nested lists."""
    return isinstance(images, (list, tuple)) and not any(
        isinstance(image, (list, tuple, int, float)) for image in images
    )


def _count_channels(static: Any, moving: Any) -> int | None:
    """Number of images of each side; None if both sides are single images."""
    if not (_are_channels(static) or _are_channels(moving)):
        return None
    counts = [len(i) if _are_channels(i) else 1 for i in (static, moving)]
    if counts[0] != counts[1]:
        raise ValueError(
            "static and moving must have the same number of images (channels), got "
            f"{counts[0]} and {counts[1]}."
        )
    if not counts[0]:
        raise ValueError("static and moving must have at least one image each.")
    return counts[0]


def _read_channels(
    static: tuple[Any, Any, Any], moving: tuple[Any, Any, Any]
) -> list[_Images]:
    """Read the images of both sides, given with their affines and masks."""
    sides = []
    for name, (images, affine, mask) in (("static", static), ("moving", moving)):
        images = images if _are_channels(images) else [images]
        sides.append(read_input_channels(images, affine, mask, name=name))
    return [_Images(*both) for both in zip(*sides)]


def _stack_channels(channels: Sequence[_Images]) -> _Images:
    """Images with the channels on their last axis."""
    sides = []
    for side in zip(*channels):
        values = np.stack([np.asarray(channel.values) for channel in side], -1)
        masks = [channel.mask for channel in side]
        mask = None
        if any(each is not None for each in masks):
            shape = values.shape[:-1]
            full = [np.ones(shape, bool) if m is None else m for m in masks]
            mask = np.stack([np.ma.filled(m, 0) != 0 for m in full], -1)
        sides.append(InputImage(values, side[0].grid2world, mask))
    return _Images(*sides)


def _make_registration(
    metric: Any,
    dim: int | None,
    options: dict[str, Any],
    deforms: bool,
    channels: int | None,
) -> DeepRegistration:
    """Make the registration; options that it does not have are passed to the metric."""
    own = signature(DeepRegistration).parameters
    for_metric = {name: options[name] for name in options if name not in own}
    options = {name: options[name] for name in options if name in own}
    if dim is not None and isinstance(metric, str) and not factory.is_automatic(metric):
        for_metric["dim"] = dim
    options = options if deforms else disable_deformation(options)
    if channels is None:
        return DeepRegistration(factory.make_metric(metric, **for_metric), **options)
    given = metric if isinstance(metric, (list, tuple)) else [metric] * channels
    if len(given) != channels:
        raise ValueError(
            f"metric must be one for all or one for each of the {channels} images "
            f"(channels), got {len(given)}."
        )
    metrics = [factory.make_metric(each, **for_metric) for each in given]
    return DeepRegistration(metrics, **options)


def _align(
    images: _Images,
    steps: list[str],
    *,
    starting_affine: np.ndarray | None = None,
    num_threads: int | None = None,
    **options: Any,
) -> AffineResult:
    """Run the affine steps."""
    return align_images(
        images.static,
        images.moving,
        steps,
        make_call_options(**options),
        starting_affine=starting_affine,
        num_threads=num_threads,
    )


def _deform(
    registration: DeepRegistration,
    images: _Images,
    prealign: np.ndarray | None,
    num_threads: int | None,
) -> DiffeomorphicMap:
    """Run the deformable step."""
    return registration.optimize(
        static=images.static.values,
        moving=images.moving.values,
        static_grid2world=images.static.grid2world,
        moving_grid2world=images.moving.grid2world,
        prealign=prealign,
        static_mask=images.static.mask,
        moving_mask=images.moving.mask,
        num_threads=num_threads,
    )


def _drop_slice_axis(
    images: _Images, prealign: np.ndarray | None
) -> tuple[_Images, np.ndarray | None]:
    """Convert two single slices and their prealign to 2D."""
    static, moving = images
    prealign = _in_plane_of(static.grid2world, prealign)
    values_and_affines = match_dimensions(
        static.values, moving.values, static.grid2world, moving.grid2world
    )
    masks = (
        None if image.mask is None else np.reshape(image.mask, image.mask.shape[:2])
        for image in images
    )
    first, second, *affines = values_and_affines
    matched = zip((first, second), affines, masks)
    return _Images(*(InputImage(*parts) for parts in matched)), prealign


def split_pipeline(
    pipeline: str | Sequence[str | Callable] | None,
) -> tuple[list[str], bool]:
    """Split a pipeline into affine steps and the deformable step.

    Parameters
    ----------
    pipeline : str, sequence of str or None
        Affine steps, followed by ``"deform"`` or not; None is only ``"deform"``.

    Returns
    -------
    steps : list of str
        The affine steps.
    deforms : bool
        Whether the deformable step follows.

    Raises
    ------
    ValueError
        If there is no step, a step is unknown, or ``"deform"`` is not the last step.
    """
    if pipeline is None:
        return [], True
    steps = [pipeline] if isinstance(pipeline, str) else list(pipeline)
    if not steps:
        raise ValueError("pipeline must have at least one step, such as 'deform'.")
    if DEFORM in steps[:-1]:
        raise ValueError(
            f"pipeline must have 'deform' only once, as the last step, got {steps}."
        )
    deforms = steps[-1] == DEFORM
    steps = steps[: len(steps) - deforms]
    if not steps:
        return [], deforms
    try:
        return check_pipeline(steps), deforms
    except ValueError as error:
        raise ValueError(f"{error}; the last step may be {DEFORM!r}.") from None


def disable_deformation(options: dict[str, Any]) -> dict[str, Any]:
    """Change the options of a `DeepRegistration` so that there is no displacement.

    Parameters
    ----------
    options : dict
        The user's options.

    Returns
    -------
    options : dict
        The options, without a network and without iterations.

    Raises
    ------
    ValueError
        If one of the options requires a displacement.
    """
    asked = [n for n in _DISPLACING if options.get(n) is not None]
    asked = [n for n in asked if (n, options[n]) != ("model", "auto")]
    if asked:
        raise ValueError(f"{asked[0]} requires 'deform' at the end of the pipeline.")
    return options | {"model": None, "level_iters": 0}


def _check_affine_options(
    options: dict[str, Any] | None, steps: list[str]
) -> dict[str, Any]:
    """Check that the options are a dictionary and are given only with affine steps."""
    if options is None:
        return {}
    if not isinstance(options, dict) or "pipeline" in options:
        raise ValueError(
            "affine_options must be a dictionary of options without pipeline, got "
            f"{options!r}."
        )
    if options and not steps:
        raise ValueError("affine_options requires affine steps in the pipeline.")
    return options


def _check_both_or_none(images: _Images) -> None:
    """Raise if only one of two images has an affine."""
    without = [
        role for role, image in images._asdict().items() if image.grid2world is None
    ]
    if len(without) == 1:
        (role,) = without
        raise ValueError(
            f"{role}_affine is required: {role} is an array without an affine, but the "
            "other image has an affine."
        )


def _in_plane_of(
    grid2world: np.ndarray | None, prealign: np.ndarray | None
) -> np.ndarray | None:
    """Reduce a prealign, world to world, to the plane of a slice."""
    if prealign is None or grid2world is None:
        return prealign
    if np.shape(prealign) != (4, 4) or np.shape(grid2world) != (4, 4):
        return prealign
    axes = [*plane_axes(grid2world), 3]
    return np.asarray(prealign)[np.ix_(axes, axes)]
