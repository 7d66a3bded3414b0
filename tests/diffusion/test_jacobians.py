"""Jacobian matrices of maps against finite differences of their points."""

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
from dipy.align.metrics import SSDMetric
from maps import affine, blob, make_map, maps_of_all_forms, oblique_map
import numpy as np
from numpy.testing import assert_allclose
import pytest

from dipy_dl_reg import DeepRegistration
from dipy_dl_reg.diffusion.jacobians import (
    direction_matrices,
    map_jacobians,
    point_jacobians,
    rotation_of,
)

SHEAR = np.array([[1.1, 0.25, 0, 3], [0, 0.9, -0.1, -2], [0.05, 0, 1, 1], [0, 0, 0, 1]])


def finite_differences(mapping, points, inverse):
    """Central differences of the map's points, with steps of a voxel of its field.

    Over two voxels, a displacement interpolated linearly has exactly the mean slope.
    """
    dim = mapping.dim
    transform = (
        mapping.transform_points_inverse if inverse else mapping.transform_points
    )
    grid = (
        np.eye(dim + 1) if mapping.disp_grid2world is None else mapping.disp_grid2world
    )
    steps = grid[:dim, :dim]
    if bool(mapping.is_inverse) == inverse and mapping.prealign is not None:
        # `forward` is read at the points after the prealign
        steps = np.linalg.inv(mapping.prealign[:dim, :dim]) @ steps
    slopes = [
        (transform(points + step) - transform(points - step)) / 2 for step in steps.T
    ]
    return np.stack(slopes, -1) @ np.linalg.inv(steps)


def points_inside(mapping, rng, inverse, n=400):
    """Points that the map reads from the inside of its field."""
    dim = mapping.dim
    shape, grid = np.array(mapping.disp_shape), mapping.disp_grid2world
    grid = np.eye(dim + 1) if grid is None else grid
    voxels = rng.uniform(1.1, shape - 2.1, (n, dim))
    points = voxels @ grid[:dim, :dim].T + grid[:dim, dim]
    if bool(mapping.is_inverse) == inverse and mapping.prealign is not None:
        back = np.linalg.inv(mapping.prealign)
        points = points @ back[:dim, :dim].T + back[:dim, dim]
    return points


def sheared_map():
    """Unequal, oblique, flipped grids and a prealign with shear."""
    return make_map(
        (14, 17, 12),
        (19, 16, 22),
        static_grid2world=affine([-2.0, 1.5, 2.5], (0.3, -0.2, 0.5), [5.0, -9, 3]),
        moving_grid2world=affine([1.8, 2.2, 1.6], (-0.15, 0.1, 0.2)),
        prealign=SHEAR,
    )


MAPS = maps_of_all_forms() | {"sheared": sheared_map()}
in_both_directions = pytest.mark.parametrize("inverse", [False, True])


@in_both_directions
@pytest.mark.parametrize("name", MAPS)
def test_jacobians_are_finite_differences_of_points(name, inverse, rng):
    mapping = MAPS[name]
    points = points_inside(mapping, rng, inverse)
    found = point_jacobians(mapping, points, inverse=inverse)
    assert_allclose(found, finite_differences(mapping, points, inverse), atol=1e-5)
    assert np.abs(found - found.mean(0)).max() > 0.05


@in_both_directions
def test_grid_of_points(inverse):
    mapping = sheared_map()
    shape, grid2world = (5, 4, 3), affine([3.0, -4, 5], (0.2, 0.1, 0.3), [1.0, 2, 3])
    found = map_jacobians(mapping, shape, grid2world, inverse=inverse)
    assert found.shape == (*shape, 3, 3)
    point = grid2world @ [4, 1, 2, 1]
    (alone,) = point_jacobians(mapping, point[None, :3], inverse=inverse)
    assert_allclose(found[4, 1, 2], alone, atol=1e-12)


@pytest.mark.parametrize("engine", ["this package", "SyN"])
@in_both_directions
def test_registered_maps(engine, inverse, rng):
    """Of maps that registrations return."""
    grids = affine([2.0, 2, 2], (0.1,)), affine([-2.0, 2, 2], (0.0,), [40.0, 0, 0])
    static = blob((22, 20, 18), grids[0], [20.0, 22, 18], 7)
    moving = blob((21, 22, 19), grids[1], [22.0, 20, 19], 9)
    if engine == "SyN":
        registration = SymmetricDiffeomorphicRegistration(
            SSDMetric(3), level_iters=[20, 10]
        )
    else:
        registration = DeepRegistration("SSD", level_iters=[20, 10], model=None)
    turn = affine([1.0, 1.02, 0.97], (0.05, 0.1, 0))
    mapping = registration.optimize(
        static,
        moving,
        static_grid2world=grids[0],
        moving_grid2world=grids[1],
        prealign=turn,
    )
    points = points_inside(mapping, rng, inverse)
    found = point_jacobians(mapping, points, inverse=inverse)
    assert_allclose(found, finite_differences(mapping, points, inverse), atol=1e-5)
    # the two directions undo each other, as far as fields on grids are inverses
    there = getattr(mapping, f"transform_points{'_inverse' * inverse}")(points)
    back = point_jacobians(mapping, there, inverse=not inverse)
    off, moved = (np.abs(m - np.eye(3)).max((1, 2)) for m in (back @ found, found))
    assert np.median(off) < 0.1 < 0.2 < np.median(moved)


@in_both_directions
def test_affine_maps(inverse):
    wanted = np.linalg.inv(SHEAR) if inverse else SHEAR
    for mapping in (SHEAR, AffineMap(SHEAR)):
        found = map_jacobians(mapping, (2, 3, 4), inverse=inverse)
        assert_allclose(found, np.broadcast_to(wanted[:3, :3], found.shape))
    found = map_jacobians(
        AffineMap(None, domain_grid_shape=(3, 3)), (2, 2), inverse=inverse
    )
    assert_allclose(found, np.broadcast_to(np.eye(2), (2, 2, 2, 2)))


def test_outside_the_field_only_the_prealign_acts():
    mapping = oblique_map()
    (found,) = point_jacobians(mapping, np.array([[900.0, 0, 0]]))
    assert_allclose(found, mapping.prealign_inv[:3, :3], atol=1e-6)


def test_slab_of_one_slice():
    mapping = make_map((9, 8, 1), (9, 8, 1))
    mapping.backward[:] = mapping.forward[:] = 0
    mapping.backward[..., 0] = 0.1 * np.arange(8)[:, None]
    found = map_jacobians(mapping, (9, 8, 1))
    wanted = np.eye(3)
    wanted[0, 1] = 0.1
    assert_allclose(found, np.broadcast_to(wanted, found.shape), atol=1e-6)


def test_directions_move_with_short_streamlines(rng):
    """A direction of moving is that of a short piece of a streamline, transformed."""
    mapping = sheared_map()
    points = points_inside(mapping, rng, inverse=True)
    directions = rng.normal(size=(len(points), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    step = 0.05
    ends = [
        mapping.transform_points_inverse(points + sign * step * directions)
        for sign in (1, -1)
    ]
    moved = (ends[0] - ends[1]) / (2 * step)
    there = mapping.transform_points_inverse(points)
    matrices = direction_matrices(mapping, there)
    found = (matrices @ directions[..., None])[..., 0]
    cosines = (found * moved).sum(1) / np.linalg.norm(found, axis=1)
    angles = np.degrees(
        np.arccos(np.clip(cosines / np.linalg.norm(moved, axis=1), -1, 1))
    )
    # the two fields are inverses of each other up to their interpolation
    assert np.median(angles) < 1
    wrong = (np.linalg.inv(matrices) @ directions[..., None])[..., 0]
    cosines = np.abs((wrong * moved).sum(1)) / np.linalg.norm(wrong, axis=1)
    cosines /= np.linalg.norm(moved, axis=1)
    assert np.median(np.degrees(np.arccos(cosines))) > 5


def test_rotation_is_the_polar_factor(rng):
    turns = np.linalg.qr(rng.normal(size=(50, 3, 3)))[0]
    turns[np.linalg.det(turns) < 0, :, 0] *= -1
    stretch = rng.normal(size=(50, 3, 3))
    stretch = stretch @ stretch.swapaxes(1, 2) + 0.1 * np.eye(3)
    assert_allclose(rotation_of(turns @ stretch), turns, atol=1e-10)
    assert_allclose(rotation_of(np.diag([-2.0, 1, 1])), np.diag([-1.0, 1, 1]))


def test_singular_places_turn_nothing():
    mapping = np.diag([1.0, 1, 1, 1])
    assert_allclose(direction_matrices(mapping, np.zeros((1, 3)))[0], np.eye(3))
    folded = make_map((9, 8, 7), (9, 8, 7))
    folded.backward[:] = 0
    folded.backward[..., 0] = -np.arange(9.0)[:, None, None]
    found = direction_matrices(folded, np.array([[4.0, 4, 4]]))
    assert_allclose(found[0], np.eye(3), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 0.009, 1e4])
def test_uniform_scaling_is_not_singular(scale):
    turn = np.eye(4)[[1, 0, 2, 3]] * [scale, scale, scale, 1]
    found = direction_matrices(turn, np.zeros((1, 3)))[0]
    assert_allclose(found, np.linalg.inv(turn[:3, :3]))
    flat = np.diag([scale, scale, 1e-7 * scale, 1])
    assert_allclose(direction_matrices(flat, np.zeros((1, 3)))[0], np.eye(3))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("map", (2, 2, 2)), "mapping must be a DiffeomorphicMap"),
        ((np.zeros((4, 4)), (2, 2, 2)), "mapping must have the last row"),
        ((np.eye(4), (2, 2)), "shape must be 3 positive whole numbers"),
        ((np.eye(4), (2, 2, 2), np.eye(3)), "grid2world must have the shape"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        map_jacobians(*arguments)


def test_wrong_points_and_matrices():
    with pytest.raises(ValueError, match=r"points must have the shape \(N, 3\)"):
        point_jacobians(np.eye(4), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="matrices must have the shape"):
        rotation_of(np.zeros((4, 3)))
