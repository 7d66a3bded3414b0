r"""Overlap of the anatomy maps before and after right and wrong maps.

    python -m tools.experiments.anatomy_overlap --data FOLDER --real FOLDER \
        --rows FILE.jsonl --output FILE.txt [--pairs 1000:1001 ...]

FOLDER of --data contains labelled brains, see tools/benchmarks/deformable.py; that of
--real the images of one subject, see tools/experiments/contrasts.py. Each pair is
registered once at 2 mm, T1 to T1, with default options; moving is then also taken as a
b0-like and an FA-like image with the same map. The overlap is measured after the affine
part and after each of these maps (`dipy_dl_reg.anatomy.overlap`):

  right           the map that was found
  half            half its displacement
  inverse         its displacement field replaced by that of the inverse
  double          twice its displacement
  another's       the displacement field of another pair
  random 2, 4     a smooth random field of 2 and 4 mm on average, in place of the map
  error 2, 4      the right map with such a field added

Registered again, T1 to T1, for the first pair and for 1107:1122:
  turned 90, shifted 60  the prealign turned or shifted before the deformation
  z reversed      the voxels of moving reversed from bottom to top, then registered
                  from its centre of mass, affinely and deformably
  mirrored        the same, reversed from left to right
  posed 90        moving's header turned by 90 degrees, and a right prealign

Real images: b0, MD and FA of a subject, moved by known motions, to the T1 image by
default (seeds 10 and 11 for the choice of limits, 0 and 1 reported).

The limits of `dipy_dl_reg.maps.verdict` were chosen on 1000, 1001, 1006, 1012, and
seeds 10 and 11; 1107, 1122 and seeds 0, 1 are reported. "doubtful" counts the maps that
the overlap alone makes doubtful.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from dipy_dl_reg import DeepRegistration, load_mapping, save_mapping
from dipy_dl_reg.anatomy.overlap import measure_anatomy_overlap
from dipy_dl_reg.anatomy.prediction import predict_anatomy
from dipy_dl_reg.geometry.resampling import resample_field
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.verdict import LIMITS
from dipy_dl_reg.registration.affine.call import find_affine
from dipy_dl_reg.registration.dipy_adapter import displacement_to_tensor
from tools.benchmarks.measures import to_world
from tools.experiments.contrast_cases import contrast_case, real_case
from tools.experiments.saved_rows import SavedRows, describe_machine
from tools.experiments.verdict_cases import Image, flip, matrix_about, random_rotation

TUNING = ("1000:1001", "1001:1000", "1006:1012", "1012:1006")
REPORTED = ("1107:1122", "1122:1107")
#: The pair whose field is taken for another pair's.
OTHER = dict.fromkeys((*TUNING, *REPORTED), "1006:1012") | {
    "1006:1012": "1000:1001",
    "1012:1006": "1000:1001",
}
CONTRASTS, REAL = ("T1", "b0", "FA"), ("b0", "MD", "FA")
AGAIN = ("1000:1001", "1107:1122")
STEPS = ["center_of_mass", "rigid", "affine"]


def register(images, folder, name):
    """The map of a pair; it is stored, and read if it was stored before."""
    path = folder / f"{name.replace(':', '_').replace(' ', '_')}.npz"
    if not path.is_file():
        registration = DeepRegistration(progress=False)
        save_mapping(registration.optimize(**images, num_threads=1), path)
    return load_mapping(path)


def get_field(mapping, side="backward"):
    """The field in voxels, and its grid."""
    values = getattr(mapping, side)
    grid = Grid(values.shape[:3], mapping.disp_grid2world)
    return displacement_to_tensor(values, grid), grid


def draw_field(u, grid, millimetres):
    """A smooth random field of a mean length."""
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.normal(size=u.shape), (0, 0, 5, 5, 5))
    noise *= millimetres / grid.spacing[0] / np.linalg.norm(noise, axis=1).mean()
    return u.new_tensor(noise)


def move_field(mapping, grid):
    """The field of another pair on a grid, the centres of both on each other."""
    u, own = get_field(mapping)
    middles = [to_world((np.array(g.shape) - 1) / 2, g.affine) for g in (grid, own)]
    shift = np.eye(4)
    shift[:3, 3] = middles[1] - middles[0]
    return resample_field(u, own, Grid(grid.shape, shift @ grid.affine))


def measure_pair(pair, contrast, arguments):
    """Overlaps of a pair by the name of the map, and of the affine part."""
    case = contrast_case(arguments.data, pair, contrast)
    images = contrast_case(arguments.data, pair, "T1").images
    mapping = register(images, arguments.maps, pair)
    other = OTHER[pair]
    others = contrast_case(arguments.data, other, "T1").images
    another = register(others, arguments.maps, other)
    maps = predict_both(case.images)
    u, grid = get_field(mapping)
    fields = {
        "right": u, "half": u / 2, "inverse": get_field(mapping, "forward")[0],
        "double": 2 * u, "another's": move_field(another, grid),
    }  # fmt: skip
    for size in (2, 4):
        drawn = draw_field(u, grid, size)
        fields |= {f"random {size}": drawn, f"error {size}": u + drawn}
    prealign = mapping.prealign_inv
    found = {
        name: measure_anatomy_overlap(
            *maps, prealign=prealign, displacement=field, grid=grid
        )
        for name, field in fields.items()
    }
    return {name: each[1:] for name, each in found.items()}


def predict_both(images):
    """Anatomy maps of static and moving."""
    return [
        predict_anatomy(
            images[role], Grid(images[role].shape, images[f"{role}_grid2world"])
        )
        for role in ("static", "moving")
    ]


def measure_map(images, mapping):
    """The overlap after the affine part and at the end."""
    u, grid = get_field(mapping)
    found = measure_anatomy_overlap(
        *predict_both(images), prealign=mapping.prealign_inv, displacement=u, grid=grid
    )
    return None if found is None else found[1:]


def make_failures(images):
    """Images of failures by name."""
    moving = Image(images["moving"], images["moving_grid2world"])
    static = Image(images["static"], images["static_grid2world"])
    rng, prealign = np.random.default_rng(0), images["prealign"]
    turn = matrix_about(static.centre, random_rotation(rng, 90))
    shift = np.eye(4)
    shift[:3, 3] = random_rotation(rng, 90) @ np.array([60, 0, 0])
    pose = matrix_about(moving.centre, random_rotation(rng, 90))
    made = {
        "turned 90": {"prealign": prealign @ turn},
        "shifted 60": {"prealign": prealign @ shift},
        "posed 90": {
            "prealign": pose @ prealign,
            "moving_grid2world": pose @ moving.grid2world,
        },
    }
    for name, row in (("z reversed", 2), ("mirrored", 0)):
        axis = int(np.abs(moving.grid2world[row, :3]).argmax())
        turned = flip(moving, axis)
        found = find_affine(
            turned.data, static.data, static_affine=static.grid2world,
            moving_affine=turned.grid2world, pipeline=STEPS, num_threads=1,
        )  # fmt: skip
        made[name] = {"moving": turned.data, "prealign": found.matrix}
    return {name: images | changes for name, changes in made.items()}


def measure_failures(pair, arguments):
    """Overlaps of the failures that are registered again."""
    rows = {}
    images = contrast_case(arguments.data, pair, "T1").images
    for name, failed in make_failures(images).items():
        mapping = register(failed, arguments.maps, f"{pair} {name}")
        rows[name] = measure_map(failed, mapping)
    return rows


def measure_real(kind, seed, arguments):
    """Overlaps of a real image: right, with half the field, and applied inversely."""
    case = real_case(arguments.real, kind, seed)
    mapping = register(case.images, arguments.maps, f"real {kind} {seed}")
    maps, (u, grid) = predict_both(case.images), get_field(mapping)
    fields = {"right": u, "half": u / 2, "inverse": get_field(mapping, "forward")[0]}
    fields |= {"double": 2 * u, "random 4": draw_field(u, grid, 4)}
    return {
        name: measure_anatomy_overlap(
            *maps, prealign=mapping.prealign_inv, displacement=field, grid=grid
        )[1:]
        for name, field in fields.items()
    }


def summarize(rows):
    """Lines: for each part, contrast and map the smallest and largest values."""
    groups = {}
    for (kind, contrast, name), found in rows.items():
        reported = name in (*REPORTED, "seed 0", "seed 1")
        part = "reported" if reported else "tuning"
        words = contrast if kind == "pair" else f"{kind} {contrast}".strip()
        for what, values in found.items():
            groups.setdefault((part, words, what), []).append(values)
    lines = []
    for (part, words, what), found in groups.items():
        known = np.array([each for each in found if each is not None])
        start = f"{part:10s}{words:10s}{what:12s}{len(found):3d}"
        if not len(known):
            lines.append(f"{start}   no brain found")
            continue
        rise = known[:, 1] - known[:, 0]
        doubtful = (rise < -LIMITS["anatomy_fall"]) | (
            known[:, 1] < LIMITS["anatomy_overlap"]
        )
        cells = " ".join(
            f"{x.min():7.3f} {x.max():6.3f}" for x in (known[:, 0], known[:, 1], rise)
        )
        lines.append(f"{start}  {cells}   {int(doubtful.sum())}")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, required=True)
    add("--real", type=Path)
    add("--maps", type=Path, required=True, help="folder of the maps that are stored")
    add("--pairs", nargs="+", default=[*TUNING, *REPORTED])
    add("--seeds", nargs="+", type=int, default=[10, 11, 0, 1])
    add("--rows", type=Path, help="rows that are computed already")
    add("--output", type=Path)
    given = parser.parse_args()
    from dipy.utils.logging import logger

    logger.setLevel("ERROR")
    given.maps.mkdir(exist_ok=True, parents=True)
    saved = SavedRows(given.rows)
    for pair in given.pairs:
        for contrast in CONTRASTS:
            key = ("pair", contrast, pair)
            saved.get(key, lambda: measure_pair(pair, contrast, given))  # noqa: B023
            print(key, flush=True)
    for kind in REAL if given.real else ():
        for seed in given.seeds:
            key = ("real", kind, f"seed {seed}")
            saved.get(key, lambda: measure_real(kind, seed, given))  # noqa: B023
            print(key, flush=True)
    for pair in set(AGAIN) & set(given.pairs):
        key = ("again", "", pair)
        saved.get(key, lambda: measure_failures(pair, given))  # noqa: B023
    lines = [describe_machine(1), ""]
    heads = "affine: least, most   end: least, most     rise: least, most  doubtful"
    lines.append(f"{'':32s}maps   {heads}")
    lines += summarize(saved.rows)
    print(*lines, sep="\n")
    if given.output:
        given.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
