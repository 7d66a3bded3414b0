r"""Error rates of the verdict, on correct pairs and simulated failures.

    python -m tools.experiments.verdicts --part report --brains BRAINS \
        --heads HEADS [HEADS ...] --subjects SUBJECT [SUBJECT ...] --fa FA [FA ...]

BRAINS and HEADS are folders of T1 images (*t1.nii.gz) without and with skull; each
SUBJECT is a folder with t1, b0, fa and md (.nii.gz) of a person; each FA is the FA map
of another person. The first half of each is the part ``choose``, on which the
thresholds of `dipy_dl_reg.maps.verdict` were chosen. The second half is the part
``report``.

Each pair is registered from its centre of mass, affinely and then deformably. Pairs
without a simulated error are assumed to be registered correctly; check those with
another verdict (--pictures). A simulated failure is wrong if its map differs from the
map of the correct registration by 3 mm or more on average over static's object.
Otherwise the registration has recovered, and the case is not counted.

The output contains the verdict of each case; for each kind of case, the numbers of
good, doubtful, failed and recovered ones; the rate of false alarms (correct pairs that
are not "good"); and the rate of missed failures (failures that are "good"), for all
kinds and without the two kinds that exchange left and right.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from collections import Counter, defaultdict
import logging
from pathlib import Path
import platform
import time
import warnings

import numpy as np
import torch

from dipy_dl_reg import DeepRegistration, __version__
from dipy_dl_reg.maps.verdict import GRADES, judge
from dipy_dl_reg.registration.affine.call import find_affine
from tools.experiments.verdict_cases import coarsen, make_cases

#: Mean distance between two maps (mm) at which one of them is wrong.
WRONG = 3.0
STEPS = ["center_of_mass", "translation", "rigid", "affine"]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--brains", type=Path, required=True)
    parser.add_argument("--heads", type=Path, nargs="+", required=True)
    parser.add_argument("--subjects", type=Path, nargs="*", default=[])
    parser.add_argument("--fa", type=Path, nargs="*", default=[])
    parser.add_argument("--voxel", type=float, help="resample all to this size, mm")
    parser.add_argument("--part", choices=("choose", "report"), default="report")
    parser.add_argument("--only", help="run only kinds that contain this text")
    parser.add_argument(
        "--pictures",
        type=Path,
        help="folder for figures of correct pairs that are not good",
    )
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def register(case, *, right_way=False):
    """Register a case; return its map and its verdict."""
    static, moving = case.static, case.moving
    masks = {}
    if case.everywhere and not right_way:
        masks = {"static_mask": np.ones(static.data.shape, bool)}
    prealign, poses = case.prealign, None
    if prealign is None:
        found = find_affine(
            moving=moving.data,
            static=static.data,
            moving_affine=moving.grid2world,
            static_affine=static.grid2world,
            pipeline=STEPS,
            **masks,
        )
        prealign, poses = found.matrix, found.poses
    if case.change is not None and not right_way:
        # Without a search over rotations, as for a prealign passed by a user.
        prealign, poses = prealign @ case.change, None
    registration = DeepRegistration(**case.options or {}, progress=False)
    mapping = registration.optimize(
        static=static.data,
        moving=moving.data,
        static_grid2world=static.grid2world,
        moving_grid2world=moving.grid2world,
        prealign=prealign,
        **masks,
    )
    return mapping, judge(registration.verdict.measures, poses=poses)


def mean_distance(case, mapping, other):
    """Mean distance between two maps over static's object, mm."""
    data = case.static.data
    voxels = np.argwhere(data > 0.1 * np.quantile(data, 0.999))[::101]
    matrix = case.static.grid2world
    points = voxels @ matrix[:3, :3].T + matrix[:3, 3]
    ends = (np.asarray(m.transform_points(points)) for m in (mapping, other))
    return float(np.linalg.norm(np.subtract(*ends), axis=1).mean())


def draw_pair(folder, number, case, mapping, verdict):
    """Draw a correct pair whose verdict is not good."""
    from dipy_dl_reg.maps.report import plot_registration

    folder.mkdir(parents=True, exist_ok=True)
    plot_registration(
        folder / f"{number}.png",
        case.static.data,
        case.moving.data,
        mapping,
        title=case.kind,
        verdict=verdict,
    )


def print_table(table):
    """Print the verdicts of each kind, and both error rates."""
    print(f"\n{'kind':32s} right  good  doubtful  failed  recovered")
    for (right, kind), found in sorted(table.items(), reverse=True):
        counts = "".join(f"{found[g]:8d}" for g in (*GRADES, "recovered"))
        print(f"{kind:32s} {'yes' if right else 'no':4s}{counts}")

    def rate(name, rows, wrong):
        total = sum(row[g] for row in rows for g in GRADES)
        bad = sum(row[g] for row in rows for g in wrong)
        print(f"{name}: {bad} of {total} ({100 * bad / max(1, total):.1f} %)")

    print()
    alarms = [row for (right, _), row in table.items() if right]
    rate("false alarms", alarms, ("doubtful", "failed"))
    failures = {kind: row for (right, kind), row in table.items() if not right}
    rate("failures missed", failures.values(), ("good",))
    known = [row for kind, row in failures.items() if not kind.startswith("left is")]
    rate("failures missed, without left for right", known, ("good",))


def main():
    given = parse_arguments()
    torch.set_num_threads(given.threads)
    logging.getLogger("dipy").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    brains = sorted(given.brains.glob("*t1.nii.gz"))
    heads = [sorted(folder.glob("*t1.nii.gz")) for folder in given.heads]
    print(
        f"dipy_dl_reg {__version__}, torch {torch.__version__}, {platform.machine()}, "
        f"{given.threads} threads; part {given.part}"
    )
    table, start = defaultdict(Counter), time.perf_counter()
    every = make_cases(brains, heads, given.subjects, given.part, given.fa)
    for number, case in enumerate(every):
        if given.only and given.only not in case.kind:
            continue
        if given.voxel:
            images = (coarsen(image, given.voxel) for image in case[2:4])
            case = case._replace(**dict(zip(("static", "moving"), images)))
        mapping, verdict = register(case)
        grade, note = verdict.grade, ""
        if case.reference:
            away = mean_distance(case, mapping, register(case, right_way=True)[0])
            note = f" ({away:.1f} mm from the right map)"
            grade = "recovered" if away < WRONG else grade
        table[case.right, case.kind][grade] += 1
        print(f"{number:3d} {case.kind}{note}: {verdict}", flush=True)
        if given.pictures and case.right and grade != "good":
            draw_pair(given.pictures, number, case, mapping, verdict)
    print_table(table)
    print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
