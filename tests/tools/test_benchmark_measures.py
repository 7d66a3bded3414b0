"""The benchmark's measures, each compared with another way to compute it."""

from itertools import product

from maps import affine, make_map
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.distance import cdist

from tools.benchmarks import measures


def test_dice_equals_its_definition_by_sets(rng):
    a, b = rng.integers(0, 6, size=(2, 8, 9, 7))
    b[b == 3] = 0  # a label that vanishes counts 0
    labels = [1, 2, 3, 5]
    expected = []
    for label in labels:
        voxels = [set(map(tuple, np.argwhere(x == label))) for x in (a, b)]
        expected.append(2 * len(voxels[0] & voxels[1]) / sum(map(len, voxels)))
    values = measures.dice(a, b, labels)
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    assert values[2] == 0 and values[0] > 0


@pytest.mark.parametrize("dim", [2, 3])
def test_jacobian_of_a_linear_map(dim, rng):
    grid2world = affine([2.0, -1.5, 0.8][:dim], (0.3, -0.2, 0.5), [4.0, 5, 6][:dim])
    matrix = np.eye(dim) + 0.3 * rng.normal(size=(dim, dim))
    world = measures.to_world(
        np.moveaxis(np.indices((6, 7, 5)[:dim]), 0, -1), grid2world
    )
    field = world @ (matrix - np.eye(dim)).T
    np.testing.assert_allclose(
        measures.jacobian_determinant(field, grid2world),
        np.linalg.det(matrix),
        atol=1e-10,
    )


def test_hausdorff_is_that_of_all_pairs_of_surface_voxels(rng):
    grid2world = affine([2.0, -1.5, 0.8], (0.3, -0.2, 0.5), [4.0, 5, 6])
    noise = gaussian_filter(rng.random((2, 14, 12, 13)), (0, 2, 2, 2))
    a, b = (np.digitize(x, np.quantile(x, [0.3, 0.6])) for x in noise)
    b[b == 0] = 5  # a label that a lacks

    def surface(image, label):
        voxels = set(map(tuple, np.argwhere(image == label)))
        steps = [s * axis for s in (1, -1) for axis in np.eye(3, dtype=int)]
        edge = [v for v in voxels if any(tuple(v + s) not in voxels for s in steps)]
        return measures.to_world(np.array(edge), grid2world)

    found = measures.hausdorff95(a, b, [1, 2, 5], grid2world)
    for label, value in zip((1, 2), found):
        far = cdist(surface(a, label), surface(b, label))
        expected = max(np.percentile(far.min(axis=k), 95) for k in (0, 1))
        assert value == pytest.approx(expected) and value > 0
    assert found[2] == pytest.approx(np.linalg.norm(grid2world[:3, :3] @ [13, 11, 12]))


def cube_in_five(parity):
    """Tetrahedra of the unit cube: four at corners, one between those of one parity."""
    corners = [np.array(c) for c in product((0, 1), repeat=3)]
    yield [c for c in corners if sum(c) % 2 == parity]
    for c in corners:
        if sum(c) % 2 != parity:
            yield [c, *(c ^ axis for axis in np.eye(3, dtype=int))]


def test_folded_volume_is_that_of_tetrahedra(rng):
    grid2world = affine([2.0, -1.5, 0.8], (0.3, -0.2, 0.5))
    shape = (4, 5, 3)
    shift = rng.normal(scale=0.7, size=(*shape, 3))  # voxels
    moved = np.moveaxis(np.indices(shape), 0, -1) + shift
    folded = 0.0
    for first in product(*(range(n - 1) for n in shape)):
        for tetrahedron in (*cube_in_five(0), *cube_in_five(1)):
            before = np.array(tetrahedron)
            after = np.array([moved[tuple(first + corner)] for corner in tetrahedron])
            volumes = [np.linalg.det(x[1:] - x[0]) / 6 for x in (before, after)]
            folded += max(0, -volumes[1] * np.sign(volumes[0])) / 2
    field = shift @ grid2world[:3, :3].T
    expected = 100 * folded / (3 * 4 * 2)
    assert measures.non_diffeomorphic_volume(field, grid2world) == pytest.approx(
        expected
    )
    assert expected > 1


@pytest.mark.parametrize("dim", [2, 3])
def test_folded_volume_in_closed_form(dim):
    """A reflection folds everything; a displaced voxel folds where J is 1."""
    grid2world = affine([2.0, 1.5, 0.8][:dim])
    world = measures.to_world(
        np.moveaxis(np.indices((5, 6, 7)[:dim]), 0, -1), grid2world
    )
    mirror = -2 * world * np.eye(dim)[0]
    volume = measures.non_diffeomorphic_volume
    assert volume(0.1 * world, grid2world) == 0
    assert volume(mirror, grid2world) == pytest.approx(100)
    lone = np.zeros_like(world)
    lone[(2,) * dim] = 10.0
    assert measures.jacobian_determinant(lone, grid2world)[(2,) * dim] == pytest.approx(
        1
    )
    assert volume(lone, grid2world) > 1


def test_fold_is_detected():
    grid2world = np.diag([2.0, 2, 2, 1])
    mapping = make_map((9, 9, 9), (9, 9, 9), static_grid2world=grid2world)
    points = np.array([[8.0, 8, 8]])
    whole = measures.regularity(mapping, grid2world, points)
    assert whole["folds_percent"] == whole["folds_inverse_percent"] == 0
    # One slice jumps 12 mm back: the determinant is 1 - 12 / 4 one slice before it,
    # by central differences on voxels of 2 mm, and 1 elsewhere or above.
    mapping.backward[:] = 0
    mapping.backward[4, ..., 0] = -12
    torn = measures.regularity(mapping, grid2world, points)
    assert torn["minimum_jacobian"] == pytest.approx(-2)
    assert torn["folds_percent"] == pytest.approx(100 / 9)
    assert torn["folds_inverse_percent"] == 0
    assert torn["ndv_percent"] > 0 == whole["ndv_percent"]
    alone = measures.regularity(mapping, grid2world, points, has_inverse=False)
    assert alone.items() <= torn.items() and "round_trip_mean" not in alone


def test_inversion_error_of_fields_that_are_not_inverses(rng):
    """The forward field inverts three quarters of a shift: a quarter remains."""
    mapping = make_map((20, 20, 20), (20, 20, 20))
    mapping.backward[:] = [2, -1, 2]
    mapping.forward[:] = [-1.5, 0.75, -1.5]
    trip = measures.inversion_errors(mapping, rng.uniform(6, 12, size=(30, 3)))
    np.testing.assert_allclose(trip, 0.75, rtol=1e-5)


def test_inversion_error_uses_the_fields(rng):
    grid2world = affine([2.0, -1.5, 2.5], (0.1, -0.2, 0.05), [5.0, -9, 3])
    shape = (17, 20, 15)
    mapping = make_map(
        shape,
        (19, 16, 22),
        static_grid2world=grid2world,
        moving_grid2world=affine([-1.8, 2.2, 1.6]),
        prealign=affine([1.05, 0.95, 1.02], (0.05, 0.1, -0.05), [1.0, 2.0, 3.0]),
        amplitude=4.0,
    )
    points = measures.to_world(rng.uniform(4, 10, size=(50, 3)), grid2world)

    def at(field, world):
        voxels = np.linalg.inv(grid2world) @ np.c_[world, np.ones(len(world))].T
        parts = [map_coordinates(field[..., d], voxels[:3], order=1) for d in range(3)]
        return np.stack(parts, axis=-1)

    moved = points + at(mapping.backward, points)
    expected = np.linalg.norm(moved + at(mapping.forward, moved) - points, axis=1)
    trip = measures.inversion_errors(mapping, points)
    np.testing.assert_allclose(trip, expected, atol=1e-4)
