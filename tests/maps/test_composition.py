"""A chain of maps is the maps one after the other, with one interpolation."""

from dipy.align.imaffine import AffineMap
from maps import affine, make_map
import numpy as np
from numpy.testing import assert_allclose
import pytest

from dipy_dl_reg import compose_mappings
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.dipy_map import as_mapping
from dipy_dl_reg.maps.formats.dense_field import grid_points

#: b0, T1 and template: unequal, oblique, flipped and far apart.
GRIDS = [
    Grid((12, 13, 11), affine([-3, 3, 3.2], (0.1, -0.2, 0.1), [20, -5, 8])),
    Grid((19, 22, 18), affine([2, -2, 2], (0.05, 0.1, -0.1), [5, 30, 3])),
    Grid((21, 20, 22), affine([2, 2, 2], (), [-400, -20, -10])),
]


def flat(grid):
    """The first two axes of a grid."""
    rows = np.ix_([0, 1, 3], [0, 1, 3])
    return Grid(grid.shape[:2], grid.affine[rows])


def prealign_between(static, moving, shear):
    """A scaled, rotated and sheared affine that maps the middle onto the middle."""
    dim = static.dim
    matrix = affine([1.05, 0.95, 1.02][:dim], (0.05, 0.1, -0.05))
    matrix[0, 1] += shear
    middles = [
        (grid.affine @ [*(np.array(grid.shape) - 1) / 2, 1])[:dim]
        for grid in (static, moving)
    ]
    matrix[:dim, dim] = middles[1] - matrix[:dim, :dim] @ middles[0] + 0.5
    return matrix


def map_between(static, moving, shear, amplitude=1.5):
    return make_map(
        static.shape,
        moving.shape,
        static_grid2world=static.affine,
        moving_grid2world=moving.affine,
        prealign=prealign_between(static, moving, shear),
        amplitude=amplitude,
    )


def affine_between(static, moving, shear):
    return AffineMap(
        prealign_between(static, moving, shear),
        domain_grid_shape=static.shape,
        domain_grid2world=static.affine,
        codomain_grid_shape=moving.shape,
        codomain_grid2world=moving.affine,
    )


@pytest.mark.parametrize("first", [map_between, affine_between])
@pytest.mark.parametrize("second", [map_between, affine_between])
@pytest.mark.parametrize("dim", [2, 3])
def test_chain_is_one_map_after_the_other(dim, first, second):
    b0, t1, template = GRIDS if dim == 3 else map(flat, GRIDS)
    maps = first(t1, b0, 0.05), second(template, t1, -0.03)
    found = compose_mappings(*maps)
    first, second = map(as_mapping, maps)
    points = grid_points(template).reshape(-1, dim)
    wanted = first.transform_points(second.transform_points(points))
    assert_allclose(found.transform_points(points), wanted, atol=1e-5)
    points = grid_points(b0).reshape(-1, dim)
    inverse = found.prealign
    on_template = template.contains(points @ inverse[:dim, :dim].T + inverse[:dim, dim])
    assert on_template.mean() > 0.5
    points = points[on_template]
    back = second.transform_points_inverse(first.transform_points_inverse(points))
    assert_allclose(found.transform_points_inverse(points), back, atol=1e-4)
    assert_allclose(found.prealign_inv, first.prealign_inv @ second.prealign_inv)
    assert tuple(found.domain_shape) == b0.shape
    assert_allclose(found.codomain_grid2world, template.affine)


def test_image_is_interpolated_once(rng):
    """The image equals one interpolation at the points of the whole chain."""
    b0, t1, template = GRIDS
    maps = map_between(t1, b0, 0.05), map_between(template, t1, -0.03)
    found = compose_mappings(*maps)
    image = rng.random(b0.shape).astype(np.float32)
    points = grid_points(template).reshape(-1, 3)
    at = maps[0].transform_points(maps[1].transform_points(points))
    voxels = at @ b0.inverse[:3, :3].T + b0.inverse[:3, 3]
    inside = ((voxels >= 0) & (voxels <= np.array(b0.shape) - 1)).all(1)
    assert inside.mean() > 0.2
    from scipy.ndimage import map_coordinates

    wanted = map_coordinates(image, voxels[inside].T, order=1)
    assert_allclose(found.transform(image).ravel()[inside], wanted, atol=1e-4)


def test_chain_of_three():
    b0, t1, template = GRIDS
    maps = map_between(t1, b0, 0.05), map_between(template, t1, -0.03)
    last = affine_between(Grid((9, 9, 9), np.diag([5.0, 5, 5, 1])), template, 0.01)
    found = compose_mappings(*maps, last)
    points = grid_points(Grid((9, 9, 9), np.diag([5.0, 5, 5, 1]))).reshape(-1, 3)
    wanted = last.affine[:3, :3] @ points.T + last.affine[:3, 3:]
    wanted = compose_mappings(*maps).transform_points(wanted.T)
    assert_allclose(found.transform_points(points), wanted, atol=1e-4)


def test_bad_chains_are_errors():
    b0, t1, template = GRIDS
    first, second = map_between(t1, b0, 0.05), map_between(template, t1, -0.03)
    with pytest.raises(ValueError, match="order in which images are transformed"):
        compose_mappings(second, first)
    with pytest.raises(ValueError, match="two maps or more, got 1"):
        compose_mappings(first)
    with pytest.raises(ValueError, match=r"mappings\[1\] must be a DiffeomorphicMap"):
        compose_mappings(first, "map.npz")
    with pytest.raises(ValueError, match=r"must have one dimension, got \[2, 3\]"):
        compose_mappings(first, map_between(flat(t1), flat(b0), 0))
    with pytest.raises(ValueError, match="affines of both images"):
        compose_mappings(make_map((9, 8, 7), (9, 8, 7)), first)
