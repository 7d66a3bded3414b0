"""Rows of the deformable benchmark as a table, and paired differences of methods."""

import numpy as np

# What a row holds: its heading and format in the table.
COLUMNS = {
    "pair": ("static<-moving", "s"),
    "method": ("method", "s"),
    "dice": ("Dice", ".4f"),
    "hd95": ("HD95 mm", ".2f"),
    "field_before": ("before mm", ".3f"),
    "field_rms": ("error mm", ".3f"),
    "field_max": ("max mm", ".2f"),
    "squared_difference": ("SSD left %", ".2f"),
    "seconds": ("seconds", ".1f"),
    "ratio": ("x SyN", ".3f"),
    "minimum_jacobian": ("least J", ".3f"),
    "minimum_jacobian_inverse": ("inverse", ".3f"),
    "folds_percent": ("folds %", ".4f"),
    "folds_inverse_percent": ("inverse", ".4f"),
    "ndv_percent": ("NDV %", ".4f"),
    "sd_log_jacobian": ("SD log J", ".3f"),
    "round_trip_mean": ("trip mm", ".4f"),
    "round_trip_max": ("max mm", ".3f"),
    "peak_mib": ("peak MiB", ".0f"),
}
LABELLED = {"dice", "hd95"}
KNOWN_FIELD = {"field_before", "field_rms", "field_max", "squared_difference"}
KEY = ("spacing", "repeat", "pair", "method")


def key_of(row):
    return tuple(row[name] for name in KEY)


def with_ratio(row, rows, syn):
    """The row, with its seconds over those of `syn` on the same pair in one turn."""
    key = (*key_of(row)[:-1], syn)
    peer = next((r["seconds"] for r in rows if key_of(r) == key), None)
    both = peer and row.get("seconds")
    return row | {"ratio": row["seconds"] / peer if both else None}


def medians(rows, syn):
    """One row per method: the median of each number over pairs and repeats."""
    result = []
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [with_ratio(r, rows, syn) for r in rows if r["method"] == method]
        middle = {"pair": f"median of {len(of_method)}", "method": method}
        for name in set(COLUMNS) - set(middle):
            values = [r[name] for r in of_method if r.get(name) is not None]
            middle |= {name: float(np.median(values))} if values else {}
        result.append(middle)
    return result


def table_line(row, columns):
    """One line of the table: the headings for row None, a dash for what is missing."""
    cells = []
    for name in columns:
        title, form = COLUMNS[name]
        wide = 18 if name == "pair" else max(len(title), 9)
        value = title if row is None else row.get(name)
        text = "-" if value is None else value
        if not isinstance(text, str):
            text = format(text, form)
        cells.append(text.ljust(wide) if form == "s" else text.rjust(wide))
    return " ".join(cells).rstrip()


def gain(rows, first, other):
    """A line on the paired differences in Dice of one method from another."""
    if other == first:
        return None
    pairs = {}
    for row in (r for r in rows if "dice" in r):
        pairs.setdefault(row["pair"], {})[row["method"]] = row["dice"]
    pairs = [pair for pair in pairs.values() if {first, other} <= set(pair)]
    change = [pair[first] - pair[other] for pair in pairs]
    return told(f"Dice, {first} less {other}", change) if change else None


def matched(rows, curve, other):
    """The same at the other's regularity: `curve`, methods of many, passes through it.

    Each pair's Dice on the curve at the other's SD of log J, linearly between its
    methods' points; pairs where the other lies beyond the curve's ends are left out.
    """
    if other in curve:
        return None
    change = []
    rows = [r for r in rows if "dice" in r and "sd_log_jacobian" in r]
    for row in (r for r in rows if r["method"] == other):
        key = key_of(row)[:-1]
        here = [r for r in rows if key_of(r)[:-1] == key and r["method"] in curve]
        points = sorted((r["sd_log_jacobian"], r["dice"]) for r in here)
        x = row["sd_log_jacobian"]
        if len(points) > 1 and points[0][0] <= x <= points[-1][0]:
            change.append(np.interp(x, *zip(*points)) - row["dice"])
    words = f"Dice at equal SD log J, deep less {other}"
    return told(words, change) if change else None


def told(words, change):
    """Mean, bootstrap interval and least of paired differences, in a line."""
    change = np.array(change)
    draws = np.random.default_rng(0).choice(change, size=(10_000, len(change)))
    low, high = np.percentile(draws.mean(axis=1), [2.5, 97.5])
    return (
        f"{words}: {change.mean():+.4f} on average (95 % interval {low:+.4f} to "
        f"{high:+.4f}), {change.min():+.4f} at least; pairs: {len(change)}"
    )
