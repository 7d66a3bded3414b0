"""Grids in world space."""

import numpy as np
import pytest

from dipy_dl_reg.grid import Grid

AFFINE = np.array(
    [[-2.0, 0.3, 0, 10], [0.1, 1.5, 0.2, -7], [0, -0.3, 4, 3], [0, 0, 0, 1]]
)


def world(grid, voxel):
    return (grid.affine @ [*voxel, 1])[:3]


def test_spacing_is_the_distance_between_neighbours():
    grid = Grid((5, 6, 7), AFFINE)
    for axis in range(3):
        step = world(grid, np.eye(3)[axis]) - world(grid, (0, 0, 0))
        assert grid.spacing[axis] == pytest.approx(np.linalg.norm(step))


def test_contains_what_lies_between_the_outermost_centres():
    grid = Grid((5, 6, 1), AFFINE)
    voxels = [[0, 0, 0], [4, 5, 0], [2, 5.2, 0], [-0.6, 1, 0], [1, 1, -0.3]]
    points = np.array([world(grid, voxel) for voxel in voxels])
    assert grid.contains(points).tolist() == [True, True, False, False, False]
    expected = [True, True, True, False, True]
    assert grid.contains(points, margin=0.5).tolist() == expected


def test_resized_keeps_the_corners():
    grid = Grid((9, 13, 5), AFFINE)
    small = grid.resize((5, 4, 3))
    assert small.shape == (5, 4, 3)
    for corner in np.ndindex(2, 2, 2):
        old = world(grid, np.multiply(corner, np.subtract(grid.shape, 1)))
        new = world(small, np.multiply(corner, np.subtract(small.shape, 1)))
        np.testing.assert_allclose(new, old)


def test_a_singleton_axis_stays():
    grid = Grid((9, 1, 5), AFFINE)
    np.testing.assert_allclose(
        world(grid.resize((5, 1, 3)), (0, 0, 0)), world(grid, (0, 0, 0))
    )
    middle = Grid((9, 7, 5), AFFINE).resize((9, 1, 5))
    np.testing.assert_allclose(
        world(middle, (0, 0, 0)), world(Grid((9, 7, 5), AFFINE), (0, 3, 0))
    )


def test_coarsened_never_gets_finer_or_tiny():
    grid = Grid((40, 40, 10), np.diag([1.0, 1, 4, 1]))
    assert grid.coarsen(2.0).shape == (21, 21, 10)
    assert grid.coarsen(100.0).shape == (8, 8, 8)
    assert grid.coarsen(0.1).shape == grid.shape
    assert grid.coarsen(1.1).shape == grid.shape


def test_to_goes_through_both_worlds():
    other = Grid((4, 4, 4), np.diag([2.0, 3, 4, 1]))
    prealign = np.eye(4)
    prealign[:3, 3] = [1, -2, 3]
    grid = Grid((9, 13, 5), AFFINE)
    voxel = np.array([1.0, 2, 3, 1])
    expected = np.linalg.solve(other.affine, prealign @ grid.affine @ voxel)
    np.testing.assert_allclose(grid.to(other, prealign) @ voxel, expected)
