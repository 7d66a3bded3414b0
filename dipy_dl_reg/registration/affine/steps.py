"""The steps of an affine registration; each starts from the result of the previous."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dipy.align import (
    affine,
    center_of_mass,
    rigid,
    rigid_isoscaling,
    rigid_scaling,
    translation,
)
from dipy.align.imaffine import AffineMap
import numpy as np

from dipy_dl_reg.geometry.affine_transforms.base import AffineTransform
from dipy_dl_reg.geometry.affine_transforms.registry import make_transform
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.maps.measures import measure_registration
from dipy_dl_reg.maps.verdict import PoseComparison, Verdict, judge
from dipy_dl_reg.optimization.affine import optimize_levels
from dipy_dl_reg.optimization.affine_sampling import (
    Level,
    make_levels,
    measure_overlap,
)
from dipy_dl_reg.registration.affine.options import AffineOptions, choose_levels
from dipy_dl_reg.registration.affine.poses import choose_starting_pose, starting_matrix
from dipy_dl_reg.registration.user_warnings import warn_user

#: Default steps of an affine registration.
AFFINE_STEPS = ("center_of_mass", "translation", "rigid", "affine")
_STEPS = {
    "center_of_mass": center_of_mass,
    "translation": translation,
    "rigid": rigid,
    "rigid_isoscaling": rigid_isoscaling,
    "rigid_scaling": rigid_scaling,
    "affine": affine,
}
#: Default maximum number of points that are compared at a level.
_POINTS = 50_000
#: Overlap, as a fraction of the smaller object, below which a warning is given.
_LEAST_OVERLAP = 0.05


class StartStep(NamedTuple):
    """A step that replaces the current matrix by a given one, or by a rotation of it.

    Attributes
    ----------
    matrix : ndarray, shape (D + 1, D + 1)
        Static's world to moving's.
    starts : {"one", "auto", "all"}
        Whether rotations are searched, see `AffineOptions`.
    """

    matrix: np.ndarray
    starts: str


class FitStep(NamedTuple):
    """A step that optimizes the parameters of a transform.

    Attributes
    ----------
    transform : AffineTransform
        Type of affine transform.
    to_matrix : callable
        Converts parameters (P,) to a matrix (D + 1, D + 1).
    parameters : ndarray, shape (P,), or None
        Initial parameters; None for the identity.
    """

    transform: AffineTransform
    to_matrix: Callable[[np.ndarray], np.ndarray]
    parameters: np.ndarray | None = None


class AffineResult(NamedTuple):
    """Result of an affine registration in steps.

    Attributes
    ----------
    affine_map : AffineMap
        DIPY's map on the grids of the images.
    matrix : ndarray, shape (D + 1, D + 1)
        From static's world to moving's.
    starting_affine : ndarray, shape (D + 1, D + 1)
        Matrix from which the last fit started.
    parameters : ndarray or None
        Parameters of the last fit; None if there was no fit.
    value : float or None
        Metric of the last fit; lower is better.
    poses : PoseComparison or None
        Comparison with other poses; None without a search.
    overlap : float or None
        Fraction of the smaller object that overlaps the other; None if there was no
        fit.
    verdict : Verdict or None
        Verdict on the registration; None if there was no fit.
    messages : tuple of str
        Messages for the log.
    """

    affine_map: AffineMap
    matrix: np.ndarray
    starting_affine: np.ndarray
    parameters: np.ndarray | None
    value: float | None
    poses: PoseComparison | None
    overlap: float | None
    verdict: Verdict | None
    messages: tuple[str, ...]


class _State(NamedTuple):
    """Result of the steps that have been run."""

    matrix: np.ndarray
    starting_affine: np.ndarray
    parameters: np.ndarray | None = None
    value: float | None = None
    poses: PoseComparison | None = None
    messages: tuple[str, ...] = ()


def run_steps(
    pair: Pair,
    start: np.ndarray,
    steps: Sequence[StartStep | FitStep],
    options: AffineOptions,
) -> AffineResult:
    """Run the steps of an affine registration.

    Parameters
    ----------
    pair : Pair
        The images; the levels' voxel size and smoothing for moving are multiplied by
        the scale of the prealign.
    start : ndarray, shape (D + 1, D + 1)
        Static's world to moving's; the first step starts from it.
    steps : sequence of StartStep or FitStep
        The steps, in order.
    options : AffineOptions
        Metric, levels and sampling of all fits.  Unless the levels are given, all fits
        but the last omit the finest levels, because the next fit would repeat them.

    Returns
    -------
    result : AffineResult
        Nothing is logged here; the caller logs the messages.
    """
    fits = any(isinstance(step, FitStep) for step in steps)
    levels = _prepare_levels(pair, options) if fits else []
    state = _State(start, start)
    for place, step in enumerate(steps):
        if isinstance(step, StartStep):
            state = _start_anew(state, step, pair)
            continue
        some = levels
        if options.level_iters is None and place < len(steps) - 1:
            some = levels[: 1 if step.transform.kind == "translation" else 2]
        state = _fit_transform(state, step, some, pair, options)
    return _make_result(state, pair, levels)


def _prepare_levels(pair: Pair, options: AffineOptions) -> list[Level]:
    """Prepare the images of all levels, coarsest first."""
    chosen = choose_levels(options, pair.static_grid)
    return make_levels(
        pair,
        chosen.factors,
        chosen.sigmas,
        most_points=_POINTS,
        proportion=options.sampling_proportion,
        grids=options.metric.name == "CC",
    )


def _start_anew(state: _State, step: StartStep, pair: Pair) -> _State:
    """Run a `StartStep`; the result of earlier steps is discarded."""
    pose = choose_starting_pose(
        pair._replace(prealign=step.matrix), step.matrix, step.starts
    )
    messages = state.messages
    if pose.message is not None:
        messages += (pose.message,)
    poses = state.poses if pose.poses is None else pose.poses
    return state._replace(
        matrix=pose.matrix,
        starting_affine=pose.matrix,
        poses=poses,
        messages=messages,
    )


def _fit_transform(
    state: _State,
    step: FitStep,
    levels: Sequence[Level],
    pair: Pair,
    options: AffineOptions,
) -> _State:
    """Run a `FitStep`: optimize the parameters of a transform."""
    theta, value = optimize_levels(
        levels,
        step.transform,
        state.matrix,
        step.parameters,
        level_iters=choose_levels(options, pair.static_grid).level_iters,
        metric=options.metric,
    )
    return state._replace(
        matrix=step.to_matrix(theta) @ state.matrix,
        starting_affine=state.matrix,
        parameters=theta,
        value=value,
    )


def _make_result(state: _State, pair: Pair, levels: Sequence[Level]) -> AffineResult:
    """Make the result of all steps, with a verdict if there was a fit."""
    matrix, overlap, verdict = state.matrix, None, None
    if levels:
        overlap = measure_overlap(levels[-1], matrix)
        measures = measure_registration(pair._replace(prealign=matrix))
        verdict = judge(measures, poses=state.poses)
    return AffineResult(
        make_affine_map(matrix, pair),
        matrix,
        state.starting_affine,
        state.parameters,
        state.value,
        state.poses,
        overlap,
        verdict,
        state.messages,
    )


def make_affine_map(matrix: np.ndarray, pair: Pair) -> AffineMap:
    """Make DIPY's `AffineMap` from a matrix.

    Parameters
    ----------
    matrix : ndarray, shape (D + 1, D + 1)
        Static's world to moving's.
    pair : Pair
        The images.

    Returns
    -------
    affine_map : AffineMap
        The map, on the grids of the images.
    """
    return AffineMap(
        matrix,
        domain_grid_shape=pair.static_grid.shape,
        domain_grid2world=pair.static_grid.affine,
        codomain_grid_shape=pair.moving_grid.shape,
        codomain_grid2world=pair.moving_grid.affine,
    )


def warn_if_apart(overlap: float | None) -> None:
    """Warn if the two objects hardly overlap after an affine registration.

    Parameters
    ----------
    overlap : float or None
        Fraction of the smaller object that overlaps the other; None if unknown.

    Warns
    -----
    UserWarning
        If the overlap is below 5 %: the metric then has no useful gradient.
    """
    if overlap is not None and overlap < _LEAST_OVERLAP:
        warn_user(
            "static and moving hardly overlap after the registration "
            f"({overlap:.0%} of the smaller object): they are not aligned. Start from "
            "their centres of mass (starting_affine='mass', or 'center_of_mass' as the "
            "first step of a pipeline), or search all rotations (starts='all')."
        )


def check_pipeline(
    pipeline: Sequence[str | Callable] | None, ret_metric: bool = False
) -> list[str]:
    """Check the steps of a pipeline.

    Parameters
    ----------
    pipeline : sequence of str or callable, or None
        Names, or DIPY's functions of these names; None is the default pipeline.
    ret_metric : bool, optional
        Whether the last step is to return a metric.

    Returns
    -------
    steps : list of str
        Their names.

    Raises
    ------
    ValueError
        If there is no step, a step is unknown, or the last step has no metric but
        `ret_metric` is True.
    """
    if pipeline is None:
        pipeline = AFFINE_STEPS
    if isinstance(pipeline, str) or not np.iterable(pipeline):
        raise ValueError(f"pipeline must be a list of steps, got {pipeline!r}.")
    steps = [_step_name(step, place) for place, step in enumerate(pipeline)]
    if not steps:
        raise ValueError("pipeline must have at least one step, such as 'rigid'.")
    if ret_metric and steps[-1] == "center_of_mass":
        raise ValueError(
            "center of mass registration cannot return any quality metric."
        )
    return steps


def _step_name(step: str | Callable, place: int) -> str:
    """Name of one step of a pipeline."""
    for name, function in _STEPS.items():
        if step is function or step == name:
            return name
    raise ValueError(f"pipeline[{place}] must be one of {list(_STEPS)}, got {step!r}")


def make_steps(
    names: Sequence[str],
    pair: Pair,
    images: tuple[np.ndarray, np.ndarray],
    starts: str,
) -> list[StartStep | FitStep]:
    """Make the steps of a pipeline.

    Parameters
    ----------
    names : sequence of str
        From `check_pipeline`.
    pair : Pair
        The images.
    images : tuple of ndarray
        Static and moving with their original values, for the centres of mass.
    starts : {"one", "auto", "all"}
        Whether rotations about the centres of mass are searched if one of the steps
        can rotate the image.

    Returns
    -------
    steps : list of StartStep or FitStep
        Steps for `run_steps`.
    """
    fits = set(names) - {"center_of_mass"}
    starts = starts if fits - {"translation"} else "one"
    steps: list[StartStep | FitStep] = []
    for name in names:
        if name == "center_of_mass":
            steps.append(StartStep(starting_matrix("mass", *images, pair), starts))
        else:
            transform = make_transform(name, pair.static_grid.dim)
            steps.append(FitStep(transform, transform.numpy_matrix))
    return steps
