"""Public functions and methods are annotated: what mypy then checks at each call."""

import ast
from pathlib import Path

import pytest

import dipy_dl_reg

ROOT = Path(dipy_dl_reg.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))


def public_functions(body, prefix=""):
    """Yield name and node of public functions, and of public classes' methods."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield prefix + node.name, node


def missing_annotations(source):
    """Name parameters and results without annotation, of public functions."""
    found = []
    for name, node in public_functions(ast.parse(source).body):
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += filter(None, (arguments.vararg, arguments.kwarg))
        bare = [a.arg for a in every if a.annotation is None]
        found += [f"{name}: {argument}" for argument in bare if argument not in OWN]
        if node.returns is None:
            found.append(f"{name}: what it returns")
    return found


#: First parameters of methods, whose type is their class.
OWN = {"self", "cls"}


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in MODULES]
)
def test_public_functions_are_annotated(path):
    assert missing_annotations(path.read_text()) == []


def test_a_missing_annotation_is_found():
    source = "class A:\n    def f(self, x, y: int = 0): ...\n    def _g(self, z): ..."
    assert missing_annotations(source) == ["A.f: x", "A.f: what it returns"]
