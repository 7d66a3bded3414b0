"""Options of `dipy_align_deep`: their checks, and the registration that they describe.

Invalid options are errors of the command line (`usage_errors`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipy_dl_reg.io.landmark_files import read_landmark_pair
from dipy_dl_reg.registration.affine.steps import AFFINE_STEPS
from dipy_dl_reg.registration.pipeline import disable_deformation, split_pipeline
from dipy_dl_reg.workflows.base import PathLike
from dipy_dl_reg.workflows.exit_codes import usage_errors
from dipy_dl_reg.workflows.help_texts import read_anatomy
from dipy_dl_reg.workflows.image_pair import check_pair
from dipy_dl_reg.workflows.register_files import DIAGNOSE

if TYPE_CHECKING:
    from dipy_dl_reg.registration.deformable import DeepRegistration


@usage_errors()
def choose_steps(
    prealign: PathLike | None, affine: bool, pipeline: Sequence[str] | None
) -> tuple[list[str], bool]:
    """Choose the affine steps, and whether the deformable step follows.

    Parameters
    ----------
    prealign : str, Path or None
        File of a prealign.
    affine : bool
        Whether the usual affine steps are asked for.
    pipeline : sequence of str or None
        Steps that are asked for.

    Returns
    -------
    steps : list of str
        The affine steps.
    deforms : bool
        Whether the deformable step follows.

    Raises
    ------
    ValueError
        If the options exclude each other, or a step is unknown.
    """
    for name, other in (("prealign", prealign), ("pipeline", pipeline)):
        if affine and other:
            raise ValueError(f"give either --affine or --{name}, not both")
    steps, deforms = split_pipeline(pipeline)
    if affine:
        steps = list(AFFINE_STEPS)
    if prealign and "center_of_mass" in steps:
        raise ValueError("give either --prealign or center_of_mass, not both")
    return steps, deforms


@usage_errors()
def check_channels(
    static: Sequence[PathLike] | None,
    moving: Sequence[PathLike] | None,
    metrics: Sequence[str] | None,
    weights: Sequence[float] | None,
) -> tuple[list[PathLike], list[PathLike]]:
    """Check the numbers of further images, metrics and weights.

    Parameters
    ----------
    static, moving : sequence of str or Path, or None
        Further images.
    metrics : sequence of str or None
        A metric for each image of a side, the first included.
    weights : sequence of float or None
        A weight for each.

    Returns
    -------
    static, moving : list of str or Path
        The further images.

    Raises
    ------
    ValueError
        If the numbers differ, or there are metrics or weights without images.
    """
    static, moving = list(static or []), list(moving or [])
    if len(static) != len(moving):
        raise ValueError(
            "static_channels and moving_channels must be as many images, got "
            f"{len(static)} and {len(moving)}"
        )
    for name, given in (("channel_metrics", metrics), ("channel_weights", weights)):
        if given is None:
            continue
        if not static:
            raise ValueError(f"{name} requires static_channels and moving_channels")
        if len(given) != 1 + len(static):
            raise ValueError(
                f"{name} must be {1 + len(static)}, one for each image of a side, the "
                f"first included, got {len(given)}"
            )
    return static, moving


def read_options(
    anatomy: str,
    landmark_files: tuple[PathLike | None, PathLike | None],
    landmark_weight: float,
    **options: Any,
) -> dict[str, Any]:
    """Read the options of the deformable step.

    Parameters
    ----------
    anatomy : str
        "auto", "yes" or "no".
    landmark_files : tuple of str, Path or None
        Files of the points of static and of moving.
    landmark_weight : float
        Weight of the landmarks.
    **options
        Options of `DeepRegistration`, which are returned as they are.

    Returns
    -------
    options : dict
        Options of `DeepRegistration`.

    Raises
    ------
    ValueError
        If an option is invalid, or the landmarks cannot be read.
    """
    with usage_errors():
        options["anatomy"] = read_anatomy(anatomy)
    if any(path is not None for path in landmark_files):
        options["landmarks"] = read_landmark_pair(*landmark_files)
        options["landmark_weight"] = landmark_weight
    return options


def make_registration(
    given: dict[str, Any],
    options: dict[str, Any],
    deforms: bool,
    *,
    channel_metrics: Sequence[str] | None,
    channel_weights: Sequence[float] | None,
    channels: int,
    verbose: bool,
) -> DeepRegistration:
    """Make the registration of all pairs.

    Parameters
    ----------
    given : dict
        The options "metric", "device" and "max_memory".
    options : dict
        Options of the deformable step.
    deforms : bool
        Whether there is a deformable step.
    channel_metrics : sequence of str or None
        A metric for each image of a side; None is the same for all.
    channel_weights : sequence of float or None
        A weight for each image of a side.
    channels : int
        Number of further images of a side.
    verbose : bool
        Whether every iteration is logged.

    Returns
    -------
    registration : DeepRegistration
        The registration.

    Raises
    ------
    ValueError
        If an option is invalid.
    """
    from dipy_dl_reg.registration.deformable import DeepRegistration

    options = options if deforms else disable_deformation(options)
    metric = given["metric"]
    if channels:
        metric = list(channel_metrics or [metric] * (1 + channels))
        options = options | {"channel_weights": channel_weights}
    with usage_errors():
        registration = DeepRegistration(
            metric, device=given["device"], max_memory=given["max_memory"], **options
        )
    if verbose:
        registration.verbosity = DIAGNOSE
    return registration


def check_pairs(
    pairs: Sequence[Sequence[Path]],
    masks: dict[str, PathLike | None],
    landmarks: Any,
    out_field: str | None,
    channels: Sequence[Sequence[PathLike]] = ((), ()),
) -> set[int]:
    """Check the headers of all images and masks.

    Parameters
    ----------
    pairs : sequence
        Static and moving of each pair.
    masks : dict
        Files of the masks, by parameter.
    landmarks : tuple of ndarray or None
        Points of static and of moving.
    out_field : str or None
        Name of the field in DIPY's format.
    channels : tuple
        Further images of static and of moving.

    Returns
    -------
    dims : set of int
        The dimensions of the pairs.

    Raises
    ------
    ValueError
        If an option is for one pair only, or for other dimensions.
    """
    given = {"landmarks": landmarks is not None, "channels": bool(channels[0])}
    for name in (name for name in given if given[name] and len(pairs) > 1):
        raise ValueError(
            f"static_{name} and moving_{name} can only be given for one pair of "
            f"images, got {len(pairs)} pairs"
        )
    dims = {check_pair(static, moving, masks, channels) for static, moving in pairs}
    if landmarks is not None and dims - {landmarks[0].shape[1]}:
        raise ValueError(
            f"static_landmarks and moving_landmarks have {landmarks[0].shape[1]} "
            f"coordinates, but the images are {max(dims)}D"
        )
    if 2 in dims and out_field is not None:
        raise ValueError("out_field: DIPY's format holds 3D maps only, not slices")
    return dims
