"""Descriptions of command options that are written once, elsewhere.

An option of `DeepRegistration` is described in `DeformableOptions`, and a metric in
`dipy_dl_reg.metrics.names`.  A command describes an option itself if it takes a file
instead of an array, or if it behaves differently from the class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import re
from typing import TypeVar

from dipy_dl_reg.metrics.names import METRIC_MEANINGS
from dipy_dl_reg.options import option_texts
from dipy_dl_reg.registration.deformable_options import DeformableOptions

Function = TypeVar("Function", bound=Callable)


def describe_options() -> dict[str, str]:
    """Collect the descriptions of options of `DeepRegistration`, and of the metrics.

    Returns
    -------
    texts : dict of str
        By option; "metrics" lists all metrics with their meanings.
    """
    texts = {
        name: re.sub(r"`+([^`]*)`+", r"\1", option.text)
        for name, option in option_texts(DeformableOptions).items()
    }
    return texts | {"metrics": describe_metrics(METRIC_MEANINGS)}


def describe_metrics(meanings: Mapping[str, str]) -> str:
    """List metrics with their meanings.

    Parameters
    ----------
    meanings : mapping of str
        What each metric measures, by name.

    Returns
    -------
    text : str
        Such as "ssd (squared difference) or mi (mutual information)".
    """
    *first, last = (f"{name.lower()} ({text})" for name, text in meanings.items())
    return f"{', '.join(first)} or {last}" if first else last


def fill_help(**texts: str) -> Callable[[Function], Function]:
    """Insert texts in the docstring of `run`, from which DIPY makes a command's help.

    Parameters
    ----------
    **texts : str
        Texts by name.  Each ``{name}`` in the docstring is replaced; the lines of a
        text are indented like the first.

    Returns
    -------
    decorate : callable
        The decorator.
    """

    def decorate(function: Function) -> Function:
        lines = (function.__doc__ or "").splitlines()
        function.__doc__ = "\n".join(_insert(line, texts) for line in lines)
        return function

    return decorate


def _insert(line: str, texts: Mapping[str, str]) -> str:
    """A line of a docstring with the texts that it names."""
    indent = line[: len(line) - len(line.lstrip())]
    for name in re.findall(r"\{(\w+)\}", line):
        text = f"\n{indent}".join(texts[name].splitlines())
        line = line.replace(f"{{{name}}}", text)
    return line
