"""Options of affine registration and their validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from dipy.align.imaffine import MutualInformationMetric
from dipy.align.transforms import Transform, regtransforms
import numpy as np

from dipy_dl_reg.geometry.affine_transforms.base import AffineTransform
from dipy_dl_reg.geometry.affine_transforms.registry import (
    make_transform,
    transform_names,
)
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.metrics.base import Metric
from dipy_dl_reg.registration import factory
from dipy_dl_reg.registration.devices import find_device
from dipy_dl_reg.validation import (
    check_choice,
    check_number,
    check_whole_number,
    wrong_value,
)

try:  # DIPY 1.13 moves it
    from dipy.utils import VerbosityLevels
except ImportError:
    from dipy.align import VerbosityLevels

#: Default number of evaluations of the metric at a level.
_ITERATIONS = 100
#: A coarser level is added while its longest axis still has this many voxels.
_LEAST_LEVEL_SIZE = 20
#: Largest number of levels.
_LEVELS = 4
#: Number of levels if only `ss_sigma_factor` is given, as in DIPY.
_LEVELS_OF_SS_SIGMA_FACTOR = 3
#: Metrics that affine registration can minimize.
_METRICS = ("MI", "NCC", "SSD", "CC")
#: Default radius of local correlation's windows.
_RADIUS = 2

_KINDS = {name.replace("_", "").upper(): name for name in transform_names()}
_TRANSFORMS = {
    type(transform): make_transform(_KINDS[kind], dim)
    for (kind, dim), transform in regtransforms.items()
}

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class AffineOptions:
    """Options of an affine registration.

    Parameters
    ----------
    metric : str or metric, optional
        ``"MI"`` mutual information, ``"NCC"`` global correlation, ``"CC"`` local
        correlation in windows of radius 2, ``"SSD"`` squared difference; a metric of
        this package of one of these kinds, with its options (`nbins` of MI; `radius`,
        by default 1 in `CCMetric`, and `variance_floor` of CC); or DIPY's
        ``MutualInformationMetric``, whose number of bins and sampling proportion are
        used.  By default MI with 32 bins.
    level_iters : sequence of int, optional
        Maximum number of evaluations of the metric at each level; `level_iters[0]` is
        the coarsest.  By default 100 evaluations; the number of levels depends on the
        size of the static image.
    sigmas : sequence of float, optional
        Standard deviation of the smoothing at each level, in static's smallest voxel
        size; by default 0.6 (factor - 1).
    factors : sequence of float, optional
        Voxel size of each level, in static's smallest voxel size; by default powers
        of 2.
    method : str, optional
        DIPY's optimizer; accepted without effect.
    ss_sigma_factor : float, optional
        Replaces `factors` by powers of 2, and `sigmas` by this times (factor - 1).
    options : dict, optional
        Options of DIPY's optimizer; accepted without effect.
    verbosity : int, optional
        As in DIPY; from 1 on, the transform and the number of levels are logged.
    starts : {"one", "auto", "all"}, optional
        ``"one"`` starts from `starting_affine` alone, as DIPY does.  ``"all"`` also
        searches rotations by any angle about the centres of mass, with rigid transforms
        at a coarse resolution and with mutual information, and starts from the best
        pose.  ``"auto"`` also searches, but starts from the best pose only if it is
        clearly better than `starting_affine`.
    sampling_proportion : float, optional
        Fraction of a level's voxels, drawn at random, that is compared; by default all
        voxels, but at most 50 thousand.
    device : str or torch.device, optional
        ``"auto"`` is CUDA if available, else MPS if it works, else the CPU.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    metric: Any = None
    level_iters: Sequence[int] | None = None
    sigmas: Sequence[float] | None = None
    factors: Sequence[float] | None = None
    method: str = "L-BFGS-B"
    ss_sigma_factor: float | None = None
    options: dict[str, Any] | None = None
    verbosity: int = VerbosityLevels.STATUS
    starts: Literal["one", "auto", "all"] = "one"
    sampling_proportion: float | None = None
    device: Any = "auto"

    def __post_init__(self) -> None:
        proportion = self.sampling_proportion
        if isinstance(self.metric, MutualInformationMetric) and proportion is None:
            proportion = self.metric.sampling_proportion
        if proportion is not None:
            proportion = check_number(
                "sampling_proportion", proportion, high=1, above=True
            )
        check_choice("starts", self.starts, ("one", "auto", "all"))
        if not isinstance(self.verbosity, (int, np.integer)):
            wanted = "one of DIPY's VerbosityLevels"
            raise wrong_value("verbosity", wanted, self.verbosity)
        levels = check_levels(
            self.level_iters, self.factors, self.sigmas, self.ss_sigma_factor
        )
        checked = {} if levels is None else levels._asdict()
        checked["metric"] = make_affine_metric(self.metric)
        checked["sampling_proportion"] = proportion
        checked["device"] = find_device(self.device)
        for name, value in checked.items():
            object.__setattr__(self, name, value)


class LevelOptions(NamedTuple):
    """Options of all levels, coarsest first.

    Attributes
    ----------
    level_iters : list of int
        Maximum number of evaluations of the metric.
    factors : list of float
        Voxel sizes, in static's smallest voxel size.
    sigmas : list of float
        Standard deviations of the smoothing, in static's smallest voxel size.
    """

    level_iters: list[int]
    factors: list[float]
    sigmas: list[float]


def choose_levels(options: AffineOptions, grid: Grid) -> LevelOptions:
    """Return the levels given by the options, or choose them by the image's size.

    Parameters
    ----------
    options : AffineOptions
        The levels may be None.
    grid : Grid
        Grid of the static image.

    Returns
    -------
    levels : LevelOptions
        Coarsest first.
    """
    iters, factors, sigmas = options.level_iters, options.factors, options.sigmas
    if iters is not None and factors is not None and sigmas is not None:
        return LevelOptions(list(iters), list(factors), list(sigmas))
    factors = automatic_factors(grid)
    return LevelOptions([_ITERATIONS] * len(factors), factors, default_sigmas(factors))


def make_affine_metric(metric: Any, **options: Any) -> Metric:
    """Make a metric that affine registration can minimize.

    Parameters
    ----------
    metric : None, str, Metric or MutualInformationMetric
        See `factory.make_metric`, with three differences: None is MI; CC has radius 2
        by default; the number of bins of DIPY's metric is used.
    **options : dict
        Options of the metric, if it is a name or None.

    Returns
    -------
    metric : Metric
        MI, NCC, SSD or CC.

    Raises
    ------
    ValueError
        If the metric is none of these, or does not have one of the options.
    """
    if isinstance(metric, MutualInformationMetric) and not options:
        metric, options = "MI", {"nbins": metric.histogram.nbins}
    named = "MI" if factory.is_automatic(metric) else metric
    if isinstance(named, str) and named.upper() == "CC":
        options = {"radius": _RADIUS} | options
    made = factory.make_metric(named, **options)
    if made is None or made.name not in _METRICS:
        raise ValueError(
            f"metric must be one of {list(_METRICS)} for affine registration, got "
            f"{metric!r}."
        )
    return made


def check_levels(
    level_iters: Sequence[int] | None,
    factors: Sequence[float] | None,
    sigmas: Sequence[float] | None,
    ss_sigma_factor: float | None,
) -> LevelOptions | None:
    """Check the options of all levels, and set the missing ones to their defaults.

    Parameters
    ----------
    level_iters, factors, sigmas, ss_sigma_factor : sequence or float, optional
        See `AffineOptions`.

    Returns
    -------
    levels : LevelOptions or None
        Lists of the same length; None if none of the options is given.

    Raises
    ------
    ValueError
        If the lengths differ, or a number is out of range.
    """
    given = (level_iters, factors, sigmas)
    level_iters = _check_list("level_iters", level_iters, check_whole_number)
    factors = _check_list("factors", factors, partial(check_number, above=True))
    sigmas = _check_list("sigmas", sigmas, check_number)
    if ss_sigma_factor is not None:
        ss_sigma_factor = check_number("ss_sigma_factor", ss_sigma_factor)
    counts = {len(x) for x in (level_iters, factors, sigmas) if x is not None}
    if not counts and ss_sigma_factor is None:
        return None
    if len(counts) > 1 or counts == {0}:
        raise ValueError(
            "level_iters, factors and sigmas must have one entry for each level, got "
            f"{given[0]!r}, {given[1]!r} and {given[2]!r}."
        )
    count = counts.pop() if counts else _LEVELS_OF_SS_SIGMA_FACTOR
    if factors is None or ss_sigma_factor is not None:
        factors = [2**k for k in range(count - 1, -1, -1)]
    if ss_sigma_factor is not None:
        sigmas = [ss_sigma_factor * (factor - 1) for factor in factors]
    elif sigmas is None:
        sigmas = default_sigmas(factors)
    if level_iters is None:
        level_iters = [_ITERATIONS] * count
    return LevelOptions(list(level_iters), list(factors), list(sigmas))


def _check_list(
    name: str, values: Sequence[_Number] | None, check: Callable[..., _Number]
) -> list[_Number] | None:
    """Check a list of one number for each level."""
    if values is None:
        return None
    if isinstance(values, str) or not np.iterable(values):
        raise wrong_value(name, "a list, one number for each level", values)
    return [check(f"{name}[{k}]", value) for k, value in enumerate(values)]


def default_sigmas(factors: Sequence[float]) -> list[float]:
    """Compute the default smoothing of each level.

    Parameters
    ----------
    factors : sequence of float
        Voxel sizes of the levels, in static's smallest voxel size.

    Returns
    -------
    sigmas : list of float
        Standard deviations, in static's smallest voxel size.
    """
    return [0.6 * max(factor - 1, 0) for factor in factors]


def automatic_factors(grid: Grid) -> list[float]:
    """Choose powers of 2 as factors, with enough voxels left at the coarsest level.

    Parameters
    ----------
    grid : Grid
        Grid of the static image.

    Returns
    -------
    factors : list of int
        Coarsest first.
    """
    finest = min(s for s, n in zip(grid.spacing, grid.shape) if n > 1)
    longest = grid.longest_side / finest
    count = 1
    while longest / 2**count > _LEAST_LEVEL_SIZE and count < _LEVELS:
        count += 1
    return [2**k for k in range(count - 1, -1, -1)]


def find_transform(transform: Transform) -> AffineTransform:
    """Find the transform of this package that corresponds to a transform of DIPY.

    Parameters
    ----------
    transform : dipy.align.transforms.Transform
        An instance, not the class.

    Returns
    -------
    transform : AffineTransform
        The transform with the same parameters.

    Raises
    ------
    ValueError
        If `transform` is not an instance of one of DIPY's transforms.
    """
    if type(transform) not in _TRANSFORMS:
        raise ValueError(
            "transform must be one of dipy.align.transforms, such as "
            f"RigidTransform3D(), got {transform!r}."
        )
    return _TRANSFORMS[type(transform)]


def check_parameters(params0: object, transform: AffineTransform) -> np.ndarray | None:
    """Check the initial parameters of a transform.

    Parameters
    ----------
    params0 : array or None
        The user's value.
    transform : AffineTransform
        Type of affine transform.

    Returns
    -------
    params0 : ndarray or None
        The parameters as float64.

    Raises
    ------
    ValueError
        If the number of parameters is wrong, one of them is not finite, or their
        matrix is singular or contains a reflection.
    """
    if params0 is None:
        return None
    parameters = np.asarray(params0, dtype=np.float64)
    if parameters.shape != (transform.count,) or not np.isfinite(parameters).all():
        raise wrong_value("params0", f"{transform.count} finite numbers", parameters)
    if not np.linalg.det(transform.numpy_matrix(parameters)) > 0:
        raise ValueError(
            "params0 must not give a reflection or a singular matrix, got "
            f"{parameters!r}."
        )
    return parameters
