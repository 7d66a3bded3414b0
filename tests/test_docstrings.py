"""Every public class, function and method is documented as it is written.

numpydoc's own checks: there is a docstring, its Parameters are those of the signature
in their order, and what is returned is said.
"""

import dataclasses
import importlib
import inspect
import pkgutil

from numpydoc.docscrape import ClassDoc
from numpydoc.validate import validate
import pytest

import dipy_dl_reg

CHECKS = {
    "GL08": "no docstring",
    "PR01": "parameters missing from the docstring",
    "PR02": "parameters documented that are not in the signature",
    "PR03": "parameters in another order than in the signature",
    "RT01": "no Returns section",
    "YD01": "no Yields section",
}
MODULES = [
    info.name for info in pkgutil.walk_packages(dipy_dl_reg.__path__, "dipy_dl_reg.")
]


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
