"""Motion correction of a diffusion series with known motion, beside DIPY's.

    export DIPY_DL_REG_DATA=FOLDER
    python -m tools.experiments.motion > doc/benchmark/motion.txt

FOLDER holds diffusion/subject_d: a raw series of 1 b0 and 20 directions at b = 2500,
3 mm, with its gradient table.  Two cases are measured.

simulated: the series is corrected (rigidly), a tensor is fitted, and the signals of 2
b0 volumes and three shells are computed from it, turned and moved by a random walk in
one interpolation (cubic splines), cut by 9 mm at both ends of the z axis so that
volumes show different parts of the head, and given Rician noise.  All is known:
rotation, and translation at the centre, are compared for each shell.

real: the series as it was measured, and the same with a known motion of each volume,
put on it by one interpolation.  The motion found in the second, less the motion that
the same method finds in the first, is compared with what was put on.  DIPY registers
each volume by itself: in the second, `--few` volumes of it are measured.

The residual is that of a tensor fit to the corrected series (weighted least squares,
in a mask of the brain), with the rotated b-vectors: the median over voxels of the root
mean square residual in the diffusion-weighted volumes, as a part of the mean signal.
Interpolation between voxels averages noise, so that errors of the motion can lower the
residual; it is therefore also given for volumes that are smoothed alike (Gaussian, one
voxel) before the fit.

Both methods run in one thread, one after the other; times are CPU times of the process.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
import platform
import time
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import dipy
from dipy.align import motion_correction, register_series
from dipy.core.gradients import gradient_table
from dipy.core.sphere import HemiSphere, disperse_charges
from dipy.reconst.dti import TensorModel
from dipy.segment.mask import median_otsu
import nibabel as nib
import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation
import torch

from dipy_dl_reg import deep_motion_correction, rotate_gradients
from dipy_dl_reg.diffusion.motion_registration import resample_volume

#: b-values and numbers of directions of the simulated series.
SHELLS = ((700, 6), (1500, 6), (2500, 8))
B0S = 2
#: Standard deviations of the steps of the random walk: mm and degrees.
STEP = 0.7
#: b0 signal of the brain over the standard deviation of the noise.
SNR = 25
#: Slices that are cut off at both ends.
CUT = 3


class Series(NamedTuple):
    """A series, its table, and the matrices of its motion."""

    data: np.ndarray
    grid: np.ndarray
    gtab: object
    affines: np.ndarray


def read_series(folder):
    """Read the raw series."""
    image = nib.load(folder / "dwi.nii.gz")
    bvals, bvecs = (np.loadtxt(folder / f"dwi.{part}") for part in ("bval", "bvec"))
    gtab = gradient_table(bvals, bvecs=bvecs.T, b0_threshold=50)
    data = np.asarray(image.dataobj, dtype=np.float32)
    return Series(data, image.affine, gtab, np.repeat(np.eye(4)[..., None], 21, -1))


def centre_of(grid, shape):
    """Centre of an image in the world."""
    return (grid @ np.append((np.array(shape[:3]) - 1) / 2, 1))[:3]


def random_walk(count, centre, seed, step=STEP):
    """Rigid matrices of a head that moves more and more; the first does not."""
    rng = np.random.default_rng(seed)
    shifts, angles = (np.cumsum(rng.normal(0, step, (count, 3)), 0) for _ in "tr")
    matrices = np.empty((4, 4, count))
    for k in range(count):
        turn = Rotation.from_euler("xyz", angles[k] - angles[0], degrees=True)
        matrix = np.eye(4)
        matrix[:3, :3] = turn.as_matrix()
        matrix[:3, 3] = centre + shifts[k] - shifts[0] - matrix[:3, :3] @ centre
        matrices[..., k] = matrix
    return matrices


def move_volume(volume, matrix, grid):
    """The volume as it is measured when the head has moved by a matrix."""
    voxels = np.linalg.inv(grid) @ np.linalg.inv(matrix) @ grid
    return affine_transform(
        volume, voxels[:3, :3], voxels[:3, 3], order=3, mode="nearest"
    )


def simulate(raw, seed=0):
    """Simulate several shells of the subject, with noise and known motion."""
    image, affines = deep_motion_correction(
        raw.data, raw.gtab, raw.grid, num_threads=1, pipeline=["rigid"]
    )
    gtab = rotate_gradients(raw.gtab, affines, grid2world=raw.grid)
    data = np.maximum(image.get_fdata(dtype=np.float32), 1)
    tensors = TensorModel(gtab).fit(data).quadratic_form
    b0 = data[..., gtab.b0s_mask].mean(-1)
    rng = np.random.default_rng(seed)
    bvals = rng.permutation(np.repeat(*np.array(SHELLS).T)).astype(float)
    bvecs = np.zeros((len(bvals), 3))
    for bval, count in SHELLS:
        angles = np.arccos(rng.uniform(-1, 1, count)), rng.uniform(0, 2 * np.pi, count)
        sphere = disperse_charges(HemiSphere(theta=angles[0], phi=angles[1]), 500)[0]
        bvecs[bvals == bval] = sphere.vertices
    places = np.linspace(0, len(bvals), B0S, endpoint=False).astype(int)
    bvals, bvecs = np.insert(bvals, places, 0.0), np.insert(bvecs, places, 0.0, axis=0)
    table = gradient_table(bvals, bvecs=bvecs, b0_threshold=50)
    moves = random_walk(len(bvals), centre_of(raw.grid, b0.shape), seed)
    turned = rotate_gradients(table, moves, grid2world=raw.grid).bvecs
    sigma = np.median(b0[b0 > b0.mean()]) / SNR
    volumes = []
    for k, (bval, g) in enumerate(zip(bvals, turned)):
        decay = np.clip(np.einsum("...ij,i,j", tensors, g, g), 0, 4e-3)
        clean = move_volume(b0 * np.exp(-bval * decay), moves[..., k], raw.grid)
        noise = rng.normal(0, sigma, (2, *b0.shape))
        volumes.append(np.hypot(clean + noise[0], noise[1])[:, :, CUT:-CUT])
    grid = raw.grid.copy()
    grid[:3, 3] += CUT * grid[:3, 2]
    return Series(np.stack(volumes, -1).astype(np.float32), grid, table, moves)


def put_motion(raw, seed=1):
    """Put a known motion on the measured volumes."""
    moves = random_walk(raw.data.shape[3], centre_of(raw.grid, raw.data.shape), seed)
    volumes = [
        move_volume(raw.data[..., k], moves[..., k], raw.grid).clip(0)
        for k in range(raw.data.shape[3])
    ]
    return raw._replace(data=np.stack(volumes, -1), affines=moves)


def run_deep(series, pipeline):
    """Correct by this package: corrected data, affines and CPU time."""
    begin = time.process_time()
    image, affines = deep_motion_correction(
        series.data, series.gtab, series.grid, num_threads=1, pipeline=pipeline
    )
    return image.get_fdata(dtype=np.float32), affines, time.process_time() - begin


def run_dipy(series):
    """Correct by DIPY: corrected data, affines and CPU time."""
    begin = time.process_time()
    image, affines = motion_correction(series.data, series.gtab, affine=series.grid)
    return image.get_fdata(dtype=np.float32), affines, time.process_time() - begin


def run_dipy_volumes(series, volumes):
    """DIPY's registration of some volumes to the only b0 volume, as above."""
    begin = time.process_time()
    chosen = series.data[..., [0, *volumes]]
    _, affines = register_series(
        nib.Nifti1Image(chosen, series.grid),
        0,
        optimizer_options={"gtol": 1e-4, "ftol": 1e-3},
    )
    return affines[..., 1:], time.process_time() - begin


def motion_errors(found, wanted, centre):
    """Angle (degrees) and shift of the centre (mm) between two motions."""
    change = np.linalg.inv(np.moveaxis(wanted, -1, 0)) @ np.moveaxis(found, -1, 0)
    left, _, right = np.linalg.svd(change[:, :3, :3])
    angles = np.degrees(Rotation.from_matrix(left @ right).magnitude())
    shifts = np.linalg.norm(
        change[:, :3, :3] @ centre + change[:, :3, 3] - centre, axis=1
    )
    return angles, shifts


def residual(data, affines, series, sigma=0.0):
    """Residual of a tensor fit, as a part of the mean signal."""
    data = gaussian_filter(data, (sigma, sigma, sigma, 0))
    gtab = rotate_gradients(series.gtab, affines, grid2world=series.grid)
    _, mask = median_otsu(data[..., gtab.b0s_mask].mean(-1), median_radius=2)
    data = np.maximum(data, 1)
    fit = TensorModel(gtab).fit(data, mask=mask)
    weighted = ~gtab.b0s_mask
    b0 = data[..., gtab.b0s_mask].mean(-1)
    difference = (fit.predict(gtab, S0=b0) - data)[mask][:, weighted]
    mean = data[mask][:, weighted].mean(1)
    return float(np.median(np.sqrt((difference**2).mean(1)) / mean))


def print_errors(name, bvals, angles, shifts):
    """Print mean and maximum of the errors of each shell."""
    for bval in np.unique(bvals):
        shell = bvals == bval
        values = [f(x[shell]) for x in (angles, shifts) for f in (np.mean, np.max)]
        numbers = "".join(f"{value:9.2f}" for value in values)
        print(f"{name:18}{bval:6.0f}{shell.sum():5d}{numbers}", flush=True)


HEAD = f"{'':18}{'b':>6}{'n':>5}{'deg mean':>9}{'max':>9}{'mm mean':>9}{'max':>9}"


def measure_simulated(raw):
    """Print errors, residuals and times for the simulated series."""
    series = simulate(raw)
    count = series.data.shape[3]
    print(f"\nsimulated: {count} volumes of {series.data.shape[:3]}, SNR {SNR} at b0")
    centre = centre_of(series.grid, series.data.shape)
    still = np.repeat(np.eye(4)[..., None], count, axis=-1)
    results = {"uncorrected": (series.data, still, 0.0)}
    results["deep, rigid"] = run_deep(series, ["rigid"])
    results["deep, affine"] = run_deep(series, ["rigid", "affine"])
    results["DIPY"] = run_dipy(series)
    volumes = [
        resample_volume(series.data[..., k], series.affines[..., k], series.grid)
        for k in range(count)
    ]
    results["known motion"] = (np.stack(volumes, -1), series.affines, 0.0)
    print(HEAD)
    for name, (_, affines, _) in results.items():
        print_errors(
            name, series.gtab.bvals, *motion_errors(affines, series.affines, centre)
        )
    print_residuals(results, series)


def print_residuals(results, series):
    """Print the residuals of all results, and their CPU times."""
    print(f"{'':18}{'residual':>9}{'smoothed':>9}{'CPU s':>9}{'per volume':>11}")
    for name, (data, affines, seconds) in results.items():
        values = [residual(data, affines, series, sigma) for sigma in (0, 1)]
        numbers = "".join(f"{value:9.4f}" for value in values)
        each = seconds / affines.shape[2]
        print(f"{name:18}{numbers}{seconds:9.1f}{each:11.2f}", flush=True)


def measure_real(raw, few):
    """Print residuals and times for the real series, errors with motion put on it."""
    count = raw.data.shape[3]
    print(f"\nreal: {count} volumes of {raw.data.shape[:3]}, as measured")
    results = {"uncorrected": (raw.data, raw.affines, 0.0)}
    results["deep, rigid"] = run_deep(raw, ["rigid"])
    results["deep, affine"] = run_deep(raw, ["rigid", "affine"])
    results["DIPY"] = run_dipy(raw)
    print_residuals(results, raw)
    moved = put_motion(raw)
    centre = centre_of(raw.grid, raw.data.shape)
    volumes = np.linspace(1, count - 1, few).astype(int)
    print(f"with known motion, volumes {', '.join(map(str, volumes))}")
    print(HEAD)
    bvals = raw.gtab.bvals[volumes]
    wanted = {
        name: (
            np.moveaxis(moved.affines, -1, 0) @ np.moveaxis(affines, -1, 0)
        ).transpose(1, 2, 0)[..., volumes]
        for name, (_, affines, _) in results.items()
    }
    found = {"uncorrected": raw.affines[..., volumes]}
    found["deep, rigid"] = run_deep(moved, ["rigid"])[1][..., volumes]
    found["deep, affine"] = run_deep(moved, ["rigid", "affine"])[1][..., volumes]
    found["DIPY"] = run_dipy_volumes(moved, volumes)[0]
    for name, affines in found.items():
        print_errors(name, bvals, *motion_errors(affines, wanted[name], centre))


def main():
    """Run the cases."""
    from dipy.utils.logging import logger

    logger.setLevel("ERROR")
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    folder = os.environ.get("DIPY_DL_REG_DATA")
    parser.add_argument("--data", type=Path, default=folder)
    parser.add_argument("--cases", nargs="+", default=["simulated", "real"])
    parser.add_argument("--few", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data is needed, or DIPY_DL_REG_DATA.")
    raw = read_series(Path(arguments.data) / "diffusion" / "subject_d")
    print(
        f"{platform.machine()}, 1 thread, DIPY {dipy.__version__}, "
        f"torch {torch.__version__}"
    )
    if "simulated" in arguments.cases:
        measure_simulated(raw)
    if "real" in arguments.cases:
        measure_real(raw, arguments.few)


if __name__ == "__main__":
    main()
