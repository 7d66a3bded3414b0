"""All metrics and regularizers, by the names that users give them.

A metric is added by one file with a subclass of `dipy_dl_reg.metrics.base.Metric`, one
line in `METRICS`, and, for the help of the commands, one line in
`dipy_dl_reg.metrics.names.METRIC_MEANINGS`; a regularizer by one file with a function
and one line in `REGULARIZERS`.  Messages, documentation and tests read these tables.
"""

from __future__ import annotations

from inspect import getdoc, signature
from typing import Any

from dipy_dl_reg.metrics.base import Metric, Regularizer
from dipy_dl_reg.metrics.correlation_ratio import CRMetric
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.mind import MINDMetric
from dipy_dl_reg.metrics.mutual_information import MIMetric
from dipy_dl_reg.metrics.ncc import NCCMetric
from dipy_dl_reg.metrics.regularizers.bending import bending
from dipy_dl_reg.metrics.regularizers.diffusion import diffusion
from dipy_dl_reg.metrics.regularizers.total_variation import total_variation
from dipy_dl_reg.metrics.ssd import SSDMetric

#: Metrics by the names that `DeepRegistration(metric=...)` takes.
METRICS: dict[str, type[Metric]] = {
    "CC": CCMetric,
    "SSD": SSDMetric,
    "NCC": NCCMetric,
    "MI": MIMetric,
    "CR": CRMetric,
    "MIND": MINDMetric,
}
#: Other names of the same metrics, common in the literature on training.
_SYNONYMS = {"MSE": "SSD"}

#: Penalties by the names that `DeepRegistration(regularizer=...)` takes.
REGULARIZERS: dict[str, Regularizer] = {
    "diffusion": diffusion,
    "bending": bending,
    "tv": total_variation,
}


def metric_names() -> list[str]:
    """List the names of all metrics.

    Returns
    -------
    names : list of str
        In the order of `METRICS`.
    """
    return list(METRICS)


def describe_metrics() -> dict[str, str]:
    """Say what each metric measures.

    Returns
    -------
    meanings : dict of str
        The name of each metric and a phrase such as "local correlation".
    """
    return {name: metric.meaning for name, metric in METRICS.items()}


def regularizer_names() -> list[str]:
    """List the names of all regularizers.

    Returns
    -------
    names : list of str
        In the order of `REGULARIZERS`.
    """
    return list(REGULARIZERS)


def describe_regularizers() -> dict[str, str]:
    """Say what each regularizer penalises.

    Returns
    -------
    meanings : dict of str
        The name of each regularizer and the first line of its documentation.
    """
    return {
        name: (getdoc(penalty) or "").partition("\n")[0].rstrip(".")
        for name, penalty in REGULARIZERS.items()
    }


def is_metric_name(name: str) -> bool:
    """Tell whether a metric has this name.

    Parameters
    ----------
    name : str
        In any case.

    Returns
    -------
    known : bool
        True for the names in `METRICS` and "MSE".
    """
    return _SYNONYMS.get(name.upper(), name.upper()) in METRICS


def metric_by_name(name: str, **options: Any) -> Metric:
    """Make a metric from its name.

    Parameters
    ----------
    name : str
        One of `METRICS` in any case; "MSE" is "SSD".
    **options : dict
        Options of its class.

    Returns
    -------
    metric : Metric
        A new one.

    Raises
    ------
    ValueError
        If there is no such metric, or it has no such option.
    """
    if not isinstance(name, str) or not is_metric_name(name):
        raise ValueError(
            f"metric must be one of {sorted(METRICS)}, a metric itself or None, got "
            f"{name!r}."
        )
    own_name = _SYNONYMS.get(name.upper(), name.upper())
    known = signature(METRICS[own_name]).parameters
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(
            f"{unknown[0]} is no option of metric {own_name!r}, which has "
            f"{list(known)}."
        )
    return METRICS[own_name](**options)


def regularizer_by_name(regularizer: str | Regularizer | None) -> Regularizer | None:
    """Find a regularizer by its name.

    Parameters
    ----------
    regularizer : str, callable or None
        One of `REGULARIZERS`, a function of a field, or None.

    Returns
    -------
    regularizer : callable or None
        The function of that name; functions and None are returned as they are.

    Raises
    ------
    ValueError
        If there is no such regularizer.
    """
    if regularizer is None or callable(regularizer):
        return regularizer
    if regularizer not in REGULARIZERS:
        raise ValueError(
            f"regularizer must be one of {sorted(REGULARIZERS)}, a function or None, "
            f"got {regularizer!r}."
        )
    return REGULARIZERS[regularizer]
