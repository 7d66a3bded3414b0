"""A small diffusion series of a head that moves by known matrices."""

from typing import NamedTuple

from dipy.core.gradients import gradient_table
import nibabel as nib
import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

#: Voxels to world, with a negative determinant as most scanners give it.
GRID = np.array([[-3.0, 0, 0, 45], [0, 3, 0, -45], [0, 0, 4, -40], [0, 0, 0, 1]])
SHAPE = (32, 32, 20)
BVALS = np.array([0, 1000, 1000, 1000, 0, 1000, 1000, 1000, 1000, 1000, 2000])
_DIRECTIONS = np.array(
    [
        *([1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, -1, 0], [0, 1, 1]),
        *([0, 1, -1], [1, 0, 1], [1, 1, 1]),
    ]
)


class MovingSeries(NamedTuple):
    """A series, its gradient table, and the matrices that are to be found."""

    data: np.ndarray
    grid2world: np.ndarray
    gtab: object
    affines: np.ndarray

    @property
    def image(self):
        """The series as a NIfTI image."""
        return nib.Nifti1Image(self.data, self.grid2world)


def rigid(translation, degrees):
    """A rigid matrix about the world's origin."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = translation
    return matrix


def simulate(seed=0, *, most=2.0):
    """Simulate a head with one tensor in each voxel; volume 0 does not move."""
    rng = np.random.default_rng(seed)
    places = np.moveaxis(np.indices(SHAPE), 0, -1) @ GRID[:3, :3].T + GRID[:3, 3]
    inside = (places**2 / np.array([36.0, 38, 33]) ** 2).sum(-1) < 1
    texture = gaussian_filter(rng.normal(size=SHAPE), 1.2)
    fluid = inside & (texture > texture.std())
    b0 = gaussian_filter(np.where(fluid, 1600.0, 700.0) * inside, 0.5)
    free = gaussian_filter(np.where(fluid, 2.2e-3, 0.5e-3), 0.5)
    axis = gaussian_filter(rng.normal(size=(*SHAPE, 3)), (2, 2, 2, 0))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    bvecs = np.zeros((len(BVALS), 3))
    bvecs[BVALS > 0] = _DIRECTIONS / np.linalg.norm(_DIRECTIONS, axis=1)[:, None]
    gtab = gradient_table(BVALS, bvecs=bvecs, b0_threshold=50)
    data = np.empty((*SHAPE, len(BVALS)), np.float32)
    affines = np.empty((4, 4, len(BVALS)))
    frame = np.diag([-1.0, 1, 1])  # voxel axes to world axes
    for k, bval in enumerate(BVALS):
        move = rng.uniform(-most, most, (2, 3)) * (k > 0)
        affines[..., k] = rigid(*move)
        direction = frame @ affines[:3, :3, k].T @ frame @ bvecs[k]
        diffusion = free + 0.2e-3 * (axis @ direction) ** 2
        voxels = np.linalg.inv(GRID) @ np.linalg.inv(affines[..., k]) @ GRID
        clean = affine_transform(
            b0 * np.exp(-bval * diffusion), voxels[:3, :3], voxels[:3, 3], order=3
        )
        noise = rng.normal(0, 8, (2, *SHAPE))
        data[..., k] = np.hypot(clean + noise[0], noise[1])
    return MovingSeries(data, GRID, gtab, affines)


def errors(found, wanted):
    """Rotation error in degrees and error of the origin in mm of each volume."""
    change = np.moveaxis(found, -1, 0) @ np.linalg.inv(np.moveaxis(wanted, -1, 0))
    angle = Rotation.from_matrix(change[:, :3, :3]).magnitude()
    return np.degrees(angle), np.linalg.norm(change[:, :3, 3], axis=1)
