"""Mid-space between two images does not depend on which of them is static."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
import torch

from dipy_dl_reg.geometry.fields import compose, exp, resize, warp
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization.midspace import (
    halve_prealign,
    make_midspace_grid,
    predict_in_midspace,
)
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


def make_random_network(dim, amount, **arguments):
    """An untrained network whose velocities are not 0."""
    network = make_network("pyramid", dim, seed=0, **arguments).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in network.flow:
            noise = torch.randn(layer.weight.shape, generator=generator)
            layer.weight += amount * noise
    return network


def blobs(grid, seed):
    """A smooth random image on a grid."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.rand(1, 1, 6, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(few, size=grid.shape, mode="trilinear")


def test_swapped_images_give_the_inverse_across_two_grids():
    """Through another affine and other voxels; no weights were trained."""
    static, moving, prealign = two_grids()
    network = make_random_network(3, 0.02, spacing=2.0)
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


@pytest.mark.parametrize("shape", [(26, 33), (18, 21, 16)])
@pytest.mark.parametrize("factors", [(1,), (1, 1), (2, 1, 1)])
@torch.no_grad()
def test_swapped_images_swap_the_field_and_its_inverse(shape, factors):
    network = make_random_network(len(shape), 0.05)
    generator = torch.Generator().manual_seed(2)
    static, moving = torch.rand(2, 1, 1, *shape, generator=generator)
    u, v = predict_in_midspace(network, static, moving, factors)
    swapped_v, swapped_u = predict_in_midspace(network, moving, static, factors)
    torch.testing.assert_close(u, swapped_u, atol=1e-4, rtol=0)
    torch.testing.assert_close(v, swapped_v, atol=1e-4, rtol=0)
    assert (u - v).abs().max() > 0.1


class GivenVelocities(torch.nn.Module):
    """Returns given velocities one after the other, and records its input."""

    def __init__(self, *velocities):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.velocities, self.seen = list(velocities), []

    def output_fields(self, static, moving):
        self.seen.append((static, moving))
        return [self.velocities[len(self.seen) - 1]]


def waves(shape, seed, size):
    """A velocity that hardly changes between neighbouring voxels."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(1, len(shape), *[3] * len(shape), generator=generator)
    return size * resize(few, shape) / resize(few, shape).abs().max()


@torch.no_grad()
def test_each_pass_sees_what_the_previous_ones_left():
    """The whole field is the half of static, the last flow and the half of moving."""
    shape = (65, 65)
    velocities = [waves(shape, k, 3.0) for k in range(3)]
    static, moving = (waves(shape, k, 1.0)[:, :1] for k in (5, 6))
    network = GivenVelocities(*velocities)
    u, v = predict_in_midspace(network, static, moving, (1, 1, 1))
    inner = (..., slice(20, -20), slice(20, -20))
    # In mid-space the last flow warps the moving image that the network saw to the
    # static one; the inverse of static's half leads back to the static image.
    seen_static, seen_moving = network.seen[-1]
    halves = [exp(w / 2) for w in velocities[:2]]
    to_static = compose(halves[0], halves[1])
    wanted = warp(warp(seen_moving, exp(velocities[2])), to_static)
    # One linear interpolation, compared with three.
    torch.testing.assert_close(warp(moving, u)[inner], wanted[inner], atol=0.02, rtol=0)
    torch.testing.assert_close(
        warp(seen_static, to_static)[inner], static[inner], atol=0.02, rtol=0
    )
    assert compose(u, v)[inner].abs().max() < 0.1 < 0.1 * u.abs().max()


@torch.no_grad()
def test_passes_with_equal_velocities_add_up():
    x = torch.linspace(0, 2 * torch.pi, 41)
    velocity = torch.stack([x.sin().outer(x.sin()), 0.5 * x.sin().outer(x.cos())])[None]
    image = torch.rand(1, 1, 41, 41, generator=torch.Generator().manual_seed(2))
    network = GivenVelocities(*[velocity] * 3)
    u, v = predict_in_midspace(network, image, image, (1, 1, 1))
    inner = (..., slice(4, -4), slice(4, -4))
    for field, sign in ((u, 3), (v, -3)):
        difference = (field - exp(sign * velocity))[inner].abs().max()
        # At half the resolution, where the wave is 20 voxels long.
        assert difference < 0.05 * field.abs().max()


@pytest.mark.parametrize(
    ("look", "alone", "expected"),
    [
        (lambda image: image, True, (1.0, 1.0, 1.0)),
        (lambda image: image, False, (1.0,)),
        (lambda image: image.max() - image, True, (4.0, 2.0, 1.0, 1.0)),
        (lambda image: image.max() - image, False, (4.0, 2.0, 1.0, 1.0)),
    ],
)
def test_passes_depend_on_the_contrast_and_on_what_follows(
    monkeypatch, look, alone, expected
):
    seen = []

    def record(network, static, moving, factors):
        seen.append(tuple(factors))
        zero = static.new_zeros(1, static.ndim - 2, *static.shape[2:])
        return zero, zero

    monkeypatch.setattr(
        "dipy_dl_reg.initialization.network.predict_in_midspace", record
    )
    generator = torch.Generator().manual_seed(0)
    static = 0.1 + torch.rand(1, 1, 40, 40, generator=generator)
    grid = Grid((40, 40), np.diag([3.0, 3, 1]))
    pair = Pair(static, look(static), grid, grid, np.eye(3))
    network = make_network("pyramid", 2, spacing=3.0)
    predict_displacement(network, pair, Objective(CCMetric()), alone=alone)
    assert seen == [expected]
