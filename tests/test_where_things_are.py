"""doc/where_things_are.rst names folders, modules and functions that exist."""

import ast
from pathlib import Path
import re

import pytest
from test_layers import LAYERS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dipy_dl_reg"
PAGE = (ROOT / "doc" / "where_things_are.rst").read_text()
#: A row of a table: its cells, each a text without the marks of its lines.
ROW = re.compile(r"^   \* - (.*?)(?=^   \* - |^\S|\Z)", re.M | re.S)


def rows(columns):
    """Cells of each row with this number of columns, without the headings."""
    found = []
    for text in ROW.findall(PAGE):
        cells = [
            " ".join(cell.split()) for cell in re.split(r"^     - ", text, flags=re.M)
        ]
        if len(cells) == columns and "``" in cells[-1] + cells[0]:
            found.append(cells)
    return found


def names_in(path):
    """Names that a module defines; methods and attributes of classes as Class.name."""
    names = set()

    def collect(body, prefix):
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                names.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                collect(node.body, f"{prefix}{node.name}.")
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            names.update(prefix + t.id for t in targets if isinstance(t, ast.Name))

    collect(ast.parse(path.read_text()).body, "")
    return names


ANSWERS = rows(3)


@pytest.mark.parametrize("question, module, name", ANSWERS, ids=[a[0] for a in ANSWERS])
def test_answer_exists(question, module, name):
    assert question.endswith("?")
    path = PACKAGE / module.strip("`")
    assert path.is_file(), f"there is no {module}"
    assert name.strip("`") in names_in(path), f"{module} defines no {name}"


def test_there_are_answers():
    """The rows of the page are found: a change of its form must not hide them."""
    assert len(ANSWERS) > 40
    assert len({question for question, _, _ in ANSWERS}) == len(ANSWERS)


def test_folders_are_those_of_the_package():
    """In the order of imports, which tests/test_layers.py checks."""
    listed = [cells[0].strip("`") for cells in rows(2)]
    there = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").is_file()}
    there |= {p.stem for p in PACKAGE.glob("*.py")} - {"__init__"}
    assert listed == [name for name in LAYERS if name in there]


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"``((?:tests|doc|tools)/[\w/.]*)", PAGE)))
)
def test_other_paths_exist(path):
    assert (ROOT / path).exists()
