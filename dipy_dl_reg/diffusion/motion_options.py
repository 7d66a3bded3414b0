"""Options of motion correction and their validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dipy.utils.logging import logger

from dipy_dl_reg.diffusion.frames import FRAMES
from dipy_dl_reg.metrics.base import Metric
from dipy_dl_reg.registration.affine.options import (
    AffineOptions,
    LevelOptions,
    check_levels,
    default_sigmas,
)
from dipy_dl_reg.registration.affine.steps import check_pipeline
from dipy_dl_reg.validation import check_choice, check_whole_number

#: Default steps of the registration of each volume: a head moves rigidly.
MOTION_STEPS = ("rigid",)
#: Steps that change neither size nor shape, by which volumes are first aligned.
_RIGID = ("center_of_mass", "translation", "rigid")
#: Evaluations of the metric at a level.
_ITERATIONS = 100
#: Interpolations of the corrected series.
INTERPOLATIONS = ("linear", "cubic")


@dataclass(frozen=True)
class MotionOptions:
    """Options of the correction of a diffusion series for motion.

    Parameters
    ----------
    pipeline : sequence of str or callable, optional
        Steps of the registration of each volume, as in `deep_affine_registration`;
        by default ``["rigid"]``, as a head moves.  ``["rigid", "affine"]`` also follows
        the linear part of eddy-current distortions, but may rescale a whole shell, by
        1 to 2 % in measured series: only the volumes of the shell itself determine its
        scale.  The rigid steps are used in the first alignment of all volumes, the last
        step in all alignments after it.
    metric : str or metric, optional
        Metric, as in `deep_affine_registration`.
    level_iters : sequence of int, optional
        Largest number of evaluations of the metric at each level, coarsest first; each
        level has half the voxel size of the one before, the last that of the series.
        By default 100 evaluations: at 4 and 2 times the voxel size in the first
        alignment, at 2 times in all iterations but the last, and at 1 times in that.
    optimizer_options : dict, optional
        Accepted without effect.
    iterations : int, optional
        How often all volumes are predicted from each other, and registered to their
        predictions.
    frame : {"voxel", "fsl", "world"}, optional
        Axes of the b-vectors.  By default "fsl" for b-vectors
        in a file, else "voxel", with a warning where "fsl" differs.
    interpolation : {"linear", "cubic"}, optional
        Interpolation of the corrected series: linear as in DIPY, or cubic splines,
        which blur less and may overshoot at edges.
    device : str or torch.device, optional
        ``"auto"`` is CUDA if available, else MPS if it works, else the CPU.
    num_threads : int, optional
        Number of volumes that are worked on at the same time, each by one thread; None
        and -1 take all processors.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    pipeline: Sequence[str | Callable] | None = None
    metric: Any = "MI"
    level_iters: Sequence[int] | None = None
    optimizer_options: dict[str, Any] | None = None
    iterations: int = 2
    frame: str | None = None
    interpolation: str = "linear"
    device: Any = "auto"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        pipeline = MOTION_STEPS if self.pipeline is None else self.pipeline
        if self.frame is not None:
            check_choice("frame", self.frame, FRAMES)
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        affine = AffineOptions(
            metric=self.metric, level_iters=self.level_iters, device=self.device
        )
        checked = {
            "pipeline": check_pipeline(pipeline),
            "iterations": check_whole_number("iterations", self.iterations, low=1),
            "metric": affine.metric,
            "device": affine.device,
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.optimizer_options:
            logger.info("optimizer_options of DIPY's optimizer have no effect here.")


class Stage(NamedTuple):
    """Resolutions of one stage of the correction.

    Attributes
    ----------
    factors : tuple of float
        Voxel sizes of the levels, in the smallest voxel size of the series.
    points : int
        Largest number of points that are compared at a level.
    """

    factors: tuple[float, ...]
    points: int


#: Volumes far from b0, near a mean, and near the prediction of their signal.  The
#: references of the first two limit the accuracy; more points do not raise it.
FAR, NEAR, FINAL = Stage((4, 2), 10_000), Stage((2,), 10_000), Stage((1,), 30_000)


class VolumeSteps(NamedTuple):
    """How a volume is registered to its reference.

    Attributes
    ----------
    steps : tuple of str
        Names of the steps.
    levels : LevelOptions
        The resolutions, coarsest first.
    points : int
        Largest number of points that are compared at a level.
    metric : Metric
        The metric.
    device : torch.device
        Device of the computation.
    """

    steps: tuple[str, ...]
    levels: LevelOptions
    points: int
    metric: Metric
    device: Any


def choose_steps(options: MotionOptions, stage: Stage) -> VolumeSteps:
    """Choose the steps of a stage of the correction.

    Parameters
    ----------
    options : MotionOptions
        The options.
    stage : {FAR, NEAR, FINAL}
        The stage: all rigid steps while volumes are far from their references, then
        the last step.

    Returns
    -------
    steps : VolumeSteps
        The steps.
    """
    names = [str(name) for name in options.pipeline or MOTION_STEPS]
    if stage is FAR:
        steps = [name for name in names if name in _RIGID] or ["rigid"]
        if steps == ["center_of_mass"]:
            steps = ["center_of_mass", "translation"]
    else:
        steps = names[-1:] if names[-1] != "center_of_mass" else ["translation"]
    iterations = [_ITERATIONS] * len(stage.factors)
    levels = check_levels(options.level_iters, None, None, None)
    if levels is None:
        factors = list(stage.factors)
        levels = LevelOptions(iterations, factors, default_sigmas(factors))
    return VolumeSteps(
        tuple(steps), levels, stage.points, options.metric, options.device
    )
