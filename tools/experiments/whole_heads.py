r"""Registration of whole heads, measured by labels, against the same brains stripped.

    python -m tools.experiments.whole_heads --data FOLDER --output FILE.txt \
        [--rows FILE.jsonl] [--pairs 1:2 2:1] [--methods default ...]

FOLDER contains NAME_t1.nii.gz, heads with skull, and NAME_labels.nii.gz, labels of
their brains; heads are numbered by the order of their names. The first pair (1:2 and
2:1) is the one on which options are chosen; all others are reported. Stripped images
are 0 outside the labels, holes and sulci filled.

Cases, static <- moving:
  stripped        both stripped, prealigned by an affine of the stripped images
  head, affine    both whole, prealigned by the same affine
  head            both whole, registered from the poses of the scanner: centre of mass,
                  rigid, affine and deformation
  head, turned    the same, moving turned by a known rotation of 50 degrees and shifted
  head to brain   moving whole, static stripped, from the poses of the scanner
  brain to head   moving stripped, static whole
and both subjects of a pair to the MNI152 template of nilearn, which is stripped:
  template, stripped  both subjects stripped
  template, head      both whole
For these, Dice compares the labels of both subjects on the template.

Methods: default; no masks, with masks that contain everything, so that none are found
(the rows of 1:2 were computed before heads were masked by default); oracle, with masks
of the true brains, 4 mm wider, for all steps; oracle deform, with these masks for the
deformation only; no anatomy, without maps; affine alone. Dice is the mean over the
labels of both images, nearest neighbour; the last columns are the mean distance in mm
of the affine part from that of the stripped images over the brain, the smallest
Jacobian determinant, SD log J, and CPU seconds.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from functools import lru_cache
import inspect
from pathlib import Path
import time
from typing import NamedTuple

from nibabel import Nifti1Image, load
import numpy as np
from scipy.ndimage import binary_closing, binary_dilation, binary_fill_holes

from tools.benchmarks.cases import warp_labels
from tools.benchmarks.measures import dice, jacobian_determinant, to_world
from tools.experiments.saved_rows import SavedRows, describe_machine
from tools.experiments.verdict_cases import load_template, matrix_about, random_rotation

STEPS = ["center_of_mass", "rigid", "affine"]
#: Voxels by which the masks of the brain are wider than the brain.
MARGIN = 2
TURN, SHIFT = 50, 40
CASES = ("stripped", "head, affine", "head", "head, turned", "head to brain")
CASES += ("brain to head", "template, stripped", "template, head")
METHODS = (
    "default",
    "no masks",
    "oracle",
    "oracle deform",
    "no anatomy",
    "affine alone",
)


class Head(NamedTuple):
    """A head, its labels, and its brain."""

    data: np.ndarray
    grid2world: np.ndarray
    labels: np.ndarray
    brain: np.ndarray

    def stripped(self):
        """The head with 0 outside the brain."""
        return self._replace(data=np.where(self.brain, self.data, 0))


@lru_cache
def read_head(path):
    """Read a head; nothing is resampled."""
    image = load(path)
    labels = load(str(path).replace("_t1.nii.gz", "_labels.nii.gz"))
    values = np.asarray(labels.dataobj).astype(np.int32)
    brain = binary_fill_holes(binary_closing(values > 0, iterations=2))
    return Head(image.get_fdata(dtype=np.float32), image.affine, values, brain)


def register(static, moving, method, *, steps=STEPS, prealign=None):
    """Register two heads: the map and CPU seconds."""
    from dipy_dl_reg import DeepRegistration, deep_registration

    options = {"model": None, "level_iters": 0} if method == "affine alone" else {}
    if (
        method == "no anatomy"
        and "anatomy" in inspect.signature(DeepRegistration).parameters
    ):
        options["anatomy"] = False
    masks = {}
    if method.startswith("oracle"):
        for role, head in (("static", static), ("moving", moving)):
            wider = binary_dilation(head.brain, iterations=MARGIN)
            masks[f"{role}_mask"] = wider.astype(np.uint8)
    if method == "no masks":
        masks["static_mask"] = np.ones(static.data.shape, np.uint8)
    first = {} if method == "oracle deform" else masks
    images = {"static": static, "moving": moving}
    images = {k: Nifti1Image(v.data, v.grid2world) for k, v in images.items()}
    start = time.process_time()
    if steps:
        _, affine = deep_registration(
            **images, pipeline=list(steps), num_threads=1, **first
        )
        prealign = affine.prealign_inv
    _, mapping = deep_registration(
        **images, prealign=prealign, num_threads=1, **masks, **options
    )
    return mapping, time.process_time() - start


def measure(static, moving, mapping, reference, seconds):
    """The row of a registration."""
    labels = {
        "static": static.labels, "static_grid2world": static.grid2world,
        "moving": moving.labels, "moving_grid2world": moving.grid2world,
    }  # fmt: skip
    common = np.intersect1d(static.labels, moving.labels)
    overlap = dice(static.labels, warp_labels(labels, mapping), common[common > 0])
    brain = to_world(np.argwhere(static.brain)[::97], static.grid2world)
    gap = to_world(brain, mapping.prealign_inv) - to_world(brain, reference)
    return {
        "dice": float(overlap.mean()),
        "affine_mm": float(np.linalg.norm(gap, axis=1).mean()),
        **measure_regularity(mapping),
        "cpu_s": seconds,
    }


def measure_regularity(mapping):
    """Smallest Jacobian determinant and SD log J of the map."""
    determinant = jacobian_determinant(mapping.backward, mapping.disp_grid2world)
    return {
        "least_jacobian": float(determinant.min()),
        "sd_log_j": float(np.log(determinant.clip(1e-3)).std()),
    }


@lru_cache
def find_reference(static_path, moving_path):
    """Affine of the stripped images, static world to moving world."""
    pair = [read_head(path).stripped() for path in (static_path, moving_path)]
    return register(*pair, "affine alone")[0].prealign_inv


def run_case(case, method, static_path, moving_path):
    """Register a pair in one of the cases."""
    static, moving = read_head(static_path), read_head(moving_path)
    if case.startswith("template"):
        return run_template(case, method, (static, moving))
    reference, options = find_reference(static_path, moving_path), {}
    if case in ("stripped", "head, affine"):
        options = {"steps": (), "prealign": reference}
    if case in ("stripped", "head to brain"):
        static = static.stripped()
    if case in ("stripped", "brain to head"):
        moving = moving.stripped()
    if case == "head, turned":
        centre = to_world(np.argwhere(moving.brain), moving.grid2world).mean(0)
        rng = np.random.default_rng(0)
        turn = matrix_about(centre, random_rotation(rng, TURN), (SHIFT, 0, 0))
        moving = moving._replace(grid2world=turn @ moving.grid2world)
        reference = turn @ reference
    mapping, seconds = register(static, moving, method, **options)
    return measure(static, moving, mapping, reference, seconds)


def run_template(case, method, subjects):
    """Register both subjects to the template, and compare their labels there."""
    template = load_template()
    inside = template.data > 0
    static = Head(*template, inside.astype(np.int32), inside)
    warped, rows = [], []
    for subject in subjects:
        moving = subject.stripped() if case.endswith("stripped") else subject
        mapping, seconds = register(static, moving, method)
        labels = {
            "static": static.labels, "static_grid2world": static.grid2world,
            "moving": moving.labels, "moving_grid2world": moving.grid2world,
        }  # fmt: skip
        warped.append(warp_labels(labels, mapping))
        rows.append(measure_regularity(mapping) | {"cpu_s": seconds})
    common = np.intersect1d(*warped)
    row = {key: float(np.mean([r[key] for r in rows])) for key in rows[0]}
    overlap = dice(*warped, common[common > 0])
    return {"dice": float(overlap.mean()), "affine_mm": None, **row}


def format_table(rows, threads):
    """The table as lines: each row, then means without the first pair."""
    lines = [describe_machine(threads), ""]
    names = f"{'case':20s}{'method':15s}{'pair':7s}"
    lines.append(f"{names}  Dice   affine  least J  SD log J  CPU s")
    groups = {}
    for (case, method, pair), row in rows.items():
        lines.append(format_row(case, method, pair, row))
        if pair not in ("1:2", "2:1"):
            groups.setdefault((case, method), []).append(row)
    lines.append("")
    for (case, method), found in groups.items():
        row = {
            key: None if value is None else float(np.mean([f[key] for f in found]))
            for key, value in found[0].items()
        }
        lines.append(format_row(case, method, f"{len(found)}", row))
    return lines


def format_row(case, method, pair, row):
    """One line of the table."""
    away = "     -" if row["affine_mm"] is None else f"{row['affine_mm']:6.2f}"
    return (
        f"{case:20s}{method:15s}{pair:7s}{row['dice']:.4f}  {away}   "
        f"{row['least_jacobian']:6.3f}    {row['sd_log_j']:6.3f} {row['cpu_s']:6.1f}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, required=True)
    add("--output", type=Path)
    add("--rows", type=Path, help="rows that are computed already")
    add("--pairs", nargs="+", metavar="STATIC:MOVING")
    add("--cases", nargs="+", choices=CASES, default=list(CASES))
    add("--methods", nargs="+", choices=METHODS, default=["default"])
    given = parser.parse_args()
    from dipy.utils.logging import logger  # DIPY sets the level when it is imported

    logger.setLevel("ERROR")
    paths = sorted(given.data.glob("*_t1.nii.gz"))
    forth = [(k + 1, k + 2) for k in range(0, len(paths) - 1, 2)]
    every = [f"{a}:{b}" for p in forth for a, b in (p, p[::-1])]
    saved = SavedRows(given.rows)
    for pair in given.pairs or every:
        static, moving = (paths[int(number) - 1] for number in pair.split(":"))
        for case in given.cases:
            if case.startswith("template") and int(pair[0]) > int(pair[-1]):
                continue
            for method in given.methods:
                row = saved.get(
                    (case, method, pair),
                    lambda: run_case(case, method, static, moving),  # noqa: B023
                )
                print(format_row(case, method, pair, row), flush=True)
    lines = format_table(saved.rows, 1)
    print(*lines, sep="\n")
    if given.output:
        given.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
