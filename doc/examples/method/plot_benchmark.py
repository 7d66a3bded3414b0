"""
===============================
The benchmark on bundled images
===============================

This page runs ``python -m tools.benchmarks.deformable --quick``, which compares SyN and
this package on two bundled images. Each image is registered to a copy of itself that
was deformed by a known field, so the error can be measured in millimetres. It takes
less than a minute and needs no data. With ``--data FOLDER`` the same tool registers
your own labelled brains, and with ``--python NAME=PATH`` it runs other programs (ANTs,
Greedy, elastix, FireANTs, syntx). :doc:`/benchmark` has the results of all of them on
six pairs of brains.
"""

###############################################################################
# Run the benchmark
# -----------------
# It runs in a separate process, because DIPY reads the number of threads when it is
# imported. The methods ``deep-s0.5`` to ``deep-s1.5`` are ``deep`` with other values of
# ``sigma_field``, from rough to smooth fields.

import json
from pathlib import Path
import subprocess
import sys
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt

root = next(p for p in Path.cwd().resolve().parents if (p / "tools").is_dir())
methods = ["syn-short", "syn", "deep-fast", "deep-s0.5", "deep", "deep-s1", "deep-s1.5"]
with TemporaryDirectory() as folder:
    output = Path(folder) / "quick.json"
    command = [sys.executable, "-m", "tools.benchmarks.deformable", "--quick"]
    done = subprocess.run(
        [*command, "--threads", "2", "--methods", *methods, "--output", output],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    results = json.loads(output.read_text())

rows = results["rows"]
machine = results["machine"]
print(f"{machine['cpu']}, {machine['threads']} threads; {results['versions']}")

###############################################################################
# Error against time
# ------------------
# Methods to the left of SyN are faster, methods below it are more accurate. Time
# differences of a tenth of a second are not reliable in a single run; ``--repeats``
# repeats all measurements.


def draw(ax, x, words, case):
    """Draw a point for each method on one image."""
    for row in (r for r in rows if r["pair"] == case):
        ours = row["method"].startswith("deep")
        ax.plot(row[x], row["field_rms"], "o" if ours else "s", c=f"C{int(ours)}")
        ax.annotate(
            row["method"],
            (row[x], row["field_rms"]),
            xytext=(5, 3),
            textcoords="offset points",
            fontsize="small",
        )
    ax.set(title=case, xlabel=words, ylabel="error, mm")
    ax.margins(0.2)


def figure(x, words, scale):
    """Draw both images side by side."""
    cases = list(dict.fromkeys(row["pair"] for row in rows))
    _, axes = plt.subplots(1, len(cases), figsize=(10, 4.5), layout="constrained")
    for ax, case in zip(axes, cases):
        draw(ax, x, words, case)
        ax.set_xscale(scale)
    plt.show()


figure("seconds", "seconds", "log")

###############################################################################
# Error against regularity
# ------------------------
# A field that follows noise can align the images well, but it changes volumes
# irregularly. The horizontal axis shows this as the standard deviation of the logarithm
# of the Jacobian determinant J. For an image and a smoothly deformed copy of it, smooth
# fields have the smallest error. For two different brains, the default smoothness gives
# the best overlap (see :doc:`/benchmark`).

figure("sd_log_jacobian", "SD of log J", "linear")

###############################################################################
# Percentage of folded voxels in both directions, and the inversion error:

for row in rows:
    folds = row["folds_percent"] + row["folds_inverse_percent"]
    print(
        f"{row['pair']:14} {row['method']:10} folds {folds:.4f} %, inversion error "
        f"{row['round_trip_mean']:.4f} mm mean, {row['round_trip_max']:.3f} mm maximum"
    )
