"""The command line of a workflow: its options and those of all commands, and its help.

The options of a workflow are read from the signature and the docstring of its `run`, by
DIPY's own parser.  The section "Examples" of the docstring becomes part of the help;
each of its commands is run by a test.
"""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from importlib.metadata import version
import inspect
import shutil
import sys
import textwrap
from typing import Any, NamedTuple, NoReturn

from dipy.workflows.base import IntrospectiveArgumentParser
from dipy.workflows.docstring_parser import NumpyDocString
from dipy.workflows.workflow import Workflow

from dipy_dl_reg.workflows.commands import name_of_command
from dipy_dl_reg.workflows.completion import ShowCompletion
from dipy_dl_reg.workflows.exit_codes import EXIT_CODES
from dipy_dl_reg.workflows.log import LEVELS, VERBOSITY_HELP

#: Title of the group of the options that all commands have.
COMMON = "options of all commands"
_TITLES = {
    "positional arguments": "inputs",
    "output arguments(optional)": "outputs",
}
#: Longest line of the help.
_MAX_WIDTH = 100
_REFERENCE = """
Garyfallidis, E., M. Brett, B. Amirbekian, A. Rokem, S. Van Der Walt, M. Descoteaux, and
I. Nimmo-Smith. Dipy, a library for the analysis of diffusion MRI data. Frontiers in
Neuroinformatics, 1-18, 2014.
"""


class CommandParser(IntrospectiveArgumentParser):
    """DIPY's parser with the options of all commands, and a help for 80 columns.

    Parameters
    ----------
    workflow : Workflow
        The workflow.
    name : str
        Name of the command.
    """

    def __init__(self, workflow: Workflow, name: str) -> None:
        super().__init__(prog=name)
        self.add_workflow(workflow)
        docstring = NumpyDocString(inspect.getdoc(workflow.run))
        self.examples = [str(line) for line in docstring["Examples"]]
        _tidy(self, {entry[0]: entry[1] for entry in docstring["Parameters"]})
        add_common_options(self)

    def error(self, message: str) -> NoReturn:
        """Show what is wrong with the command line in one line, and exit with code 2.

        Parameters
        ----------
        message : str
            What is wrong.
        """
        text = " ".join(message.split()) + suggest_options(message, self)
        print(f"{self.prog}: error: {text}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)

    def format_usage(self) -> str:
        """Format the usage: the inputs, without the options.

        Returns
        -------
        text : str
            One paragraph.
        """
        inputs = [
            f"{a.dest} [{a.dest} ...]" if a.nargs == "+" else a.dest
            for a in self._actions
            if not a.option_strings
        ]
        return _fill(f"usage: {self.prog} [options] {' '.join(inputs)}", hang=7) + "\n"

    def format_help(self) -> str:
        """Format the help.

        Returns
        -------
        text : str
            Usage, purpose, options in groups, exit codes and examples.
        """
        summary, _, more = (self.description or "").partition("\n\n")
        parts = [self.format_usage().rstrip(), _fill(summary), _fill(more)]
        for group in self.groups():
            parts.append("\n".join([f"{group.title}:", *map(_entry, group.options)]))
        codes = [f"  {code:>3}  {text}" for code, text in EXIT_CODES.items()]
        parts.append("\n".join(["exit codes:", *codes]))
        if self.examples:
            parts.append("\n".join(["examples:", *("  " + x for x in self.examples)]))
        parts.append(f"reference:\n{_fill(_REFERENCE, indent=2)}")
        return "\n\n".join(part.rstrip() for part in parts if part) + "\n"

    def groups(self) -> list[Group]:
        """The options in the groups of the help.

        Returns
        -------
        groups : list of Group
            Inputs, options, outputs and the options of all commands.
        """
        found = {g.title: g for g in self._action_groups}
        common = found.pop(COMMON, None)
        groups = [*found.values(), *([common] if common else [])]
        return [
            Group(
                _TITLES.get(str(group.title), str(group.title)),
                [_describe(a) for a in group._group_actions if a.help],
            )
            for group in groups
            if group._group_actions
        ]


class Option(NamedTuple):
    """An option as the help describes it.

    Attributes
    ----------
    name : str
        With its value, such as "--level_iters <int> ...".
    text : str
        What it means, with its default.
    """

    name: str
    text: str


class Group(NamedTuple):
    """A group of options.

    Attributes
    ----------
    title : str
        Its title.
    options : list of Option
        Its options.
    """

    title: str
    options: list[Option]


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all commands have: those of DIPY's, and of the log.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser.
    """
    group = parser.add_argument_group(COMMON)

    def flag(name: str, text: str) -> None:
        group.add_argument(f"--{name}", action="store_true", help=text)

    def value(name: str, default: str, kind: str, text: str) -> None:
        group.add_argument(f"--{name}", default=default, metavar=kind, help=text)

    group.add_argument("-h", "--help", action="help", help="Show this help.")
    flag("force", "Overwrite outputs that exist.")
    value("out_strat", "absolute", "str", "Where outputs are written: absolute "
          "(out_dir as it is given), append (out_dir within the folder of the input) "
          "or prepend (the folders of the input within out_dir). "
          "(default: absolute)")  # fmt: skip
    flag("mix_names", "Prepend the names of the inputs to the names of the outputs.")
    for name, text in VERBOSITY_HELP.items():
        flag(name, text)
    value("log_level", "INFO", "str", f"Level of the log: {', '.join(LEVELS)}. DEBUG "
          "is the same as --verbose. (default: INFO)")  # fmt: skip
    value("log_file", "", "path", "File to which the log is appended, errors and "
          "progress included; --quiet has no effect on it.")  # fmt: skip
    group.add_argument(
        "--print_completion",
        action=ShowCompletion,
        help="Print a script that completes this command's options in a shell, and "
        "exit.",
    )
    release = f"dipy_dl_reg {version('dipy_dl_reg')}"
    group.add_argument(
        "--version", action="version", version=release, help="Show the version."
    )


def parse_command_line(workflow: Any, options: Any) -> dict[str, Any]:
    """Parse the command line, and set the options of all commands.

    Parameters
    ----------
    workflow : StrictWorkflow
        The workflow.
    options : LogOptions
        Options of the log; their values are set.

    Returns
    -------
    arguments : dict
        Arguments of the workflow's `run`.

    Raises
    ------
    SystemExit
        If the command line is wrong.
    """
    parser = CommandParser(workflow, name_of_command())
    arguments = parser.get_flow_args()
    workflow._force_overwrite = arguments.pop("force")
    workflow._output_strategy = arguments.pop("out_strat")
    workflow._mix_names = arguments.pop("mix_names")
    for name in ("log_level", "log_file", "quiet", "verbose"):
        options.values[name] = arguments.pop(name)
    return arguments


def suggest_options(message: str, parser: argparse.ArgumentParser) -> str:
    """Suggest the option that may be meant by an unknown one.

    Parameters
    ----------
    message : str
        The message of `argparse`.
    parser : argparse.ArgumentParser
        The parser.

    Returns
    -------
    text : str
        Such as " (do you mean --metric?)"; empty if no option has a similar name.
    """
    if not message.startswith("unrecognized arguments"):
        return ""
    known = [name for action in parser._actions for name in action.option_strings]
    for word in message.split():
        close = get_close_matches(word.partition("=")[0], known, n=1)
        if word.startswith("--") and close:
            return f" (do you mean {close[0]}?)"
    return ""


def _tidy(parser: argparse.ArgumentParser, kinds: dict[str, str]) -> None:
    """Name the values after what they are, and leave out defaults that say nothing."""
    for action in parser._actions:
        text = " ".join((action.help or "").split())
        for default in ("None", "False"):
            text = text.removesuffix(f" (default: {default})")
        action.help = text
        if action.metavar and "Path" in kinds.get(action.dest, ""):
            action.metavar = "path"


def _describe(action: argparse.Action) -> Option:
    """Describe an option for the help."""
    name = ", ".join(action.option_strings) or action.dest
    if action.metavar:
        name += f" <{action.metavar}>"
    if action.nargs in ("+", "*"):
        name += " ..."
    return Option(name, action.help or "")


def _entry(option: Option) -> str:
    """An option and its description below it."""
    return f"  {option.name}\n{_fill(option.text, indent=6)}"


def _fill(text: str, *, indent: int = 0, hang: int = 0) -> str:
    """Break a paragraph into lines for the terminal."""
    columns = shutil.get_terminal_size(fallback=(80, 24)).columns
    return textwrap.fill(
        " ".join(text.split()),
        width=max(40, min(columns, _MAX_WIDTH) - 1),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hang),
        break_on_hyphens=False,
        break_long_words=False,
    )
