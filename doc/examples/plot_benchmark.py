"""
========================================
The benchmark, run on what comes bundled
========================================

Claims about speed and accuracy are worth what it costs to check them. This page runs
``python -m tools.benchmarks.deformable --quick`` as it stands: SyN and this package on
two bundled images, each against itself deformed by a field that is known, so that the
error is one in millimetres. It takes under a minute and needs no data; with ``--data
FOLDER`` the same tool takes labelled brains of your own, and with ``--python
NAME=PATH`` other programs (ANTs, Greedy, elastix, FireANTs, syntx). What those gave on
six pairs of brains stands in the section on the benchmark.
"""

###############################################################################
# Run it
# ------
# In a process of its own, for DIPY reads the number of threads as it loads. The methods
# named ``deep-s0.5`` to ``deep-s1.5`` are the default but for ``sigma_field``: rougher,
# and smoother.

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
# Left of SyN is sooner, below it is nearer to the truth. A single run on a busy machine
# says little about a tenth of a second: ``--repeats`` is for that.


def draw(ax, x, words, case):
    """Each method's point on one image."""
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
    """Both images side by side."""
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
# A field can follow noise and still bring the images together: what it does to volumes,
# the spread of the logarithm of its Jacobian determinant, is the price. An image warped
# onto itself rewards smoothness more than two brains do, which differ by more than a
# smooth field; there the default is the better point (see the benchmark's section).

figure("sd_log_jacobian", "SD of log J", "linear")

###############################################################################
# No fold in either direction, and there and back ends where it began:

for row in rows:
    folds = row["folds_percent"] + row["folds_inverse_percent"]
    print(
        f"{row['pair']:14} {row['method']:10} folds {folds:.4f} %, round trip "
        f"{row['round_trip_mean']:.4f} mm on average, {row['round_trip_max']:.3f} most"
    )
