"""Figures and tables of the documentation, taken from the files of doc/benchmark.

measured_pages.py makes a role and a directive of these functions, so that a page cannot
state another figure than the file of results; an unknown table, row or column is an
error of the build.

A figure is named by parts with bars between them::

    :measured:`learning | T1 2 mm | default | all | dice | .3f`

* the table: ``learning`` is ``doc/benchmark/learning.json``;
* its keys, here the kind of images and the setting; ``a - b`` is the difference and
  ``a / b`` the ratio of two rows, case by case;
* the cases: one of them, ``all``, ``chosen on`` or ``kept out``; the mean of several;
* the column, after ``median``, ``least``, ``most``, ``low`` or ``high`` (the ends of
  the 95 % interval of the mean) or ``n`` if the mean is not meant;
* the format, as in Python.

Tables without JSON are read from their text. If their columns are described in
``TEXT_TABLES``, the figure is named in the same way. Of any other text a figure is
named by the file, the beginning of the line (below a heading, if ``heading > line``),
the place of the number in the rest of the line, from 1, and the format::

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
#: Tables that are text only: their columns, and the keys among them, the case last.
TEXT_TABLES = {
    "contrasts_t1": (
        (*_CONTRASTS, "dice", "s"),
        ("moving", "metric", "method", "pair"),
    ),
    "contrasts_b0": (
        (*_CONTRASTS, "dice", "s"),
        ("moving", "metric", "method", "pair"),
    ),
    "contrasts_fa": (
        (*_CONTRASTS, "dice", "s"),
        ("moving", "metric", "method", "pair"),
    ),
    "contrasts_real": (
        (*_CONTRASTS, "dice", "mm_off", "s"),
        ("moving", "metric", "method", "pair"),
    ),
    "slices": ((*_CONTRASTS, "mm_off", "s"), ("moving", "metric", "method", "pair")),
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
    rows = [read_columns(line.split(), columns, keys) for line in lines]
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
    if len(words) != len(columns):
        return None
    row = dict(zip(columns, words))
    try:
        return {k: v if k in keys else float(v) for k, v in row.items()}
    except ValueError:
        return None


def read_number(name, line, place, folder=FOLDER):
    """The number at a place of a line of a text, counted from 1 after its beginning."""
    heading, _, start = line.rpartition(" > ")
    path = folder / name
    if not path.is_file():
        raise ValueError(f"no file {name!r} in {folder.name}")
    lines = [" ".join(text.split()) for text in path.read_text().splitlines()]
    if heading:
        places = [n for n, text in enumerate(lines) if text.startswith(heading)]
        if len(places) != 1:
            raise ValueError(f"{name}: {len(places)} lines begin with {heading!r}")
        lines = lines[places[0] + 1 :]
    found = [text[len(start) :] for text in lines if text.startswith(start)]
    if not found or (len(found) > 1 and not heading):
        raise ValueError(f"{name}: {len(found)} lines begin with {start!r}")
    numbers = re.findall(r"(?<![\w.])[-+]?\d*\.?\d+(?:e[-+]?\d+)?", found[0])
    if not place.isdigit() or not 1 <= int(place) <= len(numbers):
        raise ValueError(f"{name}: {found[0].strip()!r} has no number {place}")
    return float(numbers[int(place) - 1])


# --- figures


def select(table, parts, column):
    """Values of a column in the rows of the keys `parts`, the last one the cases."""
    for place, part in enumerate(parts):
        for sign in (" - ", " / "):
            if sign in part:
                pair = [
                    select(table, [*parts[:place], side, *parts[place + 1 :]], column)
                    for side in part.split(sign)
                ]
                return combine(sign, *pair)
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
            raise ValueError(
                f"{table.name}: no {column!r} for {row[case]}; there are {[*row]}"
            )
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


# --- tables


def format_cell(table, parts, column):
    """A cell: the mean with its interval, or the statistic that is named."""
    text, _, form = column.rpartition(" ")
    statistic, name = split_column(text)
    found = select(table, parts, name)
    if statistic:
        return format(found.statistic(statistic), form)
    low, high = (format(x, form) for x in interval(found.units))
    mean = format(found.statistic("mean"), form)
    if len(found.units) == 1:
        return mean
    brackets = "[]" if len(found.units) < 3 else "()"
    return f"{mean} {brackets[0]}{low} to {high}{brackets[1]}"


def parse_columns(text):
    """Heading, cases and column of ``Heading = cases: column format; ...``."""
    for item in text.split(";"):
        heading, _, column = item.partition("=")
        cases, colon, rest = column.partition(":")
        if not colon:
            cases, rest = "all", column
        yield heading.strip(), cases.strip(), rest.strip()


def table_cells(table, first, columns, lines):
    """Headings and cells of ``Label = key | key`` lines."""
    columns = [*parse_columns(columns)]
    yield [first, *(heading for heading, _, _ in columns)]
    for line in lines:
        label, _, keys = line.partition(" = ")
        keys = [part.strip() for part in keys.split("|")] if keys else []
        cells = [format_cell(table, [*keys, cases], c) for _, cases, c in columns]
        yield [label.strip(), *cells]


def describe_people(table):
    """How many registrations, pairs and people there are, and which were kept out."""
    cases = [*dict.fromkeys(row[table.keys[-1]] for row in table.rows)]
    pairs = [case.split(":") for case in cases if ":" in case]
    words = []
    if pairs:
        people = {name for pair in pairs for name in pair}
        kinds = len({unit(":".join(pair)) for pair in pairs})
        words.append(f"{len(people)} people, {kinds} pairs, {len(pairs)} registrations")
    for group in ("chosen on", "kept out"):
        members = [case for case in cases if case in table.groups.get(group, ())]
        names = dict.fromkeys(name for case in members for name in case.split(":"))
        heading = "options were chosen on" if group == "chosen on" else group
        words += [f"{heading} {', '.join(names)}"] if names else []
    return "; ".join(words)


def describe_source(table):
    """Machine, versions, commit and command, as far as the file has them."""
    machine, versions = table.about.get("machine"), table.about.get("versions")
    words = []
    if machine:
        text = f"{machine['cpu']}, {machine['threads']} threads"
        words.append(text.replace(" 1 threads", " 1 thread"))
    else:
        words.append("machine not recorded")
    named = ("dipy_dl_reg", "dipy", "torch", "python")
    found = [f"{k} {versions[k]}" for k in named if k in versions] if versions else []
    words.append(", ".join(found) or "versions not recorded")
    commit = table.about.get("code", {}).get("commit")
    if commit and commit.endswith("-dirty"):
        commit = f"{commit.removesuffix('-dirty')} with uncommitted changes"
    words.append(f"commit {commit}" if commit else "commit not recorded")
    return "; ".join(words)


def describe(table, folder=FOLDER):
    """The note below a table, as reStructuredText."""
    text = folder / f"{table.name}.txt"
    note = table.about.get("note", "")
    sentences = [describe_people(table), note, describe_source(table)]
    lines = [s[0].upper() + s[1:] + "." * (s[-1] != ".") for s in sentences if s]
    lines.append(
        "Means over the cases; round brackets: 95 % interval (Student's t over pairs "
        "of people, whose two directions count once); square brackets: least and most, "
        "where there are only two."
    )
    if table.about.get("command"):
        lines.append(f"``{table.about['command']}``.")
    if text.is_file():
        lines.append(f"Full table: :download:`{text.name} <benchmark/{text.name}>`.")
    return " ".join(lines)


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(write_figures(path.read_text()))
