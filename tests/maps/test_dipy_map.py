"""Maps made of affine maps."""

from dipy.align.imaffine import AffineMap
from maps import affine, blob
import numpy as np
from numpy.testing import assert_allclose
import pytest

from dipy_dl_reg.maps.dipy_map import as_mapping, without_displacement


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("matrix", ["identity", "sheared"])
def test_affine_map_as_a_deformable_map(dim, matrix, rng):
    """Images and points are transformed as by the affine map, in both directions."""
    static = affine([2.0, -1.5, 2.5][:dim], (0.1, -0.2, 0.05))
    moving = affine([-1.8, 2.2, 1.6][:dim], (-0.15, 0.1, 0.2), [20.0, -15, 3][:dim])
    shapes = (17, 20, 15)[:dim], (19, 16, 22)[:dim]
    sheared = affine([1.1, 0.9, 1.0][:dim], (0.2, 0.1, 0.0), [1.0, -2, 1][:dim])
    sheared[0, 1] += 0.1
    affine_map = AffineMap(
        None if matrix == "identity" else sheared,
        domain_grid_shape=shapes[0],
        domain_grid2world=static,
        codomain_grid_shape=shapes[1],
        codomain_grid2world=moving,
    )
    mapping = without_displacement(affine_map)
    middle = (moving @ [*(np.array(shapes[1]) / 2), 1])[:dim]
    image = blob(shapes[1], moving, middle, 6)
    wanted = affine_map.transform(image)
    assert np.abs(wanted).max() > 0.1
    assert_allclose(mapping.transform(image), wanted, atol=1e-5)
    image = blob(shapes[0], static, np.zeros(dim), 6)
    wanted = affine_map.transform_inverse(image)
    assert_allclose(mapping.transform_inverse(image), wanted, atol=1e-5)
    points = rng.normal(size=(5, dim)) * 10
    linear = np.eye(dim + 1) if matrix == "identity" else sheared
    there = points @ linear[:dim, :dim].T + linear[:dim, dim]
    assert_allclose(mapping.transform_points(points), there, atol=1e-5)
    assert_allclose(mapping.transform_points_inverse(there), points, atol=1e-5)


def test_affine_map_without_grids():
    with pytest.raises(ValueError, match="mapping must have the grids of both images"):
        without_displacement(AffineMap(np.eye(4)))


def test_maps_without_grids():
    with pytest.raises(ValueError, match="map must be a DiffeomorphicMap.*AffineMap"):
        as_mapping(np.eye(4), name="map")
    with pytest.raises(ValueError, match="map must be a DiffeomorphicMap, got str"):
        as_mapping("map.nii.gz", name="map")
