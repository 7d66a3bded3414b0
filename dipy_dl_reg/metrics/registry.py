"""All metrics and regularizers, by name.

A metric is added by one file with a subclass of `dipy_dl_reg.metrics.base.Metric` and
one line in `METRICS`; a regularizer by one file with a function and one line in
`REGULARIZERS`.  Messages, help texts, documentation and tests read these two tables.
Torch is imported only when a metric is made, so that ``--help`` is fast.
"""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

from dipy_dl_reg.options import join_words
from dipy_dl_reg.validation import wrong_value

if TYPE_CHECKING:
    from dipy_dl_reg.metrics.base import Metric, Regularizer


class MetricEntry(NamedTuple):
    """One metric of `METRICS`.

    Attributes
    ----------
    location : str
        Its class, as ``module.Class`` of this folder.
    meaning : str
        What it measures, as a phrase for messages and documentation.
    """

    location: str
    meaning: str


class RegularizerEntry(NamedTuple):
    """One regularizer of `REGULARIZERS`.

    Attributes
    ----------
    location : str
        Its function, as ``module.function`` of the folder ``regularizers``.
    meaning : str
        What it penalises, as a phrase for messages and documentation.
    """

    location: str
    meaning: str


#: Metrics by the names that `DeepRegistration(metric=...)` takes, in upper case.  Users
#: may give them in any case.
METRICS = {
    "CC": MetricEntry("local_correlation.CCMetric", "local correlation"),
    "SSD": MetricEntry("ssd.SSDMetric", "squared difference"),
    "NCC": MetricEntry("ncc.NCCMetric", "global correlation"),
    "MI": MetricEntry("mutual_information.MIMetric", "mutual information"),
    "CR": MetricEntry("correlation_ratio.CRMetric", "correlation ratio"),
    "MIND": MetricEntry("mind.MINDMetric", "self-similarity"),
}
#: Other names of the same metrics, common in the literature on training.
_SYNONYMS = {"MSE": "SSD"}

#: Penalties by the names that `DeepRegistration(regularizer=...)` takes.
REGULARIZERS = {
    "diffusion": RegularizerEntry("diffusion.diffusion", "squared first derivatives"),
    "bending": RegularizerEntry("bending.bending", "squared second derivatives"),
    "tv": RegularizerEntry(
        "total_variation.total_variation", "absolute first derivatives"
    ),
}


def _load(folder: str, location: str) -> Any:
    """Import ``module.name`` of a folder."""
    module, _, name = location.rpartition(".")
    return getattr(import_module(f"{folder}.{module}"), name)


def describe_metrics() -> dict[str, str]:
    """Describe what each metric measures.

    Returns
    -------
    meanings : dict of str
        The name of each metric and a phrase such as "local correlation".
    """
    return {name: entry.meaning for name, entry in METRICS.items()}


def list_metrics() -> str:
    """List the metrics for a docstring.

    Returns
    -------
    text : str
        Names and meanings, in lines of up to 80 characters.
    """
    meanings = describe_metrics().items()
    return fill(join_words(f'``"{name}"`` ({text})' for name, text in meanings), 80)


def is_metric_name(name: str) -> bool:
    """Whether a metric has this name.

    Parameters
    ----------
    name : str
        The name, in upper or lower case.

    Returns
    -------
    known : bool
        True for the names in `METRICS` and "MSE".
    """
    return _SYNONYMS.get(name.upper(), name.upper()) in METRICS


def metric_class(name: str) -> type[Metric]:
    """Find the class of a metric.

    Parameters
    ----------
    name : str
        One of `METRICS`, in upper or lower case; "MSE" is "SSD".

    Returns
    -------
    metric_class : type
        A subclass of `Metric`.

    Raises
    ------
    ValueError
        If there is no such metric.
    """
    if not isinstance(name, str) or not is_metric_name(name):
        wanted = f"one of {sorted(METRICS)}, a metric itself or None"
        raise wrong_value("metric", wanted, name)
    entry = METRICS[_SYNONYMS.get(name.upper(), name.upper())]
    return _load("dipy_dl_reg.metrics", entry.location)


def metric_by_name(name: str, **options: Any) -> Metric:
    """Make a metric from its name.

    Parameters
    ----------
    name : str
        One of `METRICS`, in upper or lower case; "MSE" is "SSD".
    **options : dict
        Options of its class.

    Returns
    -------
    metric : Metric
        A new object.

    Raises
    ------
    ValueError
        If there is no such metric, or it has no such option.
    """
    made = metric_class(name)
    known = signature(made).parameters
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(
            f"{unknown[0]} is not an option of metric {made.name!r}; its options are "
            f"{list(known)}."
        )
    return made(**options)


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
        wanted = f"one of {sorted(REGULARIZERS)}, a function or None"
        raise wrong_value("regularizer", wanted, regularizer)
    entry = REGULARIZERS[regularizer]
    return _load("dipy_dl_reg.metrics.regularizers", entry.location)
