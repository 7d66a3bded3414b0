"""Images in random poses, made from real ones."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter


class Posed(NamedTuple):
    """A static image, and a moving one whose pose is known."""

    static: np.ndarray
    moving: np.ndarray
    static_grid2world: np.ndarray
    moving_grid2world: np.ndarray
    pose: np.ndarray  # from the world of the image as it was to where it is now
    angle: float


def random_pose(rng, extent):
    """A rotation by 0 to 180 degrees about any axis, and a shift up to the image size.

    Parameters
    ----------
    rng : numpy.random.Generator
        Chance.
    extent : float
        Size of the image, mm.

    Returns
    -------
    pose : ndarray, shape (4, 4)
        About the world's origin.
    angle : float
        Degrees.
    """
    axis, angle = rng.normal(size=3), rng.uniform(0, np.pi)
    axis /= np.linalg.norm(axis)
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    pose = np.eye(4)
    pose[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    shift = rng.normal(size=3)
    pose[:3, 3] = shift / np.linalg.norm(shift) * rng.uniform(0, extent)
    return pose, float(np.degrees(angle))


def posed(image, grid2world, pose, *, spacing, margin=4):
    """The image as a scanner would have it with the head in another pose.

    Parameters
    ----------
    image : ndarray, 3D
        As it is, with 0 around the object.
    grid2world : ndarray, shape (4, 4)
        Where it lies.
    pose : ndarray, shape (4, 4)
        Rigid.
    spacing : float
        Voxel size of the new grid, mm, whose axes are the world's.
    margin : int, optional
        Voxels around the object.

    Returns
    -------
    image : ndarray
        Resampled: no axis, centre or grid is as it was.
    grid2world : ndarray, shape (4, 4)
        Of the new grid.
    """
    inside = np.argwhere(image > 0.05 * image.max())
    ends = np.array([inside.min(0), inside.max(0)])
    corners = np.stack(np.meshgrid(*ends.T, indexing="ij"), -1).reshape(-1, 3)
    world = pose @ grid2world
    places = corners @ world[:3, :3].T + world[:3, 3]
    low = places.min(0) - margin * spacing
    shape = np.ceil((places.max(0) + margin * spacing - low) / spacing).astype(int)
    new = np.diag([spacing] * 3 + [1.0])
    new[:3, 3] = low
    back = np.linalg.inv(world) @ new
    smooth = gaussian_filter(image.astype(np.float32), 0.3)
    options = {"offset": back[:3, 3], "output_shape": tuple(shape), "order": 1}
    return affine_transform(smooth, back[:3, :3], **options), new


def like_b0(image, rng):
    """A T1's intensities made such as a b0's: CSF bright, white matter dark, noise."""
    scaled = np.clip(image / np.quantile(image[image > 0], 0.98), 0, 1)
    tissue = 1.0 - 1.1 * scaled + 0.35 * np.sin(2 * np.pi * scaled)
    remapped = np.where(scaled > 0.05, np.clip(tissue, 0.05, None), 0)
    noise = rng.normal(0, 0.03, (2, *image.shape))
    return np.hypot(remapped + noise[0], noise[1]).astype(np.float32)


def misplacement(matrix, truth, points):
    """Root of the mean squared distance of what two matrices do to points, mm."""
    gap = (matrix - truth)[:3]
    moved = points @ gap[:, :3].T + gap[:, 3]
    return float(np.sqrt((moved**2).sum(1).mean()))


def brain_points(image, grid2world, step=7):
    """Points inside an object, in the world."""
    voxels = np.argwhere(image > 0.1 * np.quantile(image, 0.99))[::step]
    return voxels @ grid2world[:3, :3].T + grid2world[:3, 3]
