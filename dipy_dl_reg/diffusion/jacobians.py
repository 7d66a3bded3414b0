r"""Jacobian matrices of whole maps, and the rotations contained in them.

:math:`T` is the map that image resampling uses: it takes a point of the output space to
the point of the input space whose value is read (static to moving for
``mapping.transform``).  With :math:`J = \partial T / \partial x`, a direction :math:`d`
of the input image becomes :math:`J^{-1} d` in the output: anatomy moves against
:math:`T`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
import numpy as np
from scipy.ndimage import map_coordinates

from dipy_dl_reg.maps.dipy_map import check_mapping
from dipy_dl_reg.validation import check_affine, check_points, check_shape

#: Maps whose Jacobian matrix is known.
MapLike: TypeAlias = DiffeomorphicMap | AffineMap | np.ndarray
#: Determinant at or below which a matrix is singular, as a fraction of that of a
#: uniform scaling of the same norm.
_SINGULAR = 1e-6


def map_jacobians(
    mapping: MapLike,
    shape: Sequence[int],
    grid2world: np.ndarray | None = None,
    *,
    inverse: bool = False,
) -> np.ndarray:
    r"""Jacobian matrices of the whole map at the voxels of an output grid.

    .. math:: J_{ij}(x) = \frac{\partial T_i}{\partial x_j}(x)

    in world coordinates, for the map :math:`T` from the output space to the input
    space, prealign included. A direction :math:`d` of the input image becomes
    :math:`J^{-1} d` in the output image.

    Parameters
    ----------
    mapping : DiffeomorphicMap, AffineMap or ndarray of shape (dim + 1, dim + 1)
        The map, of this package's or of DIPY's registrations; a matrix takes static's
        world to moving's.
    shape : tuple of int
        Shape of the output grid.
    grid2world : ndarray, shape (dim + 1, dim + 1), optional
        Voxel-to-world matrix of the output grid; the identity by default.
    inverse : bool, optional
        False: the output grid is in static's world, and :math:`T` takes static to
        moving, as for ``mapping.transform``. True: it is in moving's world, and
        :math:`T` takes moving to static, as for ``mapping.transform_inverse``.

    Returns
    -------
    jacobians : ndarray of float64, shape (*shape, dim, dim)
        Matrix :math:`J` of each voxel; outside the displacement field, that of the
        prealign.

    Raises
    ------
    ValueError
        If the map, the shape or the matrix is not valid.

    Notes
    -----
    The derivatives of the displacement are central differences on its grid (one-sided
    at its border), interpolated linearly.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg.diffusion.jacobians import map_jacobians
    >>> quarter_turn = np.array(
    ...     [[0, -1, 0, 5], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    ... )
    >>> jacobians = map_jacobians(quarter_turn, (2, 2, 2))
    >>> jacobians.shape
    (2, 2, 2, 3, 3)
    >>> np.allclose(jacobians[0, 0, 0], quarter_turn[:3, :3])
    True
    """
    dim = map_dimension(mapping)
    shape = check_shape(shape, dim, "shape")
    matrix = np.eye(dim + 1) if grid2world is None else grid2world
    matrix = check_affine(matrix, dim, "grid2world")
    voxels = np.indices(shape).reshape(dim, -1).T
    points = voxels @ matrix[:dim, :dim].T + matrix[:dim, dim]
    return point_jacobians(mapping, points, inverse=inverse).reshape(*shape, dim, dim)


def point_jacobians(
    mapping: MapLike, points: np.ndarray, *, inverse: bool = False
) -> np.ndarray:
    """Jacobian matrices of the whole map at points of the output space.

    Parameters
    ----------
    mapping : DiffeomorphicMap, AffineMap or ndarray of shape (dim + 1, dim + 1)
        The map; see `map_jacobians`.
    points : ndarray, shape (N, dim)
        World coordinates (mm): of static, with `inverse` of moving.
    inverse : bool, optional
        As in `map_jacobians`.

    Returns
    -------
    jacobians : ndarray of float64, shape (N, dim, dim)
        Derivatives of the transformed point by the coordinates of `points`.

    Raises
    ------
    ValueError
        If the map or the points are not valid.
    """
    dim = map_dimension(mapping)
    points = check_points(points, "points")
    if points.shape[1] != dim:
        raise ValueError(f"points must have the shape (N, {dim}), got {points.shape}")
    if not isinstance(mapping, DiffeomorphicMap):
        linear = _affine_of(mapping, inverse)[:dim, :dim]
        return np.broadcast_to(linear, (len(points), dim, dim)).copy()
    prealign = np.eye(dim + 1) if mapping.prealign is None else mapping.prealign
    if _uses_backward(mapping, inverse):
        linear = np.linalg.inv(prealign)[:dim, :dim]
        return linear @ _displacement_jacobians(mapping, mapping.backward, points)
    linear = prealign[:dim, :dim]
    points = points @ linear.T + prealign[:dim, dim]
    return _displacement_jacobians(mapping, mapping.forward, points) @ linear


def direction_matrices(
    mapping: MapLike, points: np.ndarray, *, inverse: bool = False
) -> np.ndarray:
    """Matrices by which directions of the input image become those of the output.

    Parameters
    ----------
    mapping : DiffeomorphicMap, AffineMap or ndarray of shape (dim + 1, dim + 1)
        The map; see `map_jacobians`.
    points : ndarray, shape (N, dim)
        World coordinates (mm) in the output space.
    inverse : bool, optional
        As in `map_jacobians`.

    Returns
    -------
    matrices : ndarray of float64, shape (N, dim, dim)
        Inverses of the Jacobian matrices.  Where the map is singular, as at a fold, it
        is the identity: no direction is preserved there.
    """
    jacobians = point_jacobians(mapping, points, inverse=inverse)
    dim = jacobians.shape[-1]
    scales = np.linalg.norm(jacobians, axis=(-2, -1)) / np.sqrt(dim)
    singular = np.abs(np.linalg.det(jacobians)) <= _SINGULAR * scales**dim
    jacobians[singular] = np.eye(dim)
    return np.linalg.inv(jacobians)


def rotation_of(matrices: np.ndarray) -> np.ndarray:
    r"""Rotations contained in matrices: finite strain.

    .. math:: R = F (F^\top F)^{-1/2}

    the orthogonal matrix nearest to :math:`F` :footcite:p:`Alexander2001`.

    Parameters
    ----------
    matrices : ndarray, shape (..., dim, dim)
        Invertible matrices :math:`F`: for the rotation of directions from the input to
        the output image, the inverses of `map_jacobians`.

    Returns
    -------
    rotations : ndarray of float64, shape (..., dim, dim)
        Orthogonal matrices: rotations, or reflections where :math:`\det F < 0`.

    Raises
    ------
    ValueError
        If the last two axes are not square matrices of 2 or 3 rows.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg.diffusion.jacobians import rotation_of
    >>> turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    >>> np.allclose(rotation_of(turn @ np.diag([1.0, 2.0, 0.5])), turn)
    True
    """
    matrices = np.asarray(matrices, dtype=np.float64)
    if matrices.shape[-2:] not in ((2, 2), (3, 3)):
        raise ValueError(
            f"matrices must have the shape (..., dim, dim), got {matrices.shape}"
        )
    left, _, right = np.linalg.svd(matrices)
    return left @ right


def map_dimension(mapping: MapLike) -> int:
    """Dimension of a map, which is checked.

    Parameters
    ----------
    mapping : DiffeomorphicMap, AffineMap or ndarray of shape (dim + 1, dim + 1)
        The map.

    Returns
    -------
    dim : {2, 3}
        The dimension.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if isinstance(mapping, AffineMap):
        mapping = _matrix_of(mapping)
    if isinstance(mapping, np.ndarray):
        dim = 2 if mapping.shape == (3, 3) else 3
        check_affine(mapping, dim, "mapping")
        return dim
    check_mapping(mapping)
    return int(mapping.dim)


def _affine_of(mapping: AffineMap | np.ndarray, inverse: bool) -> np.ndarray:
    """Matrix from the output to the input space, of an affine map."""
    matrix = _matrix_of(mapping) if isinstance(mapping, AffineMap) else mapping
    return np.linalg.inv(matrix) if inverse else np.asarray(matrix, dtype=np.float64)


def _matrix_of(mapping: AffineMap) -> np.ndarray:
    """Matrix of DIPY's affine map, which is None for the identity."""
    if mapping.affine is not None:
        return np.asarray(mapping.affine, dtype=np.float64)
    return np.eye(4 if mapping.domain_shape is None else len(mapping.domain_shape) + 1)


def _uses_backward(mapping: DiffeomorphicMap, inverse: bool) -> bool:
    """Whether resampling reads the field `backward`, and not `forward`."""
    return bool(mapping.is_inverse) != inverse


def _displacement_jacobians(
    mapping: DiffeomorphicMap, field: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Matrices ``I + du/dx`` of a displacement field at world points."""
    dim = mapping.dim
    grid2world = mapping.disp_grid2world
    world2grid = np.eye(dim + 1) if grid2world is None else np.linalg.inv(grid2world)
    voxels = (points @ world2grid[:dim, :dim].T + world2grid[:dim, dim]).T
    derivatives = np.empty((len(points), dim, dim))
    for i in range(dim):
        for axis in range(dim):
            # DIPY's fields decrease to 0 within one voxel beyond the border.
            derivatives[:, i, axis] = map_coordinates(
                _derivative(field[..., i], axis), voxels, order=1, mode="grid-constant"
            )
    return np.eye(dim) + derivatives @ world2grid[:dim, :dim]


def _derivative(values: np.ndarray, axis: int) -> np.ndarray:
    """Derivative along an axis, per voxel; 0 along an axis of one voxel."""
    if values.shape[axis] < 2:
        return np.zeros_like(values)
    return np.gradient(values, axis=axis)
