"""Rows of a table: stored as they are computed, and written beside the table as JSON.

A run that was interrupted goes on from its `SavedRows`. `write_rows` writes the file
from which the documentation takes its figures, see doc/measured.py.
"""

import json
import os
from pathlib import Path
import platform
import sys

from dipy_dl_reg.maps.record import list_versions
from tools.benchmarks.record import checksum, git_commit, processor

ROOT = Path(__file__).resolve().parents[2]


class SavedRows:
    """Rows in a file, one JSON object a line; a row that is there is not computed.

    Parameters
    ----------
    path : Path or None
        The file; None stores nothing.
    """

    def __init__(self, path):
        self.path, self.rows = path, {}
        if path is not None and Path(path).is_file():
            for line in Path(path).read_text().splitlines():
                key, row = json.loads(line)
                self.rows[tuple(key)] = row

    def get(self, key, compute):
        """Return the row of a key (a tuple of str); compute and store it if needed."""
        if key not in self.rows:
            self.rows[key] = compute()
            if self.path is not None:
                with open(self.path, "a") as file:
                    file.write(json.dumps([key, self.rows[key]]) + "\n")
        return self.rows[key]


def describe_machine(threads):
    """Line about the machine, the versions and the code, for the top of a table."""
    versions = ", ".join(f"{name} {value}" for name, value in list_versions().items())
    return (
        f"{processor()}, {os.cpu_count()} cores, {threads} threads of a shared "
        f"machine; {versions}; commit {git_commit()}"
    )


def describe_run(threads):
    """Machine, versions, code and command of this run, as plain values.

    Call it before files are written, which would make the commit "dirty".
    """
    return {
        "command": command_line(),
        "machine": {
            "cpu": processor(),
            "cores": os.cpu_count(),
            "threads": threads,
            "system": platform.system(),
        },
        "versions": list_versions(),
        "code": {"commit": git_commit(), "checksum": checksum(ROOT / "dipy_dl_reg")},
    }


def command_line():
    """The command that runs; paths of this computer are replaced by FOLDER and FILE."""
    script, words = Path(sys.argv[0]).resolve(), []
    if script.is_relative_to(ROOT):
        script = script.relative_to(ROOT).with_suffix("")
    for word in sys.argv[1:]:
        if os.sep in word:
            word = "FOLDER" if Path(word).is_dir() else "FILE"
        words.append(f'"{word}"' if " " in word else word)
    return " ".join(["python -m", ".".join(script.parts), *words])


def write_rows(path, rows, *, keys, chosen_on=(), kept_out=(), about):
    """Write the rows of a table as JSON, one line for each row.

    Parameters
    ----------
    path : Path
        The file, ``doc/benchmark/NAME.json``, beside the table ``NAME.txt``.
    rows : dict
        A dict of numbers for each key, a tuple of as many str as `keys`.
    keys : sequence of str
        What the parts of a key mean; the last one is the case, over which the
        documentation computes means.
    chosen_on, kept_out : sequence of str
        Names of the cases on which options were chosen, and of those that were not
        used for it.
    about : dict
        From `describe_run`; "note" is printed below the tables of the documentation.
    """
    lines = (json.dumps(dict(zip(keys, key)) | row) for key, row in rows.items())
    cases = {"chosen on": list(chosen_on), "kept out": list(kept_out)}
    text = json.dumps(
        about | {"keys": list(keys), "groups": cases, "rows": []}, indent=1
    )
    text = text.replace('"rows": []', '"rows": [\n  ' + ",\n  ".join(lines) + "\n ]")
    Path(path).write_text(text + "\n")


def write_table(output, lines, rows, *, keys, threads, note="", **groups):
    """Write the table OUTPUT.txt below a heading, and its rows beside it as JSON.

    Parameters
    ----------
    output : Path
        The text file.
    lines : sequence of str
        The table.
    rows, keys
        See `write_rows`.
    threads : int
        Number of threads of the run.
    note : str, optional
        A sentence for both files.
    **groups
        `chosen_on` and `kept_out` of `write_rows`.
    """
    about = describe_run(threads) | ({"note": note} if note else {})
    heading = [describe_machine(threads), *([note] if note else []), ""]
    output.write_text("\n".join([*heading, *lines]) + "\n")
    write_rows(output.with_suffix(".json"), rows, keys=keys, about=about, **groups)
