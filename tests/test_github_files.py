"""The workflows and templates of .github: valid, safe, and calling what exists."""

from fnmatch import fnmatch
from pathlib import Path
import re
import shlex
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
import pytest

import dipy_dl_reg

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".github"
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yml"))
TEMPLATES = sorted((FOLDER / "ISSUE_TEMPLATE").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: Whose actions are used.
OWNERS = ("actions/", "pypa/")
EXTRAS = PROJECT["project"]["optional-dependencies"]


def read(path):
    """Parse a file; `on` is the key True in YAML 1.1."""
    return yaml.safe_load(path.read_text())


def steps_of(workflow):
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


def needs_of(job):
    """The jobs that a job waits for."""
    needs = job.get("needs", [])
    return [needs] if isinstance(needs, str) else needs


def commands_of(workflow):
    """The lines of all shell steps, with a matrix's values in place of its names."""
    text = "\n".join(step.get("run", "") for step in steps_of(workflow))
    for job in workflow["jobs"].values():
        for entry in job.get("strategy", {}).get("matrix", {}).get("include", []):
            for name, value in entry.items():
                text += f"\n# {name}: {value}"
    return text


def test_there_are_workflows():
    names = {path.stem for path in WORKFLOWS}
    assert names >= {"tests", "docs", "wheels", "release", "benchmarks"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_workflow(path):
    """It reads only, but for a publishing job, and pins the actions of known owners."""
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow[True], "no event starts it"
    for name, job in workflow["jobs"].items():
        rights = set(job.get("permissions", {}))
        assert not rights or name == "publish" and rights <= {"pages", "id-token"}
        assert set(needs_of(job)) <= set(workflow["jobs"])
        if "uses" in job:
            assert "workflow_call" in read(ROOT / job["uses"])[True]
            continue
        assert job["runs-on"] and job["steps"]
    for step in steps_of(workflow):
        assert ("run" in step) != ("uses" in step)
        if "uses" in step:
            owner, _, version = step["uses"].partition("@")
            assert owner.startswith(OWNERS) and re.fullmatch(r"v[\d.]+", version)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_commands_exist(path):
    """Scripts, modules, folders of tests and extras that the steps name."""
    text = commands_of(read(path))
    for name in re.findall(r"\b(?:tools|tests|doc)/[\w/.]+", text):
        assert (ROOT / name.rstrip(".")).exists(), name
    for name in re.findall(r"-m (tools[\w.]+)", text):
        assert (ROOT / name.replace(".", "/")).with_suffix(".py").is_file(), name
    for extras in re.findall(r"(?:\.|unpacked)\[([\w,]+)\]", text):
        assert set(extras.split(",")) <= set(EXTRAS), extras
    for line in text.splitlines():
        shlex.split(line, comments=True)  # quotes are closed


def test_a_release_is_tested_and_takes_only_what_was_built():
    release = read(FOLDER / "workflows" / "release.yml")["jobs"]
    called = {release[name]["uses"] for name in needs_of(release["publish"])}
    assert {Path(name).name for name in called} == {"tests.yml", "wheels.yml"}
    assert all("version" in needs_of(release[name]) for name in ("tests", "build"))
    published = release["publish"]["steps"][0]["with"]["pattern"]
    for name in ("tests", "wheels"):
        for step in steps_of(read(FOLDER / "workflows" / f"{name}.yml")):
            if "upload-artifact" in step.get("uses", ""):
                stored = fnmatch(step["with"]["name"], published)
                assert stored == (name == "wheels"), step


def test_other_systems_must_pass_from_version_0_2_on():
    """Until then they may fail, because they have not been run."""
    jobs = read(FOLDER / "workflows" / "tests.yml")["jobs"]
    wheel = read(FOLDER / "workflows" / "wheels.yml")["jobs"]["wheel"]
    if Version(dipy_dl_reg.__version__) >= Version("0.2"):
        assert "continue-on-error" not in jobs["other-systems"]
        assert "continue-on-error" not in wheel


def test_no_name_is_unknown_to_a_shell_script():
    """Expressions in commands are those of the matrix: no text of a user is run."""
    for path in WORKFLOWS:
        for step in steps_of(read(path)):
            for name in re.findall(r"\$\{\{(.*?)\}\}", step.get("run", "")):
                assert name.strip().startswith("matrix."), (path, name)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)
def test_issue_template(path):
    template = read(path)
    if path.stem == "config":
        assert set(template) <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= set(template)
    identities = [item["id"] for item in template["body"]]
    assert len(set(identities)) == len(identities)
    assert all(item["attributes"]["label"] for item in template["body"])


def test_bug_template_asks_for_what_is_needed():
    asked = (FOLDER / "ISSUE_TEMPLATE" / "bug.yml").read_text()
    for word in ("versions", "shape", "affine", "contrast"):
        assert word in asked


def test_dependabot_looks_where_files_are():
    for update in read(FOLDER / "dependabot.yml")["updates"]:
        folder = ROOT / update["directory"].strip("/")
        assert folder.is_dir() and update["schedule"]["interval"]


def test_python_versions_are_those_of_the_package():
    """The matrix begins with the oldest, and the classifiers list the same."""
    python = read(FOLDER / "workflows" / "tests.yml")["jobs"]["linux"]["strategy"][
        "matrix"
    ]["python"]
    assert PROJECT["project"]["requires-python"] == f">={python[0]}"
    classifiers = PROJECT["project"]["classifiers"]
    listed = [c.rpartition(" ")[2] for c in classifiers if re.search(r":: 3\.\d+$", c)]
    assert listed == python


def test_oldest_versions_are_those_of_the_package():
    """tools/oldest/constraints.txt has the lower bound of each core dependency."""
    lines = (ROOT / "tools" / "oldest" / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    pins = {canonicalize_name(name): Version(pin) for name, pin in pins.items()}
    for requirement in map(Requirement, PROJECT["project"]["dependencies"]):
        (lowest,) = (s.version for s in requirement.specifier if s.operator == ">=")
        pin = pins[canonicalize_name(requirement.name)]
        assert pin.release[: len(Version(lowest).release)] == Version(lowest).release
