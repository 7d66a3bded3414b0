"""An object without symmetry, given as a function of space: any pose of it is exact."""

import numpy as np

#: Centre, radii (mm) and intensity of soft-edged ellipsoids, the first the outermost.
PARTS = (
    ((0, 0, 0), (62, 78, 55), 0.5),
    ((5, 22, 12), (30, 26, 22), 0.35),
    ((-28, -10, 5), (16, 30, 24), -0.25),
    ((20, -38, -14), (22, 18, 16), 0.45),
    ((-8, 40, -20), (14, 12, 12), -0.3),
    ((30, 5, 25), (12, 20, 10), -0.25),
)
EDGE = 0.12
#: Of a texture all over it, mm for a radian.
WAVES = (9.0, 11.0, 8.0)


def value(points):
    """Intensity at points (..., D) of the world; in 2D the slice through the middle."""
    total = 0.0
    dim = points.shape[-1]
    # Something to see everywhere: of plateaus alone, more information is in a larger
    # edge, and mutual information would shrink the object.
    texture = 1 + 0.25 * np.prod(np.sin(points / np.array(WAVES[:dim]) + 1), -1)
    for centre, radii, intensity in PARTS:
        away = (points - np.array(centre[:dim])) / np.array(radii[:dim])
        distance = np.sqrt((away**2).sum(-1))
        total = total + intensity / (1 + np.exp((distance - 1) / EDGE))
    return total * texture


def image(shape, grid2world, pose=None):
    """The object on a grid, after it was moved by a matrix."""
    dim = len(shape)
    matrix = grid2world if pose is None else np.linalg.inv(pose) @ grid2world
    places = np.moveaxis(np.indices(shape), 0, -1)
    return value(places @ matrix[:dim, :dim].T + matrix[:dim, dim]).astype(np.float32)


def grid(shape, spacing, centre=None, turn=None):
    """Voxel-to-world matrix of a grid with its middle at `centre`."""
    dim = len(shape)
    matrix = np.eye(dim + 1)
    turn = np.eye(dim) if turn is None else turn
    matrix[:dim, :dim] = turn * np.broadcast_to(spacing, dim)
    middle = matrix[:dim, :dim] @ ((np.array(shape) - 1) / 2)
    matrix[:dim, dim] = (np.zeros(dim) if centre is None else centre) - middle
    return matrix


def rotation(axis, degrees):
    """Rotation matrix about an axis (3D)."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def rigid(turn, shift):
    """Matrix of a turn and a shift."""
    dim = len(turn)
    matrix = np.eye(dim + 1)
    matrix[:dim, :dim], matrix[:dim, dim] = turn, shift
    return matrix


def misplacement(matrix, truth):
    """Largest distance between the object mapped by two matrices, mm."""
    dim = len(matrix) - 1
    radii = np.array(PARTS[0][1][:dim])
    corners = np.stack(np.meshgrid(*[[-0.6, 0.6]] * dim), -1).reshape(-1, dim) * radii
    gap = matrix - truth
    return np.linalg.norm(corners @ gap[:dim, :dim].T + gap[:dim, dim], axis=1).max()
