"""Measures of a map, and of labels warped through it.

Fields are displacements in mm on a voxel grid, component last: y = x + field(x).
"""

from itertools import product
from math import factorial

import numpy as np
from scipy.ndimage import binary_erosion, find_objects
from scipy.spatial import cKDTree


def to_world(voxels, grid2world):
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
    """95 % Hausdorff distance of each label in mm: the larger of both directions'.

    Distances are those of the surfaces' voxels, whose centres are taken, from the
    nearest of the other surface. A label that one of the two lacks is as far as the
    image is long, from corner to corner.
    """
    furthest = np.linalg.norm(grid2world[:3, :3] @ np.subtract(a.shape, 1))
    boxes = [find_objects(x, max_label=max(labels)) for x in (a, b)]
    return np.array(
        [
            surface_distance(
                *(
                    surface(x, box[k - 1], k, grid2world)
                    for x, box in zip((a, b), boxes)
                ),
                furthest,
            )
            for k in labels
        ]
    )


def surface(image, box, label, grid2world):
    """World points of the label's voxels that have a neighbour beside the label."""
    if box is None:
        return None
    inside = np.pad(image[box] == label, 1)
    voxels = np.argwhere(inside & ~binary_erosion(inside)) - 1
    return to_world(voxels + [part.start for part in box], grid2world)


def surface_distance(a, b, furthest):
    if a is None or b is None:
        return furthest
    distances = cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]
    return max(np.percentile(one_way, 95) for one_way in distances)


def jacobian(field, grid2world):
    """Jacobian determinant of x + field(x), field in mm, by central differences."""
    dim = field.shape[-1]
    field = np.asarray(field, dtype=float)
    per_voxel = np.stack(np.gradient(field, axis=tuple(range(dim))), axis=-1)
    return np.linalg.det(
        per_voxel @ np.linalg.inv(grid2world[:dim, :dim]) + np.eye(dim)
    )


def non_diffeomorphic_volume(field, grid2world):
    """Share of the grid that x + field(x) turns inside out, in percent.

    Central differences do not see the voxel in their middle. Liu et al. ("On Finite
    Difference Jacobian Computation in Deformable Image Registration", International
    Journal of Computer Vision 2024, arXiv:2212.06060) take the tetrahedra between
    neighbouring voxels instead. Each cube of eight voxels falls into five of them in
    two ways: four at corners, whose Jacobian determinants are those of forward or
    backward differences along each axis, and one in the middle. A tetrahedron has the
    signed volume det / 6, det that of its three edges, and

        NDV = 1/2 sum over both ways of max(0, -det / 6),

    here over all cubes of the grid, over their number. In 2D: triangles, det / 2.
    """
    dim = field.shape[-1]
    moved = np.asarray(field, dtype=float) @ np.linalg.inv(grid2world[:dim, :dim]).T
    moved = np.moveaxis(moved, -1, 0) + np.indices(field.shape[:-1])
    folded = sum(np.maximum(-det, 0).sum() for det in simplices(moved))
    cubes = np.prod([n - 1 for n in field.shape[:-1]])
    return float(100 * folded / 2 / factorial(dim) / cubes)


def simplices(moved):
    """Determinants of the edges of all tetrahedra (2D: triangles), kind after kind."""
    dim = len(moved)
    steps = [np.diff(moved, axis=axis + 1) for axis in range(dim)]
    cubes = [n - 1 for n in moved.shape[1:]]

    def part(array, corner):
        slices = [slice(c, c + n) for c, n in zip(corner, cubes)]
        return array[(slice(None), *slices)]

    for corner in product((0, 1), repeat=dim):
        # The step along an axis is one edge, whichever of its ends the corner is.
        yield det_of(
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
        yield turns * det_of([part(moved, end) - begin for end in ends])


def det_of(edges):
    """Determinant of the matrices whose columns are the edges, (dim, *shape) each."""
    (a, b, *c), (d, e, *f), *rest = edges
    if not rest:
        return a * e - b * d
    (c,), (f,), (g, h, i) = c, f, rest[0]
    return a * (e * i - f * h) + b * (f * g - d * i) + c * (d * h - e * g)


def round_trip(mapping, points):
    """How far points (world, mm) end from where they began, there and back."""
    back = mapping.transform_points_inverse(mapping.transform_points(points))
    return np.linalg.norm(back - points, axis=1)


def regularity(mapping, grid2world, points, has_inverse=True):
    """Jacobian determinants of both fields, folded volume, and the round trip in mm."""
    to_moving = jacobian(mapping.backward, grid2world)
    row = {
        "minimum_jacobian": float(to_moving.min()),
        "folds_percent": float(100 * (to_moving <= 0).mean()),
        "ndv_percent": non_diffeomorphic_volume(mapping.backward, grid2world),
        "sd_log_jacobian": float(np.log(to_moving.clip(1e-3)).std()),
    }
    if not has_inverse:
        return row
    to_static = jacobian(mapping.forward, grid2world)
    trip = round_trip(mapping, points)
    return row | {
        "minimum_jacobian_inverse": float(to_static.min()),
        "folds_inverse_percent": float(100 * (to_static <= 0).mean()),
        "round_trip_mean": float(trip.mean()),
        "round_trip_max": float(trip.max()),
    }
