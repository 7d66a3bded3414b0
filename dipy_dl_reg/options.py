"""Options that are declared once: a frozen dataclass, from which functions take theirs.

A dataclass of options documents each field in its numpydoc section "Parameters" and
checks all values in ``__post_init__``.  `takes_options` gives its fields to a function
as keyword-only parameters, signature and documentation included; `command_parameters`
gives their descriptions to a command, whose options DIPY reads from a docstring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import wraps
from inspect import Parameter, Signature, cleandoc, signature
from pathlib import Path
import re
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

#: Types of DIPY's command line for the annotations of a dataclass.
_COMMAND_TYPES: dict[object, str] = {
    bool: "boolean",
    int: "int",
    float: "float",
    str: "string",
    Path: "string or Path",
}


class OptionText(NamedTuple):
    """What a docstring says of one option.

    Attributes
    ----------
    kind : str
        Its type, such as ``"float, optional"``.
    text : str
        Its description, in lines without indentation.
    """

    kind: str
    text: str


def option_texts(options_class: type) -> dict[str, OptionText]:
    """What the docstring of a dataclass says of its fields.

    Parameters
    ----------
    options_class : type
        A dataclass whose docstring has a section "Parameters".

    Returns
    -------
    texts : dict
        By the names of the fields, in the docstring's order.
    """
    section = cleandoc(options_class.__doc__ or "").split("Parameters\n----------\n")[1]
    section = re.split(r"\n\n[A-Z][a-zA-Z ]+\n-+\n", section)[0]
    texts = {}
    for entry in re.split(r"\n(?=\S)", section.strip("\n")):
        head, _, body = entry.partition("\n")
        names, _, kind = head.partition(" : ")
        for name in names.split(", "):
            texts[name] = OptionText(kind, cleandoc("\n" + body))
    return texts


def takes_options(options_class: type, parameter: str = "options") -> Callable:
    """Give a function the fields of a dataclass as keyword-only parameters.

    Parameters
    ----------
    options_class : type
        A frozen dataclass.
    parameter : str, optional
        The function's parameter that takes an instance of it.  In the function's
        docstring the line ``PARAMETER : CLASS`` (the class by its name) and its
        description are replaced by the documentation of all fields.

    Returns
    -------
    decorate : callable
        A decorator.  The decorated function takes either the fields by their names or,
        as `parameter`, an instance.

    Raises
    ------
    TypeError
        By the decorated function, for a keyword that is neither its own nor a field.
    """

    def decorate(function: Callable) -> Callable:
        own = signature(function)
        names = {field.name for field in fields(options_class)}  # type: ignore[arg-type]

        @wraps(function)
        def wrapper(*args: Any, **keywords: Any) -> Any:
            given = {name: keywords.pop(name) for name in names & keywords.keys()}
            _check_keywords(function.__name__, keywords, own, names)
            if parameter not in keywords:
                keywords[parameter] = options_class(**given)
            elif given:
                raise TypeError(f"give {parameter} or {sorted(given)}, not both")
            return function(*args, **keywords)

        wrapper.__signature__ = _join_signatures(  # type: ignore[attr-defined]
            own, options_class, parameter
        )
        if function.__doc__:  # a constructor is documented by its class
            wrapper.__doc__ = insert_options(function.__doc__, options_class)
        return wrapper

    return decorate


def _check_keywords(
    name: str, keywords: Iterable[str], own: Signature, names: set[str]
) -> None:
    """Raise for a keyword that a function does not take."""
    if any(p.kind is Parameter.VAR_KEYWORD for p in own.parameters.values()):
        return
    for keyword in keywords:
        if keyword not in own.parameters:
            known = sorted(names | set(own.parameters))
            raise TypeError(f"{name} has no option {keyword!r}; there are {known}")


def _join_signatures(own: Signature, options_class: type, parameter: str) -> Signature:
    """A function's signature with the fields in the place of one parameter."""
    kept = [p for name, p in own.parameters.items() if name != parameter]
    rest = [p for p in kept if p.kind is Parameter.VAR_KEYWORD]
    options = [
        p.replace(kind=Parameter.KEYWORD_ONLY)
        for name, p in signature(options_class).parameters.items()
        if name not in own.parameters
    ]
    return own.replace(parameters=[p for p in kept if p not in rest] + options + rest)


def document_options(options_class: type) -> Callable:
    """Document the fields of a dataclass as parameters of a class or function.

    Parameters
    ----------
    options_class : type
        A frozen dataclass; `insert_options` says what the docstring must hold.

    Returns
    -------
    decorate : callable
        A decorator of a class, whose ``__init__`` takes the options
        (`takes_options`), or of a function.
    """

    def decorate(documented: Any) -> Any:
        documented.__doc__ = insert_options(documented.__doc__ or "", options_class)
        return documented

    return decorate


def insert_options(docstring: str, options_class: type) -> str:
    """A docstring with the documentation of options in the place of their class.

    Parameters
    ----------
    docstring : str
        Has, in its section "Parameters", entries whose type is the class's name.  An
        entry of fields' names (``first, second : CLASS``) stands for these, an entry of
        another name for all fields.
    options_class : type
        The dataclass.

    Returns
    -------
    docstring : str
        With an entry for each of these fields instead.

    Raises
    ------
    ValueError
        If it has no such entry.
    """
    texts = option_texts(options_class)

    def describe(place: re.Match[str]) -> str:
        names = place["names"].split(", ")
        chosen = {name: texts[name] for name in names if name in texts} or texts
        lines = _entries(chosen).splitlines()
        return "".join(f"{place['indent']}{line}".rstrip() + "\n" for line in lines)

    entry = re.compile(
        rf"^(?P<indent> *)(?P<names>\w+(?:, \w+)*) : {options_class.__name__}\b.*\n"
        r"(?:(?P=indent) +.*\n)*",
        re.MULTILINE,
    )
    described, count = entry.subn(describe, docstring)
    if not count:
        raise ValueError(f"the docstring has no entry of type {options_class.__name__}")
    return described


def _entries(texts: dict[str, OptionText]) -> str:
    """Entries of a section "Parameters"."""
    return "\n".join(
        f"{name} : {option.kind}\n"
        + "\n".join(f"    {line}".rstrip() for line in option.text.splitlines())
        for name, option in texts.items()
    )


def command_parameters(options_class: type, names: Sequence[str]) -> str:
    """Entries of a command's docstring for some options of a dataclass.

    Parameters
    ----------
    options_class : type
        A dataclass whose fields are annotated.
    names : sequence of str
        The fields that are options of the command, in its order.

    Returns
    -------
    text : str
        Entries of a section "Parameters" in DIPY's types: ``variable int`` for a
        sequence of whole numbers, ``boolean`` for a flag.  Markup is left out.
    """
    hints, texts = get_type_hints(options_class), option_texts(options_class)
    plain = {
        name: OptionText(
            f"{command_type(hints[name])}, optional",
            re.sub(r"`+([^`]*)`+", r"\1", texts[name].text),
        )
        for name in names
    }
    return _entries(plain)


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
        If there is none.
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
    raise ValueError(f"no type of the command line stands for {annotation!r}")


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation allows."""
    if get_origin(annotation) in (Union, UnionType):
        return get_args(annotation)
    return (annotation,)
