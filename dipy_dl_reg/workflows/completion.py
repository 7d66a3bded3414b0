"""Completion of a command's options by the shell, with shtab where it is installed."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")


class ShowCompletion(argparse.Action):
    """Prints the completion script of a parser for a shell, and ends the process.

    Parameters
    ----------
    option_strings : sequence of str
        Names of the option.
    dest : str
        Name of its value.
    **options : dict
        Other arguments of `argparse.Action`.
    """

    def __init__(self, option_strings: Any, dest: str, **options: Any) -> None:
        super().__init__(
            option_strings,
            dest,
            choices=SHELLS,
            default=argparse.SUPPRESS,
            metavar="|".join(SHELLS),
            **options,
        )

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: Any = None
    ) -> None:
        """Print the script."""
        try:
            print(make_completion(parser, values), end="")
        except ImportError as error:
            parser.exit(1, f"{parser.prog}: error: {error}\n")
        parser.exit()


def make_completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Make the completion script of a command.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of the command.
    shell : {"bash", "zsh", "tcsh"}
        The shell.

    Returns
    -------
    script : str
        Its options are completed by their names, and paths as files.

    Raises
    ------
    ImportError
        If shtab is not installed.
    """
    try:
        shtab = import_module("shtab")
    except ImportError:
        raise ImportError(
            "completion needs shtab: pip install shtab, or in the folder of this "
            "package's repository: pip install '.[completion]'"
        ) from None
    for action in parser._actions:
        if action.metavar == "path" or not action.option_strings:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(parser, shell=shell)
