"""Options of a command, made from the fields of a dataclass.

`command_options` makes the options from the fields of a dataclass
(`dipy_dl_reg.options`).  `takes_command_options` adds them to the signature and the
docstring of the command's method ``run``, from which DIPY makes the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
import re
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from dipy_dl_reg.options import (
    OptionText,
    format_entries,
    option_texts,
    replace_entries,
)

#: Types of DIPY's command line for the annotations of a dataclass.
_COMMAND_TYPES: dict[object, str] = {
    bool: "boolean",
    int: "int",
    float: "float",
    str: "string",
    Path: "string or Path",
}


class CommandOption(NamedTuple):
    """An option of a command.

    Attributes
    ----------
    name : str
        Of the parameter of ``run``.
    kind : str
        Its type for DIPY's command line, such as "variable int".
    text : str
        Its description.
    default : object
        None or a value; `inspect.Parameter.empty` if the option must be given.
    """

    name: str
    kind: str
    text: str
    default: Any = Parameter.empty


def command_options(
    options_class: type, names: Sequence[str], **changes: dict[str, Any]
) -> list[CommandOption]:
    """Options of a command from the fields of a dataclass.

    Parameters
    ----------
    options_class : type
        A dataclass whose fields are annotated.
    names : sequence of str
        The fields that are options of the command, in its order.
    **changes : dict
        Attributes of a `CommandOption` to replace, by the name of the field, such as
        ``steps={"default": 100}``.

    Returns
    -------
    options : list of CommandOption
        In DIPY's types: ``variable int`` for a sequence of whole numbers, ``boolean``
        for a flag.  Markup is left out of the descriptions.
    """
    hints, texts = get_type_hints(options_class), option_texts(options_class)
    parameters = signature(options_class).parameters
    return [
        CommandOption(
            name,
            command_type(hints[name]),
            strip_markup(texts[name].text),
            parameters[name].default,
        )._replace(**changes.get(name, {}))
        for name in names
    ]


def strip_markup(text: str) -> str:
    """Remove citations and code markup from a description.

    Parameters
    ----------
    text : str
        Description from a docstring.

    Returns
    -------
    text : str
        The description for a terminal.
    """
    text = re.sub(r"\s?:[\w:]+:`[^`]*`", "", text)
    return re.sub(r"`+([^`]*)`+", r"\1", text)


def _command_entries(options: Iterable[CommandOption]) -> str:
    """Format options as entries of the docstring section "Parameters"."""
    return format_entries(
        {
            option.name: OptionText(
                option.kind
                + ("" if option.default is Parameter.empty else ", optional"),
                option.text,
            )
            for option in options
        }
    )


def takes_command_options(options: Sequence[CommandOption]) -> Callable:
    """Add options to the method ``run`` of a command.

    Parameters
    ----------
    options : sequence of CommandOption
        In the order of the command's help.

    Returns
    -------
    decorate : callable
        A decorator.  The decorated method accepts all options by position or name, and
        calls the original method with all of them by name.  In its docstring, the line
        ``NAME : CommandOption`` and its description are replaced by the entries of all
        options.
    """

    def decorate(run: Callable) -> Callable:
        own = next(iter(signature(run).parameters.values()))
        parameters = [own] + [
            Parameter(o.name, Parameter.POSITIONAL_OR_KEYWORD, default=o.default)
            for o in options
        ]
        full = Signature(parameters)

        @wraps(run)
        def wrapper(*args: Any, **keywords: Any) -> Any:
            given = full.bind(*args, **keywords)
            given.apply_defaults()
            return run(**given.arguments)

        wrapper.__signature__ = full  # type: ignore[attr-defined]
        entries = _command_entries(options)
        wrapper.__doc__ = replace_entries(
            run.__doc__ or "", CommandOption.__name__, lambda names: entries
        )
        return wrapper

    return decorate


def command_type(annotation: Any) -> str:
    """The type of DIPY's command line for an annotation.

    Parameters
    ----------
    annotation : type
        Such as ``Sequence[int] | None``.

    Returns
    -------
    name : str
        Such as ``"variable int"``.

    Raises
    ------
    ValueError
        If DIPY's command line has no such type.
    """
    kinds = [kind for kind in _members(annotation) if kind is not NoneType]
    for kind in kinds:
        if get_origin(kind) in (list, tuple, Sequence):
            return f"variable {command_type(get_args(kind)[0])}"
    for kind in (Path, str, float, int, bool):
        if kind in kinds:
            return _COMMAND_TYPES[kind]
    if any(get_origin(kind) is Literal for kind in kinds):
        return "string"
    raise ValueError(f"the command line has no type for {annotation!r}")


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation allows."""
    if get_origin(annotation) in (Union, UnionType):
        return get_args(annotation)
    return (annotation,)
