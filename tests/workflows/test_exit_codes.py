"""Exit codes of the commands, and what they show of errors."""

import signal
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from workflow_files import fails

from dipy_dl_reg.workflows.align import align_deep
from dipy_dl_reg.workflows.apply import apply_deep
from dipy_dl_reg.workflows.base import StrictWorkflow, log_result, run_command
from dipy_dl_reg.workflows.command_line import CommandParser
from dipy_dl_reg.workflows.epi import epi_deep
from dipy_dl_reg.workflows.exit_codes import (
    EXIT_CODES,
    CommandExit,
    PartialFailure,
    UsageError,
    usage_errors,
)
from dipy_dl_reg.workflows.motion import motion_deep
from dipy_dl_reg.workflows.train import train_deep


class Fails(StrictWorkflow):
    """A workflow that raises an error."""

    @classmethod
    def get_short_name(cls):
        return "fails"

    def run(self, name, out_dir=""):
        """Fail.

        Parameters
        ----------
        name : string
            Of the error.
        out_dir : string, optional
            Not used.
        """
        log_result("begun")
        raise ERRORS[name]


ERRORS = {
    "value": ValueError("static is\n empty"),
    "usage": UsageError("give a or b"),
    "partial": PartialFailure("2 of 16 subjects failed: a, b"),
    "all": RuntimeError("all 2 subjects failed"),
    "fault": KeyError("grid"),
    "interrupt": KeyboardInterrupt(),
}


def end_of(monkeypatch, *arguments):
    """How the workflow ends."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/fails", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        run_command(Fails())
    return end.value


@pytest.mark.parametrize(
    "name, code, text",
    [
        ("value", 1, "error: static is empty"),
        ("usage", 2, "error: give a or b"),
        ("partial", 3, "error: 2 of 16 subjects failed: a, b"),
        ("all", 1, "error: all 2 subjects failed"),
        ("interrupt", 130, "interrupted"),
        (
            "fault",
            1,
            "error: KeyError: 'grid'; this is a fault of the program, and --verbose "
            "shows its place",
        ),
    ],
)
def test_code_and_one_line(name, code, text, monkeypatch, capsys, tmp_path):
    log = tmp_path / "log.txt"
    end = end_of(monkeypatch, name, "--log_file", log)
    assert end.code == code and code in EXIT_CODES
    assert capsys.readouterr().err == f"fails: {text}\n" == f"{end}\n"
    last = text.removeprefix("error: ")
    assert f"ERROR: {last}" in log.read_text()
    assert ("Traceback" in log.read_text()) == (name == "fault")


@pytest.mark.parametrize("option", [["--verbose"], ["--log_level", "debug"]])
def test_traceback_on_request(option, monkeypatch, capsys, tmp_path):
    log = tmp_path / "log.txt"
    assert end_of(monkeypatch, "value", "--log_file", log, *option).code == 1
    for text in (capsys.readouterr().err, log.read_text()):
        assert "Traceback" in text and "raise ERRORS[name]" in text


@pytest.mark.parametrize(
    "arguments, text",
    [
        ([], "the following arguments are required: name"),
        (["a", "--lok_file", "b"], "--lok_file b (do you mean --log_file?)"),
        (["a", "--xyz"], "unrecognized arguments: --xyz;"),
        (["a", "--log_file"], "argument --log_file: expected one argument"),
        (["a", "--quiet", "--verbose"], "give either --quiet or --verbose"),
        (["a", "--log_level", "loud"], "log_level must be one of"),
    ],
)
def test_wrong_usage(arguments, text, monkeypatch, capsys):
    assert end_of(monkeypatch, *arguments).code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("fails: error: ") and text in shown
    assert shown.count("\n") == 1


def test_options_of_a_command(pair, command, tmp_path):
    """What is wrong whatever the files contain is wrong usage, the rest is not."""
    images = pair["static"], pair["moving"]
    for options in (
        ["--metric", "best"],
        ["--affine", "--pipeline", "rigid"],
        ["--pipeline", "rigid", "bend"],
        ["--channel_weights", 1, 2],
        ["--out_warped", "image.png"],
        ["--level_iters", -3],
        ["--device", "gpu"],
    ):
        with pytest.raises(CommandExit) as end:
            command(align_deep, *images, *options, "--out_dir", pair["out"])
        assert end.value.code == 2, options
    for entry, inputs, options in (
        (motion_deep, ["a.nii", "a.bval", "a.bvec"], ["--pipeline", "bend"]),
        (train_deep, [pair["static"].parent], ["--metric", "best"]),
        (train_deep, [pair["static"].parent], ["--out_model", "model.txt"]),
        (epi_deep, ["a.nii"], []),
        (apply_deep, ["a.npz", "a.nii"], ["--kind", "best"]),
    ):
        with pytest.raises(CommandExit) as end:
            command(entry, *inputs, *options, "--out_dir", pair["out"])
        assert end.value.code == 2, (options, str(end.value))
    with pytest.raises(CommandExit) as end:
        command(align_deep, pair["static"], tmp_path / "no.nii.gz")
    assert end.value.code == 1


def test_damaged_image(pair, command):
    content = pair["moving"].read_bytes()
    pair["moving"].write_bytes(content[: len(content) // 2])
    said = fails(command, align_deep, pair["static"], pair["moving"])
    assert "moving.nii.gz" in said and "fault" not in said


def test_usage_errors_changes_value_errors_only():
    with pytest.raises(UsageError, match="wrong"), usage_errors():
        raise ValueError("wrong")
    with pytest.raises(OSError), usage_errors():
        raise OSError("missing")


def test_help_lists_the_codes():
    text = CommandParser(Fails(), "fails").format_help()
    for code, meaning in EXIT_CODES.items():
        assert f"{code}  {meaning}" in text


def test_interruption_by_the_keyboard(tmp_path):
    """A command in its own process: code 130, one line, no file and no folder."""
    rng = np.random.default_rng(0)
    for name in ("static", "moving"):
        image = nib.Nifti1Image(rng.random((24, 24, 24), np.float32), np.eye(4))
        nib.save(image, tmp_path / f"{name}.nii")
    code = "from dipy_dl_reg.workflows.align import align_deep; align_deep()"
    options = ["--metric", "ssd", "--model", "None", "--level_iters", "1000000"]
    with subprocess.Popen(
        [sys.executable, "-c", code, "static.nii", "moving.nii", *options]
        + ["--out_dir", "out", "--verbose"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout:
            if "INFO: 1:" in line:
                break
        assert list((tmp_path / "out").iterdir()), "temporary files, which must go"
        process.send_signal(signal.SIGINT)
        shown = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert shown.splitlines()[-1] == "-c: interrupted"
    assert not (tmp_path / "out").exists()
