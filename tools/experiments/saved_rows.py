"""Rows of a table that are stored as they are computed, so that a run can go on."""

import json
from pathlib import Path
import platform

from dipy_dl_reg.maps.record import list_versions


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
    """Line about the machine and the versions, for the top of a table."""
    versions = ", ".join(f"{name} {value}" for name, value in list_versions().items())
    return f"{platform.machine()}, {threads} threads of a shared machine; {versions}"
