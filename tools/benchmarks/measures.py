"""Measures of a map, and of labels warped through it.

Fields are displacements in mm on a voxel grid, component last: y = x + field(x).
"""

from itertools import product
from math import factorial

import numpy as np
from scipy.ndimage import binary_erosion, find_objects
from scipy.spatial import cKDTree


def to_world(voxels, grid2world):
    """World coordinates of voxel coordinates (..., dim)."""
    dim = voxels.shape[-1]
    return voxels @ grid2world[:dim, :dim].T + grid2world[:dim, dim]


def dice(a, b, labels):
    """Dice of each label, 0 where one of the two has none of it."""
    labels = np.asarray(labels)
    bins = labels.max() + 1
    counts = [np.bincount(x.ravel(), minlength=bins)[labels] for x in (a, b)]
    both = np.bincount(a[a == b].ravel(), minlength=bins)[labels]
    return 2 * both / np.maximum(sum(counts), 1)


def hausdorff95(a, b, labels, grid2world):
    """95 % Hausdorff distance of each label in mm: the larger of both directions.

    Distances are those between the centres of surface voxels and the nearest surface
    voxel of the other image. If one of the images lacks a label, the distance is the
    diagonal of the image.
    """
    furthest = np.linalg.norm(grid2world[:3, :3] @ np.subtract(a.shape, 1))
    boxes = [find_objects(x, max_label=max(labels)) for x in (a, b)]
    return np.array(
        [
            surface_distance(
                *(
                    surface_points(x, box[k - 1], k, grid2world)
                    for x, box in zip((a, b), boxes)
                ),
                furthest,
            )
            for k in labels
        ]
    )


def surface_points(image, box, label, grid2world):
    """World coordinates of the voxels of a label that have a neighbour outside it."""
    if box is None:
        return None
    inside = np.pad(image[box] == label, 1)
    voxels = np.argwhere(inside & ~binary_erosion(inside)) - 1
    return to_world(voxels + [part.start for part in box], grid2world)


def surface_distance(a, b, furthest):
    """Larger of the 95th percentiles of distances from a to b and from b to a."""
    if a is None or b is None:
        return furthest
    distances = cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]
    return max(np.percentile(one_way, 95) for one_way in distances)


def jacobian_determinant(field, grid2world):
    """Jacobian determinant of x + field(x), field in mm, by central differences."""
    dim = field.shape[-1]
    field = np.asarray(field, dtype=float)
    per_voxel = np.stack(np.gradient(field, axis=tuple(range(dim))), axis=-1)
    return np.linalg.det(
        per_voxel @ np.linalg.inv(grid2world[:dim, :dim]) + np.eye(dim)
    )


def non_diffeomorphic_volume(field, grid2world):
    """Non-diffeomorphic volume of x + field(x), in percent of the grid.

    Central differences do not use the value at the voxel itself. Liu et al. ("On Finite
    Difference Jacobian Computation in Deformable Image Registration", International
    Journal of Computer Vision 2024, arXiv:2212.06060) use the tetrahedra between
    neighbouring voxels instead. Each cube of eight voxels can be divided into five
    tetrahedra in two ways: four at corners, whose Jacobian determinants are those of
    forward or backward differences along each axis, and one in the middle. The signed
    volume of a tetrahedron is det / 6, with det the determinant of its three edges, and

        NDV = 1/2 sum over both ways of max(0, -det / 6),

    summed over all cubes and divided by their number. In 2D: triangles, det / 2.
    """
    dim = field.shape[-1]
    moved = np.asarray(field, dtype=float) @ np.linalg.inv(grid2world[:dim, :dim]).T
    moved = np.moveaxis(moved, -1, 0) + np.indices(field.shape[:-1])
    folded = sum(np.maximum(-det, 0).sum() for det in simplex_determinants(moved))
    cubes = np.prod([n - 1 for n in field.shape[:-1]])
    return float(100 * folded / 2 / factorial(dim) / cubes)


def simplex_determinants(moved):
    """Yield the determinants of the edges of all tetrahedra (2D: triangles)."""
    dim = len(moved)
    steps = [np.diff(moved, axis=axis + 1) for axis in range(dim)]
    cubes = [n - 1 for n in moved.shape[1:]]

    def part(array, corner):
        slices = [slice(c, c + n) for c, n in zip(corner, cubes)]
        return array[(slice(None), *slices)]

    for corner in product((0, 1), repeat=dim):
        # The difference along an axis is the same edge for both of its ends.
        yield determinants(
            [
                part(step, [0 if k == axis else c for k, c in enumerate(corner)])
                for axis, step in enumerate(steps)
            ],
        )
    for start, turns in ((0, -1), (1, 1)) if dim == 3 else ():
        ends = [
            [1 - start if k != axis else start for k in range(3)] for axis in (2, 1, 0)
        ]
        begin = part(moved, [start] * 3)
        yield turns * determinants([part(moved, end) - begin for end in ends])


def determinants(edges):
    """Determinant of the matrices whose columns are the edges, (dim, *shape) each."""
    (a, b, *c), (d, e, *f), *rest = edges
    if not rest:
        return a * e - b * d
    (c,), (f,), (g, h, i) = c, f, rest[0]
    return a * (e * i - f * h) + b * (f * g - d * i) + c * (d * h - e * g)


def inversion_errors(mapping, points):
    """Distance of points (mm) from their images under the map and its inverse."""
    back = mapping.transform_points_inverse(mapping.transform_points(points))
    return np.linalg.norm(back - points, axis=1)


def regularity(mapping, grid2world, points, has_inverse=True):
    """Jacobian determinants of both fields, folded volume, inversion error in mm."""
    to_moving = jacobian_determinant(mapping.backward, grid2world)
    row = {
        "minimum_jacobian": float(to_moving.min()),
        "folds_percent": float(100 * (to_moving <= 0).mean()),
        "ndv_percent": non_diffeomorphic_volume(mapping.backward, grid2world),
        "sd_log_jacobian": float(np.log(to_moving.clip(1e-3)).std()),
    }
    if not has_inverse:
        return row
    to_static = jacobian_determinant(mapping.forward, grid2world)
    trip = inversion_errors(mapping, points)
    return row | {
        "minimum_jacobian_inverse": float(to_static.min()),
        "folds_inverse_percent": float(100 * (to_static <= 0).mean()),
        "round_trip_mean": float(trip.mean()),
        "round_trip_max": float(trip.max()),
    }
