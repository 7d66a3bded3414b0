"""Figures and tables of the documentation, taken from the files of doc/benchmark.

measured_pages.py makes a role and a directive of these functions, so that a page cannot
state another figure than the file of results; an unknown table, row or column is an
error of the build.

A figure is named by parts with bars between them::

    :measured:`learning | T1 2 mm | default | all | dice | .3f`

* the table: ``learning`` is ``doc/benchmark/learning.json``;
* its keys, here the kind of images and the setting; ``a - b`` is the difference and
  ``a / b`` the ratio of two rows, case by case (also in several keys at a time);
* the cases: one of them, ``all``, ``chosen on`` or ``kept out``; the mean of several;
* the column, after ``median``, ``least``, ``most``, ``low`` or ``high`` (the ends of
  the 95 % interval of the mean) or ``n`` if the mean is not meant;
* the format, as in Python.

Tables without JSON are read from their text. If their columns are described in
``TEXT_TABLES``, the figure is named in the same way. Of any other text a figure is
named by the file, the beginning of the line (below headings, if ``heading > line``; the
first must be the only line that begins so), the place of the number in the rest of the
line, from 1, and the format::

    :measured:`lesions.txt | drawn 1000:1001 15 | 2 | .2f`

README.md is not built by Sphinx. A figure there is followed by its name in a comment,
``0.627<!-- measured: learning | ... | .3f -->``; ``python doc/measured.py README.md``
writes the figures, and a test compares them.
"""

from collections import defaultdict
from functools import cache
import json
from pathlib import Path
import re
import sys
from typing import NamedTuple

import numpy as np

FOLDER = Path(__file__).parent / "benchmark"
#: Pairs of the labelled brains on which options were chosen, and those kept out.
GROUPS = {
    "chosen on": ("1000:1001", "1001:1000", "1006:1012", "1012:1006"),
    "kept out": ("1107:1122", "1122:1107"),
}
_CONTRASTS = ("pair", "moving", "metric", "method")
_BY_METHOD = ("moving", "metric", "method", "pair")
#: Tables that are text only: their columns, and the keys among them, the case last.
TEXT_TABLES = {
    "contrasts_t1": (
        (*_CONTRASTS, "dice", "s"),
        _BY_METHOD,
    ),
    "contrasts_b0": (
        (*_CONTRASTS, "dice", "s"),
        _BY_METHOD,
    ),
    "contrasts_fa": (
        (*_CONTRASTS, "dice", "s"),
        _BY_METHOD,
    ),
    "contrasts_real": (
        (*_CONTRASTS, "dice", "mm_off", "s"),
        _BY_METHOD,
    ),
    "slices": ((*_CONTRASTS, "mm_off", "s"), _BY_METHOD),
    "affine_dipy": (
        ("pair", "mm", "method", "seconds", "mi", "centroids"),
        ("mm", "method", "pair"),
    ),
    "ablation": (
        ("variant", "parameters", "mb", "validation", "shapes", "far", "inverse")
        + ("seconds", "t1", "b0", "swap", "used"),
        ("variant",),
    ),
    "swapped": (
        ("pair", "moving", "method", "mean", "p95", "max", "moved"),
        ("moving", "method", "pair"),
    ),
}
#: What can be asked of the values of several cases.
STATISTICS = ("mean", "median", "least", "most", "low", "high", "n")


class Table(NamedTuple):
    """The rows of a table: their keys, the columns, and how they were measured."""

    name: str
    about: dict
    keys: tuple  # the last one is the case
    rows: list
    groups: dict


class Figure(NamedTuple):
    """Values of a column: of the cases, and of independent units (pairs of people)."""

    cases: dict
    units: np.ndarray

    def statistic(self, name):
        values = np.array(list(self.cases.values()), float)
        if name in ("low", "high"):
            return interval(self.units)[name == "high"]
        return {"mean": np.mean, "median": np.median, "least": np.min, "most": np.max,
                "n": len}[name](values)  # fmt: skip


def interval(values):
    """95 % interval of the mean, by Student's t; the range if there are two values."""
    from scipy.stats import t

    values = np.asarray(values, float)
    if len(values) < 3:
        return values.min(), values.max()
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def unit(case):
    """Independent unit of a case: both directions of a pair are one."""
    return "".join(sorted(case.split(":")))


class NoValue(ValueError):
    """A column that the table has, but not in these rows."""


# --- files


@cache
def read_table(name, folder=FOLDER):
    """Read a table by its name; ValueError if there is none."""
    path = folder / f"{name}.json"
    if path.is_file():
        about = json.loads(path.read_text())
        rows = about.pop("rows")
        keys = about.pop("keys", None)
        if keys is None:
            keys, rows = benchmark_keys(rows), [*map(benchmark_row, rows)]
        return Table(name, about, tuple(keys), rows, about.pop("groups", GROUPS))
    if name not in TEXT_TABLES:
        known = {*TEXT_TABLES, *(p.stem for p in folder.glob("*.json"))}
        raise ValueError(f"no table {name!r} in {folder.name}; known: {sorted(known)}")
    columns, keys = TEXT_TABLES[name]
    lines = (folder / f"{name}.txt").read_text().splitlines()
    words = (re.sub(r"^seed (?=\d)", "seed-", line).split() for line in lines)
    rows = [read_columns(line, columns, keys) for line in words]
    return Table(name, {}, keys, [row for row in rows if row], GROUPS)


def benchmark_keys(rows):
    """Keys of a file of tools/benchmarks: the voxel size only if there are several."""
    several = len({row.get("spacing") for row in rows}) > 1
    return (*["spacing"] * several, "method", "pair")


def benchmark_row(row):
    """A row of such a file, with the pair as it is written elsewhere."""
    pair = str(row.get("pair", "")).replace("<-", ":")
    return row | {"pair": pair, "spacing": f"{row.get('spacing', 0):g} mm"}


def read_columns(words, columns, keys):
    """A row of a text; None for headings, means and other lines."""
    if len(words) < len(columns) or words[len(columns) :][:1] not in ([], ["used"]):
        return None
    row = dict(zip(columns, words))
    try:
        return {k: v if k in keys else float(v.rstrip("%")) for k, v in row.items()}
    except ValueError:
        return None


def read_number(name, line, place, folder=FOLDER):
    """The number at a place of a line of a text, counted from 1 after its beginning."""
    path = folder / name
    if not path.is_file():
        raise ValueError(f"no file {name!r} in {folder.name}")
    lines = [" ".join(text.split()) for text in path.read_text().splitlines()]
    *headings, start = line.split(" > ")
    for heading in headings:
        lines = find_lines(name, lines, heading, only=heading == headings[0])[1:]
    words = find_lines(name, lines, start, only=not headings)[0].removeprefix(start)
    numbers = re.findall(r"(?<![\w.])[-+]?\d*\.?\d+(?:e[-+]?\d+)?", words)
    if not place.isdigit() or not 1 <= int(place) <= len(numbers):
        raise ValueError(f"{name}: {words.strip()!r} has no number {place}")
    return float(numbers[int(place) - 1])


def find_lines(name, lines, start, *, only):
    """The lines from the first that begins so; `only` if no other one may do so."""
    places = [n for n, text in enumerate(lines) if text.startswith(start)]
    if not places or (only and len(places) > 1):
        raise ValueError(f"{name}: {len(places)} lines begin with {start!r}")
    return lines[places[0] :]


# --- figures


def select(table, parts, column):
    """Values of a column in the rows of the keys `parts`, the last one the cases."""
    for sign in (" - ", " / "):
        if any(sign in part for part in parts):
            sides = [[part.split(sign)[end] for part in parts] for end in (0, -1)]
            return combine(sign, *(select(table, side, column) for side in sides))
    if len(parts) != len(table.keys):
        raise ValueError(f"{table.name} has the keys {', '.join(table.keys)}: {parts}")
    rows = table.rows
    for key, part in zip(table.keys[:-1], parts):
        values = dict.fromkeys(row[key] for row in rows)
        rows = [row for row in rows if row[key] == part]
        if not rows:
            raise ValueError(f"{table.name}: no {key} {part!r}; there are {[*values]}")
    return Figure(*values_of(table, rows, parts[-1], column))


def values_of(table, rows, cases, column):
    """Mean of the column for each case, and for each independent unit."""
    case = table.keys[-1]
    if cases != "all":
        wanted = table.groups.get(cases, [cases])
        rows = [row for row in rows if row[case] in wanted]
    if not rows:
        raise ValueError(f"{table.name}: no {case} {cases!r}")
    found, units = defaultdict(list), defaultdict(list)
    for row in rows:
        if row.get(column) is None:
            known = any(other.get(column) is not None for other in table.rows)
            text = f"{table.name}: no {column!r} for {row[case]}; there are {[*row]}"
            raise NoValue(text) if known else ValueError(text)
        found[row[case]].append(row[column])
    means = {name: float(np.mean(values)) for name, values in found.items()}
    for name, value in means.items():
        units[unit(name)].append(value)
    return means, np.array([np.mean(values) for values in units.values()])


def combine(sign, first, second):
    """Difference or ratio of two figures, case by case."""
    both = [name for name in first.cases if name in second.cases]
    if not both:
        raise ValueError("the two rows have no case in common")
    a, b = (np.array([x.cases[name] for name in both]) for x in (first, second))
    values = dict(zip(both, a - b if sign == " - " else a / b))
    units = defaultdict(list)
    for name, value in values.items():
        units[unit(name)].append(value)
    return Figure(values, np.array([np.mean(x) for x in units.values()]))


def split_column(text):
    """Statistic and name of a column; the statistic is None if it is not named."""
    first, _, rest = text.partition(" ")
    return (first, rest) if rest and first in STATISTICS else (None, text)


def figure(name, folder=FOLDER):
    """The figure of a name, formatted; ValueError if there is no such figure."""
    parts = [part.strip() for part in name.split("|")]
    if len(parts) < 4:
        raise ValueError(f"a figure has at least four parts: {name!r}")
    if parts[0].endswith(".txt"):
        file, line, place, form = parts
        return format(read_number(file, line, place, folder), form)
    table, form = read_table(parts[0], folder), parts[-1]
    statistic, column = split_column(parts[-2])
    found = select(table, parts[1:-2], column)
    return format(found.statistic(statistic or "mean"), form)


MARKED = re.compile(r"([-+]?\d[\d.,]*)([^\d<>]{0,6})<!-- measured: (.+?) -->")


def marked_figures(text, folder=FOLDER):
    """Figures of a Markdown text that name their source: printed and measured."""
    for printed, _, name in MARKED.findall(text):
        yield name, printed, figure(name, folder)


def write_figures(text, folder=FOLDER):
    """The text with its marked figures as they were measured."""
    return MARKED.sub(
        lambda m: f"{figure(m[3], folder)}{m[2]}<!-- measured: {m[3]} -->", text
    )


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(write_figures(path.read_text()))
