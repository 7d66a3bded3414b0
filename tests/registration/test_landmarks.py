"""Landmarks to maps: what a user is promised, on all kinds of grids."""

from itertools import combinations
import logging

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
from maps import affine, blob
import numpy as np
from pairs import centred, jacobian, move, round_trip, voxels
import pytest
from scipy.interpolate import RBFInterpolator

from dipy_dl_reg import (
    ThinPlateSplineRegistration,
    apply_mapping,
    load_mapping,
    read_landmarks,
    save_mapping,
)
from dipy_dl_reg.registration.landmark_checks import find_swapped_rows

SHAPES = {2: ((40, 34), (31, 38)), 3: ((26, 22, 24), (22, 27, 20))}
STATIC = {
    dim: affine([2.0, -1.5, 2.5][:dim], (0.1, -0.2, 0.05), [5.0, -9, 3][:dim])
    for dim in (2, 3)
}
#: Static world to moving world, far away and turned.
BETWEEN = {
    dim: affine([1.1, 0.95, 1.02][:dim], (0.2, 0.1, -0.05), [80.0, -30, 15][:dim])
    for dim in (2, 3)
}

MOVING = {
    dim: centred(
        affine([-1.8, 2.2, 2.4][:dim], (-0.15, 0.1, 0.2))[:dim, :dim],
        SHAPES[dim][1],
        move(BETWEEN[dim], move(STATIC[dim], (np.array(SHAPES[dim][0]) - 1) / 2)),
    )
    for dim in (2, 3)
}


@pytest.fixture
def log(caplog):
    """DIPY's warnings."""
    caplog.set_level(logging.WARNING, logger="dipy")
    return lambda: [record.getMessage() for record in caplog.records]


def landmarks(dim, bend=1.5, count=30):
    """Landmarks within static's field of view, and where a bent map takes them."""
    rng = np.random.default_rng(dim)
    inside = rng.uniform(2, np.array(SHAPES[dim][0]) - 3, (count, dim))
    points = move(STATIC[dim], inside)
    bent = points + bend * np.sin(inside[:, ::-1] / 4)
    return points, move(BETWEEN[dim], bent)


def grids(dim):
    return {
        "static_shape": SHAPES[dim][0],
        "moving_shape": SHAPES[dim][1],
        "static_grid2world": STATIC[dim],
        "moving_grid2world": MOVING[dim],
    }


@pytest.mark.parametrize("kernel", ["thin_plate_spline", "biharmonic"])
@pytest.mark.parametrize("dim", [2, 3])
def test_landmarks_are_met(dim, kernel, log):
    """Exactly by the spline, and within the grid's interpolation by the map."""
    static_points, moving_points = landmarks(dim)
    registration = ThinPlateSplineRegistration(kernel=kernel)
    mapping = registration.optimize(static_points, moving_points, **grids(dim))
    there = registration.transform_points(static_points)
    np.testing.assert_allclose(there, moving_points, rtol=0, atol=1e-6)
    back = registration.transform_points_inverse(moving_points)
    np.testing.assert_allclose(back, static_points, rtol=0, atol=1e-6)
    by_map = mapping.transform_points(static_points)
    np.testing.assert_allclose(by_map, moving_points, rtol=0, atol=0.35)
    by_map = mapping.transform_points_inverse(moving_points)
    np.testing.assert_allclose(by_map, static_points, rtol=0, atol=0.35)
    distances = np.linalg.norm(
        mapping.transform_points(static_points) - moving_points, axis=1
    )
    np.testing.assert_allclose(registration.distances, distances)
    assert registration.get_map() is mapping and log() == []


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("given", [False, True], ids=["found", "given"])
def test_the_map_is_scipys_spline(dim, given):
    """At every voxel, whichever prealign the map has."""
    static_points, moving_points = landmarks(dim)
    registration = ThinPlateSplineRegistration()
    prealign = BETWEEN[dim] if given else None
    mapping = registration.optimize(
        static_points, moving_points, prealign=prealign, **grids(dim)
    )
    spline = RBFInterpolator(static_points, moving_points, kernel="thin_plate_spline")
    world = move(STATIC[dim], voxels(SHAPES[dim][0])).reshape(-1, dim)
    expected = spline(world)
    np.testing.assert_allclose(
        registration.transform_points(world), expected, rtol=0, atol=1e-6
    )
    found = mapping.transform_points(world)
    assert np.linalg.norm(found - expected, axis=1).mean() < 0.02
    assert np.linalg.norm(found - expected, axis=1).max() < 0.1
    if given:
        np.testing.assert_allclose(registration.prealign, prealign)
    np.testing.assert_allclose(mapping.prealign, np.linalg.inv(registration.prealign))


@pytest.mark.parametrize("dim", [2, 3])
def test_landmarks_at_the_border_that_lead_out_of_the_grid(dim, log):
    """The surface moves outwards, by up to 4 voxels, and is met as any other place."""
    size = 24
    ends = [np.linspace(0, size - 1, 6)] * dim
    static_points = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, dim)
    middle = (size - 1) / 2
    wave = 1 + np.cos(static_points[:, ::-1] / 4) / 3
    moving_points = static_points + 3 * wave * ((static_points - middle) / middle) ** 3
    registration = ThinPlateSplineRegistration()
    mapping = registration.optimize(
        static_points,
        moving_points,
        static_shape=(size,) * dim,
        prealign=np.eye(dim + 1),
    )
    assert (moving_points < 0).any(1).mean() > 0.2
    assert registration.distances.max() < 0.1
    by_spline = registration.transform_points(voxels((size,) * dim).reshape(-1, dim))
    by_map = mapping.transform_points(voxels((size,) * dim).reshape(-1, dim))
    np.testing.assert_allclose(by_map, by_spline, rtol=0, atol=0.1)
    assert log() == []


@pytest.mark.parametrize("regularization", [0.0, 0.1])
@pytest.mark.parametrize("dim", [2, 3])
def test_affine_landmarks_give_an_affine_map(dim, regularization):
    """To 1e-8 and both ways: fields are float32, but there is nothing in them."""
    static_points, moving_points = landmarks(dim, bend=0)
    registration = ThinPlateSplineRegistration(regularization=regularization)
    mapping = registration.optimize(static_points, moving_points, **grids(dim))
    anywhere = np.random.default_rng(1).uniform(-200, 200, (50, dim))
    expected = move(BETWEEN[dim], anywhere)
    for m in (mapping, registration):
        there, back = m.transform_points(anywhere), m.transform_points_inverse(expected)
        np.testing.assert_allclose(there, expected, rtol=0, atol=1e-8)
        np.testing.assert_allclose(back, anywhere, rtol=0, atol=1e-8)
    np.testing.assert_allclose(registration.prealign, BETWEEN[dim], atol=1e-10)


@pytest.mark.parametrize("dim", [2, 3])
def test_the_map_is_of_the_public_form(dim, tmp_path):
    static_points, moving_points = landmarks(dim)
    registration = ThinPlateSplineRegistration(regularization=0.001)
    mapping = registration.optimize(static_points, moving_points, **grids(dim))
    assert type(mapping) is DiffeomorphicMap and mapping.is_inverse
    for field in (mapping.forward, mapping.backward):
        assert field.shape == (*SHAPES[dim][0], dim) and field.dtype == np.float32
        assert field.flags["C_CONTIGUOUS"] and field.flags["WRITEABLE"]
    middle = move(STATIC[dim], (np.array(SHAPES[dim][0]) - 1) / 2)
    image = blob(
        SHAPES[dim][1], MOVING[dim], registration.transform_points([middle])[0], 9
    )
    warped = mapping.transform(image)
    assert warped.shape == SHAPES[dim][0]
    world = move(STATIC[dim], voxels(SHAPES[dim][0]))
    found = np.average(world.reshape(-1, dim), axis=0, weights=warped.ravel())
    np.testing.assert_allclose(found, middle, atol=1.5)
    assert mapping.transform_inverse(warped).shape == SHAPES[dim][1]
    save_mapping(mapping, tmp_path / "map.npz")
    again = apply_mapping(load_mapping(tmp_path / "map.npz"), image)
    np.testing.assert_array_equal(again, warped)


def test_both_directions_are_inverses():
    static_points, moving_points = landmarks(3, bend=3)
    registration = ThinPlateSplineRegistration()
    mapping = registration.optimize(static_points, moving_points, **grids(3))
    for first, second in (("backward", "forward"), ("forward", "backward")):
        fields = getattr(mapping, first), getattr(mapping, second)
        error = round_trip(*fields, STATIC[3])
        assert np.nanmean(error) < 0.05 and np.nanmax(error) < 0.5
        assert jacobian(fields[0], STATIC[3]).min() > 0


@pytest.mark.parametrize("dim", [2, 3])
def test_crossing_landmarks_never_fold_the_map(dim, log):
    """Two neighbours change places: no map without folds meets both."""
    axes = [np.linspace(3, 27, 4)] * dim
    static_points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, dim)
    moving_points = static_points.copy()
    swapped = [5, 6] if dim == 2 else [21, 22]
    moving_points[swapped] = moving_points[swapped[::-1]]
    registration = ThinPlateSplineRegistration()
    mapping = registration.optimize(
        static_points, moving_points, static_shape=(31,) * dim
    )
    assert jacobian(mapping.backward, np.eye(dim + 1)).min() > 0
    assert jacobian(mapping.forward, np.eye(dim + 1)).min() > 0
    error = round_trip(mapping.backward, mapping.forward, np.eye(dim + 1))
    assert np.nanmean(error) < 0.05
    assert registration.quality.repairs
    (message,) = log()
    assert "folds" in message
    assert f"{registration.distances.max():.3g} mm" in message
    others = np.delete(registration.distances, swapped)
    assert registration.distances[swapped].min() > 2 > 1.5 > others.max()


@pytest.mark.parametrize("dim, seed", [(2, 3), (3, 0)])
def test_swapped_landmarks_come_to_an_end_and_are_named(dim, seed, log):
    """Smoothing alone mended none of these, nor did shrinking and inverting again."""
    shape = {2: (40, 40), 3: (28, 28, 28)}[dim]
    rng = np.random.default_rng(seed)
    static_points = rng.uniform(2, shape[0] - 3, (12, dim))
    moving_points = static_points + rng.normal(0, 1, (12, dim))
    moving_points[[0, 1]] = moving_points[[1, 0]]
    registration = ThinPlateSplineRegistration()
    mapping = registration.optimize(static_points, moving_points, static_shape=shape)
    assert jacobian(mapping.backward, np.eye(dim + 1)).min() > 0
    assert np.nanmax(round_trip(mapping.backward, mapping.forward, np.eye(dim + 1))) < 1
    (warning,) = log()
    assert "Rows 0 and 1 (from 0, copies left out) contradict each other" in warning
    for points in (static_points, moving_points):
        assert str(points[1].round(2)) in warning


@pytest.mark.parametrize("dim", [2, 3])
def test_swapped_rows_are_those_whose_exchange_helps_most(dim):
    """Against fits of all exchanges; with a turn, a scale and a few outliers."""
    rng = np.random.default_rng(dim)
    static_points = rng.uniform(0, 90, (9, dim))
    moving_points = move(BETWEEN[dim], static_points) + rng.normal(0, 2, (9, dim))
    assert find_swapped_rows(static_points, move(BETWEEN[dim], static_points)) is None
    moving_points[[2, 7]] = moving_points[[7, 2]]
    moving_points[4] += 12
    design = np.column_stack([np.ones(9), static_points])

    def misfit(i, j):
        exchanged = moving_points.copy()
        exchanged[[i, j]] = moving_points[[j, i]]
        return np.linalg.lstsq(design, exchanged, rcond=None)[1].sum()

    best = min(combinations(range(9), 2), key=lambda pair: misfit(*pair))
    assert find_swapped_rows(static_points, moving_points) == best == (2, 7)


def test_regularization_says_how_near():
    static_points, moving_points = landmarks(2)
    noise = np.random.default_rng(0).normal(0, 1, moving_points.shape)
    means = []
    for regularization in (0, 1e-3, 1e-1):
        registration = ThinPlateSplineRegistration(regularization=regularization)
        registration.optimize(static_points, moving_points + noise, **grids(2))
        means.append(registration.distances.mean())
    assert means == sorted(means) and means[-1] > 5 * means[0]


def test_without_moving_grid_it_is_statics():
    static_points, _ = landmarks(2)
    moving_points = static_points + [1.0, 2.0]
    mapping = ThinPlateSplineRegistration().optimize(
        static_points,
        moving_points,
        static_shape=SHAPES[2][0],
        static_grid2world=STATIC[2],
    )
    image = np.random.default_rng(0).random(SHAPES[2][0]).astype(np.float32)
    assert mapping.transform(image).shape == image.shape
    np.testing.assert_array_equal(mapping.domain_grid2world, STATIC[2])
    plain = ThinPlateSplineRegistration().optimize(
        [[1, 1], [9, 2], [3, 8]], [[1, 1], [9, 2], [3, 9]], static_shape=(12, 12)
    )
    assert plain.domain_grid2world is None and plain.codomain_grid2world is None
    np.testing.assert_allclose(plain.transform_points(np.array([[3.0, 8]])), [[3, 9]])


def test_an_affine_map_serves_as_prealign():
    static_points, moving_points = landmarks(2)
    maps = [
        ThinPlateSplineRegistration().optimize(
            static_points, moving_points, prealign=prealign, **grids(2)
        )
        for prealign in (BETWEEN[2], AffineMap(BETWEEN[2]))
    ]
    np.testing.assert_array_equal(maps[0].backward, maps[1].backward)


def test_copies_count_once_and_are_told(log):
    static_points, moving_points = landmarks(2)
    expected = ThinPlateSplineRegistration().optimize(
        static_points, moving_points, **grids(2)
    )
    twice = [np.concatenate([p, p[:3], p[:1]]) for p in (static_points, moving_points)]
    registration = ThinPlateSplineRegistration()
    mapping = registration.optimize(*twice, **grids(2))
    np.testing.assert_array_equal(mapping.backward, expected.backward)
    assert len(registration.distances) == len(static_points)
    assert log() == ["4 landmarks repeat others and are not used."]


def test_one_static_landmark_with_two_moving_ones():
    static_points, moving_points = landmarks(2)
    static_points = np.concatenate([static_points, static_points[4:5]])
    moving_points = np.concatenate([moving_points, moving_points[4:5] + 3])
    with pytest.raises(ValueError, match="rows 4 and 30 are the same point"):
        ThinPlateSplineRegistration().optimize(static_points, moving_points, **grids(2))
    registration = ThinPlateSplineRegistration(regularization=1e-6)
    registration.optimize(static_points, moving_points, **grids(2))
    between = moving_points[[4, 30]].mean(0)
    there = registration.transform_points(static_points[4:5])
    np.testing.assert_allclose(there[0], between, atol=0.01)


def test_landmarks_beyond_the_field_of_view(log):
    static_points, moving_points = landmarks(2)
    static_points[0] += 500
    moving_points[0] += 500
    registration = ThinPlateSplineRegistration()
    registration.optimize(static_points, moving_points, **grids(2))
    there = registration.transform_points(static_points)
    np.testing.assert_allclose(there, moving_points, rtol=0, atol=1e-6)
    assert "1 of 30 static landmarks lie outside" in log()[0]


def test_mirrored_landmarks_are_told(log):
    static_points, _ = landmarks(3)
    mapping = ThinPlateSplineRegistration().optimize(
        static_points, static_points * [-1, 1, 1], **grids(3)
    )
    assert "reflection" in log()[0]
    there = mapping.transform_points(static_points)
    np.testing.assert_allclose(there, static_points * [-1, 1, 1], atol=1e-8)


def test_the_same_from_run_to_run():
    static_points, moving_points = landmarks(3)
    one, other = (
        ThinPlateSplineRegistration().optimize(static_points, moving_points, **grids(3))
        for _ in range(2)
    )
    np.testing.assert_array_equal(one.backward, other.backward)
    np.testing.assert_array_equal(one.forward, other.forward)


POINTS = np.array([[1.0, 2, 3], [9, 2, 3], [4, 8, 3], [4, 5, 9], [6, 6, 5]])
LINE = np.arange(5.0)[:, None] * [[1, 2]] + 3
PLANE = POINTS * [1, 1, 0] + [0, 0, 7]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"static_points": POINTS[:3], "moving_points": POINTS[:3]}, "at least 4"),
        ({"static_points": PLANE}, "static_points must .* plane"),
        ({"moving_points": PLANE}, "moving_points must .* plane"),
        (
            {"static_points": LINE, "moving_points": LINE, "static_shape": (9, 9)},
            "static_points must .* line",
        ),
        ({"static_points": POINTS[:4]}, "must have the same shape"),
        ({"static_points": POINTS[:, :2]}, "must have the same shape"),
        ({"static_points": POINTS[:, :1]}, "static_points must be an array"),
        ({"static_points": POINTS[0]}, r"static_points .* got shape \(3,\)"),
        ({"static_points": np.zeros((0, 3))}, "must have the same shape"),
        ({"moving_points": POINTS.astype(str)}, "moving_points .* real numbers"),
        ({"moving_points": [[1, 2], [3]]}, "moving_points must be an array"),
        ({"moving_points": POINTS * [1, np.nan, 1]}, "moving_points .* row 0"),
        ({"static_points": POINTS * [1, np.inf, 1]}, "static_points .* finite"),
        ({"static_shape": (9, 9)}, "static_shape must be 3"),
        ({"static_shape": (9, 9, 0)}, "static_shape must be 3"),
        ({"static_shape": (9, 9, 9.5)}, "static_shape must be 3"),
        ({"moving_shape": (9,)}, "moving_shape must be 3"),
        ({"moving_grid2world": np.eye(4)}, "moving_grid2world needs"),
        ({"static_grid2world": np.eye(3)}, "static_grid2world"),
        (
            {"moving_shape": (9, 9, 9), "moving_grid2world": np.zeros((4, 4))},
            "moving_grid2world",
        ),
        ({"prealign": np.diag([1, 1, 0, 1])}, "prealign"),
    ],
)
def test_bad_input_is_one_clear_error(changes, message):
    given = {
        "static_points": POINTS,
        "moving_points": POINTS + 1,
        "static_shape": (12, 12, 12),
        **changes,
    }
    points = given.pop("static_points"), given.pop("moving_points")
    with pytest.raises(ValueError, match=message):
        ThinPlateSplineRegistration().optimize(*points, **given)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"regularization": -1}, "regularization"),
        ({"regularization": np.nan}, "regularization"),
        ({"kernel": "gaussian"}, "kernel must be one of"),
        ({"device": "nowhere"}, "device"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ThinPlateSplineRegistration(**options)


def test_nothing_before_optimize():
    registration = ThinPlateSplineRegistration()
    calls = [
        registration.get_map,
        lambda: registration.transform_points(POINTS),
        lambda: registration.transform_points_inverse(POINTS),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="optimize"):
            call()
    registration.optimize(POINTS, POINTS, static_shape=(12, 12, 12))
    with pytest.raises(ValueError, match="3 columns"):
        registration.transform_points(POINTS[:, :2])
    for call in (registration.transform_points, registration.transform_points_inverse):
        assert call(np.zeros((0, 3))).shape == (0, 3)


# Files


@pytest.mark.parametrize(
    "text",
    [
        "1 2 3\n4 5 6.5\n",
        "1,2,3\r\n4,5,6.5\r\n",
        "x,y,z\n1,2,3\n4,5,6.5",
        "# mm\n1;2;3\n\n4;5;6.5 # the last\n",
        "\ufeffx\ty\tz\n1\t2\t3\n4\t5\t6.5\n",
    ],
)
def test_points_are_read(tmp_path, text):
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(read_landmarks(path), [[1, 2, 3], [4, 5, 6.5]])
    np.testing.assert_array_equal(read_landmarks(str(path)), read_landmarks(path))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no points"),
        ("x y z\n", "no points"),
        ("1 2 3\n4 5\n", "line 2 must hold"),
        ("1 2 3\nfour 5 6\n", "line 2 must hold"),
        ("x y z\nmm mm mm\n1 2 3", "line 2 must hold"),
        ("1 2 3 4\n", "line 1 must hold"),
        ("1 2 nan\n", "must be finite"),
    ],
)
def test_files_of_something_else(tmp_path, text, message):
    path = tmp_path / "points.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"landmarks: .*points.txt.*{message}"):
        read_landmarks(path)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="mine: no such file"):
        read_landmarks(tmp_path / "none.csv", name="mine")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match="not a text file"):
        read_landmarks(tmp_path / "binary.csv")
