"""Composition of maps: a chain of registrations as one map."""

from __future__ import annotations

from functools import reduce

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.maps.dipy_map import as_mapping
from dipy_dl_reg.maps.formats.dense_field import (
    DenseField,
    forward_field,
    grid_points,
    inverse_field,
    map_grids,
    mapping_from_fields,
    user_prealign,
)

#: Smallest part of the points that must lie in the image between two maps.
_LEAST_INSIDE = 0.02


def compose_mappings(*mappings: DiffeomorphicMap | AffineMap) -> DiffeomorphicMap:
    r"""Combine maps, each of which continues the one before, to one map.

    For ``b0_to_t1``, with :math:`y_1` from T1 world to b0 world, and
    ``t1_to_template``, with :math:`y_2` from template world to T1 world, the result has

    .. math:: y(x) = y_1(y_2(x)), \qquad P = P_1 P_2

    from template world to b0 world, and the inverse likewise in the opposite order.
    Images are then interpolated once.

    Parameters
    ----------
    *mappings : DiffeomorphicMap or AffineMap
        Two maps or more, in the order in which images are transformed: the static image
        of each is the moving image of the next, in the same world, not necessarily on
        the same grid.

    Returns
    -------
    mapping : DiffeomorphicMap
        A map from the moving image of the first (``mapping.transform`` takes it) to the
        static image of the last, on whose grid the fields are. Both directions are
        exact at the voxels of their output images, and interpolated linearly elsewhere.

    Raises
    ------
    ValueError
        If there are fewer than two maps, one of them is no map or has no affines, they
        differ in dimension, or an image between two of them is missed: another order.

    See Also
    --------
    apply_mapping : transforms an image by the composed map, with one interpolation.
    read_mapping : maps of other programs, which can be parts.

    Examples
    --------
    A map to an image, followed by an affine map from this image to a template:

    >>> import numpy as np
    >>> from dipy.align.imaffine import AffineMap
    >>> from dipy_dl_reg import DeepRegistration, compose_mappings
    >>> x, y = np.mgrid[-1:1:32j, -1:1:32j]
    >>> t1, b0 = np.exp(-8 * (x**2 + y**2)), np.exp(-8 * (x**2 + 2 * y**2))
    >>> grids = {"static_grid2world": np.eye(3), "moving_grid2world": np.eye(3)}
    >>> b0_to_t1 = DeepRegistration("SSD").optimize(static=t1, moving=b0, **grids)
    >>> t1_to_template = AffineMap(
    ...     np.array([[1.0, 0, 2], [0, 1, 0], [0, 0, 1]]),  # template world to T1 world
    ...     domain_grid_shape=(32, 32),
    ...     domain_grid2world=np.eye(3),
    ...     codomain_grid_shape=(32, 32),
    ...     codomain_grid2world=np.eye(3),
    ... )
    >>> b0_to_template = compose_mappings(b0_to_t1, t1_to_template)
    >>> shifted = b0_to_t1.transform(b0)[2:]
    >>> bool(np.allclose(b0_to_template.transform(b0)[:30], shifted, atol=0.01))
    True
    """
    if len(mappings) < 2:
        raise ValueError(f"mappings must be two maps or more, got {len(mappings)}")
    maps = [as_mapping(m, name=f"mappings[{k}]") for k, m in enumerate(mappings)]
    dims = {mapping.dim for mapping in maps}
    if len(dims) > 1:
        raise ValueError(f"mappings must have one dimension, got {sorted(dims)}")
    return reduce(_compose, maps)


def _compose(first: DiffeomorphicMap, second: DiffeomorphicMap) -> DiffeomorphicMap:
    """Compose two maps: images are transformed by the first, then by the second."""
    dim = first.dim
    there, back = forward_field(second), inverse_field(first)
    _check_chain(first, there)
    positions = first.transform_points(there.positions.reshape(-1, dim))
    returned = second.transform_points_inverse(back.positions.reshape(-1, dim))
    moving = map_grids(first)[1]
    return mapping_from_fields(
        DenseField(positions.reshape(there.positions.shape), there.grid, moving),
        DenseField(returned.reshape(back.positions.shape), moving, there.grid),
        prealign=user_prealign(first) @ user_prealign(second),
        start=_inverse_displacement(first, second),
    )


def _inverse_displacement(
    first: DiffeomorphicMap, second: DiffeomorphicMap
) -> np.ndarray:
    """The inverse displacement of the composition, at the voxels of static."""
    points = grid_points(map_grids(second)[0])
    prealign = user_prealign(first) @ user_prealign(second)
    dim = first.dim
    at = points.reshape(-1, dim) @ prealign[:dim, :dim].T + prealign[:dim, dim]
    middle = first.transform_points_inverse(at)
    found = second.transform_points_inverse(middle)
    return found.reshape(points.shape) - points


def _check_chain(first: DiffeomorphicMap, there: DenseField) -> None:
    """Check that the second map leads into the first map's static image."""
    between = map_grids(first)[0]
    points = there.positions.reshape(-1, first.dim)
    inside = between.contains(points, margin=0.5).mean()
    if inside < _LEAST_INSIDE:
        raise ValueError(
            "mappings must be given in the order in which images are transformed, such "
            "as compose_mappings(b0_to_t1, t1_to_template): the static image of each "
            "is the moving image of the next, but the next map leads "
            f"{inside:.1%} of its points into it"
        )
