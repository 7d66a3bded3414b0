"""Gradient tables are rotated with the images, in each frame."""

import shutil
import subprocess

from closed_forms import (
    MOVING,
    MOVING_SHAPE,
    STATIC,
    STATIC_SHAPE,
    angles,
    make_affine_map,
)
from dipy.align.imaffine import AffineMap
from dipy.core.gradients import gradient_table, reorient_bvecs
from dipy.reconst.dti import TensorModel
from dipy.sims.voxel import single_tensor
from maps import oblique_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose
import pytest
from scipy.spatial.transform import Rotation

from dipy_dl_reg import (
    apply_mapping,
    local_rotations,
    reorient_gradients,
    save_local_rotations,
    transform_tensors,
)
from dipy_dl_reg.diffusion.frames import FRAMES, frame_to_world
from dipy_dl_reg.geometry.sphere import spread_directions

TURN = Rotation.from_euler("xyz", [0.3, -0.2, 0.5]).as_matrix()
STRETCH = np.array([[1.1, 0.1, 0], [0.1, 0.9, 0], [0, 0, 1.05]])
EVALS = np.array([1.7e-3, 0.5e-3, 0.2e-3])
BVECS = np.vstack([np.zeros((1, 3)), spread_directions(20, hemisphere=True)])
BVALS = np.r_[0, np.full(20, 1000.0)]
in_both_directions = pytest.mark.parametrize("inverse", [False, True])
in_each_frame = pytest.mark.parametrize("frame", FRAMES)


def homogeneous(linear):
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    return matrix


def series(shape, evecs):
    gtab = gradient_table(BVALS, bvecs=BVECS)
    signal = single_tensor(gtab, 1000, evals=EVALS, evecs=evecs)
    return np.broadcast_to(signal, (*shape, 21)).copy()


@in_each_frame
@in_both_directions
def test_a_fit_with_the_new_table_is_the_turned_tensor(frame, inverse):
    """A series through an affine map, between grids of unlike handedness."""
    matrix = homogeneous(TURN @ STRETCH)
    mapping = make_affine_map(matrix)
    # A direction of the input becomes this one, in the world.
    turn = TURN if inverse else TURN.T
    grids = [(MOVING_SHAPE, MOVING), (STATIC_SHAPE, STATIC)]
    (shape, grid), (_, out_grid) = grids[::-1] if inverse else grids
    axes = Rotation.from_euler("xyz", [0.2, 1.3, -0.5]).as_matrix()
    data = series(shape, frame_to_world(grid, frame).T @ axes)
    warped = apply_mapping(mapping, data, interpolation="linear", inverse=inverse)
    gtab = reorient_gradients(mapping, (BVALS, BVECS), frame=frame, inverse=inverse)
    inside = warped[..., 0] > 999
    assert inside.sum() > 100
    fit = TensorModel(gtab).fit(warped[inside][:50])
    expected = frame_to_world(out_grid, frame).T @ turn @ axes
    for k in range(3):
        assert angles(fit.evecs[..., k], expected[:, k]).max() < 0.1


def test_agrees_with_dipy_in_the_world_frame():
    """DIPY's function takes the rotations of all weighted volumes."""
    table = gradient_table(BVALS, bvecs=BVECS)
    ours = reorient_gradients(
        make_affine_map(homogeneous(TURN @ STRETCH)), table, frame="world"
    )
    theirs = reorient_bvecs(table, [TURN @ STRETCH] * 20)
    assert_allclose(ours.bvals, theirs.bvals)
    # Polar rotations of a matrix and of its inverse are each other's inverse.
    assert_allclose(ours.bvecs, theirs.bvecs, atol=1e-6)


@pytest.mark.skipif(not shutil.which("mrtransform"), reason="needs MRtrix3")
def test_agrees_with_mrtransform(tmp_path):
    """FSL's b-vectors, from an oblique grid to another; MRtrix3 reports the world's."""
    nib.save(
        nib.Nifti1Image(series(MOVING_SHAPE, np.eye(3)), MOVING), tmp_path / "dwi.nii"
    )
    template = np.zeros(STATIC_SHAPE, dtype=np.float32)
    nib.save(nib.Nifti1Image(template, STATIC), tmp_path / "template.nii")
    np.savetxt(tmp_path / "bvecs", BVECS.T)
    np.savetxt(tmp_path / "bvals", BVALS[None])
    np.savetxt(tmp_path / "linear.txt", homogeneous(TURN))
    command = "mrtransform dwi.nii out.mif -fslgrad bvecs bvals -linear linear.txt"
    command += " -template template.nii -quiet"
    subprocess.run(command.split(), check=True, cwd=tmp_path)
    command = ["mrinfo", "-dwgrad", "out.mif"]
    said = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    theirs = np.array(said.stdout.split(), dtype=float).reshape(-1, 4)
    ours = reorient_gradients(
        make_affine_map(homogeneous(TURN)), (BVALS, BVECS), frame="fsl"
    )
    in_world = ours.bvecs @ frame_to_world(STATIC, "fsl").T
    assert_allclose(theirs[:, 3], BVALS, atol=1e-3)
    assert angles(in_world[1:], theirs[1:, :3]).max() < 0.05


def test_affine_maps_without_prealign():
    grid = {"domain_grid_shape": (5, 5, 5), "codomain_grid_shape": (5, 5, 5)}
    gtab = reorient_gradients(AffineMap(None, **grid), (BVALS, BVECS))
    assert_allclose(gtab.bvecs, BVECS, atol=1e-6)
    mapping = oblique_map()
    mapping.prealign = None
    gtab = reorient_gradients(mapping, (BVALS, BVECS), frame="world")
    assert_allclose(gtab.bvecs, BVECS, atol=1e-6)


@in_each_frame
@in_both_directions
def test_rotations_of_voxels_are_those_of_tensors(frame, inverse):
    mapping = oblique_map()
    rotations = local_rotations(mapping, frame=frame, inverse=inverse)
    shapes = [mapping.domain_shape, mapping.codomain_shape]
    given, out_shape = (tuple(s) for s in (shapes[::-1] if inverse else shapes))
    tensor = TURN @ np.diag(EVALS) @ TURN.T
    warped = transform_tensors(
        mapping,
        np.broadcast_to(tensor, (*given, 3, 3)),
        method="finite_strain",
        frame=frame,
        inverse=inverse,
    )
    assert rotations.shape == (*out_shape, 3, 3)
    found = (warped != 0).any((-2, -1))
    expected = rotations @ tensor @ np.swapaxes(rotations, -1, -2)
    assert_allclose(warped[found], expected[found], atol=1e-8)


def test_stretches_do_not_rotate():
    rotations = local_rotations(make_affine_map(homogeneous(STRETCH)), frame="world")
    assert_allclose(rotations[3, 2, 1], np.eye(3), atol=1e-12)


def test_rotations_in_a_file(tmp_path):
    rotations = local_rotations(oblique_map())
    path = tmp_path / "rotations.nii.gz"
    save_local_rotations(path, rotations, STATIC)
    image = nib.load(path)
    assert_allclose(image.affine, STATIC, atol=1e-5)
    data = image.get_fdata()
    assert data.shape == (*rotations.shape[:3], 9)
    assert_allclose(data.reshape(rotations.shape), rotations, atol=1e-6)
    with pytest.raises(FileExistsError, match="exists already"):
        save_local_rotations(path, rotations, STATIC)
    with pytest.raises(ValueError, match="rotations must be of shape"):
        save_local_rotations(path, rotations[0], STATIC, overwrite=True)


def test_lengths_that_were_accepted_are_kept():
    """A table made with a larger tolerance is reoriented, lengths unchanged."""
    bvecs = np.array([[0, 0, 0], [1.03, 0, 0], [0, 0.97, 0]])
    table = gradient_table(np.array([0, 1000, 1000]), bvecs=bvecs, atol=0.05)
    grid = {"domain_grid_shape": (5, 5, 5), "codomain_grid_shape": (5, 5, 5)}
    found = reorient_gradients(AffineMap(np.eye(4), **grid), table, frame="world")
    assert_allclose(np.linalg.norm(found.bvecs, axis=1), [0, 1.03, 0.97])


def test_wrong_maps_and_tables():
    mapping = oblique_map()
    with pytest.raises(ValueError, match="transposed"):
        reorient_gradients(mapping, (BVALS, BVECS.T))
    with pytest.raises(ValueError, match="mapping must be a DiffeomorphicMap"):
        reorient_gradients(np.eye(4), (BVALS, BVECS))
    with pytest.raises(ValueError, match="must be 3D"):
        local_rotations(oblique_map(2))
    with pytest.raises(ValueError, match="frame must be one of"):
        local_rotations(mapping, frame="ras")
