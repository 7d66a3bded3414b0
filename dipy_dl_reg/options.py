"""Options in frozen dataclasses, which become keyword parameters of functions.

A dataclass of options documents each field in its numpydoc section "Parameters" and
checks all values in ``__post_init__``.  `takes_options` adds its fields to a function
as keyword-only parameters, including the signature and the documentation.
`dipy_dl_reg.workflows.command_options` makes options of a command from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from functools import wraps
from inspect import Parameter, Signature, cleandoc, signature
import re
from typing import Any, NamedTuple


class OptionText(NamedTuple):
    """Documentation of one option.

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
    """Return the documentation of the fields of a dataclass.

    Parameters
    ----------
    options_class : type
        A dataclass whose docstring has a section "Parameters".

    Returns
    -------
    texts : dict
        `OptionText` by field name, in the order of the docstring.
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
    """Add the fields of a dataclass to a function as keyword-only parameters.

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
        A decorator.  The decorated function accepts either the fields by name or an
        instance of the dataclass as `parameter`.

    Raises
    ------
    TypeError
        In the decorated function, for a keyword that is neither one of its own
        parameters nor a field.
    """

    def decorate(function: Callable) -> Callable:
        own = signature(function)
        names = {field.name for field in fields(options_class)}
        called = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

        @wraps(function)
        def wrapper(*args: Any, **keywords: Any) -> Any:
            given = {name: keywords.pop(name) for name in names & keywords.keys()}
            _check_keywords(called, keywords, own, names, parameter)
            if parameter not in keywords:
                _check_required(called, given, options_class)
                keywords[parameter] = options_class(**given)
            elif given:
                raise TypeError(f"give {parameter} or {sorted(given)}, not both")
            return function(*args, **keywords)

        wrapper.__signature__ = _join_signatures(  # type: ignore[attr-defined]
            own, options_class, parameter
        )
        if function.__doc__:  # a constructor has none; its class has the documentation
            wrapper.__doc__ = insert_options(function.__doc__, options_class)
        return wrapper

    return decorate


def _check_keywords(
    name: str,
    keywords: Iterable[str],
    own: Signature,
    names: set[str],
    parameter: str,
) -> None:
    """Raise for a keyword that a function does not accept."""
    if any(p.kind is Parameter.VAR_KEYWORD for p in own.parameters.values()):
        return
    for keyword in keywords:
        if keyword not in own.parameters:
            known = sorted((names | set(own.parameters)) - {"self", parameter})
            raise TypeError(
                f"{name} has no option {keyword!r}; its options are {known}"
            )


def _check_required(name: str, given: Iterable[str], options_class: type) -> None:
    """Raise if an option without a default is missing."""
    for field in fields(options_class):
        required = field.default is MISSING and field.default_factory is MISSING
        if required and field.name not in given:
            raise TypeError(f"{name} requires the option {field.name!r}")


def _join_signatures(own: Signature, options_class: type, parameter: str) -> Signature:
    """Replace one parameter of a function's signature by the fields."""
    kept = [p for name, p in own.parameters.items() if name != parameter]
    rest = [p for p in kept if p.kind is Parameter.VAR_KEYWORD]
    options = [
        p.replace(kind=Parameter.KEYWORD_ONLY)
        for name, p in signature(options_class).parameters.items()
        if name not in own.parameters
    ]
    return own.replace(parameters=[p for p in kept if p not in rest] + options + rest)


def document_options(options_class: type) -> Callable:
    """Document the fields of a dataclass as parameters of a class.

    Parameters
    ----------
    options_class : type
        A frozen dataclass; `insert_options` describes the entry that the docstring of
        the class must have.

    Returns
    -------
    decorate : callable
        A decorator of a class, whose ``__init__`` takes the options
        (`takes_options`).
    """

    def decorate(documented: type) -> type:
        documented.__doc__ = insert_options(documented.__doc__ or "", options_class)
        return documented

    return decorate


def insert_options(docstring: str, options_class: type) -> str:
    """Replace the entry of an options class in a docstring by its options.

    Parameters
    ----------
    docstring : str
        A docstring with entries in its section "Parameters" whose type is the name of
        the class.  An entry with names of fields (``first, second : CLASS``) is
        replaced by these fields, an entry with another name by all fields.
    options_class : type
        The dataclass.

    Returns
    -------
    docstring : str
        The docstring with an entry for each of these fields.

    Raises
    ------
    ValueError
        If the docstring has no such entry.
    """
    texts = option_texts(options_class)

    def describe(names: list[str]) -> str:
        return format_entries({n: texts[n] for n in names if n in texts} or texts)

    return replace_entries(docstring, options_class.__name__, describe)


def replace_entries(
    docstring: str, kind: str, describe: Callable[[list[str]], str]
) -> str:
    """Replace the entries of a docstring that have a given type.

    Parameters
    ----------
    docstring : str
        A docstring with a section "Parameters".
    kind : str
        Type of the entries that are replaced.
    describe : callable
        ``describe(names)`` returns the new entries, without indentation, for the names
        of an old entry.

    Returns
    -------
    docstring : str
        The docstring with the new entries.

    Raises
    ------
    ValueError
        If the docstring has no entry of this type.
    """

    def replace(place: re.Match[str]) -> str:
        lines = describe(place["names"].split(", ")).splitlines()
        return "".join(f"{place['indent']}{line}".rstrip() + "\n" for line in lines)

    entry = re.compile(
        rf"^(?P<indent> *)(?P<names>\w+(?:, \w+)*) : {kind}\b.*\n"
        r"(?:(?P=indent) +.*\n)*",
        re.MULTILINE,
    )
    replaced, count = entry.subn(replace, docstring)
    if not count:
        raise ValueError(f"the docstring has no entry of type {kind}")
    return replaced


def fill_docstring(**texts: str | Iterable[str]) -> Callable:
    """Replace words in braces in a docstring by texts or by lists of names.

    Parameters
    ----------
    **texts : str or iterable of str
        The texts, by the word in braces that each replaces.  The lines of a string are
        indented like the line into which it is inserted; names are quoted and joined by
        commas.

    Returns
    -------
    decorate : callable
        A decorator of functions and classes.
    """

    def decorate(item: Any) -> Any:
        inserted = {
            word: text if isinstance(text, str) else join_words(f'"{n}"' for n in text)
            for word, text in texts.items()
        }
        lines = (item.__doc__ or "").split("\n")
        item.__doc__ = "\n".join(_insert_texts(line, inserted) for line in lines)
        return item

    return decorate


def _insert_texts(line: str, texts: dict[str, str]) -> str:
    """Replace words in braces in a line."""
    indent = " " * (len(line) - len(line.lstrip()))
    for word, text in texts.items():
        line = line.replace(f"{{{word}}}", text.replace("\n", f"\n{indent}"))
    return line


def join_words(words: Iterable[str]) -> str:
    """Join words for a sentence.

    Parameters
    ----------
    words : iterable of str
        Such as "a", "b" and "c".

    Returns
    -------
    text : str
        Such as "a, b or c".
    """
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def format_entries(texts: dict[str, OptionText]) -> str:
    """Format options as entries of a section "Parameters".

    Parameters
    ----------
    texts : dict of OptionText
        Documentation of the options, by name.

    Returns
    -------
    entries : str
        The entries, without indentation.
    """
    return "\n".join(
        f"{name} : {option.kind}\n"
        + "\n".join(f"    {line}".rstrip() for line in option.text.splitlines())
        for name, option in texts.items()
    )
