"""Descriptions and words of command options that are those of classes.

An option of `DeepRegistration` is described in `DeformableOptions`, and a metric in
`dipy_dl_reg.metrics.registry`.  A command describes an option itself if it takes a file
instead of an array, or if it behaves differently from the class.
"""

from __future__ import annotations

from collections.abc import Mapping

from dipy_dl_reg.options import join_words, option_texts
from dipy_dl_reg.validation import check_choice
from dipy_dl_reg.workflows.command_options import strip_markup


def describe_options(options_class: type) -> dict[str, str]:
    """Collect the descriptions of options, without code markup.

    Parameters
    ----------
    options_class : type
        A dataclass of options.

    Returns
    -------
    texts : dict of str
        By option.
    """
    return {
        name: strip_markup(option.text)
        for name, option in option_texts(options_class).items()
    }


def list_meanings(meanings: Mapping[str, str]) -> str:
    """List the metric names of a command with their meanings.

    Parameters
    ----------
    meanings : mapping of str
        What each metric measures, by name.

    Returns
    -------
    text : str
        Such as "ssd (squared difference) or mi (mutual information)".
    """
    return join_words(f"{name.lower()} ({text})" for name, text in meanings.items())


def read_anatomy(anatomy: str) -> str | bool:
    """Convert the word of a command to the option `anatomy` of `DeepRegistration`.

    Parameters
    ----------
    anatomy : {"auto", "yes", "no"}
        The word.

    Returns
    -------
    option : {"auto", True, False}
        The option.

    Raises
    ------
    ValueError
        For another word.
    """
    words: dict[str, str | bool] = {"auto": "auto", "yes": True, "no": False}
    return words[check_choice("anatomy", anatomy, words)]
