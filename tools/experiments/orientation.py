r"""Angles between corresponding principal directions after registration.

    export DIPY_DL_REG_DATA=FOLDER
    python -m tools.experiments.orientation --output doc/benchmark/orientation.txt
    python -m tools.experiments.orientation --pairs d:a --methods fods mrregister

FOLDER holds ``diffusion/subject_a``, ``subject_c`` and ``subject_d``, as for
tools/experiments/reorientation.py.  A pair is STATIC:MOVING; by default all ordered
pairs are measured.  All methods start from the same affine, that of
`deep_affine_registration` of the two FA images.

FA        deep_registration of the two FA images, with its defaults
FA, CC    the same with local correlation, without a network
tensors   register_tensors, with its defaults
no FA     the same with fa_weight=0, and FA 0.2 with fa_weight=0.2
fods      register_fods, with its defaults (and weights="least_squares")
mrregister  of MRtrix3 (nonlinear, its defaults) on the same FODs

The subjects have no FODs: theirs are FA times the fourth power of the cosine of the
angle to the principal direction, which is a function of order 4.

Whatever drove the registration, the tensors of moving are transformed by
`transform_tensors` (preservation of principal direction), and the angle between their
principal directions and those of static is measured

in both    where FA is above 0.3 in static and in the transformed tensors: median,
           mean, and mean weighted by the product of both FA values
of static  where FA is above 0.3 in static: mean; these voxels are the same for all
           methods

both within the two brain masks, eroded by two voxels.  "r" is the correlation of FA
within the masks, "Dice" the overlap of the regions of FA above 0.3, "SD" the standard
deviation of the logarithm of the Jacobian determinant, "s" the CPU time (of one thread)
of the registration and, for "tensors" and "fods", of the final transform.

Known fields: the tensors of subject_d (3 mm) are transformed by smooth random fields,
and registered back after independent errors were added to both (normal, 6 % of the
median norm of a tensor).  "error" is the mean distance in mm from the true map where FA
is above 0.25, "angle" the mean angle to the true principal directions there.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from itertools import permutations
import logging
from pathlib import Path
import platform
import resource
import shutil
import subprocess
import tempfile
import time

import dipy
from dipy.align.imwarp import DiffeomorphicMap
from dipy.reconst.dti import fractional_anisotropy
import nibabel as nib
import numpy as np
from scipy.ndimage import binary_erosion, gaussian_filter
import torch

from dipy_dl_reg import (
    apply_mapping,
    deep_affine_registration,
    deep_registration,
    register_fods,
    register_tensors,
    transform_tensors,
)
from dipy_dl_reg.diffusion.frames import frame_to_world
from dipy_dl_reg.diffusion.harmonics import make_basis
from dipy_dl_reg.diffusion.jacobians import map_jacobians
from dipy_dl_reg.geometry.fold_repair import make_diffeomorphic
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.sphere import spread_directions
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.registration.dipy_adapter import make_map
from tools.experiments.reorientation_data import (
    WHITE_MATTER,
    angles,
    first_eigenvectors,
    read_fitted,
    read_maps,
)

METHODS = (
    *("affine", "FA", "FA, CC", "tensors"),
    *("fods", "mrregister", "no FA", "FA 0.2"),
)
#: The pair on which the weight of FA in register_tensors was chosen.
CHOSEN_ON = "c:a"
#: Known fields: longest displacement, in voxels, and errors of tensors.
LONGEST, ERROR = 3.5, 0.06
#: Weights of FA in register_tensors; 0.1 is its default.
WEIGHTS = {"tensors": 0.1, "no FA": 0.0, "FA 0.2": 0.2}
COLUMNS = ("median", "mean", "weighted", "of static", "r", "Dice", "SD", "s")


def fod_image(subject):
    """FODs of order 4 in MRtrix3's basis and frame: FA cos(angle)^4."""
    basis, directions = make_basis("mrtrix", 15), spread_directions(200)
    inverse = np.linalg.pinv(basis.evaluate(directions))
    fods = np.zeros((*subject.fa.shape, 15), np.float32)
    inside = subject.fa > 0
    v1 = subject.v1[inside] @ frame_to_world(subject.affine).T
    cosines = v1 @ directions.T
    fods[inside] = (cosines**4 * subject.fa[inside, None]) @ inverse.T
    return fods


def register_by_mrtrix(static, moving, prealign):
    """The map that mrregister finds from the same affine, for images only."""
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{folder}/{name}.nii" for name in ("moving", "static")]
        for name, subject in zip(names, (moving, static)):
            nib.save(nib.Nifti1Image(fod_image(subject), subject.affine), name)
        np.savetxt(f"{folder}/affine.txt", prealign)
        warps = [f"{folder}/{name}.nii" for name in ("warp", "back")]
        command = ["mrregister", *names, "-type", "nonlinear", "-nl_warp", *warps]
        command += ["-affine_init_matrix", f"{folder}/affine.txt", "-nthreads", "0"]
        subprocess.run([*command, "-quiet"], check=True)
        image = nib.load(warps[0])
        return map_of_points(image.get_fdata(), image.affine, static, moving, prealign)


def map_of_points(points, affine, static, moving, prealign):
    """DIPY's map of a field of points of moving's world, on its own grid."""
    shape = points.shape[:3]
    mapping = DiffeomorphicMap(
        dim=3,
        disp_shape=shape,
        disp_grid2world=affine,
        domain_shape=moving.fa.shape,
        domain_grid2world=moving.affine,
        codomain_shape=static.fa.shape,
        codomain_grid2world=static.affine,
        prealign=np.linalg.inv(prealign),
    )
    grid = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    back = np.linalg.inv(prealign)
    field = points @ back[:3, :3].T + back[:3, 3] - grid
    outside = ~np.isfinite(points).all(-1) | (points == 0).all(-1)
    mapping.backward = np.where(outside[..., None], 0, field).astype(np.float32)
    mapping.forward = np.zeros_like(mapping.backward)
    mapping.is_inverse = True
    return mapping


def run_method(name, static, moving, prealign):
    """The map of a method."""
    geometry = {
        "moving_affine": moving.affine,
        "static_affine": static.affine,
        "prealign": prealign,
        "progress": False,
    }
    fa = {"moving": moving.fa.astype("f4"), "static": static.fa.astype("f4")}
    if name == "affine":
        return deep_registration(**fa, **geometry, level_iters=0, model=None)[1]
    if name == "FA":
        return deep_registration(**fa, **geometry)[1]
    if name == "FA, CC":
        return deep_registration(**fa, **geometry, metric="CC", model=None)[1]
    if name in WEIGHTS:
        weight = WEIGHTS[name]
        images = moving.tensors, static.tensors
        return register_tensors(*images, fa_weight=weight, **geometry)[1]
    if name == "fods":
        fods = fod_image(moving), fod_image(static)
        given = geometry | {"basis": "mrtrix", "weights": "least_squares"}
        return register_fods(*fods, **given)[1]
    return register_by_mrtrix(static, moving, prealign)


def cpu_seconds():
    """CPU time of this process and of those that it started."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def brain_mask(subject):
    """Voxels with a tensor, without the outermost two."""
    return binary_erosion(subject.fa > 0, iterations=2)


def measure(mapping, static, moving):
    """Angles, agreement of FA, and smoothness of a map."""
    tensors = transform_tensors(mapping, moving.tensors)
    inside = apply_mapping(
        mapping, brain_mask(moving), interpolation="nearest"
    ) & brain_mask(static)
    inside &= (tensors != 0).any((-1, -2))
    fa = np.zeros(static.fa.shape)
    fa[inside] = fractional_anisotropy(np.linalg.eigvalsh(tensors[inside]))
    apart = angles(first_eigenvectors(tensors), static.v1)
    white = inside & (static.fa > WHITE_MATTER)
    both = white & (fa > WHITE_MATTER)
    weights = static.fa[both] * fa[both]
    sizes = white.sum() + (inside & (fa > WHITE_MATTER)).sum()
    determinants = np.linalg.det(
        map_jacobians(mapping, static.fa.shape, static.affine)[inside]
    )
    return (
        np.median(apart[both]),
        apart[both].mean(),
        np.average(apart[both], weights=weights),
        apart[white].mean(),
        np.corrcoef(static.fa[inside], fa[inside])[0, 1],
        2 * both.sum() / sizes,
        np.log(np.clip(determinants, 1e-3, None)).std(),
    )


def report_pair(pair, methods, subjects, write):
    """Measure all methods on a pair; return the mean angles in both and of static."""
    static, moving = (subjects[name] for name in pair.split(":"))
    _, prealign = deep_affine_registration(
        moving=moving.fa.astype("f4"),
        static=static.fa.astype("f4"),
        moving_affine=moving.affine,
        static_affine=static.affine,
    )
    found = {}
    for name in methods:
        begin = cpu_seconds()
        mapping = run_method(name, static, moving, prealign)
        seconds = cpu_seconds() - begin
        row = [*measure(mapping, static, moving), seconds]
        found[name] = row
        cells = "".join(
            f"{value:10.1f}" if k < 4 or k == 7 else f"{value:7.3f}"
            for k, value in enumerate(row)
        )
        write(f"{pair:6s}{name:11s}{cells}")
    return found


def known_map(subject, seed):
    """A map of a smooth random field on a subject's own grid."""
    rng, shape = np.random.default_rng(seed), subject.fa.shape
    field = np.stack([gaussian_filter(rng.normal(size=shape), 4) for _ in range(3)])
    longest = np.linalg.norm(field, axis=0)[subject.fa > 0].max()
    field = (LONGEST / longest * field[None]).astype("f4")
    u, v, _ = make_diffeomorphic(torch.from_numpy(field))
    grid = Grid(shape, subject.affine)
    affines = {"static_grid2world": grid.affine, "moving_grid2world": grid.affine}
    return make_map(u, v, Pair(u, u, grid, grid, np.eye(4)), **affines)


def add_errors(tensors, rng):
    """Tensors with independent errors of their components."""
    norms = np.linalg.norm(tensors, axis=(-2, -1))
    errors = rng.normal(0, ERROR * np.median(norms[norms > 0]), tensors.shape)
    errors = (errors + errors.swapaxes(-1, -2)) / np.sqrt(2)
    return tensors + errors * (norms > 0)[..., None, None]


def report_known_fields(subject, write):
    """Register a subject to itself after known deformations."""
    white = brain_mask(subject) & (subject.fa > 0.25)
    write(f"{'field':6s}{'method':16s}{'error':>8s}{'90 %':>8s}{'angle':>8s}")
    for seed in range(2):
        known, rng = known_map(subject, seed), np.random.default_rng(seed)
        tensors = transform_tensors(known, subject.tensors), subject.tensors
        moving, static = (
            subject._replace(tensors=noisy, fa=fa_of(noisy))
            for noisy in (add_errors(each, rng) for each in tensors)
        )
        geometry = {
            "moving_affine": subject.affine,
            "static_affine": subject.affine,
            "progress": False,
        }
        maps = {"FA, CC": run_method("FA, CC", static, moving, np.eye(4))}
        for weight in (0.03, 0.1, 0.2, 0.4):
            maps[f"tensors, {weight}"] = register_tensors(
                moving.tensors, static.tensors, fa_weight=weight, **geometry
            )[1]
        for name, mapping in maps.items():
            error = np.linalg.norm(mapping.backward - known.forward, axis=-1)[white]
            warped = transform_tensors(mapping, moving.tensors)
            angle = angles(first_eigenvectors(warped), subject.v1)[white].mean()
            cells = f"{error.mean():8.2f}{np.percentile(error, 90):8.2f}{angle:8.1f}"
            write(f"{seed:<6d}{name:16s}{cells}")


def fa_of(tensors):
    """FA of tensors, 0 in the background."""
    fa = fractional_anisotropy(np.linalg.eigvalsh(tensors))
    return np.clip(np.nan_to_num(fa), 0, 1)


def report_summary(rows, write):
    """Write the differences of the mean angles to those of the registrations by FA."""
    for method in ("tensors", "fods", "mrregister"):
        for other in ("FA", "FA, CC"):
            pairs = [pair for pair in rows if {method, other} <= rows[pair].keys()]
            kept = [pair for pair in pairs if pair != CHOSEN_ON]
            for title, chosen in (("all pairs", pairs), ("without c:a", kept)):
                for k, name in ((1, "in both"), (3, "of static")):
                    change = [rows[p][method][k] - rows[p][other][k] for p in chosen]
                    if change:
                        write(
                            f"{method} less {other}, mean angle {name}, {title} "
                            f"({len(change)}): {np.mean(change):+.1f} on average, "
                            f"{max(change):+.1f} at most"
                        )


def parse_arguments():
    folder = os.environ.get("DIPY_DL_REG_DATA")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=folder, required=folder is None)
    add("--pairs", nargs="+", metavar="STATIC:MOVING",
        default=[":".join(pair) for pair in permutations("acd", 2)])  # fmt: skip
    add("--methods", nargs="+", choices=METHODS, default=METHODS[:4])
    add("--known", action="store_true", help="measure known fields instead of pairs")
    add("--output", type=Path)
    arguments = parser.parse_args()
    if "mrregister" in arguments.methods and shutil.which("mrregister") is None:
        parser.error("mrregister is not installed.")
    return arguments


def save(path, lines):
    """Write the lines to a file, if one was given."""
    if path:
        path.write_text("\n".join(lines) + "\n")


def main():
    arguments = parse_arguments()
    logging.getLogger("dipy").setLevel("ERROR")
    torch.set_num_threads(1)
    lines = []

    def write(line):
        lines.append(line)
        print(line, flush=True)

    write(
        f"Python {platform.python_version()}, DIPY {dipy.__version__}, torch "
        f"{torch.__version__}, NumPy {np.__version__}, {platform.machine()}; 1 thread"
    )
    write(f"Angles in degrees. The weight of FA was chosen on {CHOSEN_ON}.")
    folder = Path(arguments.data) / "diffusion"
    subjects = {
        "a": read_maps(folder, "subject_a"),
        "c": read_maps(folder, "subject_c"),
        "d": read_fitted(folder, "subject_d"),
    }
    if arguments.known:
        report_known_fields(subjects["d"], write)
        return save(arguments.output, lines)
    widths = (10, 10, 10, 10, 7, 7, 7, 10)
    names = "".join(f"{name:>{width}s}" for name, width in zip(COLUMNS, widths))
    write(f"{'pair':6s}{'method':11s}{names}")
    rows = {
        pair: report_pair(pair, arguments.methods, subjects, write)
        for pair in arguments.pairs
    }
    report_summary(rows, write)
    return save(arguments.output, lines)


if __name__ == "__main__":
    main()
