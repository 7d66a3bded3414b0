"""Gradient tables: checks, rotation of b-vectors, shells."""

from dipy.core.gradients import gradient_table, reorient_bvecs
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dipy_dl_reg.diffusion.gradient_tables import (
    check_gradient_table,
    find_shells,
    rotate_gradients,
)

BVALS = np.array([0.0, 1000, 1000, 2000])
BVECS = np.array([[0, 0, 0], [1, 0, 0], [0, 0.6, 0.8], [0, 0, 1]])


def affines_of(*angles):
    """Rotations by angles (degrees) about x, y, z, with scales and translations."""
    matrices = np.repeat(np.eye(4)[None], len(angles), axis=0)
    turns = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrices[:, :3, :3] = turns @ np.diag([1.02, 0.99, 1.01])
    matrices[:, :3, 3] = [4, 5, 6]
    return np.moveaxis(matrices, 0, -1)


ANGLES = [(0, 0, 0), (10, 20, 30), (-15, 5, 8), (40, -20, 3)]


@pytest.mark.parametrize(
    "bvals, bvecs, message",
    [
        (BVALS, BVECS.T, "transposed"),
        (BVALS, 2 * BVECS, "volume 1 is 2 long"),
        (BVALS + 100, BVECS + [[1, 0, 0], *[[0, 0, 0]] * 3], "must have a b0 volume"),
        (BVALS, BVECS[:3], r"shape \(4, 3\)"),
        (-BVALS, BVECS, "from 0"),
        (BVALS * np.nan, BVECS, "finite"),
        ([None] * 4, BVECS, "finite"),
        (["a", "b", "c", "d"], BVECS, "numbers"),
        (
            BVALS + 60,
            BVECS,
            r"volume 0 is 0 long .*: if this is a b0 volume, b0_threshold must be at "
            r"least its b-value, 60 \(it is 50\)",
        ),
    ],
)
def test_wrong_tables(bvals, bvecs, message):
    with pytest.raises(ValueError, match=message):
        check_gradient_table((bvals, bvecs), 4)


def test_square_table_transposed():
    bvecs = Rotation.from_euler("xyz", (20, 30, 40), degrees=True).as_matrix()
    bvecs[0] = 0
    with pytest.raises(ValueError, match="transposed"):
        check_gradient_table((BVALS[:3], bvecs.T))


def test_number_of_volumes():
    table = gradient_table(BVALS, bvecs=BVECS)
    assert check_gradient_table(table, 4) is table
    with pytest.raises(ValueError, match="4 entries for 5 volumes"):
        check_gradient_table(table, 5)
    with pytest.raises(ValueError, match="GradientTable or a pair"):
        check_gradient_table(BVALS)


@pytest.mark.parametrize("turn", [False, True])
def test_files(tmp_path, turn):
    paths = tmp_path / "bval", tmp_path / "bvec"
    np.savetxt(paths[0], BVALS[None])
    np.savetxt(paths[1], BVECS.T if turn else BVECS)
    table = check_gradient_table(paths, 4)
    np.testing.assert_allclose(table.bvecs, BVECS)
    with pytest.raises(FileNotFoundError, match="missing"):
        check_gradient_table((paths[0], tmp_path / "missing"))
    paths[1].write_text("no numbers")
    with pytest.raises(ValueError, match="no gradient table"):
        check_gradient_table(paths)


def test_one_part_in_a_file(tmp_path):
    paths = tmp_path / "bval", tmp_path / "bvec"
    np.savetxt(paths[0], BVALS[None])
    np.savetxt(paths[1], BVECS.T)
    for pair in ((BVALS, paths[1]), (str(paths[0]), BVECS)):
        table = check_gradient_table(pair, 4)
        np.testing.assert_allclose(table.bvals, BVALS)
        np.testing.assert_allclose(table.bvecs, BVECS)
    paths[1].write_text("no numbers")
    with pytest.raises(ValueError, match="bvec is no gradient table"):
        check_gradient_table((BVALS, paths[1]))


def test_lengths_that_were_accepted_are_kept():
    """A table checked with a larger tolerance is rotated, lengths unchanged."""
    bvecs = BVECS * np.array([1, 1.03, 1, 0.97])[:, None]
    table = check_gradient_table((BVALS, bvecs), atol=0.05)
    found = rotate_gradients(
        table, affines_of(*ANGLES), grid2world=np.eye(4), frame="world"
    )
    np.testing.assert_allclose(
        np.linalg.norm(found.bvecs, axis=1), np.linalg.norm(bvecs, axis=1)
    )
    np.testing.assert_allclose(found.bvals, BVALS)


def test_rotation_agrees_with_dipy_in_world_axes():
    affines = affines_of(*ANGLES)
    table = gradient_table(BVALS, bvecs=BVECS)
    ours = rotate_gradients(table, affines, grid2world=np.eye(4), frame="world")
    theirs = reorient_bvecs(table, affines[..., 1:])
    np.testing.assert_allclose(ours.bvecs, theirs.bvecs, atol=1e-12)
    np.testing.assert_allclose(ours.bvals, BVALS)


@pytest.mark.parametrize("frame", ["voxel", "fsl", "world"])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_angle_to_a_fibre_is_kept(frame, signs):
    """A fibre of the head has the angle to its b-vector that it had when measured.

    The head's fibre is d; in volume k, which was measured turned, it is R d.  Both are
    compared with b-vectors in world axes, through FSL's definition of its frame.
    """
    oblique = Rotation.from_euler("xyz", (25, -10, 15), degrees=True).as_matrix()
    grid = np.eye(4)
    grid[:3, :3] = oblique @ np.diag(np.array(signs) * [2.0, 2, 3])
    to_world = oblique @ np.diag(signs).astype(float)
    if frame == "world":
        to_world = np.eye(3)
    if frame == "fsl" and np.prod(signs) > 0:
        to_world = to_world @ np.diag([-1.0, 1, 1])
    affines = affines_of(*ANGLES)
    turns = Rotation.from_euler("xyz", ANGLES, degrees=True).as_matrix()
    found = rotate_gradients((BVALS, BVECS), affines, grid2world=grid, frame=frame)
    fibre = np.array([0.3, -0.5, 0.81])
    for k in range(1, 4):
        measured = (to_world @ BVECS[k]) @ (turns[k] @ fibre)
        corrected = (to_world @ found.bvecs[k]) @ fibre
        assert abs(measured - corrected) < 2e-3  # the scales turn the polar part a bit


def test_b_tensors_are_rotated():
    table = gradient_table(BVALS, bvecs=BVECS, btens="LTE")
    affines = affines_of(*ANGLES)
    found = rotate_gradients(table, affines, grid2world=np.eye(4))
    for k in (1, 2, 3):
        outer = found.bvals[k] * np.outer(found.bvecs[k], found.bvecs[k])
        np.testing.assert_allclose(found.btens[k], outer, atol=1e-6)


def test_wrong_affines():
    with pytest.raises(ValueError, match=r"affines must be of shape \(4, 4, N\)"):
        rotate_gradients((BVALS, BVECS), np.eye(4), grid2world=np.eye(4))
    with pytest.raises(ValueError, match="4 entries for 3 volumes"):
        affines = affines_of(*ANGLES[:3])
        rotate_gradients((BVALS, BVECS), affines, grid2world=np.eye(4))


def test_shells():
    bvals = np.array([5, 995, 0, 2990, 1005, 1000, 3010, 500, 1020])
    bvecs = np.repeat([[1.0, 0, 0]], 9, axis=0)
    table = gradient_table(bvals, bvecs=bvecs, b0_threshold=50)
    shells = [list(shell) for shell in find_shells(table)]
    assert shells == [[0, 2], [7], [1, 4, 5, 8], [3, 6]]


def test_frame_in_doubt_is_a_warning(caplog):
    affines = affines_of(*ANGLES)
    rotate_gradients((BVALS, BVECS), affines, grid2world=np.diag([-1.0, 1, 1, 1]))
    assert not caplog.records
    rotate_gradients((BVALS, BVECS), affines, grid2world=np.eye(4))
    assert "frame was not given" in caplog.text
