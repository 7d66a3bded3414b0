"""The examples: sections, public names, figures with alternative texts, addresses."""

import ast
from pathlib import Path
import re

import pytest

import dipy_dl_reg

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "doc" / "examples"
EXAMPLES = sorted(FOLDER.glob("*/plot_*.py"))


def read_sections():
    """The table of sections of doc/gallery.py, which itself needs sphinx-gallery."""
    for node in ast.parse((ROOT / "doc" / "gallery.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "SECTIONS":
            return ast.literal_eval(node.value)
    raise AssertionError("doc/gallery.py has no table SECTIONS")


def read_imports(path):
    """Modules and names that a script imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)


def test_sections_list_all_examples():
    listed = {
        f"{folder}/{name}"
        for folder, names in read_sections().items()
        for name in names
    }
    assert listed == {str(path.relative_to(FOLDER)) for path in EXAMPLES}


def test_sections_have_a_header():
    assert all((FOLDER / folder / "README.rst").exists() for folder in read_sections())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_use_public_names_only(path):
    ours = [
        (module, name)
        for module, name in read_imports(path)
        if module.split(".")[0] == "dipy_dl_reg"
    ]
    assert all(module == "dipy_dl_reg" for module, _ in ours)
    assert {name for _, name in ours} <= set(dipy_dl_reg.__all__)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_measure_no_times(path):
    assert "time" not in {module for module, _ in read_imports(path)}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_figures_have_an_alternative_text(path):
    """Figures are made by `new_figure`, whose first argument describes them."""
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]
    made = [node for node in calls if getattr(node.func, "id", "") == "new_figure"]
    assert made
    assert all(isinstance(node.args[0], ast.Constant | ast.JoinedStr) for node in made)
    others = {getattr(node.func, "attr", "") for node in calls}
    assert not others & {"subplots", "figure"}


def count_figures(node):
    """Number of the figures that a script makes; loops over a list in the code only."""
    if getattr(getattr(node, "func", None), "id", "") == "new_figure":
        return 1
    number = sum(map(count_figures, ast.iter_child_nodes(node)))
    if isinstance(node, ast.For) and number:
        assert isinstance(node.iter, ast.Tuple | ast.List), "how many figures?"
        return number * len(node.iter.elts)
    assert not (number and isinstance(node, ast.FunctionDef | ast.While))
    return number


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_thumbnails_exist(path):
    """The number of the thumbnail is that of a figure."""
    source = path.read_text()
    number = re.search(r"sphinx_gallery_thumbnail_number = (\d+)", source)
    assert number is None or 1 <= int(number[1]) <= count_figures(ast.parse(source))


def test_addresses_of_examples_exist():
    sources = [*(ROOT / "doc").glob("*.rst"), *EXAMPLES]
    sources += [*ROOT.glob("*.md"), *(ROOT / "dipy_dl_reg").rglob("*.py")]
    for source in sources:
        for address in re.findall(
            r"(?:auto_examples|doc/examples)/([\w/]*plot_\w+)", source.read_text()
        ):
            assert (FOLDER / f"{address}.py").exists(), (source, address)
