"""From names, files and DIPY's metrics to this package's own objects."""

from os import PathLike
from pathlib import Path

from dipy.align import metrics as dipy_metrics
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.metrics.base import Metric
from dipy_dl_reg.metrics.correlation_ratio import CRMetric
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.mutual_information import MIMetric
from dipy_dl_reg.metrics.registry import (
    METRICS,
    is_metric_name,
    metric_by_name,
    regularizer_by_name,
)
from dipy_dl_reg.metrics.ssd import SSDMetric
from dipy_dl_reg.networks import NETWORKS
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.checkpoint import load_network
from dipy_dl_reg.networks.pretrained import (
    DEFAULT_MODELS,
    WEIGHTS,
    list_models,
    load_model,
)

#: A DIPY metric's smoothing of the update becomes this part of it here, where steps
#: are of equal length everywhere: in SyN only the largest is of full length, and the
#: rest are as good as smoother.  A smoothing of up to a voxel stays as it is: below
#: that the smoothing of the field undoes the update's detail at every iteration, and
#: correlation of T1 brains at 3 mm ended below SyN's.
_SMOOTHING, _LEAST_SMOOTHING = 0.5, 1.0
#: Voxels along every axis of an image that the default network is asked about.
_LEAST_EXTENT = 16


def make_metric(metric, **options):
    """One of this package's metrics from whatever names one.

    Parameters
    ----------
    metric : None, str, Metric or dipy.align.metrics.SimilarityMetric
        None and "auto" leave it to the images; a name is one of ``"CC"``, ``"SSD"``
        (or ``"MSE"``), ``"NCC"``, ``"MI"``, ``"CR"``, ``"MIND"`` in any case, or
        ``"EM"``; a metric of DIPY is translated: its radius stays, its smoothing is
        halved but not below one voxel (see the module), other options have no
        counterpart; a message says what stands for EMMetric.
    **options : dict
        For the metric, where a name has it made here; of local correlation where none
        was given.

    Returns
    -------
    metric : Metric or None
        Ready for the engine; None where the images are to decide.

    Raises
    ------
    ValueError
        If it names no metric, options come with one that is made already, or it does
        not have them.
    """
    if is_automatic(metric):
        return _metric_by_name("CC", options) if options else None
    if isinstance(metric, str):
        return _metric_by_name(metric, options)
    if options:
        raise ValueError(
            f"{', '.join(sorted(options))}: options of a metric go with its name, not "
            f"with {metric!r}."
        )
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, dipy_metrics.SimilarityMetric):
        return _translate(metric)
    raise _no_metric(repr(metric))


def is_automatic(metric):
    """Whether the images are to decide about the metric.

    Parameters
    ----------
    metric : None, str or metric
        As a user gave it.

    Returns
    -------
    automatic : bool
        True for None and for "auto" in any case.
    """
    return metric is None or (isinstance(metric, str) and metric.lower() == "auto")


def _metric_by_name(name, options):
    if name.upper() == "EM":
        _say_what_stands_for_em()
        return metric_by_name("CR", **options)
    if not is_metric_name(name):
        raise _no_metric(repr(name))
    return metric_by_name(name, **options)


def _no_metric(given):
    """The error for what names no metric."""
    return ValueError(
        f"metric must be 'auto' (or None), one of {sorted(METRICS)}, or a metric "
        f"object of this package or of dipy.align.metrics, got {given}."
    )


def _translate(metric):
    """The counterpart of a DIPY metric."""
    if isinstance(metric, dipy_metrics.CCMetric):
        smoothing = _smoothing(metric.sigma_diff)
        return CCMetric(metric.dim, radius=metric.radius, sigma_diff=smoothing)
    if isinstance(metric, dipy_metrics.SSDMetric):
        # With Gauss-Newton steps DIPY's `smooth` weighs a penalty instead.
        demons = metric.step_type == "demons"
        options = {"smooth": _smoothing(metric.smooth)} if demons else {}
        return SSDMetric(metric.dim, **options)
    kind = type(metric).__name__
    if kind == "MIMetric":  # by name, for it is in DIPY's newest version only
        return MIMetric(metric.dim)
    if isinstance(metric, dipy_metrics.EMMetric):
        _say_what_stands_for_em()
        return CRMetric(metric.dim)
    raise _no_metric(f"DIPY's {kind}, which has no counterpart here")


def _smoothing(sigma):
    """Smoothing of the update here for a DIPY metric's, both in voxels."""
    return max(_SMOOTHING * sigma, min(sigma, _LEAST_SMOOTHING))


def _say_what_stands_for_em():
    logger.info(
        "EMMetric: the correlation ratio (CRMetric) is used in its place. For b0 to "
        "T1, where one intensity can stand for two tissues, consider metric='MI'."
    )


def make_model(model):
    """A trained network from whatever names one.

    Parameters
    ----------
    model : None, str, Path or RegistrationNetwork
        A network; the name of one that comes with the package (`list_models`); or the
        file of one, as `save_network` writes it.  ``"auto"`` leaves the choice to the
        images' dimension, see `default_model`.

    Returns
    -------
    network : RegistrationNetwork or None
        None for no network, and where it is not chosen yet.

    Raises
    ------
    ValueError
        If it names none, or the file holds none.
    FileNotFoundError
        If there is no such file.
    """
    if model is None or isinstance(model, RegistrationNetwork):
        return model
    if not isinstance(model, (str, PathLike)):
        raise ValueError(
            f"model must be a network, the path of one, 'auto' or None, got {model!r}."
        )
    if str(model) == "auto":
        return None
    if str(model) in WEIGHTS:
        return load_model(str(model))
    if str(model) in NETWORKS:
        raise ValueError(
            f"model={str(model)!r} names a kind of network, which has to be trained "
            "first: give the file that dipy_dl_reg.fit or dipy_train_deep saved, or "
            f"one of {list_models()}."
        )
    if not Path(model).exists():
        raise FileNotFoundError(
            f"model: there is no file {model}, and no trained network of that name; "
            f"there are {list_models()}."
        )
    return load_network(model)


def make_regularizer(regularizer):
    """A smoothness penalty from its name.

    Parameters
    ----------
    regularizer : None, str or callable
        ``"diffusion"``, ``"bending"``, ``"tv"``, or a function of a displacement
        tensor.

    Returns
    -------
    regularizer : callable or None
        As the engine wants it.

    Raises
    ------
    ValueError
        If it names none.
    """
    return regularizer_by_name(regularizer)


def default_model(static_grid, moving_grid):
    """The network that comes with the package for images that nobody chose one for.

    Parameters
    ----------
    static_grid, moving_grid : Grid
        Of the two images.

    Returns
    -------
    network : RegistrationNetwork or None
        For images of that dimension and of any contrast; None where one of them is of
        less than 16 of its voxels along an axis.
    """
    network = load_model(DEFAULT_MODELS[static_grid.dim])
    for grid in (static_grid, moving_grid):
        spacing = grid.spacing.min() if network.spacing is None else network.spacing
        if (np.array(grid.shape) * grid.spacing / spacing).min() < _LEAST_EXTENT:
            return None
    return network
