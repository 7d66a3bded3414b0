"""tools/experiments/code_figures.py on a checkout of a few lines."""

from pathlib import Path
import sys
from textwrap import dedent

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "experiments"))

import code_figures  # noqa: E402

FILES = {
    "dipy_dl_reg/__init__.py": "",
    "dipy_dl_reg/top.py": """
        from typing import TYPE_CHECKING

        from dipy_dl_reg.low import first
        from dipy_dl_reg import low

        if TYPE_CHECKING:
            from dipy_dl_reg.high import third


        class Shape:
            '''Docstring
            of two lines.'''

            kind: str = "plain"

            def __init__(self, side: float):
                self.side, self.other = side, 0

            @property
            def area(self) -> float:
                '''Docstring.'''
                # A comment before is no part of the body, one within is.
                side = self.side

                # Like this one.
                return side**2

            def _hidden(self, *sides, **more):
                def inner():
                    return 1

                return inner
        """,
    "dipy_dl_reg/low.py": "def first(a, b: int = 1):\n    'Only a docstring.'\n",
    "dipy_dl_reg/part/__init__.py": "from .one import two\n",
    "dipy_dl_reg/part/one.py": "def two():\n    from ..high import third\n",
    "dipy_dl_reg/high.py": "def third():\n    from .top import Shape\n",
}


@pytest.fixture
def root(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return tmp_path


def test_functions(root):
    _, functions, _ = code_figures.read_files(root, "dipy_dl_reg")
    found = {f.place.split(": ")[1]: f[1:] for f in functions}
    assert found == {
        "Shape.__init__": (1, 1, True, True),
        "Shape.area": (4, 0, True, True),
        "Shape._hidden": (4, 2, False, False),
        "Shape._hidden.inner": (1, 0, False, False),
        "first": (0, 2, True, False),
        "two": (1, 0, True, False),
        "third": (1, 0, True, False),
    }


def test_classes(root):
    _, _, (shape,) = code_figures.read_files(root, "dipy_dl_reg")
    assert shape == ("dipy_dl_reg/top.py: Shape", 21, 3, 3)


def test_levels(root):
    graph = code_figures.import_graph(root)
    names = [n.removeprefix("dipy_dl_reg.") for n in code_figures.longest_chain(graph)]
    assert names == ["part", "part.one", "high", "top", "low"]
    graph = code_figures.import_graph(root, in_functions=False)
    assert len(code_figures.longest_chain(graph)) == 2


def test_ring_is_one_level():
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": set()}
    assert code_figures.longest_chain(graph) == ["a", "b", "d"]


def test_what_is_too_long_is_listed(root, capsys):
    path = root / "tests" / "test_long.py"
    path.parent.mkdir()
    path.write_text("def f():\n" + "    x = 1\n" * 400)
    code_figures.main([str(root)])
    printed = capsys.readouterr().out
    assert "    401  tests/test_long.py\n" in printed
    assert "    400  tests/test_long.py: f\n" in printed
    assert "public functions with all annotations: 2 of 5 (40 %)" in printed


def test_percentile():
    assert code_figures.percentile_90(range(1, 11)) == 9
    assert code_figures.percentile_90([3]) == 3
