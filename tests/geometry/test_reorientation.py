"""Reorientation in the iteration, against NumPy, DIPY and Jacobians of whole maps."""

from dipy.core.geometry import cart2sphere
from dipy.data import default_sphere
from dipy.reconst.shm import real_sh_descoteaux
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest
import torch

from dipy_dl_reg.diffusion.jacobians import map_jacobians, rotation_of
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.reorientation import (
    HarmonicRotation,
    Reorientation,
    TensorRotation,
    polar_rotation,
    rotate_tensors,
)
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.geometry.tensor_elements import TENSOR_ELEMENTS
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.registration.dipy_adapter import make_map

SHAPE = (11, 13, 17)
#: Oblique, left-handed, unequal voxels.
AFFINE = np.array(
    [[-2.0, 0.5, 0.1, 9], [0.4, 2.2, -0.6, -7], [0.2, 0.5, 3.1, 4], [0, 0, 0, 1]]
)
PREALIGN = np.array(
    [[0.9, -0.4, 0.1, 3], [0.35, 1.0, 0.2, -2], [0, -0.25, 1.1, 5], [0, 0, 0, 1]]
)


def harmonics(order, directions):
    _, theta, phi = cart2sphere(*np.asarray(directions).T)
    return real_sh_descoteaux(order, theta, phi, legacy=False)[0]


def harmonic_rotation(order):
    vertices = default_sphere.vertices
    return HarmonicRotation(vertices, harmonics(order, vertices))


def random_rotations(count, rng):
    matrices = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    return matrices * np.sign(np.linalg.det(matrices))[:, None, None]


def planes(matrices):
    """Matrices (N, 3, 3) as (3, 3, N)."""
    return torch.from_numpy(np.moveaxis(matrices, 0, -1).copy())


def displacement(shape=SHAPE, length=4.0):
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 3, *shape)))
    return smooth(length * noise, 2.0).float()


def full(channels):
    """Six channels (6, ...) as matrices (..., 3, 3)."""
    tensors = np.empty((*channels.shape[1:], 3, 3))
    for value, (i, j) in zip(channels, TENSOR_ELEMENTS):
        tensors[..., i, j] = tensors[..., j, i] = value
    return tensors


def local_rotations(u, affine=AFFINE, prealign=PREALIGN):
    """Finite strain of the whole map, from DIPY's form of the map."""
    shape = tuple(u.shape[2:])
    grid = Grid(shape, affine)
    mapping = make_map(
        u, -u, Pair(u, u, grid, grid, prealign), prealign=prealign,
        static_grid2world=affine, moving_grid2world=affine,
    )  # fmt: skip
    return rotation_of(np.linalg.inv(map_jacobians(mapping, shape, affine)))


def test_polar_rotation():
    rng = np.random.default_rng(0)
    stretches = np.exp(rng.uniform(-0.7, 0.7, (500, 3)))
    left, right = random_rotations(500, rng), random_rotations(500, rng)
    right[::2] *= -1  # reflections
    matrices = left * stretches[:, None] @ np.swapaxes(right, 1, 2)
    found = np.moveaxis(polar_rotation(planes(matrices)).numpy(), -1, 0)
    assert_allclose(found, left @ np.swapaxes(right, 1, 2), atol=1e-3)
    strong = np.diag([1.0, 1.0, 1.5])[None]
    assert_allclose(polar_rotation(planes(strong))[..., 0], np.eye(3), atol=1e-9)


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1.0, 1e4])
def test_singular_matrix_turns_nothing(scale):
    flat = scale * np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 0]])[None]
    assert_array_equal(polar_rotation(planes(flat))[..., 0], np.eye(3))


def test_rotate_tensors():
    rng = np.random.default_rng(0)
    tensors, rotations = rng.normal(size=(6, 40)), random_rotations(40, rng)
    found = rotate_tensors(torch.from_numpy(tensors), planes(rotations)).numpy()
    expected = rotations @ full(tensors) @ np.swapaxes(rotations, 1, 2)
    assert_allclose(full(found), expected, atol=1e-12)


@pytest.mark.parametrize("order", [2, 4])
def test_rotate_harmonics(order):
    """The rotated function in a direction is the function in the direction before."""
    rng = np.random.default_rng(0)
    rotation = harmonic_rotation(order)
    rotations, directions = random_rotations(10, rng), default_sphere.vertices
    coefficients = rng.normal(size=(rotation.count, 10))
    found = rotation(torch.from_numpy(coefficients), planes(rotations)).numpy()
    for k, matrix in enumerate(rotations):
        expected = harmonics(order, directions @ matrix) @ coefficients[:, k]
        assert_allclose(
            harmonics(order, directions) @ found[:, k], expected, atol=1e-10
        )


def test_reorientation_of_tensors():
    """By the whole map: displacement, oblique grid and prealign, as after the fact."""
    u = displacement()
    assert local_rotations(u)[..., 0, 1].std() > 0.05
    channels = torch.randn(1, 7, *SHAPE, generator=torch.Generator().manual_seed(0))
    channels[..., :3, :] = 0  # background
    reorient = Reorientation(TensorRotation())
    found = reorient(channels.clone(), u, Grid(SHAPE, AFFINE), PREALIGN)
    rotations = local_rotations(u)
    before = full(channels[0, :6].numpy())
    expected = rotations @ before @ np.swapaxes(rotations, -1, -2)
    assert_allclose(full(found[0, :6].numpy()), expected, atol=1e-3)
    assert not bool(found[:, :6, :, :, :3].isnan().any())
    assert_array_equal(found[:, 6:], channels[:, 6:])
    assert_array_equal(found[0, :6, ..., :3, :], 0)


def test_reorientation_of_harmonics():
    u, rotation = displacement(), harmonic_rotation(4)
    channels = torch.randn(1, 15, *SHAPE, generator=torch.Generator().manual_seed(0))
    reorient = Reorientation(rotation)
    found = reorient(channels.clone(), u, Grid(SHAPE, AFFINE), PREALIGN)[0].flatten(1)
    rotations = local_rotations(u).reshape(-1, 3, 3)
    expected = rotation(channels[0].flatten(1).double(), planes(rotations))
    assert_allclose(found, expected, atol=1e-3)


def test_fibre_follows_a_turn():
    """Moving is static turned about z by 30 degrees: so is a fibre, and no less."""
    angle = np.deg2rad(30)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    fibre = np.array([np.cos(angle), np.sin(angle), 0])  # of moving
    tensor = np.outer(fibre, fibre)
    channels = torch.tensor([tensor[i, j] for i, j in TENSOR_ELEMENTS]).float()
    channels = channels.view(1, 6, 1, 1, 1).expand(1, 6, 5, 5, 5).contiguous()
    images = channels, torch.zeros(1, 3, 5, 5, 5), Grid((5, 5, 5), np.eye(4))
    found = full(Reorientation(TensorRotation())(*images, turn)[0].numpy())
    assert_allclose(found[2, 2, 2], np.diag([1.0, 0, 0]), atol=1e-6)


@pytest.mark.parametrize(
    "order, message", [(6, "even order up to 4"), ("twice", "independent")]
)
def test_wrong_basis(order, message):
    vertices = default_sphere.vertices
    if order == "twice":
        values = np.repeat(harmonics(2, vertices)[:, :1], 6, axis=1)
    else:
        values = harmonics(order, vertices)
    with pytest.raises(ValueError, match=message):
        HarmonicRotation(vertices, values)
