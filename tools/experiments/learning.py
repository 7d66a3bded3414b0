r"""What networks add to a registration: one table of contrasts and settings.

    python -m tools.experiments.learning --data FOLDER --real FOLDER \
        --rows FILE.jsonl --output FILE.txt [--threads 2] [--only "T1 2 mm" ...]

FOLDER of --data contains labelled brains, see tools/benchmarks/deformable.py; that of
--real the images of one subject, see tools/experiments/contrasts.py. Rows that stand in
the file of --rows are not computed again, so that an interrupted run can go on. The
rows are also written to FILE.json, from which the documentation takes its figures.

Kinds: T1 at 2 mm and at 1 mm; T1 to T1 whose intensities are mapped to those of a b0
and of an FA image, at 2 mm; real b0, MD and FA images of a subject, moved by known
motions (seeds 0 and 1), to the T1 image. Pairs are static:moving; options were chosen
on 1000, 1001, 1006 and 1012, and on other motions; 1107 and 1122 are reported apart.

Settings: default; "no maps", without anatomy maps (anatomy=False); "no network", with
maps if they are used by default, but without the network that predicts a field
(model=None); "refinement alone", without both; "network alone" (level_iters=0).

Columns: mean Dice over labels; "mm off", distance from the known motion (real images);
SD of the log Jacobian; smallest Jacobian determinant of the map and of its inverse;
folds in percent, both maps; inverse error, mean and maximum, mm; CPU and wall seconds
of the registration, images in memory, after a warm-up; whether a second run gives the
same fields bit by bit (one case of each kind and setting).
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import inspect
from pathlib import Path
import time

import numpy as np

# DIPY and torch are imported in functions, because DIPY reads the number of threads
# when it is imported.

TUNING = ("1000:1001", "1001:1000", "1006:1012", "1012:1006")
REPORTED = ("1107:1122", "1122:1107")
FINE = ("1000:1001", "1107:1122")
SEEDS = (0, 1)
SETTINGS = {
    "default": {},
    "no maps": {"anatomy": False},
    "no network": {"model": None},
    "refinement alone": {"model": None, "anatomy": False},
    "network alone": {"level_iters": 0},
}
KINDS = ("T1 2 mm", "T1 1 mm", "b0-like", "FA-like", "real b0", "real MD", "real FA")
#: Keys of a row, their headings and formats.
COLUMNS = {
    "dice": ("Dice", "7.4f"), "mm_off": ("mm off", "7.3f"),
    "sd_log_j": ("SD logJ", "8.4f"), "least_j": ("least J", "8.3f"),
    "least_j_inverse": ("inverse", "8.3f"), "folds": ("folds %", "8.4f"),
    "trip_mean": ("trip mm", "8.4f"), "trip_max": ("max", "7.3f"),
    "cpu_s": ("CPU s", "7.1f"), "wall_s": ("wall s", "7.1f"),
}  # fmt: skip


def list_cases(kind):
    """Names of the cases of a kind; those that are reported apart last."""
    if kind.startswith("real"):
        return [f"seed {seed}" for seed in SEEDS]
    return list(FINE if kind == "T1 1 mm" else TUNING + REPORTED)


def make_case(kind, name, arguments):
    """Make a case."""
    from tools.benchmarks.cases import labelled_case
    from tools.experiments.contrast_cases import contrast_case, real_case

    if kind.startswith("real"):
        return real_case(arguments.real, kind.split()[1], int(name.split()[1]))
    if kind == "T1 1 mm":
        return labelled_case(arguments.data, 1.0, name)
    return contrast_case(arguments.data, name, kind.removesuffix("-like").split()[0])


def make_registration(setting):
    """Make the registration of a setting; None if it has no such option."""
    from dipy_dl_reg import DeepRegistration

    options = SETTINGS[setting]
    if not set(options) <= set(inspect.signature(DeepRegistration).parameters):
        return None
    return DeepRegistration(progress=False, **options)


def run(case, setting, threads):
    """Register a case: the map, CPU seconds and wall seconds."""
    registration = make_registration(setting)
    wall, cpu = time.perf_counter(), time.process_time()
    mapping = registration.optimize(**case.images, num_threads=threads)
    return mapping, time.process_time() - cpu, time.perf_counter() - wall


def measure(case, setting, threads, *, repeat):
    """The row of a case and a setting."""
    from tools.benchmarks.measures import regularity

    mapping, cpu, wall = run(case, setting, threads)
    judged = case.judge(mapping)
    found = regularity(mapping, case.images["static_grid2world"], case.points)
    row = {
        "dice": judged.get("Dice", judged.get("dice")),
        "mm_off": judged.get("mm off"),
        "sd_log_j": found["sd_log_jacobian"],
        "least_j": found["minimum_jacobian"],
        "least_j_inverse": found["minimum_jacobian_inverse"],
        "folds": max(found["folds_percent"], found["folds_inverse_percent"]),
        "trip_mean": found["round_trip_mean"],
        "trip_max": found["round_trip_max"],
        "cpu_s": cpu,
        "wall_s": wall,
    }
    if repeat:
        again = run(case, setting, threads)[0]
        row["same"] = all(
            np.array_equal(getattr(mapping, side), getattr(again, side))
            for side in ("forward", "backward")
        )
    return row


def format_row(kind, setting, name, row):
    """One line of the table."""
    cells = "".join(
        f"{row[key]:{form}}"
        if row.get(key) is not None
        else " " * int(form.split(".")[0])
        for key, (_, form) in COLUMNS.items()
    )
    same = {None: "", True: "  same", False: "  DIFFERS"}[row.get("same")]
    return f"{kind:9s}{setting:17s}{name:13s}{cells}{same}"


def summarize(saved):
    """Lines of means: of the tuning pairs, of the reported ones, and of all."""
    lines = []
    for kind in KINDS:
        names = list_cases(kind)
        groups = {"all": names}
        if not kind.startswith("real"):
            apart = [name for name in names if name in REPORTED]
            groups = {"tuning": [n for n in names if n not in apart], "kept out": apart}
            groups["all"] = names
        for setting in SETTINGS:
            for words, members in groups.items():
                rows = [saved.rows.get((kind, setting, name)) for name in members]
                if not rows or None in rows:
                    continue
                row = {
                    key: float(np.mean([r[key] for r in rows]))
                    for key in COLUMNS
                    if rows[0].get(key) is not None
                }
                lines.append(format_row(kind, setting, f"{words} ({len(rows)})", row))
    return lines


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path)
    add("--real", type=Path)
    add("--rows", type=Path, help="rows that are computed already")
    add("--output", type=Path)
    add("--threads", type=int, default=2)
    add("--only", nargs="+", choices=KINDS, default=list(KINDS))
    add("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    add("--pairs", nargs="+", help="by default all")
    add("--no_repeat", action="store_true", help="do not run anything twice")
    return parser.parse_args()


def main():
    """Print a line for every kind, setting and case, and means."""
    arguments = parse_arguments()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before DIPY loads
    from dipy.utils.logging import logger

    from tools.experiments.saved_rows import (
        SavedRows,
        describe_machine,
        describe_run,
        write_rows,
    )

    logger.setLevel("ERROR")
    saved, threads = SavedRows(arguments.rows), arguments.threads
    about = describe_run(threads)
    heads = "".join(
        f"{heading:>{int(form.split('.')[0])}}" for heading, form in COLUMNS.values()
    )
    lines = [describe_machine(threads), "", f"{'':39s}{heads}  repeated"]
    print(*lines, sep="\n")
    warm = set()
    for kind in arguments.only:
        names = list_cases(kind)
        for name in [n for n in names if n in (arguments.pairs or names)]:
            case = None
            for setting in arguments.settings:
                key = (kind, setting, name)
                if key not in saved.rows:
                    if make_registration(setting) is None:
                        continue
                    case = case or make_case(kind, name, arguments)
                    if setting not in warm:
                        run(case, setting, threads)
                        warm.add(setting)
                repeat = name == names[0] and not arguments.no_repeat
                options = {"repeat": repeat}
                row = saved.get(
                    key,
                    lambda: measure(case, setting, threads, **options),  # noqa: B023
                )
                lines.append(format_row(kind, setting, name, row))
                print(lines[-1], flush=True)
    ending = ["", *summarize(saved)]
    print(*ending, sep="\n")
    if arguments.output:
        arguments.output.write_text("\n".join(lines + ending) + "\n")
        write_rows(
            arguments.output.with_suffix(".json"),
            saved.rows,
            keys=("kind", "setting", "case"),
            chosen_on=TUNING,
            kept_out=[*REPORTED, *(f"seed {seed}" for seed in SEEDS)],
            about=about,
        )


if __name__ == "__main__":
    main()
