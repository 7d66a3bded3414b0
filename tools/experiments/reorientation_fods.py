r"""Directions of reoriented FODs and of raw series: closed forms, MRtrix3, streamlines.

    export DIPY_DL_REG_DATA=FOLDER
    python -m tools.experiments.reorientation_fods

FOLDER holds ``diffusion/subject_d`` (dwi.nii.gz, dwi.bval, dwi.bvec) and
``diffusion/subject_a`` and ``subject_c`` (fa.nii.gz, v1.nii.gz). mrtransform is run if
it is installed.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import logging
from pathlib import Path
import platform
import shutil
import sys
import tempfile
import time
import warnings

import dipy
from dipy.reconst.dti import TensorModel
import numpy as np

from dipy_dl_reg import (
    apply_mapping,
    transform_dwi,
    transform_fods,
    transform_streamlines,
    transform_tensors,
)
from dipy_dl_reg.diffusion.fods import reorient_fods
from dipy_dl_reg.diffusion.frames import frame_to_world
from dipy_dl_reg.diffusion.harmonics import HarmonicBasis
from tools.experiments.reorientation import rotation
from tools.experiments.reorientation_data import (
    WHITE_MATTER,
    angles,
    callosal_seeds,
    first_eigenvectors,
    mean_tangents,
    read_fitted,
    read_maps,
    register,
    track,
)
from tools.experiments.reorientation_fods_data import (
    FACTORS,
    amplitudes,
    climb,
    fit_fods,
    largest_peaks,
    read_series,
    run_mrtransform,
    warp_constant_with_mrtrix,
)

#: Printed first.
EXPLANATION = """\
All angles are in degrees. positive: transform_fods as it is by default, with
non-negative weights. squares: weights="least_squares". MRtrix3: mrtransform
-reorient_fod yes -interp linear, through the same map as a deformation field. none:
linear interpolation of the coefficients in the axes of the world.
"""
METHODS = ("positive", "squares", "MRtrix3", "none")
WEIGHTS = {"positive": "nonnegative", "squares": "least_squares"}


def closed_forms():
    """Names and matrices that deform directions."""
    for degrees in (10, 45, 90):
        yield f"rotation by {degrees} degrees", rotation([1, 2, -1], degrees)
    for amount in (0.1, 0.2, 0.4):
        shear = np.eye(3)
        shear[0, 1] = amount
        yield f"shear by {amount}", shear
    yield "fan, edge: stretch 1.6", np.array([[1.6, 0.2, 0], [0, 1, 0], [0, 0, 1]])


def errors_of_fibres(matrix, factors, count=24):
    """Errors of the peaks of single fibres in `count` directions, by each method."""
    basis = HarmonicBasis("mrtrix", 2 * len(factors) - 2)
    fibres = np.random.default_rng(0).normal(size=(count, 3))
    sh = basis.evaluate(fibres) * np.asarray(factors)[basis.degrees // 2]
    wanted = fibres @ matrix.T
    matrices = np.broadcast_to(matrix, (count, 3, 3))
    found = {
        name: reorient_fods(sh, matrices, basis, weights=weights)
        for name, weights in WEIGHTS.items()
    }
    if shutil.which("mrtransform"):
        found["MRtrix3"] = warp_constant_with_mrtrix(sh, matrix)
    errors = {
        name: angles(climb(values, basis, wanted), wanted)
        for name, values in found.items()
    }
    return errors | {"none": angles(fibres, wanted)}


def report_closed_forms():
    """Print the errors of maps whose effect on directions is known."""
    print(
        "Closed forms: mean and largest angle between the peak and the deformed fibre"
    )
    for shape, factors in FACTORS.items():
        print(f"{shape:28s}" + "".join(f"{m:>14s}" for m in METHODS))
        for name, matrix in closed_forms():
            errors = errors_of_fibres(matrix, factors)
            cells = (
                f"{errors[m].mean():7.2f}{errors[m].max():7.2f}" if m in errors else ""
                for m in METHODS
            )
            print(f"  {name:26s}" + "".join(f"{cell:>14s}" for cell in cells))
    print()


def transform_all(mapping, sh, grids, folder, *, modulate=False):
    """FODs in MRtrix3's basis, through a map by each method."""
    found = {
        name: transform_fods(
            mapping, sh, basis="mrtrix", weights=weights, modulate=modulate
        )
        for name, weights in WEIGHTS.items()
    }
    if shutil.which("mrtransform"):
        options = ["-modulate", "fod"] if modulate else []
        found["MRtrix3"] = run_mrtransform(mapping, sh, *grids, folder, *options)
    return found | {"none": apply_mapping(mapping, sh)}


def print_row(name, found):
    """One line of a table: median and 90th percentile of each method."""
    cells = (
        f"{np.median(found[m]):7.1f}{np.percentile(found[m], 90):7.1f}"
        if m in found
        else ""
        for m in METHODS
    )
    count = len(found["none"])
    print(f"  {name:42s}" + "".join(f"{c:>14s}" for c in cells) + f"{count:8d}")


def report_map(moving, static, sh, basis, folder):
    """Print the angles of FODs through the map of two subjects."""
    mapping = register(moving, static, "this package")
    grids = moving.affine, static.fa.shape, static.affine
    warped = transform_all(mapping, sh, grids, folder)
    print(f"{moving.name} to {static.name}: median and 90th percentile")
    print(f"  {'':42s}" + "".join(f"{m:>14s}" for m in METHODS) + f"{'voxels':>8s}")
    peaks = largest_peaks(sh, basis)
    followed = moving._replace(v1=peaks @ frame_to_world(moving.affine))
    fa = apply_mapping(mapping, moving.fa.astype(np.float32))
    seeds = {"callosum": callosal_seeds(followed), "white matter": moving.fa > 0.4}
    for name, where in seeds.items():
        lines = track(followed, where)
        moved = transform_streamlines(mapping, lines)
        tangents = mean_tangents(lines, moved, fa, static.affine)
        found = {
            m: angles(climb(w[tangents.inside], basis, tangents.after), tangents.after)
            for m, w in warped.items()
        }
        print_row(f"to streamlines, {name}", found)
        off = found["none"] > 10
        print_row(
            "  where 'none' is off by over 10", {m: f[off] for m, f in found.items()}
        )
    inside = (moving.fa > WHITE_MATTER) & (sh[..., 0] > 0)
    back = {
        m: transform_fods(mapping, warped[m], basis="mrtrix", weights=w, inverse=True)[
            inside
        ]
        for m, w in WEIGHTS.items()
    }
    back["none"] = apply_mapping(mapping, warped["none"], inverse=True)[inside]
    own = peaks[inside]
    print_row(
        "there and back, white matter",
        {m: angles(climb(b, basis, own), own) for m, b in back.items()},
    )
    inside = (fa > WHITE_MATTER) & (warped["positive"][..., 0] > 0)
    report_differences(warped, basis, inside, "not modulated")
    modulated = transform_all(mapping, sh, grids, folder, modulate=True)
    report_differences(modulated, basis, inside, "modulated")
    print(flush=True)
    return mapping


def report_differences(warped, basis, inside, text):
    """Print how far the results are from MRtrix3's."""
    if "MRtrix3" not in warped:
        return
    inside = inside & (warped["MRtrix3"][..., 0] > 0)
    theirs = warped["MRtrix3"][inside]
    peaks = largest_peaks(theirs, basis)
    for name in WEIGHTS:
        ours = warped[name][inside]
        own = climb(ours, basis, peaks)
        angle = angles(own, peaks)
        ratio = amplitudes(ours, own, basis) / amplitudes(theirs, peaks, basis)
        print(
            f"  {name} beside MRtrix3, {text}: peaks {np.median(angle):.2f} "
            f"(90%: {np.percentile(angle, 90):.2f}), their amplitudes' ratio "
            f"{np.median(ratio):.3f} (10% {np.percentile(ratio, 10):.3f}, "
            f"90% {np.percentile(ratio, 90):.3f}), ratio of degree 0 "
            f"{np.median(ours[:, 0] / theirs[:, 0]):.3f}"
        )


def report_series(mapping, moving, folder):
    """Print how far a fit of the warped series is from the warped fit."""
    series, gtab, affine = read_series(folder, moving.name)
    fa = apply_mapping(mapping, moving.fa.astype(np.float32))
    inside = fa > WHITE_MATTER
    print(f"Raw series of {moving.name}: fit of the warped series, warped fit; medians")
    for method in ("ppd", "finite_strain", "none"):
        start = time.process_time()
        if method == "none":
            warped = apply_mapping(mapping, series, interpolation="linear")
        else:
            warped = transform_dwi(mapping, series, gtab, method=method)
        seconds = time.process_time() - start
        fit = TensorModel(gtab).fit(warped[inside])
        tensors = transform_tensors(
            mapping, moving.tensors, method="ppd" if method == "none" else method
        )[inside]
        evals = np.linalg.eigvalsh(tensors.astype(float))
        angle = angles(fit.evecs[..., 0], first_eigenvectors(tensors))
        fa_change = np.nanmedian(fit.fa - _anisotropy(evals))
        md_change = np.nanmedian(fit.md / evals.mean(-1)) - 1
        print(
            f"  {method:14s} angle {np.median(angle):5.2f} (90% "
            f"{np.percentile(angle, 90):5.2f}), FA {fa_change:+.3f}, "
            f"MD {md_change:+.2%}, {len(angle)} voxels, "
            f"{seconds:.0f} s of CPU for {np.prod(warped.shape[:3])} voxels"
        )
    print(flush=True)


def _anisotropy(evals):
    """FA of eigenvalues."""
    deviations = evals - evals.mean(-1, keepdims=True)
    return np.sqrt(1.5 * (deviations**2).sum(-1) / (evals**2).sum(-1))


def report_time():
    """Print the processor time of a hundred thousand FODs of order 8."""
    basis = HarmonicBasis("descoteaux07", 8)
    random = np.random.default_rng(0)
    factors = np.array(FACTORS["CSD, order 8, b = 3000"])[basis.degrees // 2]
    sh = basis.evaluate(random.normal(size=(100_000, 3))) * factors
    matrices = np.eye(3) + 0.1 * random.normal(size=(100_000, 3, 3))
    for name, weights in WEIGHTS.items():
        start = time.process_time()
        reorient_fods(sh, matrices, basis, weights=weights)
        seconds = time.process_time() - start
        print(f"100000 FODs of order 8, {name}: {seconds:.1f} s of CPU")


def main():
    folder = os.environ.get("DIPY_DL_REG_DATA")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=folder, required=folder is None)
    parser.add_argument(
        "--static", nargs="+", default=["subject_a", "subject_c"], help="names"
    )
    given = parser.parse_args()
    data = Path(given.data) / "diffusion"
    logging.getLogger("dipy").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", PendingDeprecationWarning)
    versions = f"DIPY {dipy.__version__}, NumPy {np.__version__}"
    print(f"Python {platform.python_version()}, {versions}, {platform.machine()}")
    names = " ".join(given.static)
    command = f"python -m tools.experiments.reorientation_fods --static {names}"
    print(f"{os.cpu_count()} processors; {command}\n")
    print(EXPLANATION)
    report_closed_forms()
    moving = read_fitted(data, "subject_d")
    start = time.process_time()
    sh, basis = fit_fods(data, moving)
    seconds = time.process_time() - start
    print(
        f"FODs of subject_d by DIPY's constrained spherical deconvolution, order "
        f"{basis.order}, in {seconds:.0f} s of CPU\n",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.static:
            static = read_maps(data, name)
            mapping = report_map(moving, static, sh, basis, Path(scratch))
            report_series(mapping, moving, data)
            sys.stdout.flush()
    report_time()


if __name__ == "__main__":
    main()
