"""Mid-space between two images does not depend on which of them is static."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
import torch

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization.midspace import halve_prealign, make_midspace_grid
from dipy_dl_reg.initialization.network import predict_displacement
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.networks import make_network


def affine(angles, zooms, shift):
    """Rotation (degrees), stretch and shift (mm), (4, 4)."""
    matrix = np.eye(4)
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, :3] = turn * zooms
    matrix[:3, 3] = shift
    return matrix


def two_grids():
    """An oblique grid, one of another orientation, and the prealign between them."""
    static = Grid((24, 30, 20), affine((5, -8, 3), (-2, 2, 2.5), (20, -31, -28)))
    prealign = affine((-9, 4, 6), (1.1, 0.95, 1.2), (31, 12, -7))
    middle = prealign @ static.affine @ [*(np.array(static.shape) - 1) / 2, 1]
    turned = affine((0, 0, 90), (2, 2.2, 1.8), (0, 0, 0))
    shape = (28, 22, 26)
    turned[:3, 3] = (
        middle[:3] - turned[:3, :3] @ ((np.array(shape) - 1) / 2) + [3, 1, 2]
    )
    return static, Grid(shape, turned), prealign


def swapped(static, moving, prealign):
    return moving, static, np.linalg.inv(prealign)


@pytest.mark.parametrize("dim", [2, 3])
def test_two_halves_give_the_prealign(dim):
    prealign = affine((25, -40, 10), (1.2, 0.8, 0.9), (30, -5, 12))
    if dim == 2:
        turn = np.deg2rad(50)
        prealign = np.array(
            [[np.cos(turn), -1.2 * np.sin(turn), 9], [np.sin(turn), np.cos(turn), -4]]
            + [[0, 0, 1]]
        )
    half = halve_prealign(prealign)
    assert np.abs(half - np.eye(dim + 1)).max() > 0.1
    np.testing.assert_allclose(half @ half, prealign, atol=1e-10)


@pytest.mark.parametrize(
    "prealign", [np.diag([-1.0, 1, 1, 1]), affine((0, 0, 90), 1, (0, 0, 0))]
)
def test_reflections_and_large_rotations_are_not_halved(prealign):
    grid = Grid((20, 20, 20), np.eye(4))
    assert halve_prealign(prealign) is None
    assert make_midspace_grid(grid, grid, prealign) is None


@pytest.mark.parametrize("spacing", [None, 3.0])
def test_the_grid_is_the_same_for_swapped_images(spacing):
    static, moving, prealign = two_grids()
    there = make_midspace_grid(static, moving, prealign, spacing)
    back = make_midspace_grid(*swapped(static, moving, prealign), spacing)
    assert there.shape == back.shape
    # The same places, each in the world of its own static image.
    np.testing.assert_allclose(prealign @ there.affine, back.affine, atol=1e-8)
    if spacing is not None:
        half = halve_prealign(prealign) @ there.affine
        np.testing.assert_allclose(Grid(there.shape, half).spacing, spacing)


def test_two_equal_standard_grids_are_kept():
    grid = Grid((20, 22, 18), np.diag([2.0, 2.0, 2.0, 1.0]))
    found = make_midspace_grid(grid, grid, np.eye(4), 2.0)
    assert found.shape == grid.shape
    np.testing.assert_allclose(found.affine, grid.affine, atol=1e-10)


def test_the_grid_covers_little_beyond_the_overlap():
    slab = Grid((40, 40, 6), np.diag([2.0, 2.0, 2.0, 1.0]))
    head = Grid((60, 60, 80), affine((0, 0, 0), (2, 2, 2), (-20, -20, -60)))
    found = make_midspace_grid(slab, head, np.eye(4), 2.0)
    assert found.shape[2] < 6 + 2 * 8 + 2
    assert found.shape[0] >= 40


def test_images_without_overlap_have_no_grid():
    grid = Grid((20, 20, 20), np.eye(4))
    away = Grid((20, 20, 20), affine((0, 0, 0), (1, 1, 1), (50, 0, 0)))
    assert make_midspace_grid(grid, away, np.eye(4)) is None


def blobs(grid, seed):
    """A smooth random image on a grid."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.rand(1, 1, 6, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(few, size=grid.shape, mode="trilinear")


def test_swapped_images_give_the_inverse_across_two_grids():
    """Through another affine and other voxels; no weights were trained."""
    static, moving, prealign = two_grids()
    network = make_network("pyramid", 3, seed=0, spacing=2.0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in network.flow:
            layer.weight += 0.02 * torch.randn(layer.weight.shape, generator=generator)
    images = blobs(static, 0), blobs(moving, 1)
    objective = Objective(CCMetric())
    u, v = predict_displacement(
        network, Pair(*images, static, moving, prealign), objective
    )
    there = Pair(*images[::-1], *swapped(static, moving, prealign))
    w, _ = predict_displacement(network, there, objective)
    # A static voxel to moving's world and back; both fields in voxels of their own.
    points = np.stack(np.meshgrid(*(np.arange(6, n - 6) for n in static.shape),
                                  indexing="ij"), -1).reshape(-1, 3)  # fmt: skip
    moved = points + u[0].permute(1, 2, 3, 0).numpy()[tuple(points.T)]
    in_moving = apply(static.to(moving, prealign), moved)
    inside = ((in_moving > 3) & (in_moving < np.array(moving.shape) - 4)).all(1)
    back = in_moving + sampled(w[0].numpy(), in_moving)
    landed = apply(moving.to(static, np.linalg.inv(prealign)), back)
    error = np.linalg.norm(landed - points, axis=1)[inside]
    assert inside.sum() > 500
    # The weights are wild, and the field with them.
    assert error.mean() < 0.1 * np.linalg.norm(moved - points, axis=1)[inside].mean()


def apply(matrix, points):
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def sampled(field, points):
    from scipy.ndimage import map_coordinates

    return np.stack([map_coordinates(f, points.T, order=1) for f in field], -1)
