"""Landmarks whose spline is known, and grids that hold them."""

from maps import affine
import numpy as np
from pairs import centred, move

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


def landmarks(dim, bend=1.5, count=30):
    """Landmarks within static's field of view, and their known positions in moving."""
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


POINTS = np.array([[1.0, 2, 3], [9, 2, 3], [4, 8, 3], [4, 5, 9], [6, 6, 5]])

LINE = np.arange(5.0)[:, None] * [[1, 2]] + 3

PLANE = POINTS * [1, 1, 0] + [0, 0, 7]
