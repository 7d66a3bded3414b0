"""All commands of the table: options, help, entry points."""

import inspect
import json
from pathlib import Path
import subprocess
import sys
import tomllib

from dipy.workflows.base import IntrospectiveArgumentParser
import pytest

from dipy_dl_reg import workflows
from dipy_dl_reg.metrics.registry import describe_metrics
from dipy_dl_reg.options import option_texts
from dipy_dl_reg.registration.deformable_options import DeformableOptions
from dipy_dl_reg.workflows.align import AlignDeepFlow
from dipy_dl_reg.workflows.commands import COMMANDS

OPTIONS = json.loads((Path(__file__).parent / "options.json").read_text())


@pytest.fixture(params=COMMANDS)
def flow(request):
    """A workflow of each command of the table."""
    return getattr(workflows, COMMANDS[request.param].workflow)()


@pytest.mark.parametrize("name", COMMANDS)
def test_options_and_their_defaults_are_those_listed(name):
    """Scripts rely on them: an option is added to the list and never changed."""
    flow = getattr(workflows, COMMANDS[name].workflow)
    parameters = inspect.signature(flow().run).parameters.values()
    found = {
        p.name: "required" if p.default is inspect.Parameter.empty else p.default
        for p in parameters
    }
    assert list(found.items()) == list(OPTIONS[name].items())


def test_entry_points_are_those_of_the_table():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    declared = tomllib.loads(text)["project"]["scripts"]
    assert declared == {name: c.entry_point for name, c in COMMANDS.items()}
    for name, entry in COMMANDS.items():
        assert entry.function in workflows.__all__
        assert getattr(workflows, entry.workflow).get_short_name() in name


def test_run_makes_a_parser(flow):
    parser = IntrospectiveArgumentParser()
    parser.add_workflow(flow)
    text = parser.format_help()
    for parameter in inspect.signature(flow.run).parameters.values():
        # a default of True would be lost: DIPY makes switches of them
        assert parameter.default is not True
        assert parameter.name in text
    assert "{" not in flow.run.__doc__


def test_help_describes_metrics_and_options_of_the_class():
    text = " ".join(AlignDeepFlow.run.__doc__.split())
    for name, meaning in describe_metrics().items():
        assert f"{name.lower()} ({meaning})" in text
    option = option_texts(DeformableOptions)["landmark_weight"]
    assert " ".join(option.text.split()) in text


def shell(entry, *arguments):
    code = f"from dipy_dl_reg.workflows import {entry}; {entry}()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_version_is_this_packages_own():
    from importlib.metadata import version

    done = shell("align_deep", "--version")
    assert done.returncode == 0
    assert done.stdout.strip() == f"dipy_dl_reg {version('dipy_dl_reg')}"


def test_failure_is_one_line_and_a_code(saved, tmp_path):
    done = shell("apply_deep", saved[1], tmp_path / "none.nii.gz")
    assert done.returncode == 1
    assert done.stderr.strip().count("\n") == 0 and "none.nii.gz" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
