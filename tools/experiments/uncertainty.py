"""Calibrates the uncertainty of maps on known errors, and measures its coverage.

    python -m tools.experiments.uncertainty run --data DATA --cache CACHE --spacing 2
    python -m tools.experiments.uncertainty fit --data DATA --cache CACHE
    python -m tools.experiments.uncertainty report --data DATA --cache CACHE

DATA holds `t1_labels`, `label_maps` (see `tools.experiments.uncertainty_cases`) and
CACHE/heads whole heads with labels. ``run`` registers the cases of the part
``--part`` and keeps what the others need. ``fit`` computes the tables of
`dipy_dl_reg.registration.uncertainty_calibration` from the cases to calibrate on.
``report`` writes the coverage on the other cases, whose people and label maps are none
of those.

Columns: coverage in percent of intervals of 50, 80 and 95 % for one component of the
error, with their median half-widths in mm; the same for the length of the error and the
radius of the ball; mean error and mean expected error in mm. Of boundaries only one
component is known: the distance along the normal. The mean error is then that of this
component, and the expected error that of the length.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from pathlib import Path
import platform

import numpy as np

from tools.experiments import uncertainty_scores as scores
from tools.experiments.uncertainty_cases import list_cases

#: Kinds of pairs with known errors in 3D.
KNOWN = ("t1", "drawn", "drawn-b0")


def find_paths(arguments, kinds, part):
    """Stored cases of some kinds and one part, by name."""
    listed = list_cases(arguments.data)
    for kind in kinds:
        for name in listed[kind][part]:
            for spacing in arguments.spacings:
                path = arguments.cache / f"{kind}_{name}_{spacing:g}.npz"
                if path.is_file():
                    yield path


def read_all(arguments, kinds, part, **options):
    """Errors of stored cases, by the name of the file."""
    paths = find_paths(arguments, kinds, part)
    return {path.stem: scores.read_errors(path, **options) for path in paths}


def fit(arguments):
    """Compute the calibration of each kind of pair."""
    tables = {}
    for dim, kinds in ((3, KNOWN), (2, ("slice",))):
        cases = read_all(arguments, kinds, 0)
        worse = [
            case
            for lost in (0.5, 1.0)
            for case in read_all(arguments, kinds, 0, lost=lost).values()
        ]
        tables["same", dim] = scores.calibrate_known(list(cases.values()), worse)
    boundaries = list(read_all(arguments, ["labels"], 0).values())
    for dim in (3, 2):
        tables["different", dim] = scores.calibrate_boundaries(
            boundaries, tables["same", dim], dim
        )
    return tables


def print_tables(tables):
    """Print the tables as the source text of `CALIBRATIONS`."""
    print("CALIBRATIONS = {")
    for key in (("different", 3), ("different", 2), ("same", 3), ("same", 2)):
        component, length, mean = tables[key]
        print(f"    {key}: Calibration(".replace("'", '"'))
        for table in (component, length):
            print("        FactorTable(")
            for column in table:
                print(f"            {column},")
            print("        ),")
        print(f"        Factors({mean[0]}, {mean[1]}),\n    ),")
    print("}")


def format_score(name, found):
    """A line of the report."""
    covered, width, length, radius = (
        " ".join(form.format(100 * v if form[2] == "5" else v) for v in values)
        for form, values in (
            ("{:5.1f}", found.component),
            ("{:6.2f}", found.width),
            ("{:5.1f}", found.length),
            ("{:6.2f}", found.radius),
        )
    )
    return (
        f"{name:34s} {covered}  {width}   {length:17s}  {radius}   "
        f"{found.mean_error:5.2f}   {found.expected:5.2f}"
    )


def mean_score(found):
    """Mean of several scores."""
    columns = [np.mean(column, axis=0) for column in list(zip(*found))[:6]]
    lists = [np.atleast_1d(c).tolist() for c in columns[:4]]
    return scores.Score(*lists, *map(float, columns[4:]))


def score_group(title, cases, calibration, lines, every=True):
    """Add the lines of a group of cases, unless `every` is False, and their mean."""
    if not cases:
        return
    found = [scores.score(case, calibration) for case in cases.values()]
    lines.append(f"{title}")
    if every:
        lines += [format_score(f"  {n}", s) for n, s in zip(cases, found)]
    if len(found) > 1 or not every:
        lines.append(format_score(f"  mean of {len(found)}", mean_score(found)))


def report(arguments):
    """Lines of the report, on cases that were not used to calibrate."""
    from dipy_dl_reg.registration.uncertainty_calibration import CALIBRATIONS

    same, different = (CALIBRATIONS[k, 3] for k in ("same", "different"))
    lines = [*([arguments.title] if arguments.title else [])]
    lines += [
        f"{platform.machine()}, Python {platform.python_version()}, numpy "
        f"{np.__version__}; voxel size (mm) is the last number of a name",
        f"{'':34s} component         half-width, mm         length             "
        "radius, mm             error expected",
        f"{'nominal, percent':34s}  50.0  80.0  95.0    50.0   80.0   95.0    50.0  "
        "80.0  95.0    50.0   80.0   95.0",
    ]
    for kind, words in (
        ("t1", "T1, deformed by a known field, with residual anatomy"),
        ("drawn", "drawn from label maps, T1 contrast"),
        ("drawn-b0", "drawn from label maps, b0 to T1"),
    ):
        score_group(words, read_all(arguments, [kind], 1), same, lines)
    known = read_all(arguments, KNOWN, 1)
    score_group("all known errors", known, same, lines, every=False)
    score_group(
        "two people, boundaries of the same label",
        read_all(arguments, ["labels"], 1),
        different,
        lines,
    )
    score_group(
        "whole heads of another scanner, automatic labels",
        read_all(arguments, ["heads"], 1),
        different,
        lines,
    )
    tissue = {"distances": "tissue distances"}
    score_group(
        'two people, boundaries of the same tissue, by subjects="same"',
        read_all(arguments, ["labels", "heads"], 1, **tissue),
        same,
        lines,
    )
    for lost, words in ((0.5, "half of the displacement"), (1.0, "no displacement")):
        worse = read_all(arguments, KNOWN, 1, lost=lost)
        score_group(f"maps with {words}", worse, same, lines, every=False)
    flat = read_all(arguments, ["slice"], 1)
    score_group("slices (2D)", flat, CALIBRATIONS["same", 2], lines)
    return lines + ["", *thirds_lines(known, same), "", *candidate_lines(arguments)]


def thirds_lines(cases, calibration):
    """Coverage where the expected error is small, medium and large."""
    rows = []
    for case in cases.values():
        expected = case.widths(calibration.mean)
        third = np.digitize(expected, np.quantile(expected, (1 / 3, 2 / 3)))
        inside = [
            np.abs(case.components)
            <= case.widths(calibration.component.at(level))[:, None]
            for level in scores.REPORTED
        ]
        rows.append(
            [
                [case.lengths[third == k].mean(), expected[third == k].mean()]
                + [100 * i[third == k].mean() for i in inside]
                for k in range(3)
            ]
        )
    if not rows:
        return []
    mean = np.mean(rows, axis=0)
    words = ("smallest", "middle", "largest")
    heading = "known errors, by thirds of each case by the expected error: mean error, "
    return [f"{heading}expected, coverage of a component"] + [
        f"  {word:10s} {row[0]:5.2f} {row[1]:5.2f}  "
        + " ".join(f"{v:5.1f}" for v in row[2:])
        for word, row in zip(words, mean)
    ]


def candidate_lines(arguments):
    """Rank correlation of each candidate with the error, mean over cases."""
    groups = {"known": KNOWN, "boundaries": ("labels",)}
    found = {}
    for title, kinds in groups.items():
        for part in (0, 1):
            found_cases = read_all(arguments, kinds, part, candidates=True)
            for case in found_cases.values():
                for name, value in scores.correlations(case).items():
                    found.setdefault(name, {}).setdefault(title, []).append(value)
    lines = ["rank correlation with the error, mean over cases (number of cases)"]
    lines.append(f"  {'measure':22s} " + " ".join(f"{t:>14s}" for t in groups))
    for name, by_group in found.items():
        cells = (by_group.get(title, []) for title in groups)
        line = " ".join(
            f"{np.mean(c):9.2f} ({len(c):2d})" if c else 14 * " " for c in cells
        )
        lines.append(f"  {name:22s} {line}")
    return lines


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("step", choices=("run", "fit", "report"))
    add("--data", type=Path, required=True)
    add("--cache", type=Path, required=True)
    add("--spacings", type=float, nargs="+", default=[2.0, 3.0], metavar="MM")
    add("--kinds", nargs="+", default=[*KNOWN, "labels", "heads", "slice"])
    add("--part", type=int, choices=(0, 1), help="run: 0 calibrates, 1 is reported")
    add("--most", type=int, default=99, help="run: cases of each kind")
    add(
        "--every", action="store_true", help="run: all repetitions, not only those used"
    )
    add("--title", help="report: first line")
    add("--output", type=Path)
    return parser.parse_args()


def main():
    """Run, fit or report."""
    arguments = parse_arguments()
    if arguments.step == "run":
        from dipy.utils.logging import logger

        from tools.experiments.uncertainty_runs import REPETITIONS, run_all

        logger.setLevel("ERROR")
        names = tuple(REPETITIONS) if arguments.every else scores.USED
        parts = (0, 1) if arguments.part is None else (arguments.part,)
        for spacing in arguments.spacings:
            run_all(
                *(arguments.data, arguments.cache, spacing, arguments.kinds, parts),
                *(names, arguments.most),
            )
    elif arguments.step == "fit":
        print_tables(fit(arguments))
    else:
        lines = report(arguments)
        print(*lines, sep="\n")
        if arguments.output:
            arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
