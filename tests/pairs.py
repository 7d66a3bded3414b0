"""Small pairs of images whose true map is known, and warps by SciPy, for tests."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import map_coordinates


class Pair(NamedTuple):
    """Two images and their geometry."""

    static: np.ndarray
    moving: np.ndarray
    static_grid2world: np.ndarray
    moving_grid2world: np.ndarray
    prealign: np.ndarray

    @property
    def affines(self):
        """Keyword arguments of `optimize`."""
        return {name: getattr(self, name) for name in self._fields[2:5]}


def move(matrix, points):
    """Apply an affine matrix to points (..., D)."""
    dim = matrix.shape[0] - 1
    return points @ matrix[:dim, :dim].T + matrix[:dim, dim]


def voxels(shape):
    """Indices of all voxels, (*shape, D), float64."""
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * 1.0


def interpolate(image, points):
    """Linear interpolation at voxel coordinates (..., D), fading to 0 outside."""
    at = np.moveaxis(points, -1, 0)
    image = np.asarray(image, dtype=np.float64)
    return map_coordinates(image, at, order=1, mode="grid-constant", cval=0.0)


def interpolate_field(field, points):
    """The same for each component of a field (*shape, D)."""
    parts = [interpolate(field[..., d], points) for d in range(field.shape[-1])]
    return np.stack(parts, -1)


def centred(linear, shape, centre):
    """Voxel-to-world matrix whose middle voxel lies at `centre`."""
    dim = len(shape)
    matrix = np.eye(dim + 1)
    matrix[:dim, :dim] = linear
    matrix[:dim, dim] = centre - linear @ ((np.array(shape) - 1) / 2)
    return matrix


def anatomy(points, centre):
    """A smooth picture of the world: a head of blobs, 0 towards the border.

    The whole of it lies in view, so that static and moving span one range.
    """
    generator = np.random.default_rng(7)
    dim = len(centre)
    x = points - centre
    value = np.exp(-((np.linalg.norm(x, axis=-1) / 16) ** 6))
    texture = 0.5
    for _ in range(14):
        place = generator.uniform(-13, 13, 3)[:dim]
        width, height = generator.uniform(3, 6), generator.uniform(-0.3, 0.5)
        texture = texture + height * np.exp(-((x - place) ** 2).sum(-1) / 2 / width**2)
    return value * texture


def bend(points, centre, amplitude):
    """A smooth displacement of the world in mm, largest in the middle."""
    x = points - centre
    dim = x.shape[-1]
    window = np.exp(-(x**2).sum(-1, keepdims=True) / (2 * 14.0**2))
    waves = [np.cos(x[..., (d + 1) % dim] / 9 + d) for d in range(dim)]
    return amplitude * window * np.stack(waves, -1)


def make_pair(
    static_linear, moving_linear, static_shape, moving_shape, prealign, *, amplitude=3.0
):
    """Images of one anatomy: static world x lies at ``P (x + bend(x))`` in moving.

    A matrix of None is the identity, also as the pair has it.
    """
    dim = len(static_shape)
    middle = np.array([11.0, -7.0, 5.0][:dim])
    P = np.eye(dim + 1) if prealign is None else prealign
    if static_linear is None:
        middle = (np.array(static_shape) - 1) / 2
        static_grid2world = np.eye(dim + 1)
    else:
        static_grid2world = centred(static_linear, static_shape, middle)
    if moving_linear is None:
        moving_grid2world = np.eye(dim + 1)
    else:
        moving_grid2world = centred(moving_linear, moving_shape, move(P, middle))
    world = move(static_grid2world, voxels(static_shape))
    prealigned = move(np.linalg.inv(P) @ moving_grid2world, voxels(moving_shape))
    origin = prealigned  # solves origin + bend(origin) = prealigned
    still = np.ones(dim)
    still[dim - 1] = static_shape[-1] > 1  # nothing leaves the plane of one slice
    for _ in range(100):
        origin = prealigned - still * bend(origin, middle, amplitude)
    return Pair(
        anatomy(world, middle),
        anatomy(origin, middle),
        None if static_linear is None else static_grid2world,
        None if moving_linear is None else moving_grid2world,
        prealign,
    )


def jacobian(field, grid2world):
    """Determinant of x + u(x), u in mm on a voxel grid, by central differences."""
    dim = field.shape[-1]
    slopes = np.zeros((*field.shape, dim))
    for axis in range(dim):
        if field.shape[axis] > 1:
            slopes[..., axis] = np.gradient(field.astype(np.float64), axis=axis)
    in_voxels = np.linalg.inv(grid2world[:dim, :dim])
    return np.linalg.det(np.eye(dim) + slopes @ in_voxels)


def round_trip(first, second, grid2world):
    """Distance, in voxels, of each voxel from its position after two fields in mm.

    NaN where the first leads outside the grid.
    """
    dim = first.shape[-1]
    in_voxels = np.linalg.inv(grid2world[:dim, :dim]).T
    first, second = first @ in_voxels, second @ in_voxels
    place = voxels(first.shape[:dim]) + first
    error = np.linalg.norm(first + interpolate_field(second, place), axis=-1)
    inside = (place >= 0) & (place <= np.array(first.shape[:dim]) - 1)
    return np.where(inside.all(-1), error, np.nan)
