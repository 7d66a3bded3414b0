"""Lines of a shell, executed in this process; those that are not are checked.

Our own commands and those of DIPY run; those of other programs run where they are
installed.  Of a command that installs something, or that runs for hours, the names of
extras, files and modules are checked.  Any other command is an error.
"""

from importlib.metadata import entry_points
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

from pages import ROOT

#: Other programs, whose commands are executed where they are installed.
PROGRAMS = {
    "antsApplyTransforms",
    "applywarp",
    "mri_convert",
    "mri_synthmorph",
    "mrtransform",
    "wb_command",
}


def split_lines(text):
    """Words of each command, without comments, prompts and variables before it."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.match(r"\w+=", words[0]):
            words.pop(0)
        if words:
            yield words


def run_lines(text, monkeypatch):
    """Run the commands of a block."""
    for words in split_lines(text):
        if words[0].startswith("dipy_"):
            monkeypatch.setattr(sys, "argv", words)
            (entry,) = entry_points(group="console_scripts", name=words[0])
            entry.load()()
        elif words[0] in PROGRAMS:
            if shutil.which(words[0]):
                subprocess.run(words, check=True, capture_output=True)
        else:
            check_command(words)


def check_command(words):
    """Check a command that is not executed."""
    program, *arguments = words
    if program == "pip":
        check_extras(" ".join(arguments))
    elif program in ("git", "cd", "source"):
        pass
    elif program.startswith("tools/"):
        assert (ROOT / program).is_file(), program
    elif program == "pytest" or "python" in program.rpartition("/")[2]:
        check_modules(arguments)
    else:
        raise AssertionError(f"not executed, not checked and not marked: {program}")


def check_extras(text):
    """Check that the extras of an installation exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"(?:dipy_dl_reg|\.)\[([\w,]+)\]", text):
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), extras


def check_modules(arguments):
    """Check that modules and files of this repository exist."""
    for word in arguments:
        if re.fullmatch(r"(tools|dipy_dl_reg)(\.\w+)+", word):
            path = ROOT / word.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").is_file(), word
        elif re.match(r"(tools|tests|doc|dipy_dl_reg)/\S+$", word):
            assert (ROOT / word.partition("::")[0]).exists(), word
