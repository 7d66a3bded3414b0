"""The examples of doc/extending.rst, executed and checked like members of the package.

Each example becomes a module, and its line is added to the table of its kind.  The
tests that run over all members of this kind are then run on the new one.
"""

import ast
import importlib.util
import inspect
from itertools import product
from pathlib import Path
import re
import sys
import tempfile
import tomllib
from types import ModuleType
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from test_annotations import missing_annotations
from test_docstrings import faults, public_items

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "doc" / "extending.rst").read_text()
BLOCK = re.compile(
    r"^\.\. code-block:: (\w+)\n   :caption: (.*)\n\n((?:   .*\n|\n)+)", re.M
)


class Entry(NamedTuple):
    """A line for a table: the table's module and name, and the text of the block."""

    module: str
    table: str
    text: str


class Example(NamedTuple):
    """The new file of an example, and its lines for tables."""

    module: str
    source: str
    entries: list[Entry]


def read_examples():
    """Examples of the page, by the name of the first table."""
    examples = []
    for language, caption, body in BLOCK.findall(PAGE):
        text = re.sub("^   ", "", body, flags=re.M)
        path, _, table = caption.partition(", ")
        module = path.removesuffix(".py").replace("/", ".")
        if language == "python" and table:
            examples[-1].entries.append(Entry(module, table, text))
        elif language == "python":
            examples.append(Example(module, text, []))
    return {example.entries[0].table: example for example in examples}


EXAMPLES = read_examples()


@pytest.fixture
def add(monkeypatch, tmp_path_factory):
    """Add an example to the package as the page says; return its name."""

    def add(table):
        example = EXAMPLES[table]
        module = ModuleType(example.module)
        monkeypatch.setitem(sys.modules, example.module, module)
        parent, _, name = example.module.rpartition(".")
        path = tmp_path_factory.mktemp("example") / f"{name}.py"
        path.write_text(example.source)
        module.__file__ = str(path)
        exec(compile(example.source, path, "exec"), vars(module))
        parent = importlib.import_module(parent)
        monkeypatch.setattr(parent, name, module, raising=False)
        keys = []
        for entry in example.entries:
            registry = importlib.import_module(entry.module)
            key, value = evaluate(entry.text, registry)
            monkeypatch.setitem(getattr(registry, entry.table), key, value)
            keys.append(key)
        return keys[0]

    return add


def evaluate(text, registry):
    """Key and value of the line for a table, after the imports above it."""
    imports, _, line = text.rpartition('\n\n"')
    line = f'"{line.strip()}' if imports else line.strip()
    names = dict(vars(registry))
    exec(imports, names)
    ((key, value),) = eval(f"{{{line}}}", names).items()
    return key, value


def load(path):
    """A module of tests, to call its functions."""
    name = f"extending_{path.stem}"
    if name not in sys.modules:
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
        sys.path.remove(str(path.parent))
    return sys.modules[name]


def member_tests(module, argument):
    """Test functions that run over all members: those with this argument or fixture."""
    for name, function in vars(module).items():
        if not name.startswith("test_"):
            continue
        marks = [
            m for m in getattr(function, "pytestmark", []) if m.name == "parametrize"
        ]
        names = [
            re.split(r", *", m.args[0]) if isinstance(m.args[0], str) else m.args[0]
            for m in marks
        ]
        if argument in inspect.signature(function).parameters:
            others = [
                [dict(zip(n, values(value, len(n)))) for value in mark.args[1]]
                for n, mark in zip(names, marks)
                if argument not in n
            ]
            yield function, [n for n in names if argument in n], others


def values(value, count):
    """Values of one case of `parametrize`, a tuple."""
    if hasattr(value, "values") and hasattr(value, "marks"):  # pytest.param
        return value.values
    return value if count > 1 else (value,)


def run_member_tests(module, argument, member, request, *, besides=(), more=None):
    """Run the tests of all members on a new one; returns their names.

    Tests named in `besides` compare members with something that the new one lacks.
    """
    done = []
    for function, own, others in member_tests(module, argument):
        if function.__name__ in besides:
            continue
        given = {argument: member} | {
            name: value
            for names in own
            for name, value in (more or {}).items()
            if name in names
        }
        for cases in product(*others):
            arguments = given | {k: v for case in cases for k, v in case.items()}
            parameters = inspect.signature(function).parameters
            for name in parameters:
                if name not in arguments:
                    arguments[name] = request.getfixturevalue(name)
                if name == "tmp_path":
                    arguments[name] = Path(tempfile.mkdtemp(dir=arguments[name]))
            function(**arguments)
        done.append(function.__name__)
    return done


def test_examples_are_found():
    tables = {
        "METRICS",
        "REGULARIZERS",
        "TRANSFORMS",
        "NETWORKS",
        "FORMATS",
        "COMMANDS",
    }
    assert set(EXAMPLES) == tables


@pytest.mark.parametrize("table", EXAMPLES)
def test_examples_are_short(table):
    """About thirty lines each, docstrings left out."""
    example = EXAMPLES[table]
    tree = ast.parse(example.source)
    documented = [
        node.body[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and ast.get_docstring(node)
    ]
    docstrings = {
        line for node in documented for line in range(node.lineno, node.end_lineno + 1)
    }
    lines = [
        line
        for number, line in enumerate(example.source.splitlines(), 1)
        if line.strip() and number not in docstrings
    ]
    assert len(lines) <= 40
    longest = max(len(line) for line in example.source.splitlines())
    assert longest <= 88


@pytest.mark.parametrize("table", EXAMPLES)
def test_examples_are_annotated_and_documented(table, add):
    """By the checks that the modules of the package pass."""
    name = EXAMPLES[table].module
    assert missing_annotations(EXAMPLES[table].source) == []
    add(table)
    found = [f for item in public_items(sys.modules[name]) for f in faults(*item)]
    assert found == []


def test_metric(add, request):
    name = add("METRICS")
    module = load(TESTS / "metrics/test_metrics.py")
    done = run_member_tests(
        module, "name", name, request, besides={"test_regularizers"}
    )
    assert {"test_gradient", "test_an_image_is_most_like_itself"} <= set(done)


def test_metric_by_its_name(add):
    from dipy_dl_reg import DeepRegistration

    name = add("METRICS")
    x = np.stack(np.meshgrid(*[np.linspace(-1, 1, 24)] * 2))
    static = np.exp(-5 * (x**2).sum(0))
    moving = np.exp(-5 * ((x - 0.1) ** 2).sum(0))
    registration = DeepRegistration(name, model=None, progress=False)
    mapping = registration.optimize(static=static, moving=moving)
    before, after = (
        abs(y - static).mean() for y in (moving, mapping.transform(moving))
    )
    assert after < 0.5 * before


def test_penalty(add, request):
    name = add("REGULARIZERS")
    module = load(TESTS / "metrics/test_metrics.py")
    for shape in module.SHAPES:
        module.test_regularizers(name=name, shape=shape)


def test_transform(add, request):
    name = add("TRANSFORMS")
    module = load(TESTS / "geometry/test_affine_transforms.py")
    besides = {"test_matrix_and_jacobian_are_dipys"}
    done = run_member_tests(module, "name", name, request, besides=besides)
    assert {"test_identity", "test_jacobian_is_the_slope_of_the_matrix"} <= set(done)


def test_network(add, request):
    name = add("NETWORKS")
    module = load(TESTS / "networks/test_networks.py")
    done = run_member_tests(
        module, "name", name, request, more={"arguments": {}}, besides=NETWORK_BESIDES
    )
    assert {
        "test_weights_through_a_checkpoint",
        "test_gradient_by_every_weight",
    } <= set(done)


#: Their arguments and messages are those of one network, or each case is a training.
NETWORK_BESIDES = {"test_wrong_arguments", "test_wrong_arguments_of_their_own"}


def test_format(add, request):
    from dipy_dl_reg.maps.formats.table import FORMATS

    entry = FORMATS[add("FORMATS")]
    module = load(TESTS / "maps/test_formats.py")
    done = run_member_tests(module, "map_format", entry, request)
    assert set(done) == {
        "test_written_map_is_read_as_the_same",
        "test_entries_are_complete",
    }


def test_command(add, tmp_path, monkeypatch):
    """It has a parser, runs on a file, and refuses to replace its output."""
    from dipy.workflows.base import IntrospectiveArgumentParser
    from maps import affine, make_map

    from dipy_dl_reg import save_mapping
    from dipy_dl_reg.workflows.commands import COMMANDS

    name = add("COMMANDS")
    module = sys.modules[f"dipy_dl_reg.workflows.{COMMANDS[name].module}"]
    flow = getattr(module, COMMANDS[name].workflow)()
    assert flow.get_short_name() in name
    parser = IntrospectiveArgumentParser()
    parser.add_workflow(flow)
    for parameter in inspect.signature(flow.run).parameters:
        assert parameter in parser.format_help()

    monkeypatch.chdir(tmp_path)
    grids = dict.fromkeys(("static_grid2world", "moving_grid2world"), affine([2.0] * 3))
    mapping = make_map((9, 8, 7), (9, 8, 7), **grids, amplitude=0.0)
    save_mapping(mapping, "map.npz")
    monkeypatch.setattr(sys, "argv", [name, "map.npz"])
    getattr(module, COMMANDS[name].function)()
    determinant = nib.load("jacobian.nii.gz")
    np.testing.assert_allclose(determinant.get_fdata(), 1, atol=1e-6)
    np.testing.assert_array_equal(determinant.affine, grids["static_grid2world"])
    with pytest.raises(SystemExit, match="existing outputs"):
        getattr(module, COMMANDS[name].function)()


def test_entry_point_of_the_command(add):
    from dipy_dl_reg.workflows.commands import COMMANDS

    name = add("COMMANDS")
    ((_, _, line),) = [b for b in BLOCK.findall(PAGE) if b[0] == "toml"]
    assert tomllib.loads(re.sub("^   ", "", line, flags=re.M)) == {
        name: COMMANDS[name].entry_point
    }
