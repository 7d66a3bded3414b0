"""Metrics and penalties by the names that users give them, in use and in training."""

from inspect import signature

from dipy_dl_reg.metrics.metrics import METRICS
from dipy_dl_reg.metrics.regularizers import REGULARIZERS

#: What the metrics of `METRICS` measure, in messages.
METRIC_MEANINGS = {
    "CC": "local correlation",
    "SSD": "squared difference",
    "NCC": "global correlation",
    "MI": "mutual information",
    "CR": "correlation ratio",
    "MIND": "self-similarity",
}
#: Other names, by which training literature knows the same.
_SYNONYMS = {"MSE": "SSD"}


def is_metric_name(name):
    """Whether a metric has this name.

    Parameters
    ----------
    name : str
        In any case.

    Returns
    -------
    known : bool
        True for those of `METRICS` and "MSE".
    """
    return _SYNONYMS.get(name.upper(), name.upper()) in METRICS


def metric_by_name(name, **options):
    """A metric from its name.

    Parameters
    ----------
    name : str
        One of `METRICS` in any case; "MSE" is "SSD".
    **options : dict
        Of its class.

    Returns
    -------
    metric : Metric
        A new one.

    Raises
    ------
    ValueError
        If there is no such metric, or it has no such option.
    """
    kind = name.upper() if isinstance(name, str) else None
    kind = _SYNONYMS.get(kind, kind)
    if kind not in METRICS:
        raise ValueError(
            f"metric must be one of {sorted(METRICS)}, a metric itself or None, got "
            f"{name!r}."
        )
    known = signature(METRICS[kind]).parameters
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(
            f"{unknown[0]} is no option of metric {kind!r}, which has {list(known)}."
        )
    return METRICS[kind](**options)


def regularizer_by_name(regularizer):
    """A penalty from its name.

    Parameters
    ----------
    regularizer : str, callable or None
        One of `REGULARIZERS`; a function of a field stays itself, and None None.

    Returns
    -------
    regularizer : callable or None
        As the engine takes it.

    Raises
    ------
    ValueError
        If there is no such penalty.
    """
    if regularizer is None or callable(regularizer):
        return regularizer
    if regularizer not in REGULARIZERS:
        raise ValueError(
            f"regularizer must be one of {sorted(REGULARIZERS)}, a function or None, "
            f"got {regularizer!r}."
        )
    return REGULARIZERS[regularizer]
