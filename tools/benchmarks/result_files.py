"""The two files of a table: text for readers, and JSON for pages that state figures.

The JSON file has the keys "machine", "versions", "code" (commit), "measured" (date),
"command", "rows" and "means"; rows and means are flat dicts. "earlier" describes rows
that were kept from an older run, if there are any.
"""

from datetime import date
import json
import os
from pathlib import Path
import sys

from tools.benchmarks.record import describe


def describe_run(threads, command=None):
    """Machine, versions, commit, date and command of a run."""
    found = describe(threads)
    words = command or f"python -m {main_module()} {' '.join(hide_paths(sys.argv[1:]))}"
    kept = {key: found[key] for key in ("machine", "versions", "code")}
    return kept | {"measured": date.today().isoformat(), "command": words}


def hide_paths(words):
    """Replace paths of this machine by FOLDER, or by FILE and the ending."""
    for word in words:
        path = Path(word)
        if os.sep not in word:
            yield word
        else:
            yield "FOLDER" if path.is_dir() else "FILE" + path.suffix


def main_module():
    """Dotted name of the script that runs."""
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    return specification.name if specification else Path(sys.argv[0]).stem


def heading(run, notes=()):
    """Lines at the top of a table: machine, versions, commit, date; then notes."""
    machine = run["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items())
    return [
        f"{machine['cpu']}, {machine['threads']} of {machine['cores']} threads; "
        f"{machine['system']}; {versions}",
        f"Code: commit {run['code']['commit']}, measured on {run['measured']}.",
        *notes,
    ]


def write_results(output, run, lines, rows, means=(), notes=(), earlier=None):
    """Write the table OUTPUT.txt, and OUTPUT.json beside it.

    Parameters
    ----------
    output : Path or None
        The text file; None writes nothing.
    run : dict
        See `describe_run`.
    lines : list of str
        The table.
    rows, means : list of dict
        The values of the table.
    notes : list of str, optional
        Lines between the heading and the table.
    earlier : dict, optional
        Description of rows of an older run.
    """
    if output is None:
        return
    text = "\n".join([*heading(run, notes), "", *lines])
    replace_file(output, text + "\n")
    content = run | {"notes": list(notes)} | ({"earlier": earlier} if earlier else {})
    shown = {"rows": rows, "means": list(means)}
    parts = [json.dumps(content, indent=1)[:-2]]
    for name, found in shown.items():
        body = ",\n  ".join(json.dumps(row) for row in found)
        parts.append(f' "{name}": [\n  {body}\n ]')
    replace_file(output.with_suffix(".json"), ",\n".join(parts) + "\n}\n")


def replace_file(path, text):
    """Write a file; the old one is replaced when the new one is complete."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text)
    os.replace(temporary, path)
