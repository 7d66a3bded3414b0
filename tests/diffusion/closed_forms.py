"""Maps whose effect on directions is known, and directions on grids."""

from dipy.align.imwarp import DiffeomorphicMap
from maps import affine
import numpy as np

#: Oblique, anisotropic, one of each handedness, of unequal shapes.
STATIC = affine([2.0, -1.5, 2.5], (0.1, -0.2, 0.05), [-13.0, 12, -15])
MOVING = affine([1.8, 2.2, 1.6], (-0.15, 0.1, 0.2), [-14.0, -16, -16])
STATIC_SHAPE, MOVING_SHAPE = (15, 17, 13), (17, 15, 19)


def world_points(shape, grid2world):
    """World coordinates of the voxels of a grid."""
    voxels = np.moveaxis(np.indices(shape), 0, -1)
    return voxels @ grid2world[:3, :3].T + grid2world[:3, 3]


def make_known_map(to_moving, to_static, prealign=None, *, static_shape, static):
    """A map in SyN's form from functions of points, and moving on static's grid."""
    points = world_points(static_shape, static)
    mapping = DiffeomorphicMap(
        3,
        static_shape,
        disp_grid2world=static,
        domain_shape=static_shape,
        domain_grid2world=static,
        codomain_shape=static_shape,
        codomain_grid2world=static,
        prealign=None if prealign is None else np.linalg.inv(prealign),
    )
    mapping.backward = (to_moving(points) - points).astype(np.float32)
    mapping.forward = (to_static(points) - points).astype(np.float32)
    mapping.is_inverse = True
    return mapping


def make_affine_map(matrix):
    """A map that is a matrix from static's to moving's world, with unlike grids."""
    mapping = DiffeomorphicMap(
        3,
        STATIC_SHAPE,
        disp_grid2world=STATIC,
        domain_shape=MOVING_SHAPE,
        domain_grid2world=MOVING,
        codomain_shape=STATIC_SHAPE,
        codomain_grid2world=STATIC,
        prealign=np.linalg.inv(matrix),
    )
    mapping.allocate()
    mapping.is_inverse = True
    return mapping


def angles(first, second):
    """Angles between axes, without sign, in degrees."""
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    cosines = np.abs((first * second).sum(-1))
    cosines /= np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return np.degrees(np.arccos(np.clip(cosines, 0, 1)))


def principal(matrices):
    """Eigenvectors of the largest eigenvalues."""
    return np.linalg.eigh(matrices)[1][..., -1]


#: Half the length of the fanning bundle, and how fast it fans, per mm.
FAN_SIZE, FAN_RATE = 20.0, 0.02


def fan_to_moving(points):
    """Points of the fan to those of the straight bundle along y."""
    moved = points.copy()
    moved[..., 0] /= 1 + FAN_RATE * (points[..., 1] + FAN_SIZE)
    return moved


def fan_to_static(points):
    """Points of the straight bundle to those of the fan."""
    moved = points.copy()
    moved[..., 0] *= 1 + FAN_RATE * (points[..., 1] + FAN_SIZE)
    return moved


def fan_directions(points):
    """Directions of the fibres of the fan."""
    directions = np.zeros_like(points)
    directions[..., 1] = 1
    directions[..., 0] = FAN_RATE * fan_to_moving(points)[..., 0]
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def make_fan_map(step=2.0):
    """The map from the fan (static) to the straight bundle (moving), and its grid."""
    n = int(2 * FAN_SIZE / step) + 1
    grid = np.diag([step, step, step, 1.0])
    grid[:3, 3] = -FAN_SIZE
    shape = (n, n, 5)
    mapping = make_known_map(
        fan_to_moving, fan_to_static, static_shape=shape, static=grid
    )
    return mapping, shape, grid
