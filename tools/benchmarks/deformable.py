r"""Measure DeepRegistration against SyN and its rivals: accuracy, regularity, time.

    python -m tools.benchmarks.deformable --quick
    python -m tools.benchmarks.deformable --data FOLDER --output FILE.json
    python -m tools.benchmarks.deformable --data FOLDER --output FILE.json \
        --methods deep syn ants greedy --python ants=PYTHON1 --python greedy=PYTHON2 \
        --plot PICTURES

`--quick` needs no data and takes under a minute: bundled images, deformed by known
fields, and the error in mm. (Some of the squared difference, SSD, is interpolation: the
known field itself leaves 0.25 % of it in the slice, 10 % in the template.)

`--data` names a folder of labelled brains, yours too: subject_<id>_t1.nii.gz and
subject_<id>_labels.nii.gz, and if there is one affines_mni.json, which holds for each
subject_<id> a matrix from MNI world to its world (mm); else this package's affine
registration finds where all methods begin. SyN takes up to a minute a pair at 2 mm and
many at 1 mm; every row is printed and kept as soon as it is measured, and --resume
goes on after an interruption.

Rivals run where a Python has them, this one or one of their own: `--python NAME=PATH`.
In it are, beside numpy and nibabel, for `ants` antspyx; for `greedy` picsl-greedy; for
`elastix` itk-elastix; for `fireants` fireants; for `syntx` syntx (5.1.0: later ones
need what PyPI lacks) and antspyx. One that cannot run is named and left out; one that
fails on a pair has a row that says so. FireANTs and syntx run on the CPU. What each
one's seconds hold is told in its adapter, tools/benchmarks/rivals/run_NAME.py. They
register in 3D only.

How it is measured: every method gets the same images, affine prealign and number of
threads; the methods take turns; images are in memory and only the registration is
timed. Images are brought to the spacing wanted, labels stay as they are and are warped
through the returned map, or by the rival's own tool, to the nearest neighbour. Dice and
the 95 % Hausdorff distance (HD95) are means over the labels present in both subjects;
one that vanishes has a Dice of 0 and is as far as the image is long. J is the Jacobian
determinant on the static grid by central differences, of the map from static to moving
without its affine ("inverse": of its inverse); NDV is the volume that it folds, between
voxels too; the round trip goes there and back from points in the static labels. The
output keeps Dice and HD95 of every label.
"""

import os

# Must be set before torch loads: its waiting threads then sleep instead of spinning,
# which makes it many times faster where others use the same processors.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from functools import partial
from importlib.util import find_spec
import json
from pathlib import Path
import sys

from tools.benchmarks.cases import (
    bundled_slice,
    bundled_template,
    files_of,
    labelled_case,
    pairs_in,
    problem_of_affines,
)
from tools.benchmarks.methods import (
    COMPARED,
    CURVE,
    METHODS,
    NETWORK,
    SYN,
    Setup,
    measure,
    warm_up,
)
from tools.benchmarks.plot import draw
from tools.benchmarks.record import describe, earlier_results, write_json
from tools.benchmarks.rival_programs import MODULES, present
from tools.benchmarks.table import (
    COLUMNS,
    KEY,
    KNOWN_FIELD,
    LABELLED,
    gain,
    key_of,
    matched,
    medians,
    table_line,
    with_ratio,
)


def cases_of(arguments):
    """What to measure: (spacing or None, name, function that loads the case)."""
    if arguments.quick:
        yield None, "coronal slice", bundled_slice
        if find_spec("nilearn"):
            yield None, "MNI152 4 mm", bundled_template
        else:
            print("The MNI152 template is left out: it comes with nilearn.")
        return
    for spacing in arguments.spacing:
        for pair in arguments.pairs:
            load = partial(labelled_case, arguments.data, spacing, pair)
            yield spacing, pair.replace(":", "<-"), load


def run(cases, methods, repeats, results, output, setup, pictures=None):
    """Measure what is not there yet; print and keep every row at once."""
    for spacing in dict.fromkeys(spacing for spacing, _, _ in cases):
        here = [case[1:] for case in cases if case[0] == spacing]
        hidden = LABELLED if spacing is None else KNOWN_FIELD
        columns = [name for name in COLUMNS if name not in hidden]
        syn = next((name for name in SYN if name in methods), "syn")
        title = "Known fields" if spacing is None else f"{spacing:g} mm"
        print(f"\n{title} (x SyN: seconds over those of {syn})")
        print(table_line(None, columns))
        rows = []
        for repeat in range(repeats):
            for name, load in here:
                for row in rows_of(
                    spacing, repeat, name, load, methods, results, setup
                ):
                    write_json(output, results)
                    if "failed" in row:
                        print(f"{name:18} {row['method']} failed: {row['failed']}")
                        continue
                    rows.append(row)
                    print(table_line(with_ratio(row, rows, syn), columns), flush=True)
        for row in medians(rows, syn):
            print(table_line(row, columns))
        first = next((name for name in COMPARED if name in methods), None)
        for line in filter(None, (gain(rows, first, name) for name in methods)):
            print(line)
        curve = {"deep", *CURVE}
        for line in filter(None, (matched(rows, curve, name) for name in methods)):
            print(line)
        if pictures:
            draw(rows, title, pictures, curve)


def rows_of(spacing, repeat, name, load, methods, results, setup):
    """Each method's row on one case: the one there is, or a new one, also kept."""
    done = {key_of(row): row for row in results["rows"]}
    case = None
    for method in methods:
        key = (spacing, repeat, name, method)
        if key not in done:
            case = case or load()
            row = dict(zip(KEY, key)) | measure(method, case, setup)
            results["rows"].append(row)
            yield row
        else:
            yield done[key]


def parse(words=None):
    """The command line, checked as far as possible before anything heavy loads."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    folder = os.environ.get("DIPY_DL_REG_DATA")
    add("--quick", action="store_true", help="bundled images; no data needed")
    text = "folder of labelled brains (or set DIPY_DL_REG_DATA)"
    add("--data", type=Path, default=folder and Path(folder), help=text)
    text = "default: each subject of the folder with the next, both ways"
    add("--pairs", nargs="+", metavar="STATIC:MOVING", help=text)
    add("--spacing", nargs="+", type=float, default=[2], help="mm; default: 2")
    text = "; ".join(f"{name} is {call}" for name, call in METHODS.items())
    usual = ["syn", "syn-short", "deep"]
    add("--methods", nargs="+", choices=METHODS, default=usual, help=text)
    add("--model", type=Path, help="a trained network's file, for the network methods")
    add("--repeats", type=int, default=1, help="times all is measured; default: 1")
    text = "of every method; default: all processors (%(default)s)"
    text = f"the Python that has a rival: NAME is one of {', '.join(MODULES)}"
    add("--python", action="append", default=[], metavar="NAME=PATH", help=text)
    text = "draw accuracy against time and against regularity into this folder"
    add("--plot", type=Path, metavar="FOLDER", help=text)
    add("--threads", type=int, default=os.cpu_count(), help=text)
    add("--output", type=Path, help="JSON file for results, machine and versions")
    add("--resume", action="store_true", help="go on with the run that OUTPUT holds")
    arguments = parser.parse_args(words)
    problem = problem_of(arguments)
    if problem:
        parser.error(problem)
    return arguments


def problem_of(arguments):
    """What is wrong with the arguments, in one sentence; None if nothing is."""
    if min(arguments.threads, arguments.repeats) < 1:
        return "--threads and --repeats must be 1 or more."
    output = arguments.output
    if arguments.resume and not (output and output.is_file()):
        return "--resume needs --output with the file of an earlier run."
    if output and not output.absolute().parent.is_dir():
        return f"--output: there is no folder {output.absolute().parent}."
    if output and output.exists() and not arguments.resume:
        return f"--output: {output} exists; --resume goes on with it."
    for word in arguments.python:
        program, _, path = word.partition("=")
        if program not in MODULES or not Path(path).is_file():
            return f"--python: wanted NAME=PATH, NAME of {list(MODULES)}, got {word}."
    if not (arguments.model and arguments.model.is_file()):
        if arguments.model or set(arguments.methods) & set(NETWORK):
            return f"--model: a network's file is needed, got {arguments.model}."
    if arguments.quick:
        return None
    if not (arguments.data and output):
        return "--data and --output are needed, or --quick, which needs no data."
    if min(arguments.spacing) <= 0:
        return "--spacing must be above 0."
    needed = []
    if not arguments.data.is_dir():
        return f"--data: there is no {arguments.data}."
    arguments.pairs = arguments.pairs or pairs_in(arguments.data)
    if not arguments.pairs:
        return f"--data: {arguments.data} has no two subjects with labels."
    for pair in arguments.pairs:
        if pair.count(":") != 1:
            return f"--pairs: wanted STATIC:MOVING, got {pair}."
        needed += [
            f for name in pair.split(":") for f in files_of(arguments.data, name)
        ]
    missing = next((path for path in needed if not path.is_file()), None)
    if missing:
        return f"--data: there is no {missing}."
    return problem_of_affines(arguments.data, arguments.pairs)


def main(words=None):
    arguments = parse(words)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before DIPY loads
    from dipy.utils.logging import logger

    logger.setLevel("WARNING")  # SyN tells of every level
    pythons = dict(word.split("=", 1) for word in arguments.python)
    setup = Setup(arguments.threads, arguments.model, pythons)
    methods, rivals = present(arguments.methods, pythons)
    results = describe(arguments.threads, arguments.model, rivals) | {"rows": []}
    if arguments.resume:
        try:
            results["rows"] = earlier_results(arguments.output, results)
        except ValueError as error:
            sys.exit(str(error))
    results["warm_up_seconds"] = warm_up(methods, setup)
    told = ("machine", "versions", "rivals", "code")
    print(json.dumps({k: results[k] for k in told}))
    print("First calls, on tiny images: ", end="")
    print(*(f"{k} {v:.1f} s" for k, v in results["warm_up_seconds"].items()), sep=", ")
    try:
        cases = list(cases_of(arguments))
        wanted = (methods, arguments.repeats, results, arguments.output)
        run(cases, *wanted, setup, arguments.plot)
    except KeyboardInterrupt:
        kept = f"; {arguments.output} keeps the rows above" if arguments.output else ""
        sys.exit(f"\nInterrupted{kept}.")


if __name__ == "__main__":
    main()
