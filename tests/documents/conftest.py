"""Files and functions for the blocks of the pages."""

from dataclasses import replace
from functools import wraps
import json
import sys
import tomllib
import warnings

from page_files import write_files
import pytest
from shell import run_lines

from dipy_dl_reg.groupwise.template import build_template
from dipy_dl_reg.registration.affine.poses import StartingPose, choose_starting_pose
from dipy_dl_reg.training.loop.train_network import train_network


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Create the files that the pages name, and make their folder the current one."""
    monkeypatch.chdir(tmp_path)
    write_files()
    return tmp_path


def replace_everywhere(monkeypatch, function, replacement):
    """Replace a function of the package in every module that has imported it."""
    for module in [m for n, m in sys.modules.items() if n.startswith("dipy_dl_reg.")]:
        for name, value in list(vars(module).items()):
            if value is function:
                monkeypatch.setattr(module, name, replacement)


@pytest.fixture
def run(monkeypatch):
    """Run a code block with few steps of what takes long.

    One step of a training, one iteration of a template, no search over rotations.
    """

    @wraps(train_network)
    def short(*arguments, options, **others):
        return train_network(*arguments, options=replace(options, steps=1), **others)

    @wraps(build_template)
    def quick(*arguments, options=None, **others):
        few = {"iterations": 1, "affine_iterations": 0}
        if options is None:
            return build_template(*arguments, **{**others, **few})
        return build_template(*arguments, options=replace(options, **few), **others)

    def no_search(pair, start, starts):
        return StartingPose(start, None, None)

    replace_everywhere(monkeypatch, choose_starting_pose, no_search)
    replace_everywhere(monkeypatch, train_network, short)
    replace_everywhere(monkeypatch, build_template, quick)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    names = {}

    def run(block):
        if block.language == "python":
            source = "\n" * block.line + block.text
            exec(compile(source, block.page, "exec"), names)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        else:
            run_lines(block.text, monkeypatch)

    return run
