"""The help of every command at 80 columns, and completion by the shell."""

import inspect
import subprocess

import pytest

from dipy_dl_reg import workflows
from dipy_dl_reg.workflows.command_line import CommandParser
from dipy_dl_reg.workflows.commands import COMMANDS


@pytest.fixture(params=COMMANDS)
def parser(request):
    flow = getattr(workflows, COMMANDS[request.param].workflow)()
    return CommandParser(flow, request.param)


def test_help(parser, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = parser.format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith(f"usage: {parser.prog} [options] ")
    assert "(default: None)" not in text and "(default: False)" not in text
    titles = ("inputs", "options", "outputs", "options of all commands")
    places = [text.index(f"\n{t}:\n") for t in (*titles, "exit codes", "examples")]
    assert places == sorted(places)
    for action in parser._actions:
        assert action.help.endswith((".", ")")), f"{action.dest}: {action.help!r}"


def test_every_option_is_in_the_help(parser):
    flow = getattr(workflows, COMMANDS[parser.prog].workflow)()
    text = parser.format_help()
    for name in inspect.signature(flow.run).parameters:
        assert f"\n  {name}" in text or f"\n  --{name}" in text


def test_groups_hold_each_option_once(parser):
    found = [option.name for group in parser.groups() for option in group.options]
    assert len(found) == len(set(found)) == len(parser._actions)


def test_completion(capsys, monkeypatch, tmp_path):
    """bash completes the name of an option by the script that the command prints."""
    pytest.importorskip("shtab")
    parser = CommandParser(workflows.AlignDeepFlow(), "dipy_align_deep")
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--print_completion", "bash"])
    assert not end.value.code
    script = tmp_path / "completion.sh"
    script.write_text(capsys.readouterr().out)
    code = (
        f"source {script}; COMP_WORDS=(dipy_align_deep --moving_l); COMP_CWORD=1; "
        "$(complete -p dipy_align_deep | sed 's/.*-F \\([^ ]*\\).*/\\1/') "
        "dipy_align_deep --moving_l; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(
        ["bash", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["--moving_landmarks"]


def test_completion_without_shtab(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    parser = CommandParser(workflows.ApplyDeepFlow(), "dipy_apply_deep")
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--print_completion", "zsh"])
    assert end.value.code == 1
    assert "pip install '.[completion]'" in capsys.readouterr().err
