"""
The benchmark on bundled images
===============================

This page runs ``python -m tools.benchmarks.deformable --quick``, which compares SyN and
this package on two bundled images. Each image is registered to a copy of itself that
was deformed by a known field, so the error can be measured in millimetres. It needs no
data. With ``--data FOLDER`` the same tool registers your own labelled brains, and with
``--python NAME=PATH`` it runs other programs (ANTs, Greedy, elastix, FireANTs, syntx).
:doc:`/benchmark` has the results of all of them on pairs of brains, with their times.
"""

# sphinx_gallery_thumbnail_number = 1

###############################################################################
# Run the benchmark
# -----------------
# It runs in a separate process, because DIPY reads the number of threads when it is
# imported. ``deep`` is refinement alone, ``DeepRegistration(model=None)``;
# ``deep-s0.5`` and ``deep-s1.5`` are the same with other values of ``sigma_field``:
# rougher and smoother fields.

import json
from pathlib import Path
import subprocess
import sys
from tempfile import TemporaryDirectory

# The first page of the tutorials links the file example_figures.py.
from example_figures import COLOURS, new_figure
import matplotlib.pyplot as plt
import numpy as np

root = next(p for p in Path.cwd().resolve().parents if (p / "tools").is_dir())
names = {
    "syn": "SyN",
    "deep-s0.5": "refinement, rougher",
    "deep": "refinement alone",
    "deep-s1.5": "refinement, smoother",
}
with TemporaryDirectory() as folder:
    output = Path(folder) / "quick.json"
    command = [sys.executable, "-m", "tools.benchmarks.deformable", "--quick"]
    subprocess.run(
        [*command, "--threads", "2", "--methods", *names, "--output", output],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    results = json.loads(output.read_text())

rows = results["rows"]
print(results["versions"])

###############################################################################
# Error
# -----
# The root mean square of the distance to the known field.

cases = list(dict.fromkeys(row["pair"] for row in rows))
error = {(row["pair"], row["method"]): row["field_rms"] for row in rows}
for case in cases:
    for method, name in names.items():
        print(f"{case:14} {name:20} error {error[case, method]:.3f} mm")

colours = [COLOURS["SyN"], "#9fdcc4", COLOURS["refinement alone"], "#004d3a"]
fig, axes = new_figure(
    "Bars of the error of SyN and of this package with three values of smoothness, on "
    "two images: on the slice SyN has the smallest error, on the volume the largest.",
    aspect=0.5,
)
for place, (method, name) in enumerate(names.items()):
    axes[0, 0].bar(
        np.arange(len(cases)) + 0.2 * (place - 1.5),
        [error[case, method] for case in cases],
        width=0.18,
        color=colours[place],
        label=name,
    )
axes[0, 0].set_xticks(range(len(cases)), cases)
axes[0, 0].set(ylabel="error, mm", ylim=(0, 1.5 * max(error.values())))
axes[0, 0].legend(ncols=2, loc="upper center", fontsize=10)

###############################################################################
# On the slice **SyN is better**: the error of this package is larger with each value of
# the smoothness. On the volume this package is better. Both fields are smooth, so the
# smoother variants have an advantage. Two images say nothing about other images.
#
# Error against regularity
# ------------------------
# A field that follows noise can align the images well, but it changes volumes
# irregularly. The horizontal axis shows this as the standard deviation of the logarithm
# of the Jacobian determinant J. For an image and a smoothly deformed copy of it, smooth
# fields have the smallest error. For two different brains, the default smoothness gives
# the best overlap (see :doc:`/benchmark`).

fig, axes = new_figure(
    "The error of each method against the standard deviation of log J, on two images.",
    columns=2,
)
for ax, case in zip(axes[0], cases, strict=True):
    for row in (r for r in rows if r["pair"] == case):
        place = list(names).index(row["method"])
        point = row["sd_log_jacobian"], row["field_rms"]
        label = names[row["method"]]
        ax.plot(*point, "o", ms=9, color=colours[place], label=label)
    ax.set(title=case, xlabel="SD of log J", ylabel="error, mm")
    ax.margins(0.25)
fig.legend(
    *axes[0, 0].get_legend_handles_labels(),
    ncols=2,
    loc="outside lower center",
    fontsize=11,
)
plt.show()

###############################################################################
# Folds and inversion error
# -------------------------
# Percentage of folded voxels in both directions, and the inversion error:

for row in rows:
    folds = row["folds_percent"] + row["folds_inverse_percent"]
    print(
        f"{row['pair']:14} {names[row['method']]:20} folds {folds:.4f} %, inversion "
        f"error {row['round_trip_mean']:.3f} mm, at most {row['round_trip_max']:.2f} mm"
    )
