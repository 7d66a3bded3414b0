"""The examples of doc/extending.rst, executed and checked like members of the package.

Each example becomes a module of the running package, with its entry in the table of its
kind, and is used.  Then all blocks of the page are written into a copy of the package.
The tests that a new member meets run there: those of all members of its kind, which the
page names, and those of help texts, docstrings, pages and public names.
"""

import ast
import importlib
from importlib.metadata import version
import inspect
import json
import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from types import ModuleType
from typing import NamedTuple

import nibabel as nib
import numpy as np
from pages import read_page
import pytest
from test_annotations import missing_annotations
from test_docstrings import faults, public_items

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "doc" / "extending.rst").read_text()
BLOCK = re.compile(
    r"^\.\. code-block:: (\w+)\n   :caption: (.*)\n\n((?:   .*\n|\n)+)", re.M
)


class Block(NamedTuple):
    """A block of the page: a new file, or a text and its place in another file."""

    language: str
    path: str
    place: str
    text: str

    @property
    def module(self):
        """Dotted name of the file."""
        return self.path.removesuffix(".py").replace("/", ".")


class Example(NamedTuple):
    """The new file of an example, its entry in a table, and other blocks."""

    file: Block
    entry: Block
    others: list[Block]


def read_blocks():
    """All blocks of the page, in their order."""
    for language, caption, body in BLOCK.findall(PAGE):
        path, _, place = caption.partition(", ")
        yield Block(language, path, place, re.sub("^   ", "", body, flags=re.M))


def read_examples():
    """Examples of the page, by the name of the first table."""
    groups = []
    for block in read_blocks():
        if block.path.startswith("dipy_dl_reg/") and not block.place:
            groups.append([])
        groups[-1].append(block)
    return {entry.place: Example(file, entry, rest) for file, entry, *rest in groups}


EXAMPLES = read_examples()


@pytest.fixture
def add(monkeypatch, tmp_path_factory):
    """Add an example to the package as the page says; return its name."""

    def add(table):
        example = EXAMPLES[table]
        name = example.file.module
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, name = name.rpartition(".")
        path = tmp_path_factory.mktemp("example") / f"{name}.py"
        path.write_text(example.file.text)
        module.__file__ = str(path)
        exec(compile(example.file.text, path, "exec"), vars(module))
        parent = importlib.import_module(parent)
        monkeypatch.setattr(parent, name, module, raising=False)
        registry = importlib.import_module(example.entry.module)
        key, value = evaluate(example.entry.text, registry)
        monkeypatch.setitem(getattr(registry, table), key, value)
        return key

    return add


def evaluate(text, registry):
    """Key and value of the line for a table, after the imports above it."""
    imports, _, line = text.rpartition('\n\n"')
    line = f'"{line.strip()}' if imports else line.strip()
    names = dict(vars(registry))
    exec(imports, names)
    ((key, value),) = eval(f"{{{line}}}", names).items()
    return key, value


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
    source = EXAMPLES[table].file.text
    tree = ast.parse(source)
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
        for number, line in enumerate(source.splitlines(), 1)
        if line.strip() and number not in docstrings
    ]
    assert len(lines) <= 40
    longest = max(len(line) for line in source.splitlines())
    assert longest <= 88


@pytest.mark.parametrize("table", EXAMPLES)
def test_examples_are_annotated_and_documented(table, add):
    """By the checks that the modules of the package pass."""
    name = EXAMPLES[table].file.module
    assert missing_annotations(EXAMPLES[table].file.text) == []
    add(table)
    found = [f for item in public_items(sys.modules[name]) for f in faults(*item)]
    assert found == []


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


def test_option_of_a_metric(add):
    """The method of the page, in the class of the example."""
    from dipy_dl_reg.validation import check_number

    add("METRICS")
    example = EXAMPLES["METRICS"]
    (block,) = [block for block in example.others if block.path == "an option"]
    source, method = example.file.text, "\n" + textwrap.indent(block.text, "    ")
    names = {"check_number": check_number}
    exec(source.replace("    batched = True\n", f"    batched = True\n{method}"), names)
    metric = names["MADMetric"](3, smoothing=0.01)
    assert (metric.dim, metric.smoothing, metric.sigma_diff) == (3, 0.01, 1.0)
    with pytest.raises(ValueError, match="smoothing"):
        names["MADMetric"](smoothing=0)


def test_format(add, tmp_path):
    """Functions of the package choose it by the suffix."""
    from maps import oblique_map

    from dipy_dl_reg import load_mapping, save_mapping
    from dipy_dl_reg.maps.formats.table import FORMATS

    entry = FORMATS[add("FORMATS")]
    path = tmp_path / f"map{entry.suffixes[0]}"
    save_mapping(oblique_map(), path)
    json.loads(path.read_text())
    np.testing.assert_array_equal(load_mapping(path).forward, oblique_map().forward)


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


# --- a copy of the package, with all that the page shows


def insert(block, folder):
    """Write a block of the page into the file that its caption names."""
    path, text = folder / block.path, block.text.strip("\n") + "\n"
    if not block.place:
        assert not path.exists()
        path.write_text(text)
        return
    content = path.read_text()
    order, _, anchor = block.place.partition(" ")
    if order in ("after", "before"):
        (line,) = re.findall(rf"^.*{re.escape(anchor)}(?=\W).*\n", content, re.M)
        text = line[: len(line) - len(line.lstrip())] + text
        content = content.replace(
            line, line + text if order == "after" else text + line
        )
    elif block.language == "json":
        content = content.replace("{\n", f"{{\n{text.rstrip()},\n", 1)
    elif block.language == "toml":
        content = content.replace(f"{block.place}\n", f"{block.place}\n{text}", 1)
    else:
        imports, separator, line = text.rpartition('\n\n"')
        line = separator.strip() + line
        content = content.replace(
            "\nfrom dipy", f"\n{imports}\nfrom dipy", bool(imports)
        )
        table = rf"^({re.escape(block.place)}\b.* = {{\n(?:.*\n)*?)}}"
        content, count = re.subn(table, rf"\1{line}}}", content, count=1, flags=re.M)
        assert count == 1
    path.write_text(content)


def install(folder):
    """Write what an installation of the copy would write: its commands."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / "dipy_dl_reg-0.dist-info"
    info.mkdir()
    release = version("dipy_dl_reg")
    (info / "METADATA").write_text(f"Name: dipy_dl_reg\nVersion: {release}\n")
    lines = [f"{name} = {place}" for name, place in project["scripts"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[console_scripts]", *lines]))


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of package, tests and documentation, with all blocks of the page."""
    root, folder = TESTS.parent, tmp_path_factory.mktemp("extended")
    ignored = shutil.ignore_patterns("__pycache__", "_build", "generated", "pictures")
    for path in root.iterdir():
        if path.name in ("dipy_dl_reg", "tests", "doc", "tools"):
            shutil.copytree(path, folder / path.name, ignore=ignored)
        elif path.is_file():
            shutil.copy(path, folder)
    for block in read_blocks():
        if block.path != "an option":
            insert(block, folder)
    install(folder)
    return folder


def run_pytest(folder, *arguments):
    """Run tests of the copy on the copy; the output names those that passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--basetemp={folder}.tmp", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


#: Tests that have a parameter for each module, all of which the package passes itself.
BY_MODULE = (
    "test_docstrings_match_signatures",
    "test_imports_go_down",
    "test_public_functions_are_annotated",
)
#: Tests of pages and of processes, which no new member changes.
UNCHANGED = ("blocks_run", "light", "reading_a_map", "use_loads", "waiting_threads")


def package_tests():
    """Files and expression of the tests that no kind has to itself."""
    files = ("package", "docstrings", "annotations", "layers")
    paths = [f"tests/test_{name}.py" for name in files]
    paths += ["tests/documents", "tests/workflows/test_workflows.py"]
    changed = {Path(b.path).stem for b in read_blocks() if b.path.endswith(".py")}
    chosen = f"not ({' or '.join(BY_MODULE)}) or {' or '.join(sorted(changed))}"
    names = " or ".join(path.rpartition("/")[2] for path in paths)
    return paths, f"({names}) and not ({' or '.join(UNCHANGED)}) and ({chosen})"


def test_examples_pass_the_tests_of_the_package(passed):
    """Those that no kind has to itself: only what the page says has been added."""
    for test in BY_MODULE:
        assert re.search(rf"PASSED .*::{test}\[.*jacobian", passed)


def test_programs_write_and_read_the_format(extended, tmp_path):
    """A registration writes it by its suffix, and an image is transformed by it."""
    x = np.stack(np.meshgrid(*[np.linspace(-1, 1, 12)] * 3, indexing="ij"))
    for name, shift in (("static", 0.0), ("moving", 0.1)):
        image = np.exp(-5 * ((x - shift) ** 2).sum(0)).astype(np.float32)
        nib.save(
            nib.Nifti1Image(image, np.diag([2.0, 2, 2, 1])), tmp_path / f"{name}.nii"
        )
    programs = [
        "align_deep static.nii moving.nii --model None --level_iters 2 "
        "--out_mapping map.json",
        "apply_deep map.json moving.nii",
    ]
    code = "import sys; from dipy_dl_reg import workflows\n"
    for words in map(str.split, programs):
        code += f"sys.argv = {words}; workflows.{words[0]}()\n"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(extended)},
        check=True,
    )
    json.loads((tmp_path / "map.json").read_text())
    one, other = (
        nib.load(tmp_path / f"{name}.nii.gz").get_fdata()
        for name in ("warped_moved", "transformed")
    )
    np.testing.assert_allclose(one, other, atol=1e-5)


COMMAND = re.compile(r"^    pytest (.*)$", re.M)
#: A test that each command must run on the new member, by the member's name.
MEMBER_TESTS = {
    "MAD": "test_gradient",
    "stretch": "test_regularizers",
    "translation_scaling": "test_jacobian_is_the_slope_of_the_matrix",
    "half-resolution": "test_gradient_by_every_weight",
    "json": "test_map_is_read_without_images",
    "jacobian": "test_options_and_their_defaults_are_those_listed",
}


def member_command(name):
    """Files and expression of the page's command for a new member."""
    (command,) = [c for c in COMMAND.findall(PAGE) if re.search(rf"-k.*\b{name}\b", c)]
    paths, expression = command.split(" -k ")
    return paths.split(), *shlex.split(expression)


@pytest.fixture(scope="module")
def passed(extended):
    """What the tests of the copy print, all in one process.

    Those of the package, and those that the commands of the page run.
    """
    commands = [package_tests(), *map(member_command, MEMBER_TESTS)]
    chosen = " or ".join(f"({expression})" for _, expression in commands)
    files = dict.fromkeys(path for paths, _ in commands for path in paths)
    return run_pytest(extended, *files, "-k", chosen)


@pytest.mark.parametrize("name", MEMBER_TESTS)
def test_commands_of_the_page(passed, name):
    """Those of one kind: each finds tests of the new member, and it passes them."""
    paths, expression = member_command(name)
    line = rf"PASSED ({'|'.join(paths)})::{MEMBER_TESTS[name]}\[.*{name}"
    assert re.search(line, passed)
    test = f"{MEMBER_TESTS[name]} {name}"
    assert all(word in test for word in expression.split(" and "))


def test_commands_are_found():
    assert len(COMMAND.findall(PAGE)) == len(MEMBER_TESTS) + 2


def test_every_block_is_used():
    """Code is in the copy, and literal blocks are the commands below."""
    languages = [block.language for block in read_page("doc/extending.rst")]
    used = [block.language for block in read_blocks()]
    for language in ("python", "toml", "json"):
        assert languages.count(language) == used.count(language)
    assert languages.count("") == len(MEMBER_TESTS) + 1
    assert set(languages) == {"python", "toml", "json", "rst", ""}
