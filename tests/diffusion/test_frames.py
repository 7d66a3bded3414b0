"""Frames of directions."""

from maps import affine
import numpy as np
from numpy.testing import assert_allclose
import pytest

from dipy_dl_reg.diffusion.frames import FRAMES, change_of_frame, frame_to_world

OBLIQUE = affine([2.0, 1.5, 3.0], (0.3, -0.2, 0.1), [4.0, 5, 6])
FLIPPED = affine([-2.0, 1.5, 3.0], (0.3, -0.2, 0.1), [4.0, 5, 6])


@pytest.mark.parametrize("matrix", [OBLIQUE, FLIPPED])
def test_voxel_axes_are_the_columns_of_the_affine(matrix):
    """A step along an array axis is that direction in the world."""
    columns = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    assert_allclose(frame_to_world(matrix), columns, atol=1e-12)


def test_fsl_reverses_the_first_axis_of_right_handed_images():
    assert_allclose(
        frame_to_world(OBLIQUE, "fsl"), frame_to_world(OBLIQUE) * [-1, 1, 1]
    )
    assert_allclose(frame_to_world(FLIPPED, "fsl"), frame_to_world(FLIPPED))
    assert np.linalg.det(frame_to_world(OBLIQUE, "fsl")) < 0


@pytest.mark.parametrize("frame", FRAMES)
def test_matrix_is_orthogonal_even_of_a_sheared_affine(frame):
    sheared = OBLIQUE @ np.array(
        [[1, 0.2, 0, 0], [0, 1, 0.1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    found = frame_to_world(sheared, frame)
    assert_allclose(found @ found.T, np.eye(3), atol=1e-12)


def test_change_of_frame_goes_through_the_world():
    found = change_of_frame(OBLIQUE, "fsl", FLIPPED, "voxel")
    wanted = frame_to_world(FLIPPED).T @ frame_to_world(OBLIQUE, "fsl")
    assert_allclose(found, wanted)
    assert_allclose(change_of_frame(OBLIQUE, "world", FLIPPED, "world"), np.eye(3))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="frame must be one of"):
        frame_to_world(OBLIQUE, "scanner")
    with pytest.raises(ValueError, match="affine must have the shape"):
        frame_to_world(np.eye(3))
