"""The mean of affine maps, against closed forms."""

import numpy as np
import pytest
from scipy.linalg import logm

from dipy_dl_reg.groupwise.mean_affine import remove_mean_affine


def turn(degrees, shift=(0, 0, 0)):
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = shift
    return matrix


def random_affines(rng, count=5):
    matrices = []
    for _ in range(count):
        matrix = turn(rng.uniform(-40, 40), rng.normal(0, 60, 3))
        matrix[:3, :3] = matrix[:3, :3] @ (np.eye(3) + rng.normal(0, 0.08, (3, 3)))
        matrices.append(matrix)
    return matrices


def test_known_means():
    """Halfway between two rotations, and the geometric mean of two scales."""
    first, second = remove_mean_affine([turn(10), turn(70)])
    np.testing.assert_allclose(first, turn(-30), atol=1e-8)
    np.testing.assert_allclose(second, turn(30), atol=1e-8)
    scales = remove_mean_affine([np.diag([k, 1, 1, 1]) for k in (1.0, 2.0, 4.0)])
    np.testing.assert_allclose([m[0, 0] for m in scales], [0.5, 1, 2], atol=1e-8)


def test_mean_logarithm_is_zero_and_relations_stay(rng):
    matrices = random_affines(rng)
    centred = remove_mean_affine(matrices)
    mean = np.mean([logm(m).real for m in centred], axis=0)
    np.testing.assert_allclose(mean, 0, atol=1e-7)
    for (a, b), (c, d) in zip(zip(matrices, matrices[1:]), zip(centred, centred[1:])):
        np.testing.assert_allclose(
            a @ np.linalg.inv(b), c @ np.linalg.inv(d), atol=1e-6
        )


def test_does_not_depend_on_the_reference(rng):
    """The common space in which the maps were found makes no difference."""
    matrices = random_affines(rng)
    other = random_affines(rng, 1)[0]
    moved = remove_mean_affine([matrix @ other for matrix in matrices])
    for first, second in zip(remove_mean_affine(matrices), moved):
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_rigid_maps_stay_rigid(rng):
    centred = remove_mean_affine([turn(5, (3, 0, 1)), turn(31, (0, 40, 2)), turn(-170)])
    for matrix in centred:
        np.testing.assert_allclose(
            matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-7
        )


def test_bad_input():
    with pytest.raises(ValueError, match=r"affines\[1\]"):
        remove_mean_affine([np.eye(4), np.zeros((4, 4))])
    mirror = np.diag([-1.0, 1, 1, 1])
    with pytest.raises(ValueError, match="mirrored or turned"):
        remove_mean_affine([np.eye(4), np.eye(4), mirror])
