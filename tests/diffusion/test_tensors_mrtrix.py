"""Tensors against MRtrix3: its fit, its frame, and its rotation of gradient tables."""

import shutil
import subprocess

from closed_forms import STATIC, STATIC_SHAPE, angles, principal, world_points
from dipy.align.imaffine import AffineMap
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel
from maps import affine
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose
import pytest
from scipy.ndimage import binary_erosion

from dipy_dl_reg import tensor_matrices, transform_tensors
from dipy_dl_reg.diffusion.frames import frame_to_world

pytestmark = pytest.mark.skipif(
    shutil.which("dwi2tensor") is None, reason="MRtrix3 is not installed"
)

SHAPE = (16, 18, 14)
#: Left- and right-handed voxel axes, oblique.
GRIDS = {
    "left-handed": affine([-2.0, 2, 2.5], (0.2, -0.1, 0.15), [15.0, -18, -16]),
    "right-handed": affine([2.0, 2, 2.5], (0.2, -0.1, 0.15), [-15.0, -18, -16]),
}
with_each_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


def run(*command):
    subprocess.run([*map(str, command), "-quiet", "-force"], check=True)


def directions_in_world(points):
    """A smooth field of fibres without symmetry."""
    x, y, z = np.moveaxis(points, -1, 0) / 40
    vectors = np.stack([0.8 + y, 0.4 - x + z, 0.5 + 0.6 * x], axis=-1)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def write_series(folder, grid, rng):
    """A series of known fibres with FSL's b-vectors; its fit by DIPY."""
    axes = directions_in_world(world_points(SHAPE, grid)) @ frame_to_world(grid, "fsl")
    bvecs = rng.normal(size=(31, 3))
    bvecs /= np.linalg.norm(bvecs, axis=1, keepdims=True)
    bvals = np.full(31, 1000.0)
    bvecs[0], bvals[0] = 0, 0
    signal = 1000 * np.exp(-bvals * (0.4e-3 + 1.3e-3 * (axes @ bvecs.T) ** 2))
    nib.save(nib.Nifti1Image(signal.astype(np.float32), grid), folder / "dwi.nii.gz")
    np.savetxt(folder / "bvecs", bvecs.T)
    np.savetxt(folder / "bvals", bvals[None])
    run(
        *("mrconvert", folder / "dwi.nii.gz", folder / "dwi.mif"),
        *("-fslgrad", folder / "bvecs", folder / "bvals"),
    )
    gtab = gradient_table(bvals, bvecs=bvecs)
    return TensorModel(gtab, fit_method="LS").fit(signal).quadratic_form


def fit_by_mrtrix(folder, series):
    """Image of six components in MRtrix3's order."""
    path = folder / f"{series}_tensors.nii.gz"
    run("dwi2tensor", folder / series, path)
    return nib.load(path)


@with_each_grid
def test_frame_and_order(tmp_path, grid, rng):
    """DIPY's fit with FSL's b-vectors, in the world, is MRtrix3's."""
    fitted = write_series(tmp_path, grid, rng)
    turn = frame_to_world(grid, "fsl")
    theirs = fit_by_mrtrix(tmp_path, "dwi.mif").get_fdata()
    theirs = tensor_matrices(theirs, "mrtrix")
    assert_allclose(turn @ fitted @ turn.T, theirs, rtol=1e-3, atol=2e-7)


@with_each_grid
def test_rotation_of_the_series(tmp_path, grid, rng):
    """MRtrix3 resamples the series and rotates its gradients; the fit is the same."""
    write_series(tmp_path, grid, rng)
    rigid = affine([1.0, 1, 1], (0.4, -0.3, 0.5), [1.5, -2, 1])
    np.savetxt(tmp_path / "rigid.txt", rigid)
    template = nib.Nifti1Image(np.zeros(STATIC_SHAPE, np.float32), STATIC)
    nib.save(template, tmp_path / "template.nii.gz")
    run(
        *("mrtransform", tmp_path / "dwi.mif", tmp_path / "moved.mif"),
        *("-linear", tmp_path / "rigid.txt", "-interp", "linear"),
        *("-template", tmp_path / "template.nii.gz"),
    )
    mapping = AffineMap(
        rigid,
        domain_grid_shape=STATIC_SHAPE,
        domain_grid2world=STATIC,
        codomain_grid_shape=SHAPE,
        codomain_grid2world=grid,
    )
    given, moved = (fit_by_mrtrix(tmp_path, f"{k}.mif") for k in ("dwi", "moved"))
    # MRtrix3 reorders the voxel axes, but not the world's.
    theirs = moved.get_fdata()
    ours = transform_tensors(
        mapping,
        given.get_fdata(),
        order="mrtrix",
        out_shape=theirs.shape[:3],
        out_grid2world=moved.affine,
    )
    # both programs treat the border of the image differently
    inside = binary_erosion((ours != 0).any(-1) & np.isfinite(theirs).all(-1))
    assert inside.sum() > 300
    found, wanted = (tensor_matrices(x[inside], "mrtrix") for x in (ours, theirs))
    off = angles(principal(found), principal(wanted))
    assert np.median(off) < 0.1 and np.percentile(off, 95) < 1
    scale = np.abs(wanted).max()
    assert np.median(np.abs(found - wanted).max((1, 2))) < 0.01 * scale
