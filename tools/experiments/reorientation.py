r"""Angles of reoriented tensors: closed forms, there and back, warped streamlines.

    export DIPY_DL_REG_DATA=FOLDER
    python -m tools.experiments.reorientation

FOLDER holds ``diffusion/subject_d`` (dwi.nii.gz, dwi.bval, dwi.bvec) and
``diffusion/subject_a`` and ``subject_c`` (fa.nii.gz, v1.nii.gz, md.nii.gz if there is
one).
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import logging
from pathlib import Path
import platform
import sys
import time

import dipy
from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg import apply_mapping, transform_streamlines, transform_tensors
from dipy_dl_reg.diffusion.frames import frame_to_world
from tools.experiments.reorientation_data import (
    WHITE_MATTER,
    angles,
    callosal_seeds,
    coherence,
    first_eigenvectors,
    mean_tangents,
    read_fitted,
    read_maps,
    register,
    track,
)

#: Printed first.
EXPLANATION = """\
All angles are in degrees. ppd: preservation of principal direction; strain: finite
strain; both with log-Euclidean interpolation. none: linear interpolation of the
components in the axes of the world, without reorientation.
Streamlines are tracked by DIPY (EuDX, FA above 0.2) in the moving image and warped by
transform_streamlines. In the voxels of the warped white matter (FA above 0.3) through
which streamlines of one direction pass, their mean direction is compared with the
first eigenvector of the warped tensors. The line below each part states how well
both agree in the moving image, before any map: less cannot be expected afterwards,
except that interpolation smooths the tensors.
"""
METHODS = ("ppd", "finite_strain", "none")
EVALS = np.array([1.7e-3, 0.5e-3, 0.2e-3])
#: Moving, static, program.
MAPS = (
    ("subject_c", "subject_a", "this package"),
    ("subject_d", "subject_a", "this package"),
    ("subject_d", "subject_a", "SyN"),
    ("subject_a", "subject_c", "this package"),
)


def world_tensors(subject):
    """Tensors in the axes of the world."""
    turn = frame_to_world(subject.affine)
    return turn @ subject.tensors @ turn.T


def transform(mapping, tensors, method, *, inverse=False):
    """Tensors in world axes through a map, by a method or without reorientation."""
    if method != "none":
        return transform_tensors(
            mapping, tensors, method=method, frame="world", inverse=inverse
        )
    flat = tensors.reshape(*tensors.shape[:3], 9)
    warped = apply_mapping(mapping, flat, inverse=inverse)
    return warped.reshape(*warped.shape[:3], 3, 3)


# Closed forms.


def rotation(axis, degrees):
    """Rotation around an axis."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def warp_constant(linear, axes, method):
    """First eigenvectors of a constant tensor through ``x -> linear @ x``."""
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    static = np.eye(4)
    static[:3, :3] = rotation([1, 2, 3], 20) * [2, -1.5, 2.5]
    moving = np.eye(4)
    moving[:3, :3] = rotation([3, 1, -1], -15) * [1.8, 2.2, 1.6]
    for grid in (static, moving):
        grid[:3, 3] = grid[:3, :3] @ [-6, -6, -6]
    grids = {
        "domain_grid_shape": (13, 13, 13),
        "domain_grid2world": static,
        "codomain_grid_shape": (13, 13, 13),
        "codomain_grid2world": moving,
    }
    tensors = np.broadcast_to(axes @ np.diag(EVALS) @ axes.T, (13, 13, 13, 3, 3))
    turn = frame_to_world(moving)
    warped = transform_tensors(
        AffineMap(matrix, **grids), turn.T @ tensors @ turn, method=method
    )
    turn = frame_to_world(static)
    warped = turn @ warped[(warped != 0).any((-2, -1))] @ turn.T
    return first_eigenvectors(warped)


def constant_errors(linear, axes):
    """Largest angle to the deformed fibre, with each method and without."""
    wanted = np.linalg.inv(linear) @ axes[:, 0]
    found = [
        angles(warp_constant(linear, axes, method), wanted).max()
        for method in METHODS[:2]
    ]
    return [*found, float(angles(axes[:, 0], wanted))]


def fan_errors(rate=0.02, size=20.0, step=2.0):
    """A straight bundle along y that becomes a fan: largest angles inside."""
    n = int(2 * size / step) + 1
    grid = np.diag([step, step, step, 1.0])
    grid[:3, 3] = -size
    points = np.moveaxis(np.indices((n, n, 5)), 0, -1) * step - size
    width = 1 + rate * (points[..., 1] + size)
    mapping = DiffeomorphicMap(
        3, (n, n, 5), disp_grid2world=grid, domain_grid2world=grid
    )
    mapping.codomain_grid2world = grid
    mapping.allocate()
    mapping.backward[..., 0] = points[..., 0] / width - points[..., 0]
    mapping.forward[..., 0] = points[..., 0] * width - points[..., 0]
    mapping.is_inverse = True
    wanted = np.zeros(points.shape)
    wanted[..., 0], wanted[..., 1] = rate * points[..., 0] / width, 1
    tensors = np.broadcast_to(np.diag(EVALS[[1, 0, 2]]), (n, n, 5, 3, 3))
    inner = np.s_[1:-1, 1:-1, 1:-1]
    return [
        angles(first_eigenvectors(transform(mapping, tensors, m)), wanted)[inner].max()
        for m in METHODS
    ]


def report_closed_forms():
    """Print the errors of maps whose effect on directions is known."""
    axes = rotation([1, 1, 0.3], 50)
    print("Closed forms: largest angle between the first eigenvector and the fibre")
    print(f"{'':24s}{'ppd':>8s}{'finite strain':>15s}{'none':>8s}")
    rows = [
        (f"rotation by {d} degrees", constant_errors(rotation([1, 2, -1], d), axes))
        for d in (10, 45, 90)
    ]
    for amount in (0.2, 0.6, 1.0):
        shear = np.eye(3)
        shear[0, 1] = amount
        rows.append((f"shear by {amount}", constant_errors(shear, axes)))
    rows.append(("fanning bundle", fan_errors()))
    for name, (ppd, strain, none) in rows:
        print(f"{name:24s}{ppd:8.3f}{strain:15.2f}{none:8.2f}")
    print("Finite strain follows rotations only; a shear also turns fibres.\n")


# Real tensors.


def report_frames(subjects):
    """Print in which frame the first eigenvectors fit the anatomy."""
    print("Mean angle between a first eigenvector and the next one along it")
    print(f"{'':12s}{'as stored':>11s}{'x reversed':>12s}{'y reversed':>12s}")
    for subject in subjects:
        found = [coherence(subject, s) for s in ([1, 1, 1], [-1, 1, 1], [1, -1, 1])]
        print(f"{subject.name:12s}{found[0]:11.1f}{found[1]:12.1f}{found[2]:12.1f}")
    print(
        "The affines' determinants are negative: the frames 'voxel' and 'fsl' are the "
        "same,\nand 'world' has x reversed. The vectors are in voxel axes.\n"
    )


def measure_return(mapping, moving, warped, inside):
    """Angles after there and back, in some voxels of moving."""
    before = first_eigenvectors(world_tensors(moving)[inside])
    return {
        method: angles(
            first_eigenvectors(
                transform(mapping, warped[method], method, inverse=True)[inside]
            ),
            before,
        )
        for method in METHODS
    }


def measure_streamlines(mapping, moving, static, warped, lines):
    """Angles of first eigenvectors and warped streamlines, and how far these turned."""
    moved = transform_streamlines(mapping, lines)
    fa = apply_mapping(mapping, moving.fa.astype(np.float32))
    tangents = mean_tangents(lines, moved, fa, static.affine)
    found = {
        method: angles(
            first_eigenvectors(warped[method][tangents.inside]), tangents.after
        )
        for method in METHODS
    }
    return found, angles(tangents.before, tangents.after)


def measure_correspondence(mapping, moving, static, warped):
    """Angles between warped and static first eigenvectors in both white matters."""
    fa = apply_mapping(mapping, moving.fa.astype(np.float32))
    inside = (fa > WHITE_MATTER) & (static.fa > WHITE_MATTER)
    own = first_eigenvectors(world_tensors(static)[inside])
    return {
        method: angles(first_eigenvectors(warped[method][inside]), own)
        for method in METHODS
    }


def print_row(name, found, chosen=slice(None)):
    """One line of a table: medians, and the 90th percentile of ppd."""
    medians = "".join(f"{np.median(found[m][chosen]):9.1f}" for m in METHODS)
    ppd = found["ppd"][chosen]
    print(f"  {name:46s}{medians}{np.percentile(ppd, 90):9.1f}{len(ppd):9d}")


def report_map(moving, static, program):
    """Print the table of one map."""
    start = time.process_time()
    mapping = register(moving, static, program)
    seconds = time.process_time() - start
    tensors = world_tensors(moving)
    warped = {method: transform(mapping, tensors, method) for method in METHODS}
    print(f"{moving.name} to {static.name}, FA, by {program} ({seconds:.0f} s of CPU)")
    heads = "".join(f"{head:>9s}" for head in ("ppd", "strain", "none", "ppd 90%"))
    print(f"  {'median angle':46s}{heads}{'voxels':>9s}")
    seeds = {"corpus callosum": callosal_seeds(moving), "white matter": moving.fa > 0.4}
    for name, where in seeds.items():
        lines = track(moving, where)
        found, turned = measure_streamlines(mapping, moving, static, warped, lines)
        print_row(f"to streamlines, {name}", found)
        print_row("  where the map turns them by over 10", found, turned > 10)
        print_row("  where 'none' is off by over 10", found, found["none"] > 10)
        still = mean_tangents(lines, lines, moving.fa, moving.affine)
        own = first_eigenvectors(tensors[still.inside])
        before = angles(own, still.before)
        print(
            f"    {len(lines)} streamlines; in moving, before the map: median "
            f"{np.median(before):.1f}, 90% {np.percentile(before, 90):.1f}"
        )
    back = measure_return(mapping, moving, warped, still.inside)
    print_row("there and back, voxels of these streamlines", back)
    others = measure_correspondence(mapping, moving, static, warped)
    print_row(f"to the tensors of {static.name}", others)
    print()


def main():
    folder = os.environ.get("DIPY_DL_REG_DATA")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=folder, required=folder is None)
    given = parser.parse_args()
    logging.getLogger("dipy").setLevel(logging.ERROR)
    versions = f"DIPY {dipy.__version__}, NumPy {np.__version__}"
    print(f"Python {platform.python_version()}, {versions}, {platform.machine()}")
    print(f"{os.cpu_count()} processors; python -m tools.experiments.reorientation\n")
    print(EXPLANATION)
    report_closed_forms()
    data = Path(given.data) / "diffusion"
    subjects = {
        "subject_a": read_maps(data, "subject_a"),
        "subject_c": read_maps(data, "subject_c"),
        "subject_d": read_fitted(data, "subject_d"),
    }
    report_frames(subjects.values())
    for moving, static, program in MAPS:
        report_map(subjects[moving], subjects[static], program)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
