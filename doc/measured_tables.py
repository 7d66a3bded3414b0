"""Summary tables of the documentation: means with intervals, and their source."""

import re
from typing import NamedTuple

from measured import (
    FOLDER,
    NoValue,
    interval,
    read_number,
    select,
    split_column,
    unit,
)

#: Printed below each table of means.
_INTERVALS = (
    "Means; in round brackets the 95 % interval (Student's t over pairs of people, "
    "whose two directions count once), in square brackets the least and the most of "
    "only two."
)


def format_cell(found, column):
    """A cell: the mean with its interval, or the statistic that is named."""
    text, _, form = column.rpartition(" ")
    statistic = split_column(text)[0]
    if statistic:
        return format(found.statistic(statistic), form)
    low, high = (format(x, form) for x in interval(found.units))
    mean = format(found.statistic("mean"), form)
    if len(found.units) == 1:
        return mean
    brackets = "[]" if len(found.units) < 3 else "()"
    return f"{mean} {brackets[0]}{low} to {high}{brackets[1]}"


class Column(NamedTuple):
    """A column of a table: what replaces ``*`` in the keys of a row, cases, figure."""

    heading: str
    key: str
    cases: str
    figure: str


def parse_columns(text):
    """Columns of ``Heading = [key] cases: column format; ...``."""
    for item in text.split(";"):
        heading, _, column = item.partition(" = ")
        key, bracket, rest = column.strip().removeprefix("[").partition("]")
        column = rest if bracket else column
        cases, colon, rest = column.partition(": ")
        if not colon:
            cases, rest = "all", column
        key = key.strip() if bracket else "*"
        yield Column(heading.strip(), key, cases.strip(), rest.strip())


def summarize(table, first, columns, lines):
    """Headings and cells of ``Label = key | key`` lines, and the cases they are of."""
    columns = [*parse_columns(columns)]
    rows, cases = [[first, *(column.heading for column in columns)]], {}
    for line in lines:
        label, _, keys = line.partition(" = ")
        keys = [part.strip() for part in keys.split("|")]
        cells = []
        for column in columns:
            parts = [column.key if key == "*" else key for key in keys]
            if len(parts) < len(table.keys):  # otherwise the rows are the cases
                parts.append(column.cases)
            name = split_column(column.figure.rpartition(" ")[0])[1]
            try:
                found = select(table, parts, name)
            except NoValue:
                cells.append("not measured")
                continue
            cases |= dict.fromkeys(found.cases)
            cells.append(format_cell(found, column.figure))
        rows.append([label.strip(), *cells])
    return rows, [*cases]


def summarize_lines(file, first, columns, lines, folder=FOLDER):
    """Headings and cells of ``Label = beginning of a line`` lines of a text.

    A column is ``Heading = place format``, or ``Heading = place format / place format``
    for several numbers in a cell.
    """
    parts = [item.partition(" = ")[::2] for item in columns.split(";")]
    rows = [[first, *(heading.strip() for heading, _ in parts)]]
    for line in lines:
        label, _, start = line.partition(" = ")
        cells = []
        for _, column in parts:
            numbers = (item.split() for item in column.split(" / "))
            cells.append(
                " / ".join(
                    format(read_number(file, start.strip(), place, folder), form)
                    for place, form in numbers
                )
            )
        rows.append([label.strip(), *cells])
    return rows


def stored_with(file, folder=FOLDER):
    """The commit that the first lines of a text name; ValueError if they name none.

    The first line of an older text is the commit it was stored with; a script that
    names its commit itself writes "Code: commit X" or ends its first line so.
    """
    head = "\n".join((folder / file).read_text().splitlines()[:4])
    found = re.match(r"Stored with (commit .*)\. Not repeated with later code\.", head)
    if found:
        return f"stored with {found[1]}, not repeated with later code"
    found = re.search(r"(?:^Code: |; )(commit \w+)\b", head, re.M)
    if found is None:
        raise ValueError(f"{file} does not begin with the commit it was stored with")
    return f"measured with {found[1]}"


def describe_people(table, cases):
    """How many registrations, pairs and people there are, and which were kept out."""
    pairs = [case.split(":") for case in cases if ":" in case]
    words = []
    if pairs:
        people = {name for pair in pairs for name in pair}
        kinds = len({unit(":".join(pair)) for pair in pairs})
        words.append(f"{len(people)} people, {kinds} pairs, {len(pairs)} registrations")
    others = [case for case in cases if ":" not in case]
    if others and len(table.keys) > 1:
        words.append(f"images moved by known motions ({', '.join(others)})")
    for group in ("chosen on", "kept out"):
        members = [case for case in cases if case in table.groups.get(group, ())]
        names = dict.fromkeys(name for case in members for name in case.split(":"))
        heading = "options were chosen on" if group == "chosen on" else group
        words += [f"{heading}: {', '.join(names)}"] if names else []
    return "; ".join(words)


def describe_source(table, folder):
    """Machine, versions and commit, as far as the file has them."""
    machine, versions = table.about.get("machine"), table.about.get("versions")
    words = []
    if machine:
        text = f"{machine['cpu']}, {machine['threads']} threads"
        words.append("machine: " + text.replace(" 1 threads", " 1 thread"))
    else:
        words.append("machine not recorded")
    named = ("dipy_dl_reg", "dipy", "torch", "python")
    found = [f"{k} {versions[k]}" for k in named if k in versions] if versions else []
    words.append(", ".join(found) or "versions not recorded")
    commit = table.about.get("code", {}).get("commit")
    if commit and commit.endswith("-dirty"):
        commit = f"{commit.removesuffix('-dirty')} with uncommitted changes"
    words.append(f"commit {commit}" if commit else find_commit(table, folder))
    return "; ".join(words)


def find_commit(table, folder):
    """The commit in the first line of the text of a table, if there is one."""
    try:
        return stored_with(f"{table.name}.txt", folder)
    except (OSError, ValueError):
        return "commit not recorded"


def describe(table, cases, folder=FOLDER, intervals=True):
    """The note below a table about some cases, as reStructuredText.

    `intervals` says whether cells have brackets, which are then explained.
    """
    text = folder / f"{table.name}.txt"
    note = table.about.get("note", "")
    sentences = [describe_people(table, cases), note, describe_source(table, folder)]
    lines = [s[0].upper() + s[1:] + "." * (s[-1] != ".") for s in sentences if s]
    if intervals:
        lines.append(_INTERVALS)
    if table.about.get("command"):
        lines.append(f"``{table.about['command']}``.")
    if text.is_file():
        lines.append(f"Full table: :download:`{text.name} <benchmark/{text.name}>`.")
    return " ".join(lines)
