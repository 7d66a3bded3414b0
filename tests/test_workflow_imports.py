"""The folders of tests that a workflow names import only what the job has installed."""

import ast
from importlib.metadata import packages_distributions
from pathlib import Path
import re
import sys
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
JOBS = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
#: Folders whose modules tests import: pytest's `pythonpath`, and those of helpers.
FOLDERS = (ROOT, ROOT / "doc", ROOT / "tests")


def read_runs():
    """What is installed, and the tests that are run, of the jobs that name folders."""
    (oldest,) = (
        entry
        for entry in JOBS["versions"]["strategy"]["matrix"]["include"]
        if entry["name"] == "oldest"
    )
    lines = [step.get("run", "") for step in JOBS["no-compiler"]["steps"]]
    installed = next(x.partition("install ")[2] for x in lines if "pip install" in x)
    tests = next(line for line in lines if "-m pytest" in line)
    return {
        "oldest": (oldest["install"], oldest["tests"]),
        "no-compiler": (installed, tests),
    }


def list_packages(installed):
    """Names of the packages of an installation, without what they depend on."""
    words = re.sub(r"--constraint \S+|--\w+", "", installed).replace('"', "").split()
    extras = PROJECT["optional-dependencies"]
    names = set()
    for word in words:
        if word.startswith("."):
            chosen = re.findall(r"\w+", word)
            wanted = PROJECT["dependencies"] + [p for e in chosen for p in extras[e]]
            names |= {canonicalize_name(Requirement(w).name) for w in wanted}
        else:
            names.add(canonicalize_name(word))
    return names


def top_level_imports(path):
    """Modules that are imported when a module is: those of its outermost level."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def find_module(name, beside):
    """The file of a module of this repository, or None."""
    for folder in (beside, *FOLDERS):
        for path in (
            (folder / name.replace(".", "/")).with_suffix(".py"),
            folder / name.replace(".", "/") / "__init__.py",
        ):
            if path.is_file():
                return path
    return None


def imported_packages(paths):
    """Other packages that files and their helpers import, with a file of each."""
    found, waiting, seen = {}, list(paths), set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for name in top_level_imports(path):
            first = name.partition(".")[0]
            own = find_module(name, path.parent)
            if first in sys.stdlib_module_names or first == PROJECT["name"]:
                continue
            if own and own not in seen:
                waiting.append(own)
            elif not own and not (ROOT / first).is_dir():
                found[first] = path.relative_to(ROOT)
    return found


def files_of(tests):
    """Python files of the folders, with the fixtures of the folder above."""
    names = re.findall(r"\btests/\w+", tests)
    assert names
    paths = [path for name in names for path in (ROOT / name).rglob("*.py")]
    return [*paths, ROOT / "tests" / "conftest.py"]


@pytest.mark.parametrize("job", ["oldest", "no-compiler"])
def test_imports_are_installed(job):
    installed, tests = read_runs()[job]
    known, packages = packages_distributions(), list_packages(installed)
    for name, path in imported_packages(files_of(tests)).items():
        names = {canonicalize_name(x) for x in known.get(name, [name])}
        assert names & packages, f"{path} imports {name}, which {job} does not install"


def test_a_helper_that_imports_more_is_found():
    """Without nilearn, the brain of the tests cannot be imported."""
    found = imported_packages([ROOT / "tests/registration/test_anatomy_check.py"])
    assert found["nilearn"] == Path("tests/brain_image.py")
