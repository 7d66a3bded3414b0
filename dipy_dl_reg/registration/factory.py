"""Makes metrics, networks and penalties from names, files and DIPY's metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from dipy.align import metrics as dipy_metrics
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization.messages import NO_DISPLACEMENT, Message
from dipy_dl_reg.initialization.single_slice import flatten_slices
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

#: Factor that is applied to a DIPY metric's smoothing of the update, and the standard
#: deviation (voxels) below which it is not applied.  Here all steps have about the same
#: length, whereas in SyN only the largest step has the full length; this acts like a
#: stronger smoothing.  With less than one voxel, the smoothing of the field would
#: remove the details of the update at every iteration: the final correlation of T1
#: brains at 3 mm was then lower than SyN's.
_SMOOTHING, _LEAST_SMOOTHING = 0.5, 1.0
#: Minimum number of voxels along each axis of an image for the default network.
_LEAST_EXTENT = 16


def make_metric(metric: object, **options: Any) -> Metric | None:
    """Make a metric of this package from a name or a metric of DIPY.

    Parameters
    ----------
    metric : None, str, Metric or dipy.align.metrics.SimilarityMetric
        With None and "auto" the metric is chosen later for the images.  A name is one
        of ``"CC"``, ``"SSD"`` (or ``"MSE"``), ``"NCC"``, ``"MI"``, ``"CR"``,
        ``"MIND"`` or ``"EM"``, in upper or lower case.  A metric of DIPY is replaced by
        the corresponding one of this package: its radius is used; its smoothing is
        halved, but is at least one voxel; other options have no counterpart.  A message
        names the replacement of EMMetric.
    **options : dict
        Options of the metric if `metric` is a name, and of local correlation if it is
        None.

    Returns
    -------
    metric : Metric or None
        None if the metric is to be chosen for the images.

    Raises
    ------
    ValueError
        If there is no such metric, if options are given together with a metric object,
        or if the metric does not have an option.
    """
    if is_automatic(metric):
        return _metric_by_name("CC", options) if options else None
    if isinstance(metric, str):
        return _metric_by_name(metric, options)
    if options:
        raise ValueError(
            f"{', '.join(sorted(options))}: options of a metric can only be given with "
            f"its name, not with {metric!r}."
        )
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, dipy_metrics.SimilarityMetric):
        return _translate(metric)
    raise _no_metric(repr(metric))


def is_automatic(metric: object) -> bool:
    """Whether the metric is to be chosen for the images.

    Parameters
    ----------
    metric : None, str or metric
        The user's value.

    Returns
    -------
    automatic : bool
        True for None and for "auto", in upper or lower case.
    """
    return metric is None or (isinstance(metric, str) and metric.lower() == "auto")


def _metric_by_name(name: str, options: dict[str, Any]) -> Metric:
    """Make a metric from its name, which may also be "EM"."""
    if name.upper() == "EM":
        _log_replacement_of_em()
        return metric_by_name("CR", **options)
    if not is_metric_name(name):
        raise _no_metric(repr(name))
    return metric_by_name(name, **options)


def _no_metric(given: str) -> ValueError:
    """Make the error for a value that is not a metric."""
    return ValueError(
        f"metric must be 'auto' (or None), one of {sorted(METRICS)}, or a metric "
        f"object of this package or of dipy.align.metrics, got {given}."
    )


def _translate(metric: dipy_metrics.SimilarityMetric) -> Metric:
    """Make the metric of this package that corresponds to a metric of DIPY."""
    if isinstance(metric, dipy_metrics.CCMetric):
        smoothing = _smoothing(metric.sigma_diff)
        return CCMetric(metric.dim, radius=metric.radius, sigma_diff=smoothing)
    if isinstance(metric, dipy_metrics.SSDMetric):
        # With Gauss-Newton steps, DIPY's `smooth` is the weight of a penalty instead.
        demons = metric.step_type == "demons"
        options = {"smooth": _smoothing(metric.smooth)} if demons else {}
        return SSDMetric(metric.dim, **options)
    kind = type(metric).__name__
    if kind == "MIMetric":  # by name, because only DIPY's newest version has it
        return MIMetric(metric.dim)
    if isinstance(metric, dipy_metrics.EMMetric):
        _log_replacement_of_em()
        return CRMetric(metric.dim)
    raise _no_metric(f"DIPY's {kind}, which has no counterpart here")


def _smoothing(sigma: float) -> float:
    """Convert a DIPY metric's smoothing of the update to ours, both in voxels."""
    return max(_SMOOTHING * sigma, min(sigma, _LEAST_SMOOTHING))


def _log_replacement_of_em() -> None:
    logger.info(
        "EMMetric: the correlation ratio (CRMetric) is used instead. For b0 to T1, "
        "where two tissues can have the same intensity, consider metric='MI'."
    )


def make_model(model: object) -> RegistrationNetwork | None:
    """Load a trained network from a name or a file.

    Parameters
    ----------
    model : None, str, Path or RegistrationNetwork
        A network; the name of a network that comes with the package (`list_models`); or
        a file that `save_network` wrote.  With ``"auto"`` the network is chosen later
        for the images, see `choose_network`.

    Returns
    -------
    network : RegistrationNetwork or None
        None if no network is wanted, and for "auto".

    Raises
    ------
    ValueError
        If there is no such network, or the file does not contain a network.
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
            f"model={str(model)!r} is a type of network, which must be trained first: "
            "give the file that dipy_dl_reg.fit or dipy_train_deep saved, or one of "
            f"{list_models()}."
        )
    if not Path(model).exists():
        raise FileNotFoundError(
            f"model: there is no file {model}, and no trained network of that name; "
            f"the trained networks are {list_models()}."
        )
    return load_network(Path(model))


def check_metric_dim(metric: Metric | None, dim: int) -> Metric | None:
    """Check that a metric accepts images of a dimension.

    Parameters
    ----------
    metric : Metric or None
        The metric; None is accepted for all dimensions.
    dim : int
        Dimension of the images.

    Returns
    -------
    metric : Metric or None
        The same metric.

    Raises
    ------
    ValueError
        If the metric is for images of another dimension.
    """
    if metric is not None and metric.dim not in (None, dim):
        raise ValueError(
            f"metric is for {metric.dim}D images, but the images are {dim}D."
        )
    return metric


def make_regularizer(
    regularizer: str | Callable | None,
) -> Callable | None:
    """Make a smoothness penalty from its name.

    Parameters
    ----------
    regularizer : None, str or callable
        One of `dipy_dl_reg.metrics.registry.REGULARIZERS`, or a function of a
        displacement tensor.

    Returns
    -------
    regularizer : callable or None
        A function of a displacement tensor.

    Raises
    ------
    ValueError
        If there is no such penalty.
    """
    return regularizer_by_name(regularizer)


def is_default_model(model: object) -> bool:
    """Whether the package is to choose the network.

    Parameters
    ----------
    model : object
        The user's value.

    Returns
    -------
    default : bool
        True for "auto".
    """
    return isinstance(model, str) and model == "auto"


def default_model(static_grid: Grid, moving_grid: Grid) -> RegistrationNetwork | None:
    """Load the default network: the package's network for images of any contrast.

    Parameters
    ----------
    static_grid, moving_grid : Grid
        Grids of the two images.

    Returns
    -------
    network : RegistrationNetwork or None
        The network for images of this dimension; None if an image has less than 16 of
        the network's voxels along an axis.
    """
    network = load_model(DEFAULT_MODELS[static_grid.dim])
    for grid in (static_grid, moving_grid):
        spacing = grid.spacing.min() if network.spacing is None else network.spacing
        if (np.array(grid.shape) * grid.spacing / spacing).min() < _LEAST_EXTENT:
            return None
    return network


def choose_network(
    network: RegistrationNetwork | None,
    pair: Pair,
    *,
    default: bool,
    search: str | None,
    level_iters: Sequence[int],
) -> tuple[RegistrationNetwork | None, tuple[Message, ...]]:
    """Choose the network for a pair of images.

    Parameters
    ----------
    network : RegistrationNetwork or None
        The user's network, see `make_model`.
    pair : Pair
        The images.
    default : bool
        Whether to use the default network instead (`is_default_model`).
    search : {"discrete", "auto"} or None
        The search for large displacements.  The default network is not used with
        "discrete", nor if there are landmarks.
    level_iters : sequence of int
        Iterations of the refinement.

    Returns
    -------
    network : RegistrationNetwork or None
        The user's network, or the default one.
    messages : tuple of Message
        A warning if there is neither a network nor a refinement.
    """
    if not default:
        return network, ()
    if pair.landmarks is not None or search == "discrete":
        return None, ()
    seen = flatten_slices(pair) or pair
    network = default_model(seen.static_grid, seen.moving_grid)
    if network is not None or search is not None or any(level_iters):
        return network, ()
    text = (
        "The default network is not used: an image has less than 16 of the network's "
        f"voxels along an axis. {NO_DISPLACEMENT} Omit level_iters."
    )
    return None, (Message(text, warns=True),)
