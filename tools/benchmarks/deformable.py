r"""Compare DeepRegistration with SyN and other programs: accuracy, regularity, time.

    python -m tools.benchmarks.deformable --quick
    python -m tools.benchmarks.deformable --data FOLDER --output FILE.json
    python -m tools.benchmarks.deformable --data FOLDER --output FILE.json \
        --methods deep syn ants greedy --python ants=PYTHON1 --python greedy=PYTHON2 \
        --plot FIGURES

`--quick` needs no data and takes less than a minute. It registers bundled images to
copies of themselves that were deformed by known fields, and reports the error in mm.
(A part of the squared difference, SSD, is caused by interpolation: after warping with
the known field, 0.25 % of it remains in the slice, and 10 % in the template.)

`--data` is a folder of labelled brains: subject_<id>_t1.nii.gz and
subject_<id>_labels.nii.gz. If there is a file affines_mni.json, it contains for each
subject_<id> a matrix from MNI world to the subject's world (mm), and all methods start
from these matrices. Otherwise they start from the affine registration of this package.
SyN takes up to a minute for a pair at 2 mm, and several minutes at 1 mm. Every row is
printed and saved as soon as it is measured; --resume continues an interrupted run.

Other programs ("rivals") run in an environment where they are installed, this one or
another: `--python NAME=PATH`. The environment must contain numpy, nibabel, and for
`ants` antspyx; for `greedy` picsl-greedy; for `elastix` itk-elastix; for `fireants`
fireants; for `syntx` syntx (5.1.0, because later versions need packages that are not on
PyPI) and antspyx. Programs that cannot run are named and left out. If one fails on a
pair, its row contains the error. FireANTs and syntx run on the CPU. Each adapter,
tools/benchmarks/rivals/run_NAME.py, states what the measured time includes. Rivals
register 3D images only.

Every method gets the same images, affine prealign and number of threads, and is called
in turn for each pair. Only the registration of images in memory is timed: seconds, and
for methods of this package and of DIPY also CPU seconds of all threads. Images are
resampled to the voxel size `--spacing`. Labels keep their grid and are warped by
nearest-neighbour interpolation through the returned map, or by the rival's own tool.

Dice and the 95 % Hausdorff distance (HD95) are means over the labels that are present
in both subjects. For a label that vanishes in the warped image, Dice is 0 and the
distance is the diagonal of the image. J is the Jacobian determinant on the static grid
by central differences, of the map from static to moving without the affine part
("inverse": of the inverse map). NDV is the non-diffeomorphic volume, which also
includes folds between voxels. "trip" is the inversion error at points within the static
labels. The output file also contains Dice and HD95 of every label.
"""

import os

# Must be set before torch is imported: waiting threads then sleep instead of spinning,
# which is many times faster if other programs use the same processors.
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
    find_affines_problem,
    labelled_case,
    list_pairs,
    subject_files,
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
from tools.benchmarks.plot import draw_figures
from tools.benchmarks.record import describe, read_earlier_rows, write_json
from tools.benchmarks.rival_programs import MODULES, find_available
from tools.benchmarks.table import (
    COLUMNS,
    KEY,
    KNOWN_FIELD,
    LABELLED,
    add_ratio,
    compare_at_equal_regularity,
    compare_dice,
    median_rows,
    row_key,
    table_line,
)


def generate_cases(arguments):
    """Yield what to register: (spacing or None, name, function that loads the case)."""
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


def measure_cases(cases, methods, repeats, results, output, setup, figures=None):
    """Measure all cases, a table for each spacing; save each row at once."""
    for spacing in dict.fromkeys(spacing for spacing, _, _ in cases):
        here = [case[1:] for case in cases if case[0] == spacing]
        syn = next((name for name in SYN if name in methods), "syn")
        title = "Known fields" if spacing is None else f"{spacing:g} mm"
        print(f"\n{title} (x SyN: seconds over those of {syn})")
        rows = []
        columns = choose_columns(spacing)
        print(table_line(None, columns))
        for repeat in range(repeats):
            for name, load in here:
                key = (spacing, repeat, name)
                for row in measure_case(key, load, methods, results, setup):
                    write_json(output, results)
                    if "failed" in row:
                        print(f"{name:18} {row['method']} failed: {row['failed']}")
                        continue
                    rows.append(row)
                    print(table_line(add_ratio(row, rows, syn), columns), flush=True)
        print_summary(rows, methods, syn, columns)
        if figures:
            draw_figures(rows, title, figures, {"deep", *CURVE})


def choose_columns(spacing):
    """Columns for labelled brains, or for known fields if `spacing` is None."""
    hidden = LABELLED if spacing is None else KNOWN_FIELD
    return [name for name in COLUMNS if name not in hidden]


def print_summary(rows, methods, syn, columns):
    """Print the medians of each method and the paired differences in Dice."""
    for row in median_rows(rows, syn):
        print(table_line(row, columns))
    first = next((name for name in COMPARED if name in methods), None)
    curve = {"deep", *CURVE}
    lines = [compare_dice(rows, first, name) for name in methods]
    lines += [compare_at_equal_regularity(rows, curve, name) for name in methods]
    for line in filter(None, lines):
        print(line)


def measure_case(key, load, methods, results, setup):
    """Yield a row for each method on one case; rows in `results` are reused.

    Parameters
    ----------
    key : tuple
        Spacing, number of the repetition, and name of the case.
    load : callable
        Loads the case, when the first method needs it.
    methods : list of str
        Names of methods.
    results : dict
        New rows are appended to ``results["rows"]``.
    setup : Setup
        How methods are run.

    Yields
    ------
    row : dict
        Measures of one method.
    """
    done = {row_key(row): row for row in results["rows"]}
    case = None
    for method in methods:
        if (*key, method) in done:
            yield done[*key, method]
            continue
        case = case or load()
        row = dict(zip(KEY, (*key, method))) | measure(method, case, setup)
        results["rows"].append(row)
        yield row


def parse_arguments(words=None):
    """Parse and check the command line before DIPY and torch are imported."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    folder = os.environ.get("DIPY_DL_REG_DATA")
    add("--quick", action="store_true", help="bundled images; no data needed")
    text = "folder of labelled brains (or set DIPY_DL_REG_DATA)"
    add("--data", type=Path, default=folder and Path(folder), help=text)
    text = "default: each subject of the folder with the next, in both directions"
    add("--pairs", nargs="+", metavar="STATIC:MOVING", help=text)
    add("--spacing", nargs="+", type=float, default=[2], help="mm; default: 2")
    text = "; ".join(f"{name} is {call}" for name, call in METHODS.items())
    usual = ["syn", "syn-short", "deep"]
    add("--methods", nargs="+", choices=METHODS, default=usual, help=text)
    add("--model", type=Path, help="file of a trained network, for network methods")
    text = "number of repetitions of all measurements; default: 1"
    add("--repeats", type=int, default=1, help=text)
    text = f"Python of a rival's environment; NAME is one of {', '.join(MODULES)}"
    add("--python", action="append", default=[], metavar="NAME=PATH", help=text)
    text = "folder for figures of accuracy against time and against regularity"
    add("--plot", type=Path, metavar="FOLDER", help=text)
    text = "of every method; default: all processors (%(default)s)"
    add("--threads", type=int, default=os.cpu_count(), help=text)
    add("--output", type=Path, help="JSON file for results, machine and versions")
    add("--resume", action="store_true", help="continue the run saved in OUTPUT")
    arguments = parser.parse_args(words)
    if arguments.data and not arguments.pairs:
        arguments.pairs = list_pairs(arguments.data)
    problem = find_problem(arguments)
    if problem:
        parser.error(problem)
    return arguments


def find_problem(arguments):
    """Describe what is wrong with the arguments in one sentence, or return None."""
    if min(arguments.threads, arguments.repeats) < 1:
        return "--threads and --repeats must be 1 or more."
    output = arguments.output
    if arguments.resume and not (output and output.is_file()):
        return "--resume needs --output with the file of an earlier run."
    if output and not output.absolute().parent.is_dir():
        return f"--output: there is no folder {output.absolute().parent}."
    if output and output.exists() and not arguments.resume:
        return f"--output: {output} exists; --resume continues its run."
    for word in arguments.python:
        program, _, path = word.partition("=")
        if program not in MODULES or not Path(path).is_file():
            return f"--python: wanted NAME=PATH, NAME of {list(MODULES)}, got {word}."
    if not (arguments.model and arguments.model.is_file()):
        if arguments.model or set(arguments.methods) & set(NETWORK):
            return f"--model: a network's file is needed, got {arguments.model}."
    return None if arguments.quick else find_data_problem(arguments)


def find_data_problem(arguments):
    """Describe what is wrong with the folder of labelled brains, or return None."""
    if not (arguments.data and arguments.output):
        return "--data and --output are needed, or --quick, which needs no data."
    if min(arguments.spacing) <= 0:
        return "--spacing must be above 0."
    if not arguments.data.is_dir():
        return f"--data: there is no {arguments.data}."
    if not arguments.pairs:
        return f"--data: {arguments.data} has no two subjects with labels."
    for pair in arguments.pairs:
        if pair.count(":") != 1:
            return f"--pairs: wanted STATIC:MOVING, got {pair}."
        for name in pair.split(":"):
            for path in subject_files(arguments.data, name):
                if not path.is_file():
                    return f"--data: there is no {path}."
    return find_affines_problem(arguments.data, arguments.pairs)


def main(words=None):
    arguments = parse_arguments(words)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before DIPY loads
    from dipy.utils.logging import logger

    logger.setLevel("WARNING")  # SyN logs every level
    pythons = dict(word.split("=", 1) for word in arguments.python)
    setup = Setup(arguments.threads, arguments.model, pythons)
    methods, rivals = find_available(arguments.methods, pythons)
    results = describe(arguments.threads, arguments.model, rivals) | {"rows": []}
    if arguments.resume:
        try:
            results["rows"] = read_earlier_rows(arguments.output, results)
        except ValueError as error:
            sys.exit(str(error))
    results["warm_up_seconds"] = warm_up(methods, setup)
    shown = ("machine", "versions", "rivals", "code")
    print(json.dumps({k: results[k] for k in shown}))
    print("First calls, on tiny images: ", end="")
    print(*(f"{k} {v:.1f} s" for k, v in results["warm_up_seconds"].items()), sep=", ")
    try:
        cases = list(generate_cases(arguments))
        options = (methods, arguments.repeats, results, arguments.output)
        measure_cases(cases, *options, setup, arguments.plot)
    except KeyboardInterrupt:
        saved = (
            f"; the rows above are in {arguments.output}" if arguments.output else ""
        )
        sys.exit(f"\nInterrupted{saved}.")


if __name__ == "__main__":
    main()
