"""Small maps in the form DIPY's registrations return, for tests."""

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np
from scipy.ndimage import map_coordinates


def affine(spacing, angles=(0.0, 0.0, 0.0), origin=None):
    """Voxel-to-world matrix: voxel sizes (signed), rotations in radians, origin."""
    dim = len(spacing)
    rotation = np.eye(dim)
    planes = [(0, 1), (1, 2), (0, 2)] if dim == 3 else [(0, 1)]
    for (a, b), angle in zip(planes, angles, strict=False):
        turn = np.eye(dim)
        turn[[a, b], [a, b]] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    matrix = np.eye(dim + 1)
    matrix[:dim, :dim] = rotation * np.asarray(spacing)
    matrix[:dim, dim] = np.zeros(dim) if origin is None else origin
    return matrix


def smooth_field(shape, grid2world, amplitude):
    """A smooth displacement in mm that vanishes on the border, and its inverse."""
    dim = len(shape)
    axes = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    window = np.prod([np.sin(np.pi * a) for a in axes], axis=0)
    waves = [np.cos(2 * np.pi * (axes[(d + 1) % dim] + 0.1 * d)) for d in range(dim)]
    field = amplitude * window[..., None] * np.stack(waves, axis=-1)
    world2voxel = np.linalg.inv(grid2world[:dim, :dim])
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    inverse = np.zeros_like(field)
    for _ in range(60):
        at = voxels + np.moveaxis(inverse @ world2voxel.T, -1, 0)
        looked_up = [map_coordinates(field[..., d], at, order=1) for d in range(dim)]
        inverse = -np.stack(looked_up, axis=-1)
    return field, inverse


def make_map(
    static_shape,
    moving_shape,
    *,
    static_grid2world=None,
    moving_grid2world=None,
    prealign=None,
    amplitude=2.0,
):
    """A map as SyN returns it; `prealign` is the user's, static to moving world."""
    dim = len(static_shape)
    grid2world = np.eye(dim + 1) if static_grid2world is None else static_grid2world
    backward, forward = smooth_field(static_shape, grid2world, amplitude)
    mapping = DiffeomorphicMap(
        dim,
        static_shape,
        disp_grid2world=grid2world,
        domain_shape=moving_shape,
        domain_grid2world=moving_grid2world,
        codomain_shape=static_shape,
        codomain_grid2world=static_grid2world,
        prealign=None if prealign is None else np.linalg.inv(prealign),
    )
    mapping.forward = forward.astype(np.float32)
    mapping.backward = backward.astype(np.float32)
    mapping.is_inverse = True
    return mapping


def oblique_map(dim=3):
    """A map between two unlike grids, oblique and anisotropic, with a prealign."""
    static = affine([2.0, -1.5, 2.5][:dim], (0.1, -0.2, 0.05), [5.0, -9.0, 3.0][:dim])
    moving = affine([-1.8, 2.2, 1.6][:dim], (-0.15, 0.1, 0.2), [40.0, -20, 5.0][:dim])
    static_shape, moving_shape = (17, 20, 15)[:dim], (19, 16, 22)[:dim]
    prealign = affine([1.05, 0.95, 1.02][:dim], (0.05, 0.1, -0.05))
    # middle onto middle, a little off
    middles = [
        (m @ np.append((np.array(s) - 1) / 2, 1))[:dim]
        for m, s in ((static, static_shape), (moving, moving_shape))
    ]
    prealign[:dim, dim] = middles[1] - prealign[:dim, :dim] @ middles[0] + 0.7
    return make_map(
        static_shape,
        moving_shape,
        static_grid2world=static,
        moving_grid2world=moving,
        prealign=prealign,
    )


def blob(shape, grid2world, centre, sigma):
    """A Gaussian blob at `centre`, in world coordinates."""
    dim = len(shape)
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = voxels @ grid2world[:dim, :dim].T + grid2world[:dim, dim]
    square = ((world - centre) ** 2).sum(axis=-1)
    return np.exp(-square / (2 * sigma**2)).astype(np.float32)


def maps_of_all_forms():
    """Maps of each dimension, with and without affines, and in another form."""
    plain = {d: make_map((12, 14, 10)[:d], (12, 14, 10)[:d]) for d in (2, 3)}
    forward = make_map((9, 8, 7), (7, 8, 9), amplitude=1)
    forward.is_inverse = False
    return {
        "2D": oblique_map(2),
        "3D": oblique_map(3),
        "2D, no affines": plain[2],
        "3D, no affines": plain[3],
        "not SyN's form": forward,
    }
