"""Every public class, function and method is documented as it is written.

numpydoc's own checks: there is a docstring, its Parameters are those of the signature
in their order, and what is returned is said. A public name also has examples that run,
names what to read next, and its docstring names only what exists.
"""

import dataclasses
from doctest import SKIP, DocTestParser
from functools import cache
import importlib
from importlib.util import module_from_spec, spec_from_file_location
import inspect
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name, walk_packages
import re

from numpydoc.docscrape import ClassDoc, FunctionDoc
from numpydoc.validate import validate
import pytest

import dipy_dl_reg

ROOT = Path(__file__).parents[1]
CHECKS = {
    "GL08": "no docstring",
    "PR01": "parameters missing from the docstring",
    "PR02": "parameters documented that are not in the signature",
    "PR03": "parameters in another order than in the signature",
    "RT01": "no Returns section",
    "YD01": "no Yields section",
}
#: Public names without an example that runs here, and why.
NOT_RUN = {"DeepMap": "needs pyAFQ"}
#: Methods that are documented as completely as public names.
METHODS = [
    "DeepRegistration.optimize",
    "DeepAffineRegistration.optimize",
    "ThinPlateSplineRegistration.optimize",
]
MODULES = [info.name for info in walk_packages(dipy_dl_reg.__path__, "dipy_dl_reg.")]


@cache
def cross_references():
    """The module doc/cross_references.py."""
    spec = spec_from_file_location("cross_references", ROOT / "doc/cross_references.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def public_items(module):
    """Yield dotted name and object of everything public that a module defines."""
    for name, item in vars(module).items():
        own = getattr(item, "__module__", None) == module.__name__
        if name.startswith("_") or not own:
            continue
        if inspect.isclass(item):
            yield f"{module.__name__}.{name}", item
            for method, member in public_methods(item):
                yield f"{module.__name__}.{name}.{method}", member
        elif inspect.isroutine(item):
            yield f"{module.__name__}.{name}", item


def public_methods(item):
    """Yield name and object of each public method that the class itself defines."""
    for name, member in vars(item).items():
        function = getattr(member, "__func__", member)
        if name.startswith("_"):
            continue
        if inspect.isfunction(function) or isinstance(function, property):
            yield name, member


def faults(path, item):
    """Return what is wrong with an object's docstring, one line each."""
    fields = record_fields(item)
    if fields is None:
        checks = CHECKS if own_signature(item) else {"GL08": CHECKS["GL08"]}
        return [
            f"{path}: {checks[code]}: {message}"
            for code, message in validate(path)["errors"]
            if code in checks
        ]
    doc = ClassDoc(item)
    named = [
        name.strip()
        for entry in (doc["Parameters"] or doc["Attributes"])
        for name in entry.name.split(",")
    ]
    return [] if named == fields else [f"{path}: fields {fields}, documented {named}"]


def record_fields(item):
    """Fields of a NamedTuple or dataclass, which may be said to be Attributes."""
    if dataclasses.is_dataclass(item):
        return [field.name for field in dataclasses.fields(item)]
    if inspect.isclass(item) and issubclass(item, tuple):
        return list(item._fields)
    return None


def own_signature(item):
    """Whether this package wrote the parameters.

    DIPY's workflows bring theirs, and a protocol has none.
    """
    if not inspect.isclass(item):
        return True
    if getattr(item, "_is_protocol", False):
        return False
    owner = next(base for base in item.__mro__ if "__init__" in vars(base))
    return owner.__module__.startswith(item.__module__.partition(".")[0])


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_match_signatures(name):
    module = importlib.import_module(name)
    found = [fault for pair in public_items(module) for fault in faults(*pair)]
    assert not found, "\n".join(found)
    assert module.__doc__, f"{name} does not say what it is"


@pytest.mark.parametrize(
    "module, name",
    [
        ("metrics.local_correlation", "CCMetric"),
        ("maps.storage", "save_mapping"),
        ("grid", "Grid.coarsen"),
    ],
)
def test_public_items_are_found(module, name):
    """The walk reaches classes, functions and methods."""
    path = f"dipy_dl_reg.{module}"
    items = dict(public_items(importlib.import_module(path)))
    assert f"{path}.{name}" in items


def documented(first, second):
    """Sum of two numbers.

    Parameters
    ----------
    second : int
        The second.
    other : int
        Not there.
    """
    return first + second


def test_fault_is_found():
    found = " ".join(faults(f"{__name__}.documented", documented))
    for part in ("first", "other", "no Returns"):
        assert part in found


@pytest.mark.parametrize("name", [*dipy_dl_reg.__all__, *METHODS])
def test_public_name_has_examples_and_see_also(name):
    doc = inspect.getdoc(find_public(name))
    sections = read_sections(name)
    assert sections["See Also"], f"{name} has no See Also"
    run = [each for each in DocTestParser().get_examples(doc) if is_run(each)]
    assert run or name in NOT_RUN, f"{name} has no example that runs"
    if ":footcite:" in doc:
        assert sections["References"], f"{name} cites without a section References"


@pytest.mark.parametrize("name", [*dipy_dl_reg.__all__, *METHODS])
def test_names_in_docstring_exist(name):
    """A name in single backticks is a parameter, an attribute, or has a page."""
    unknown = [each for each in quoted_names(name) if not is_known(each, name)]
    assert not unknown, f"{name}: {unknown} lead nowhere; values take two backticks"


@pytest.mark.parametrize("name", [*cross_references().external_names()])
def test_name_of_other_project_exists(name):
    """Links to other projects are to names of their installed versions."""
    assert resolve_name(name) is not None


@pytest.mark.parametrize(
    "text, names",
    [
        ("`metric` and ``code`` of `DeepRegistration`", ["metric", "DeepRegistration"]),
        (":math:`x` and :ref:`frames`, `~dipy.align.a.B`", ["dipy.align.a.B"]),
    ],
)
def test_quoted_names_are_found(text, names):
    assert find_quoted(text) == names


def find_public(name):
    """Object of a public name, or of a method ``Class.method``."""
    first, _, method = name.partition(".")
    item = getattr(dipy_dl_reg, first)
    return getattr(item, method) if method else item


def read_sections(name):
    item = find_public(name)
    return (ClassDoc if inspect.isclass(item) else FunctionDoc)(item)


def is_run(example):
    return not example.options.get(SKIP)


def quoted_names(name):
    return find_quoted(inspect.getdoc(find_public(name)))


def find_quoted(text):
    """Names in single backticks, without roles, code and expressions."""
    text = re.sub(r"``.*?``|:[\w:]+:`[^`]*`", "", text, flags=re.DOTALL)
    names = re.findall(r"`~?([\w.]+)`", text)
    return [each for each in names if not each[0].isdigit()]


def is_known(quoted, name):
    """Whether a name in the docstring of a public name exists."""
    doc = read_sections(name)
    entries = [*doc["Attributes"], *doc["Returns"]]
    first, _, attribute = quoted.partition(".")
    return (
        quoted in {each for entry in entries for each in entry.name.split(", ")}
        or quoted in all_parameters()
        or quoted in cross_references().external_names()
        or quoted in returned_classes()
        or first in dipy_dl_reg.__all__
        and (not attribute or is_attribute(getattr(dipy_dl_reg, first), attribute))
    )


@cache
def all_parameters():
    """Names of the parameters and methods of all public names."""
    items = [find_public(name) for name in [*dipy_dl_reg.__all__, *METHODS]]
    methods = [name for item in items for name in dir(item) if inspect.isclass(item)]
    return {*methods, *(name for item in items for name in signature(item).parameters)}


def is_attribute(owner, name):
    """Whether a class has, or documents, an attribute."""
    return hasattr(owner, name) or name in [
        each
        for entry in ClassDoc(owner)["Attributes"]
        for each in entry.name.split(", ")
    ]


def returned_classes():
    """Classes of the objects that functions return; doc/api.rst lists them."""
    page = (ROOT / "doc" / "api.rst").read_text()
    return re.findall(r"^   ~[\w.]+\.(\w+)$", page, flags=re.MULTILINE)
