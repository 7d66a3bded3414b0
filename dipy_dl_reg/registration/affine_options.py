"""What a user says of an affine registration, checked and translated."""

from warnings import warn

from dipy.align import (
    affine,
    center_of_mass,
    rigid,
    rigid_isoscaling,
    rigid_scaling,
    translation,
)
from dipy.align.imaffine import MutualInformationMetric
from dipy.align.transforms import regtransforms
import numpy as np

from dipy_dl_reg.geometry.affine_transforms.registry import (
    make_transform,
    transform_names,
)
from dipy_dl_reg.metrics.base import real_number, whole_number
from dipy_dl_reg.registration import factory

#: Evaluations of the metric at a level, unless the user says.
ITERATIONS = 100
#: A level is added while the longest axis still has this many voxels on it.
_LEAST_LEVEL_SIZE = 20
#: Most levels.
_LEVELS = 4
_METRICS = ("MI", "NCC", "SSD", "CC")
#: Of local correlation's windows, unless the user says.
_RADIUS = 2

_KINDS = {name.replace("_", "").upper(): name for name in transform_names()}
_FAMILIES = {
    type(transform): make_transform(_KINDS[kind], dim)
    for (kind, dim), transform in regtransforms.items()
}
#: The steps of an affine registration, unless told otherwise.
AFFINE_STEPS = ("center_of_mass", "translation", "rigid", "affine")
_STEPS = {
    "center_of_mass": center_of_mass,
    "translation": translation,
    "rigid": rigid,
    "rigid_isoscaling": rigid_isoscaling,
    "rigid_scaling": rigid_scaling,
    "affine": affine,
}


def checked_pipeline(pipeline, ret_metric):
    """Names of a pipeline's steps.

    Parameters
    ----------
    pipeline : sequence of str or callable, or None
        As the user gave it.
    ret_metric : bool
        Whether the last step is to return a metric.

    Returns
    -------
    steps : list of str
        Names.

    Raises
    ------
    ValueError
        If there is no step, or no such one, or the last has no metric.
    """
    if pipeline is None:
        pipeline = AFFINE_STEPS
    if isinstance(pipeline, str) or not np.iterable(pipeline):
        raise ValueError(f"pipeline must be a list of steps, got {pipeline!r}.")
    steps = []
    for place, step in enumerate(pipeline):
        names = [name for name, own in _STEPS.items() if step is own or step == name]
        if not names:
            raise ValueError(
                f"pipeline[{place}] must be one of {list(_STEPS)}, got {step!r}"
            )
        steps += names
    if not steps:
        raise ValueError("pipeline must have a step, such as 'rigid', got none.")
    if ret_metric and steps[-1] == "center_of_mass":
        raise ValueError(
            "center of mass registration cannot return any quality metric."
        )
    return steps


def named_metric(metric, **options):
    """A metric of this package, with what affine registration takes for its defaults.

    Parameters
    ----------
    metric : None, str or metric
        See `factory.make_metric`; but None is MI, and CC has radius 2.
    **options : dict
        Of the metric, where a name or None has it made here.

    Returns
    -------
    metric : Metric
        Of any kind.

    Raises
    ------
    ValueError
        If it names no metric, or options do not go with it.
    """
    metric = "MI" if factory.is_automatic(metric) else metric
    if isinstance(metric, str) and metric.upper() == "CC":
        options = {"radius": _RADIUS} | options
    return factory.make_metric(metric, **options)


def checked_metric(metric):
    """A metric of this package, and the sampling that DIPY's brings.

    Parameters
    ----------
    metric : None, str, Metric or MutualInformationMetric
        As the user gave it; None is MI.

    Returns
    -------
    metric : Metric
        MI, NCC, SSD or CC.
    sampling_proportion : float or None
        Of DIPY's metric.

    Raises
    ------
    ValueError
        If it is none of them.
    """
    if isinstance(metric, MutualInformationMetric):
        made = named_metric("MI", nbins=metric.histogram.nbins)
        return made, metric.sampling_proportion
    made = named_metric(metric)
    if made.name not in _METRICS:
        raise ValueError(
            f"metric must be one of {list(_METRICS)} for an affine registration, got "
            f"{metric!r}."
        )
    return made, None


def checked_sampling(proportion):
    """Part of the voxels to compare.

    Parameters
    ----------
    proportion : float or None
        As the user gave it.

    Returns
    -------
    proportion : float or None
        The same.

    Raises
    ------
    ValueError
        If it is not above 0 and at most 1.
    """
    if proportion is None:
        return None
    proportion = real_number("sampling_proportion", proportion, above=True)
    if proportion > 1:
        raise ValueError(f"sampling_proportion must be at most 1, got {proportion!r}.")
    return proportion


def checked_levels(level_iters, factors, sigmas, ss_sigma_factor):
    """Iterations, factors and sigmas of all levels.

    Parameters
    ----------
    level_iters, factors, sigmas : sequence or None
        As the user gave them.
    ss_sigma_factor : float or None
        In place of factors and sigmas.

    Returns
    -------
    levels : tuple of list, or None
        The three, of one length; None to go by the images.

    Raises
    ------
    ValueError
        If their lengths differ, or a number is out of range.
    """
    given = (level_iters, factors, sigmas)
    iters = _checked_list("level_iters", level_iters, whole_number, least=0)
    factors = _checked_list("factors", factors, real_number, above=True)
    sigmas = _checked_list("sigmas", sigmas, real_number)
    if ss_sigma_factor is not None:
        ss_sigma_factor = real_number("ss_sigma_factor", ss_sigma_factor)
    counts = {len(x) for x in (iters, factors, sigmas) if x is not None}
    if not counts and ss_sigma_factor is None:
        return None
    if len(counts) > 1 or counts == {0}:
        raise ValueError(
            "level_iters, factors and sigmas must have one entry for each level, got "
            f"{given[0]!r}, {given[1]!r} and {given[2]!r}."
        )
    count = counts.pop() if counts else 3
    if factors is None or ss_sigma_factor is not None:
        factors = [2**k for k in range(count - 1, -1, -1)]
    if ss_sigma_factor is not None:
        sigmas = [ss_sigma_factor * (factor - 1) for factor in factors]
    elif sigmas is None:
        sigmas = default_sigmas(factors)
    return [ITERATIONS] * count if iters is None else iters, factors, sigmas


def _checked_list(name, values, check, **options):
    """Numbers, one for each level, or None."""
    if values is None:
        return None
    if isinstance(values, str) or not np.iterable(values):
        raise ValueError(f"{name} must be a list, one for each level, got {values!r}.")
    return [check(f"{name}[{k}]", value, **options) for k, value in enumerate(values)]


def default_sigmas(factors):
    """Smoothing of levels.

    Parameters
    ----------
    factors : sequence of float
        Their voxel sizes, in static's smallest.

    Returns
    -------
    sigmas : list of float
        Standard deviations, in static's smallest voxel size.
    """
    return [0.6 * max(factor - 1, 0) for factor in factors]


def automatic_factors(grid):
    """Powers of 2 as long as the coarsest level has voxels enough.

    Parameters
    ----------
    grid : Grid
        Static's.

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


def family_of(transform):
    """The family of maps that a transform of DIPY stands for.

    Parameters
    ----------
    transform : dipy.align.transforms.Transform
        An instance.

    Returns
    -------
    family : AffineTransform
        With the same parameters.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if type(transform) not in _FAMILIES:
        raise ValueError(
            "transform must be one of dipy.align.transforms, such as "
            f"RigidTransform3D(), got {transform!r}."
        )
    return _FAMILIES[type(transform)]


def checked_params(params0, family):
    """Parameters to start from.

    Parameters
    ----------
    params0 : array or None
        As the user gave them.
    family : AffineTransform
        Whose they are.

    Returns
    -------
    params0 : ndarray or None
        As float64.

    Raises
    ------
    ValueError
        If they are not as many finite numbers as the family has parameters, or stand
        for a matrix that does not keep handedness.
    """
    if params0 is None:
        return None
    params0 = np.asarray(params0, dtype=np.float64)
    if params0.shape != (family.count,) or not np.isfinite(params0).all():
        raise ValueError(
            f"params0 must be {family.count} finite numbers, got {params0!r}."
        )
    if not np.linalg.det(family.numpy_matrix(params0)) > 0:
        raise ValueError(f"params0 must not mirror or flatten, got {params0!r}.")
    return params0


def mask_or_none(mask, name):
    """The mask, or None for one of zeros, as DIPY takes it.

    Parameters
    ----------
    mask : array or None
        As the user gave it.
    name : str
        What the warning calls it.

    Returns
    -------
    mask : array or None
        The same, or None with a warning.
    """
    if mask is None or np.any(mask):
        return mask
    warn(f"{name} is all zeros: all of the image is used.", UserWarning, stacklevel=6)
    return None
