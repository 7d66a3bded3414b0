"""Put new rows of this package into a table whose other programs were measured earlier.

    python -m tools.benchmarks.merge EARLIER.json NEW.json --output FILE.json

EARLIER.json and NEW.json are files of tools/benchmarks/deformable.py. Of EARLIER, the
rows of other programs and of the affine alignment are kept, because they do not depend
on this package's refinement. Of NEW, all rows are taken; SyN, if it was run again, is
called `syn-again`. Ratios of times ("x SyN") are those within a run, because the runs
may be of different machines. With `--busy`, seconds of NEW are left out, because other
programs used the processors; CPU seconds stay. FILE.txt, beside FILE.json, is the
table.
"""

import argparse
from contextlib import redirect_stdout
import json
from pathlib import Path

from tools.benchmarks.deformable import choose_columns, print_summary
from tools.benchmarks.methods import CURVE, SYN
from tools.benchmarks.record import write_json
from tools.benchmarks.rival_programs import RIVALS
from tools.benchmarks.table import add_ratio, table_line

#: Methods whose rows are kept from the earlier file.
OTHERS = ("affine", *SYN, *RIVALS)
HEADER = ("machine", "versions", "rivals", "code")


def merge_rows(earlier, new, methods=None, *, busy=False):
    """Rows of other programs of `earlier`, then rows of `new`; ratios within a run."""
    kept = [r for r in earlier if r["method"] in OTHERS]
    rows = [add_ratio(row, kept, "syn") | {"run": "earlier"} for row in kept]
    wanted = {row["method"] for row in new} if methods is None else set(methods)
    for row in (r for r in new if r["method"] in wanted - {"affine"}):
        again = {"method": "syn-again"} if row["method"] == "syn" else {}
        rows.append(add_ratio(row, new, "syn") | again | {"run": "new"})
        if busy:
            rows[-1].pop("seconds")
    return rows


def describe_runs(earlier, new):
    """Header of the merged file: that of `new`, and `earlier` below it."""
    methods = [name for name in OTHERS if any(is_method(earlier, name))]
    about = {key: earlier[key] for key in HEADER} | {"methods": methods}
    machine, commit = earlier["machine"], earlier["code"]["commit"]
    note = (
        f"Rows of {', '.join(methods)} are of an earlier run (commit {commit}, "
        f"{machine['cpu']}, {machine['threads']} threads); "
        "their seconds cannot be compared with the others, but ratios to SyN of the "
        "same run can"
    )
    return new | {"rivals": earlier["rivals"], "note": note, "earlier": about}


def is_method(results, name):
    """Yield whether each row is of a method."""
    return (row["method"] == name for row in results["rows"])


def print_table(results):
    """Print the headers of both runs, the rows, the medians and the differences."""
    new = {key: results[key] for key in HEADER if key != "rivals"}
    print("This package:", json.dumps(new))
    print("Other programs and affine:", json.dumps(results["earlier"]))
    print("\nx SyN: time over that of SyN in the same run")
    spacings = dict.fromkeys(row["spacing"] for row in results["rows"])
    for spacing in spacings:
        rows = [row for row in results["rows"] if row["spacing"] == spacing]
        columns = choose_columns(spacing)
        print(f"\n{spacing:g} mm")
        print(table_line(None, columns))
        for pair in dict.fromkeys(row["pair"] for row in rows):
            for row in (r for r in rows if r["pair"] == pair):
                print(table_line(row, columns))
        methods = [*dict.fromkeys(row["method"] for row in rows)]
        print_summary(rows, [m for m in methods if m not in CURVE], "syn", columns)


def main(words=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("earlier", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", help="of NEW; default: all")
    parser.add_argument("--busy", action="store_true", help="leave out NEW's seconds")
    arguments = parser.parse_args(words)
    earlier, new = (
        json.loads(path.read_text()) for path in (arguments.earlier, arguments.new)
    )
    merged = describe_runs(earlier, new)
    merged["rows"] = merge_rows(
        earlier["rows"], new["rows"], arguments.methods, busy=arguments.busy
    )
    write_json(arguments.output, merged)
    with (
        open(arguments.output.with_suffix(".txt"), "w") as file,
        redirect_stdout(file),
    ):
        print_table(merged)


if __name__ == "__main__":
    main()
