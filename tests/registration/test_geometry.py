"""Geometry of the returned map, compared with warps by SciPy in float64."""

from dipy.align.imwarp import DiffeomorphicMap
from dipy.tracking.streamline import Streamlines
from maps import affine
import numpy as np
from pairs import (
    interpolate,
    interpolate_field,
    jacobian,
    make_pair,
    move,
    round_trip,
    voxels,
)
import pytest
from scipy.optimize import brentq
import torch

from dipy_dl_reg import DeepRegistration
from dipy_dl_reg.geometry.fold_repair import make_diffeomorphic
from dipy_dl_reg.geometry.inversion import invert

#: Of the intensity range: how far DIPY's warp and SciPy's may differ.
TOLERANCE = 1e-5


def linear(spacing, angles=(0.0, 0.0, 0.0)):
    return affine(spacing, angles)[:-1, :-1]


def prealign(dim, *, plane=False):
    """Rotation, scale, shear and translation; `plane` leaves the third axis alone."""
    shear = np.eye(dim)
    shear[0, 1] = 0.08
    angles, scale = (0.15, -0.1, 0.08), [1.06, 0.94, 1.03]
    if plane:
        angles, scale = (0.15, 0, 0), [1.06, 0.94, 1.0]
    matrix = np.eye(dim + 1)
    matrix[:dim, :dim] = linear(scale[:dim], angles) @ shear
    matrix[:dim, dim] = [12.0, -30.0, 0.0 if plane else 8.0][:dim]
    return matrix


OBLIQUE = (0.3, -0.25, 0.2)
#: name: static linear, moving linear, static shape, moving shape, prealign
CASES = {
    "RAS": ([2, 2, 2], [2, 2, 2], prealign(3)),
    "LAS": ([-2, 2, 2], [2, 2, 2], prealign(3)),
    "LPS": ([-2, -2, 2], [-2, 2, 2], prealign(3)),
    "oblique": (([2, 2, 2], OBLIQUE), ([-2, 2, 2], (-0.2, 0.3, 0.1)), prealign(3)),
    "anisotropic": ([1.5, 2.5, 4], ([-3, 2, 1.8], OBLIQUE), prealign(3)),
    "no prealign": (([-2, 2, 2.5], OBLIQUE), [2, 2, 2], None),
    "no affines": (None, None, prealign(3)),
    "nothing": (None, None, None),
    "2D RA": ([1.5, 1.5], [1.5, 1.5], prealign(2)),
    "2D LP": ([-1.5, -1.5], [1.5, -1.5], prealign(2)),
    "2D oblique": (([1.5, -1.2], OBLIQUE), ([-1.7, 1.4], (0.5,)), prealign(2)),
    "2D nothing": (None, None, None),
    "one slice": ([1.5, 1.5, 3], ([-1.4, 1.6, 3], (0.4, 0, 0)), prealign(3, plane=1)),
    "one thick slice": ([-1.5, 1.5, 4], [1.4, -1.6, 5], prealign(3, plane=1)),
}
SHAPES = {
    "3D": ((22, 25, 20), (24, 20, 23)),
    "2D": ((34, 30), (31, 36)),
    "one": ((34, 30, 1), (31, 36, 1)),
    "anisotropic": ((28, 20, 12), (18, 24, 26)),
    # voxels of 1 mm
    "no affines": ((40, 38, 36), (39, 42, 38)),
    "nothing": ((38, 38, 38), (38, 38, 38)),
    "2D nothing": ((40, 42), (40, 42)),
}


class Case:
    """A registered pair, with what its map is made of in float64."""

    def __init__(self, name):
        static, moving, P = CASES[name]
        shapes = SHAPES.get(name) or SHAPES.get(name.split()[0]) or SHAPES["3D"]
        dim = len(shapes[0])
        grids = (
            g if g is None else linear(*(g if isinstance(g, tuple) else (g,)))
            for g in (static, moving)
        )
        if name == "no affines":
            # about the grids' middle, for voxel 0 is the origin of both worlds
            P = P.copy()
            middle = (np.array(shapes[0]) - 1) / 2
            P[:dim, dim] = middle - P[:dim, :dim] @ middle + [1.5, -1.0, 0.5]
        self.pair = make_pair(*grids, *shapes, P)
        self.registration = DeepRegistration("SSD", level_iters=[25, 25])
        self.map = self.registration.optimize(
            self.pair.static, self.pair.moving, **self.pair.affines
        )
        self.dim = dim
        self.A, self.B, self.P = (
            np.eye(dim + 1) if m is None else m for m in self.pair[2:5]
        )
        self.static_voxels, self.moving_voxels = map(voxels, shapes)

    def static_to_moving(self, x):
        """Static world to moving world, through the backward field."""
        u = interpolate_field(self.map.backward, move(np.linalg.inv(self.A), x))
        return move(self.P, x + u)

    def moving_to_static(self, y):
        """Moving world to static world, through the forward field."""
        p = move(np.linalg.inv(self.P), y)
        u = interpolate_field(self.map.forward, move(np.linalg.inv(self.A), p))
        return p + u

    def transform(self, moving):
        there = self.static_to_moving(move(self.A, self.static_voxels))
        return interpolate(moving, move(np.linalg.inv(self.B), there))

    def transform_inverse(self, static):
        there = self.moving_to_static(move(self.B, self.moving_voxels))
        return interpolate(static, move(np.linalg.inv(self.A), there))


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return Case(request.param)


def within(found, wanted, image, tolerance=TOLERANCE):
    return np.abs(found - wanted).max() <= tolerance * np.ptp(image)


def test_the_pair_is_registered(case):
    """The map differs from the identity and improves the similarity."""
    pair = case.pair
    prealigned = move(np.linalg.inv(case.B) @ case.P, move(case.A, case.static_voxels))
    before = interpolate(pair.moving, prealigned) - pair.static
    after = case.map.transform(pair.moving) - pair.static
    assert np.square(after).sum() < 0.05 * np.square(before).sum()
    assert np.linalg.norm(case.map.backward, axis=-1).max() > 2


@pytest.mark.parametrize("what", ["moving", "noise"])
def test_transform_is_scipys(case, rng, what):
    image = (
        case.pair.moving
        if what == "moving"
        else rng.normal(size=case.pair.moving.shape)
    )
    found = case.map.transform(image)
    assert found.shape == case.pair.static.shape
    assert np.ptp(found) > 0.2 * np.ptp(image)
    assert within(found, case.transform(image), image)


@pytest.mark.parametrize("what", ["static", "noise"])
def test_transform_inverse_is_scipys(case, rng, what):
    image = (
        case.pair.static
        if what == "static"
        else rng.normal(size=case.pair.static.shape)
    )
    found = case.map.transform_inverse(image)
    assert found.shape == case.pair.moving.shape
    assert np.ptp(found) > 0.2 * np.ptp(image)
    assert within(found, case.transform_inverse(image), image)


def test_points_go_where_images_look(case):
    """A static point leads to the moving point whose value the warped image has."""
    world = move(case.A, case.static_voxels).reshape(-1, case.dim)
    there = case.map.transform_points(world)
    assert np.allclose(there, case.static_to_moving(world), atol=1e-4)
    values = interpolate(case.pair.moving, move(np.linalg.inv(case.B), there))
    warped = case.map.transform(case.pair.moving).ravel()
    assert within(values, warped, case.pair.moving, 1e-4)

    world = move(case.B, case.moving_voxels).reshape(-1, case.dim)
    back = case.map.transform_points_inverse(world)
    assert np.allclose(back, case.moving_to_static(world), atol=1e-4)
    values = interpolate(case.pair.static, move(np.linalg.inv(case.A), back))
    warped = case.map.transform_inverse(case.pair.static).ravel()
    assert within(values, warped, case.pair.static, 1e-4)


def test_points_come_back(case):
    """Static to moving and back, also between voxels, within the field."""
    size = np.array(case.pair.static.shape) - 1
    at = np.random.default_rng(3).uniform(0.15, 0.85, (500, case.dim)) * size
    world = move(case.A, at)
    back = case.map.transform_points_inverse(case.map.transform_points(world))
    middle = move(np.linalg.inv(case.P), case.map.transform_points(world))
    middle = move(np.linalg.inv(case.A), middle)
    inside = ((middle >= 0) & (middle <= size)).all(-1)
    off = np.linalg.norm(move(np.linalg.inv(case.A), back) - at, axis=-1)[inside]
    assert inside.mean() > 0.9
    assert off.mean() <= 0.05 and off.max() <= 0.5


def test_the_map_has_syns_form(case):
    mapping, pair = case.map, case.pair
    assert type(mapping) is DiffeomorphicMap
    assert set(vars(mapping)) == set(vars(DiffeomorphicMap(case.dim, (4,) * case.dim)))
    assert mapping.dim == case.dim and mapping.is_inverse is True
    shapes = mapping.disp_shape, mapping.domain_shape, mapping.codomain_shape
    assert [tuple(s) for s in shapes] == [
        pair.static.shape,
        pair.moving.shape,
        pair.static.shape,
    ]
    assert np.array_equal(mapping.disp_grid2world, case.A)
    for side, given in zip(("domain", "codomain"), (pair[3], pair[2])):
        for name, wanted in (
            ("grid2world", given),
            ("world2grid", None if given is None else np.linalg.inv(given)),
        ):
            matrix = getattr(mapping, f"{side}_{name}")
            assert (matrix is None) == (wanted is None)
            assert wanted is None or np.allclose(matrix, wanted, rtol=1e-12)
    assert (mapping.prealign is None) == (pair.prealign is None)
    if pair.prealign is not None:
        assert np.allclose(mapping.prealign, np.linalg.inv(pair.prealign), rtol=1e-12)
        assert np.allclose(mapping.prealign_inv, pair.prealign)
    for field in (mapping.forward, mapping.backward):
        assert field.dtype == np.float32
        assert field.shape == (*pair.static.shape, case.dim)
        assert field.flags.c_contiguous and field.flags.writeable
    assert not np.shares_memory(mapping.forward, mapping.backward)
    assert case.registration.get_map() is mapping


def test_halfway_maps_make_the_whole(case):
    """Static to the reference, and on to moving."""
    halves = case.registration.get_intermediate_maps()
    assert halves == (case.registration.static_to_ref, case.registration.moving_to_ref)
    static_to_ref, moving_to_ref = halves
    assert all(type(h) is DiffeomorphicMap and h.is_inverse is False for h in halves)
    world = move(case.A, case.static_voxels).reshape(-1, case.dim)
    middle = static_to_ref.transform_points(world)
    assert np.allclose(
        moving_to_ref.transform_points_inverse(middle),
        case.map.transform_points(world),
        atol=1e-4,
    )
    world = move(case.B, case.moving_voxels).reshape(-1, case.dim)
    middle = moving_to_ref.transform_points(world)
    assert np.allclose(
        static_to_ref.transform_points_inverse(middle),
        case.map.transform_points_inverse(world),
        atol=1e-4,
    )


def test_nothing_folds_and_both_ways_agree(case):
    """The figures of `quality`, measured again by NumPy and SciPy on the map."""
    mapping, quality = case.map, case.registration.quality
    least = [jacobian(f, case.A).min() for f in (mapping.backward, mapping.forward)]
    assert min(least) > 0
    assert least == pytest.approx(
        [quality.minimum_jacobian, quality.minimum_jacobian_inverse], abs=1e-4
    )
    trips = [
        round_trip(mapping.backward, mapping.forward, case.A),
        round_trip(mapping.forward, mapping.backward, case.A),
    ]
    assert all(np.nanmean(t) <= 0.05 and np.nanmax(t) <= 0.5 for t in trips)
    assert quality.round_trip_max == pytest.approx(max(map(np.nanmax, trips)), abs=1e-3)


def test_streamlines_go_as_points_do():
    case = Case("oblique")
    world = move(case.A, np.random.default_rng(1).uniform(4, 15, (20, 3)))
    lines = Streamlines([world[:8], world[8:]])
    found = case.map.transform_points(lines)
    assert np.allclose(np.concatenate(list(found)), case.map.transform_points(world))


@pytest.fixture(scope="module", params=["SSD", "CC", "MI", "NCC"])
def straight(request):
    """A metric, a pair and its map."""
    shapes = (22, 25, 20), (24, 20, 23)
    grids = linear([2, 2, 2.2], OBLIQUE), linear([-2, 2.1, 2])
    pair = make_pair(*grids, *shapes, prealign(3))
    options = {"level_iters": [12, 12]}
    registration = DeepRegistration(request.param, **options)
    return request.param, pair, registration.optimize(*pair[:2], **pair.affines)


@pytest.mark.parametrize("role", ["static", "moving"])
def test_world_counts_not_voxel_order(straight, role):
    """Axes turned and permuted, affine changed to match: the same warped image."""
    metric, pair, mapping = straight
    options = {"level_iters": [12, 12]}
    image = getattr(pair, role)
    turned = np.flip(image.transpose(2, 0, 1), (0, 1))
    M = np.zeros((4, 4))  # turned voxel to straight voxel
    M[[2, 0, 1, 3], [0, 1, 2, 3]] = [-1, -1, 1, 1]
    M[[2, 0], 3] = image.shape[2] - 1, image.shape[0] - 1
    other = pair._replace(
        **{
            role: turned,
            f"{role}_grid2world": getattr(pair, f"{role}_grid2world") @ M,
        }
    )
    again = DeepRegistration(metric, **options).optimize(*other[:2], **other.affines)
    wanted, found = mapping.transform(pair.moving), again.transform(other.moving)
    if role == "static":
        wanted = np.flip(wanted.transpose(2, 0, 1), (0, 1))
    assert (
        np.square(wanted - other.static).sum()
        < np.square(again.transform(other.moving * 0) - other.static).sum()
    )
    assert within(found, wanted, pair.moving, 2e-3)


def to_tensor(field):
    """(*shape, D) to (1, D, *shape), float32."""
    return torch.from_numpy(np.moveaxis(field, -1, 0)[None].astype(np.float32))


def to_array(tensor):
    return np.moveaxis(tensor[0].double().numpy(), 0, -1)


def sines(points, shape, amplitude):
    """A sum of sines, some voxels long, that vanishes on the grid's faces."""
    dim = len(shape)
    t = points / (np.array(shape) - 1)
    window = np.sin(np.pi * np.clip(t, 0, 1)).prod(-1)
    parts = [
        np.sin(2 * np.pi * t[..., (d + 1) % dim] + d)
        + 0.5 * np.sin(3 * np.pi * t[..., d] - 1)
        for d in range(dim)
    ]
    return amplitude * window[..., None] * np.stack(parts, -1)


@pytest.mark.parametrize(
    ("shape", "amplitude"), [((44, 40), 2.4), ((40, 44, 36), 1.9)], ids=["2D", "3D"]
)
def test_a_known_field_is_inverted(shape, amplitude):
    """Against the inverse of the formula itself, solved in float64."""
    grid = voxels(shape)
    u = sines(grid, shape, amplitude)
    assert np.linalg.norm(u, axis=-1).max() > 2
    assert 0.1 < jacobian(u, np.eye(len(shape) + 1)).min() < 0.7
    v = np.zeros_like(u)
    for _ in range(400):
        step = -sines(grid + v, shape, amplitude) - v
        v += 0.7 * step
        if np.abs(step).max() < 1e-9:
            break
    assert np.abs(step).max() < 1e-9
    found = to_array(invert(to_tensor(u)))
    assert np.linalg.norm(found - v, axis=-1).max() <= 0.1
    pair = make_diffeomorphic(to_tensor(u))
    for kept, wanted in zip(pair[:2], (u, v)):
        assert np.linalg.norm(to_array(kept) - wanted, axis=-1).max() <= 0.1
    assert pair[2].repairs == 0


def test_a_stretched_field_is_inverted():
    """Where a map stretches more than twofold fixed-point sweeps alone diverge.

    ``u(x) = push * rise(along . x)``: its inverse takes one number at a time.
    """
    shape = (44, 48)
    along, push = np.array([0.8, 0.6]), np.array([1.1, -0.4])
    grid = voxels(shape)
    middle = along @ ((np.array(shape) - 1) / 2)

    def rise(s):
        return 12 * np.tanh((s - middle) / 5.5)

    u = rise(grid @ along)[..., None] * push
    assert jacobian(u, np.eye(3)).max() > 2.2
    start = [
        brentq(lambda s, t=t: s + push @ along * rise(s) - t, t - 20, t + 20)
        for t in (grid @ along).ravel()
    ]
    v = -rise(np.array(start).reshape(shape))[..., None] * push
    found = to_array(invert(to_tensor(u)))
    known = ((grid + v >= 0) & (grid + v <= np.array(shape) - 1)).all(-1)
    assert known.mean() > 0.8
    assert np.linalg.norm(found - v, axis=-1)[known].max() <= 0.1


@pytest.mark.parametrize("shape", [(36, 32), (24, 26, 22)], ids=["2D", "3D"])
@pytest.mark.parametrize("amplitude", [6.0, 20.0])
def test_a_folded_field_is_mended(shape, amplitude):
    """A field with folds is repaired, and the inverse is consistent."""
    dim = len(shape)
    grid = voxels(shape)
    t = grid / (np.array(shape) - 1)
    u = sines(grid, shape, 1.0)
    knot = np.exp(-40 * ((t - 0.3) ** 2).sum(-1))
    u[..., 0] += amplitude * knot * np.sin(2 * np.pi * 4 * t[..., 0])
    eye = np.eye(dim + 1)
    assert jacobian(u, eye).min() < -0.2
    first, second, quality = make_diffeomorphic(to_tensor(u))
    first, second = to_array(first), to_array(second)
    least = [jacobian(first, eye).min(), jacobian(second, eye).min()]
    assert min(least) > 0
    trips = round_trip(first, second, eye), round_trip(second, first, eye)
    assert all(np.nanmean(t) <= 0.05 and np.nanmax(t) <= 0.5 for t in trips)
    assert quality.repairs > 0
    assert least == pytest.approx(quality[:2], abs=1e-4)
    far = t.min(-1) > 0.7
    assert far.sum() > 50
    assert np.linalg.norm((first - u)[far], axis=-1).max() < 0.3
