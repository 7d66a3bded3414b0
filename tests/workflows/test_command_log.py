"""The log of a command."""

from pathlib import Path
import re
import warnings

from dipy.utils.logging import logger
import nibabel as nib
from workflow_files import LARGE, Swift, fails, logged

from dipy_dl_reg.workflows.align import align_deep


def test_log_level_and_log_file(swift, pair, command, tmp_path, capsys):
    log = tmp_path / "log.txt"
    arguments = (align_deep, pair["static"], pair["moving"], "--out_dir", pair["out"])
    before = logger.handlers[:], logger.level, warnings.showwarning
    command(*arguments, "--log_file", log)
    shown = logged(capsys.readouterr().out)
    assert logged(log.read_text()) == shown
    written = [line for line in shown if line.startswith("INFO: Writing ")]
    assert written == [f"INFO: Writing {pair['out'] / n}" for n in sorted_outputs()]
    last = r"INFO: Registered moving.* to static.* in .* s; saved in {}; verdict: good"
    assert re.fullmatch(last.format(pair["out"]), shown[-1])
    command(*arguments, "--log_file", log, "--log_level", "warning", "--force")
    assert not logged(capsys.readouterr().out)
    assert logged(log.read_text()) == shown
    assert (logger.handlers, logger.level, warnings.showwarning) == before


def sorted_outputs():
    return ["warped_moved.nii.gz", "mapping.npz", "prealign.txt"]


def test_quiet_is_warnings_and_the_last_line(
    swift, pair, command, tmp_path, capsys, monkeypatch
):
    def warned(*arguments, **options):
        warnings.warn("something\n is odd", UserWarning, stacklevel=2)
        return optimize(*arguments, **options)

    optimize = Swift.optimize
    monkeypatch.setattr(Swift, "optimize", warned)
    log = tmp_path / "log.txt"
    arguments = ["--out_dir", pair["out"], "--quiet", "--log_file", log]
    command(align_deep, pair["static"], pair["moving"], *arguments)
    shown = capsys.readouterr()
    first, last = logged(shown.out)
    assert first == "WARNING: something is odd" and last.startswith("INFO: Registered")
    assert not shown.err
    assert len(logged(log.read_text())) > 5


def test_verbose_tells_every_iteration(pair, command, capsys):
    options = ("--metric", "ssd", "--model", "None", "--level_iters", 3, "--force")
    arguments = (align_deep, pair["static"], pair["moving"], "--out_dir", pair["out"])
    for more, count in (((), 0), (("--verbose",), 3), (("--log_level", "DEBUG"), 3)):
        command(*arguments, *options, *more)
        shown = logged(capsys.readouterr().out)
        assert sum(bool(re.match(r"INFO: \d+:\t", x)) for x in shown) == count


def test_files_are_announced_before_they_are_written(
    swift, pair, command, caplog, monkeypatch
):
    save_image, seen = nib.save, []

    def save_and_look(image, path):
        seen.append((caplog.messages[-1], Path(path).name.partition("-")[2]))
        save_image(image, path)

    monkeypatch.setattr(nib, "save", save_and_look)
    arguments = ["--out_dir", pair["out"], *LARGE]
    command(align_deep, pair["static"], pair["moving"], *arguments)
    assert len(seen) == 3
    for message, name in seen:
        assert message == f"Writing {pair['out'] / name}"


def test_errors_of_the_log_and_in_it(swift, pair, command, tmp_path):
    images = pair["static"], pair["moving"]
    out, log = ("--out_dir", pair["out"]), tmp_path / "log.txt"
    for options, message in (
        (["--log_level", "LOUD"], "log_level must be one of CRITICAL"),
        (["--quiet", "--verbose"], "not both"),
        (["--log_file", pair["static"]], "log_file"),
        (["--log_file", tmp_path], "log_file"),
        (["--log_file", tmp_path / "none" / "log.txt"], "log_file: the folder"),
    ):
        size = pair["static"].stat().st_size
        assert message in fails(command, align_deep, *images, *out, *options)
        assert not pair["out"].exists() and pair["static"].stat().st_size == size
    said = fails(
        command, align_deep, *images, *out, "--metric", "best", "--log_file", log
    )
    (line,) = logged(log.read_text())
    assert line.startswith("ERROR: metric must be") and said.endswith(line[7:])
    assert not swift
