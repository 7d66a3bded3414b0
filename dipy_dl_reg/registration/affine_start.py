"""Starts of an affine registration, comparison of poses, and check of the overlap."""

from typing import NamedTuple
from warnings import warn

from dipy.align.imaffine import transform_geometric_centers, transform_origins
import numpy as np

from dipy_dl_reg.geometry.intensity import extreme_limits
from dipy_dl_reg.grid import rotation_angle
from dipy_dl_reg.optimization.affine_sampling import measure_overlap
from dipy_dl_reg.validation import check_affine, check_choice

#: Images whose negative values outweigh this part of the positive ones have no mass.
_NEGATIVE = 1 / 3
#: Two poses are different ones if they are turned by more than so many degrees.
_OTHER_POSE = 30.0
#: Less than this part of the smaller object upon the other is no alignment.
_LEAST_SHARED = 0.05


def starting_matrix(start, static, moving, pair):
    """The matrix that a start stands for.

    Parameters
    ----------
    start : None, str or array
        Identity, a way of DIPY's, or the matrix.
    static, moving : array
        The images.
    pair : Pair
        For their grids and masks.

    Returns
    -------
    matrix : ndarray, shape (D + 1, D + 1)
        Static's world to moving's.

    Raises
    ------
    ValueError
        If it is neither.
    """
    dim = pair.static_grid.dim
    if start is None:
        return np.eye(dim + 1)
    if not isinstance(start, str):
        return check_affine(_with_last_row(start, dim), dim, "starting_affine")
    check_choice("starting_affine", start, ("mass", "centers", "voxel-origin"))
    static, moving = np.asarray(static), np.asarray(moving)
    grids = pair.static_grid.affine, pair.moving_grid.affine
    if start == "mass":
        matrix = np.eye(dim + 1)
        matrix[:dim, dim] = centre_of_mass(moving, pair.moving_mask, grids[1])
        matrix[:dim, dim] -= centre_of_mass(static, pair.static_mask, grids[0])
        return matrix
    ways = {"centers": transform_geometric_centers, "voxel-origin": transform_origins}
    return ways[start](static, grids[0], moving, grids[1]).affine


def _with_last_row(matrix, dim):
    """A matrix that may lack its last row, as DIPY takes it."""
    if np.shape(matrix) == (dim, dim + 1):
        return np.vstack([matrix, np.eye(dim + 1)[-1]])
    return matrix


def centre_of_mass(image, mask, grid2world):
    """Mean place of an image's voxels, by their values.

    Parameters
    ----------
    image : ndarray, shape (*shape)
        Values of any real type.
    mask : Tensor, shape (1, 1, *shape), or None
        Where they count.
    grid2world : ndarray, shape (D + 1, D + 1)
        Voxels to world.

    Returns
    -------
    centre : ndarray, shape (D,)
        In the world, mm.

    Notes
    -----
    Of an image with values on both sides of 0, such as one brought to mean 0, the
    total is about 0 or means nothing: unless the positive values clearly outweigh the
    negative ones, the least value is subtracted from all.  Values far outside the
    range of all others are clipped, as for the registration itself: one such voxel
    would be the centre.
    """
    options = {"dtype": np.float64}
    shown = image
    if mask is not None:
        options["where"] = np.asarray(mask[0, 0].cpu()) > 0
        shown = image[options["where"]]
    low, high = extreme_limits(shown)
    if low > shown.min() or high < shown.max():
        image = np.clip(image.astype(np.float64), low, high)
        shown = image if mask is None else image[options["where"]]
    negative = float(-np.minimum(shown, 0).sum(dtype=np.float64))
    total = float(shown.sum(dtype=np.float64))
    lift = 0.0
    if negative > _NEGATIVE * (total + negative):
        lift = float(shown.min())
        total -= lift * shown.size
    centre = np.ones(image.ndim + 1)
    for axis, size in enumerate(image.shape):
        others = tuple(k for k in range(image.ndim) if k != axis)
        profile = image.sum(others, **options)
        if lift:
            count = np.broadcast_to(1.0, image.shape).sum(others, **options)
            profile = profile - lift * count
        centre[axis] = profile @ np.arange(size) / total
    return (grid2world @ centre)[:-1]


def turn_between(matrix, other):
    """By how many degrees the rotations of two matrices differ.

    Parameters
    ----------
    matrix, other : ndarray, shape (D + 1, D + 1)
        Affine matrices.

    Returns
    -------
    angle : float
        From 0 to 180.
    """
    dim = len(matrix) - 1
    return rotation_angle(matrix[:dim, :dim] @ np.linalg.inv(other[:dim, :dim]))


class Rival(NamedTuple):
    """A pose far from the chosen one.

    Attributes
    ----------
    angle : float
        Rotation between the two, degrees.
    gain : float
        How much better the chosen pose is, as a part of its mutual information;
        negative where the other one is better.
    """

    angle: float
    gain: float


class PoseComparison(NamedTuple):
    """How clearly a search over poses decided.

    Attributes
    ----------
    rival : Rival or None
        The best pose that is turned by more than 30 degrees from the chosen one; None
        if no such one took part in the last round of the search.
    mirror_gain : float
        How much better a mirror image of the best pose fits, as a part of its mutual
        information; negative where it fits worse.
    """

    rival: Rival | None
    mirror_gain: float


def compare_poses(poses, chosen):
    """Compare the pose that a registration starts from with the others.

    Parameters
    ----------
    poses : Poses
        What the search found.
    chosen : Candidate
        Where the registration starts.

    Returns
    -------
    comparison : PoseComparison
        For the verdict.
    """
    rival = None
    for pose in poses.all:
        angle = turn_between(pose.matrix, chosen.matrix)
        if angle > _OTHER_POSE:
            gain = (pose.value - chosen.value) / max(abs(chosen.value), 1e-12)
            rival = Rival(angle, gain)
            break
    return PoseComparison(rival, poses.mirror_gain)


def warn_if_apart(level, matrix, *, stacklevel):
    """Warn of a map that leaves the two objects side by side.

    Parameters
    ----------
    level : Level
        The images.
    matrix : ndarray, shape (D + 1, D + 1)
        Static's world to moving's, as it was found.
    stacklevel : int
        As `warnings.warn` would take it from the caller.

    Warns
    -----
    UserWarning
        If they hardly overlap: nothing led the fit anywhere.
    """
    share = measure_overlap(level, matrix)
    if share < _LEAST_SHARED:
        warn(
            f"static and moving hardly overlap through the map found ({share:.0%} of "
            "the smaller object), which is therefore no alignment. Start from their "
            "centres of mass (starting_affine='mass', or 'center_of_mass' first in a "
            "pipeline), or from all poses about these (starts='all').",
            UserWarning,
            stacklevel=stacklevel + 1,
        )
