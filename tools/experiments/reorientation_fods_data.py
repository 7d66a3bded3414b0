"""FODs of a real subject, their peaks, and mrtransform.

For `tools.experiments.reorientation_fods`.
"""

from pathlib import Path
import subprocess
import tempfile

from dipy.core.gradients import gradient_table
from dipy.io.gradients import read_bvals_bvecs
from dipy.reconst.csdeconv import (
    ConstrainedSphericalDeconvModel,
    auto_response_ssst,
)
import nibabel as nib
import numpy as np

from dipy_dl_reg import convert_harmonics
from dipy_dl_reg.diffusion.harmonics import HarmonicBasis
from dipy_dl_reg.diffusion.spherical_functions import evaluate_harmonics, power_matrix
from dipy_dl_reg.geometry.sphere import spread_directions

#: Shapes of one fibre: factors of degrees 0, 2, 4 ... of DIPY's constrained spherical
#: deconvolution of a tensor of 1.7 and 0.3 10^-3 mm^2/s, and of the delta function.
FACTORS = {
    "CSD, order 8, b = 3000": [1, 0.996, 0.788, 0.426, 0.183],
    "CSD, order 8, b = 1000": [1, 0.954, 0.645, 0.333, 0.110],
    "CSD, order 4, b = 2500": [1, 0.993, 0.839],
    "delta cut off at order 8": [1, 1, 1, 1, 1],
}


def read_series(folder, name):
    """The raw series, its gradient table and affine."""
    image = nib.load(folder / name / "dwi.nii.gz")
    bvals, bvecs = read_bvals_bvecs(
        str(folder / name / "dwi.bval"), str(folder / name / "dwi.bvec")
    )
    bvecs /= np.maximum(np.linalg.norm(bvecs, axis=1, keepdims=True), 1e-6)
    bvecs[bvals < 50] = 0
    gtab = gradient_table(bvals, bvecs=bvecs)
    return image.get_fdata(dtype=np.float32), gtab, image.affine


def fit_fods(folder, subject):
    """FODs in MRtrix3's basis and axes, order 4, inside the mask of the tensors."""
    series, gtab, affine = read_series(folder, subject.name)
    response, _ = auto_response_ssst(gtab, series, roi_radii=12, fa_thr=0.7)
    model = ConstrainedSphericalDeconvModel(gtab, response, sh_order_max=4)
    fit = model.fit(series, mask=subject.fa > 0.1)
    sh = convert_harmonics(fit.shm_coeff, "descoteaux07", "mrtrix", affine=affine)
    return sh.astype(np.float32), HarmonicBasis("mrtrix", 4)


def climb(sh, basis, near):
    """Peaks next to directions, found on ever finer grids of directions."""
    steps = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2)
    found = near / np.linalg.norm(near, axis=-1, keepdims=True)
    powers = power_matrix(basis)
    # Small steps first, so that the peak of another fibre is not found.
    for size in [0.05] * 8 + list(0.05 * 0.6 ** np.arange(1, 13)):
        frames = np.linalg.svd(found[:, None])[2][:, 1:]
        tried = found[:, None] + size * np.einsum("sk,vki->vsi", steps, frames)
        tried /= np.linalg.norm(tried, axis=-1, keepdims=True)
        best = evaluate_harmonics(powers, tried, sh).argmax(1)
        found = tried[np.arange(len(tried)), best]
    return found


def largest_peaks(sh, basis):
    """The largest peak of each FOD; zero where there is none."""
    directions = spread_directions(600, hemisphere=True)
    functions = basis.evaluate(directions).T
    peaks = np.zeros((*sh.shape[:-1], 3))
    present = (sh != 0).any(-1)
    largest = np.concatenate(
        [(part @ functions).argmax(1) for part in np.array_split(sh[present], 50)]
    )
    peaks[present] = climb(sh[present], basis, directions[largest])
    return peaks


def amplitudes(sh, directions, basis):
    """Amplitude of each FOD along one direction."""
    return (basis.evaluate(directions) * sh).sum(1)


def run_mrtransform(mapping, sh, moving, shape, static, folder, *options):
    """MRtrix3's result through a map, on the grid of static."""
    voxels = np.indices(shape).reshape(3, -1).T
    points = mapping.transform_points(voxels @ static[:3, :3].T + static[:3, 3])
    deformation = np.reshape(points, (*shape, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(deformation, static), folder / "warp.nii")
    return _call(sh, moving, static, folder, "-warp", "warp.nii", *options)


def warp_constant_with_mrtrix(sh, matrix):
    """FODs through one linear map that deforms directions by a matrix."""
    size = len(sh)
    grid = np.diag([2.0, 2, 2, 1])
    linear = np.eye(4)
    linear[:3, :3] = np.linalg.inv(matrix)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.savetxt(folder / "linear.txt", linear)
        image = nib.Nifti1Image(np.zeros((3, 3, 3), np.float32), grid)
        nib.save(image, folder / "template.nii")
        for k in range(size):
            constant = np.broadcast_to(sh[k], (13, 13, 13, sh.shape[1]))
            moving = grid.copy()
            moving[:3, 3] = -12
            options = ["-linear", "linear.txt", "-template", "template.nii"]
            warped = _call(constant, moving, grid, folder, *options)
            results.append(warped[0, 0, 0])
    return np.array(results)


def _call(sh, moving, static, folder, *options):
    """Run mrtransform on FODs; the axes of the result are those of static."""
    nib.save(nib.Nifti1Image(sh.astype(np.float32), moving), folder / "sh.nii")
    command = ["mrtransform", "sh.nii", "out.nii", "-interp", "linear", "-force"]
    command += ["-reorient_fod", "yes", "-quiet", "-nthreads", "1", *options]
    subprocess.run(command, check=True, cwd=folder)
    out = nib.load(folder / "out.nii")
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(out.affine), nib.io_orientation(static)
    )
    return out.as_reoriented(turn).get_fdata(dtype=np.float32)
