"""Images in random poses, made from real ones."""

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter


def random_pose(rng, extent):
    """Random rigid pose: a rotation by 0 to 180 degrees, and a shift.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of random numbers.
    extent : float
        Largest shift, mm.

    Returns
    -------
    pose : ndarray, shape (4, 4)
        Rigid transform; the rotation is about the world's origin.
    angle : float
        Angle of the rotation in degrees.
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


def put_in_pose(image, grid2world, pose, *, spacing, margin=4):
    """Resample an image as if the object had been scanned in another pose.

    Parameters
    ----------
    image : ndarray, 3D
        Image with 0 around the object.
    grid2world : ndarray, shape (4, 4)
        Its voxel-to-world matrix.
    pose : ndarray, shape (4, 4)
        Rigid transform of the world.
    spacing : float
        Voxel size of the new grid in mm; its axes are parallel to the world axes.
    margin : int, optional
        Number of voxels around the object.

    Returns
    -------
    image : ndarray
        Resampled image.
    grid2world : ndarray, shape (4, 4)
        Voxel-to-world matrix of the new grid.
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


def simulate_b0(image, rng):
    """Remap T1 intensities to look like a b0: CSF bright, white matter dark, noise."""
    scaled = np.clip(image / np.quantile(image[image > 0], 0.98), 0, 1)
    tissue = 1.0 - 1.1 * scaled + 0.35 * np.sin(2 * np.pi * scaled)
    remapped = np.where(scaled > 0.05, np.clip(tissue, 0.05, None), 0)
    noise = rng.normal(0, 0.03, (2, *image.shape))
    return np.hypot(remapped + noise[0], noise[1]).astype(np.float32)


def pose_error(matrix, truth, points):
    """Root mean square distance of points mapped by two matrices, mm."""
    gap = (matrix - truth)[:3]
    moved = points @ gap[:, :3].T + gap[:, 3]
    return float(np.sqrt((moved**2).sum(1).mean()))


def brain_points(image, grid2world, step=7):
    """World coordinates of every `step`-th voxel inside an object."""
    voxels = np.argwhere(image > 0.1 * np.quantile(image, 0.99))[::step]
    return voxels @ grid2world[:3, :3].T + grid2world[:3, 3]
