"""Rows of the deformable benchmark as a table, and paired differences of methods."""

import numpy as np

# Entries of a row: heading and format in the table.
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
    "cpu_seconds": ("CPU s", ".1f"),
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


def row_key(row):
    """Values that identify a row."""
    return tuple(row[name] for name in KEY)


def add_ratio(row, rows, syn):
    """Add the ratio of the row's time to that of `syn` on the same pair.

    CPU seconds are compared if both rows have them, because other programs on the same
    machine hardly change them. A ratio that the row has is kept.
    """
    if "ratio" in row:
        return row
    key = (*row_key(row)[:-1], syn)
    peer = next((r for r in rows if row_key(r) == key), {})
    for name in ("cpu_seconds", "seconds"):
        if peer.get(name) and row.get(name):
            return row | {"ratio": row[name] / peer[name]}
    return row | {"ratio": None}


def median_rows(rows, syn):
    """One row per method: the median of each number over pairs and repeats."""
    result = []
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [add_ratio(r, rows, syn) for r in rows if r["method"] == method]
        middle = {"pair": f"median of {len(of_method)}", "method": method}
        for name in set(COLUMNS) - set(middle):
            values = [r[name] for r in of_method if r.get(name) is not None]
            middle |= {name: float(np.median(values))} if values else {}
        result.append(middle)
    return result


def table_line(row, columns):
    """Format a line of the table; the headings if `row` is None."""
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


def compare_dice(rows, first, other):
    """Describe the paired differences in Dice of two methods in one line."""
    if other == first:
        return None
    pairs = {}
    for row in (r for r in rows if "dice" in r):
        pairs.setdefault(row["pair"], {})[row["method"]] = row["dice"]
    pairs = [pair for pair in pairs.values() if {first, other} <= set(pair)]
    change = [pair[first] - pair[other] for pair in pairs]
    return (
        describe_differences(f"Dice, {first} less {other}", change) if change else None
    )


def compare_at_equal_regularity(rows, curve, other):
    """Describe paired differences in Dice at equal regularity in one line.

    The methods in `curve` differ in smoothness. For each pair, their Dice is
    interpolated linearly at the regularity (SD of log J) of the other method. Pairs
    where this is outside the range of the curve are left out.
    """
    if other in curve:
        return None
    change = []
    rows = [r for r in rows if "dice" in r and "sd_log_jacobian" in r]
    for row in (r for r in rows if r["method"] == other):
        key = row_key(row)[:-1]
        here = [r for r in rows if row_key(r)[:-1] == key and r["method"] in curve]
        points = sorted((r["sd_log_jacobian"], r["dice"]) for r in here)
        x = row["sd_log_jacobian"]
        if len(points) > 1 and points[0][0] <= x <= points[-1][0]:
            change.append(np.interp(x, *zip(*points)) - row["dice"])
    words = f"Dice at equal SD log J, deep less {other}"
    return describe_differences(words, change) if change else None


def describe_differences(words, change):
    """Mean, bootstrap interval and minimum of paired differences, in one line."""
    change = np.array(change)
    draws = np.random.default_rng(0).choice(change, size=(10_000, len(change)))
    low, high = np.percentile(draws.mean(axis=1), [2.5, 97.5])
    return (
        f"{words}: {change.mean():+.4f} on average (95 % interval {low:+.4f} to "
        f"{high:+.4f}), {change.min():+.4f} at least; pairs: {len(change)}"
    )
