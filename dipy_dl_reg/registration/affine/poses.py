"""Starting pose of an affine registration: image pair, matrix, choice among poses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dipy.align.imaffine import transform_geometric_centers, transform_origins
import numpy as np

from dipy_dl_reg.geometry.intensity import extreme_limits
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.grid import rotation_angle
from dipy_dl_reg.initialization.rotation_search import (
    Candidate,
    Poses,
    search_rotations,
)
from dipy_dl_reg.io.input_image import InputImage
from dipy_dl_reg.maps.verdict import PoseComparison, Rival
from dipy_dl_reg.registration import dipy_adapter
from dipy_dl_reg.registration.affine.options import AffineOptions
from dipy_dl_reg.registration.user_warnings import warn_user
from dipy_dl_reg.validation import check_affine, check_choice

if TYPE_CHECKING:
    import torch

#: If the sum of an image's negative values exceeds this fraction of the sum of its
#: positive ones, its minimum is subtracted before its centre of mass is computed.
_NEGATIVE = 1 / 3
#: Two poses count as different if the rotation between them exceeds this (degrees).
_OTHER_POSE = 30.0
#: A pose other than the usual one is chosen if its mutual information is higher by this
#: fraction: `_GAIN`, or `_FAR_GAIN` for rotations above `_FAR_POSE` degrees.
_GAIN, _FAR_POSE, _FAR_GAIN = 0.04, 45.0, 0.15
#: If optimization rotated the usual pose by more than this (degrees), registration
#: starts from the optimized pose.
_FAR_TURN = 15.0


def make_affine_pair(
    static: InputImage,
    moving: InputImage,
    starting_affine: str | np.ndarray | None,
    options: AffineOptions,
) -> Pair:
    """Check and convert two images for an affine registration.

    Parameters
    ----------
    static, moving : InputImage
        The images.  A mask of zeros is ignored with a warning, as in DIPY.
    starting_affine : str, array or None
        See `starting_matrix`.
    options : AffineOptions
        Options of the registration.

    Returns
    -------
    pair : Pair
        The image pair; its prealign is the starting matrix.

    Raises
    ------
    ValueError
        If an image, mask or matrix cannot be used, or the metric is for images of
        another dimension.

    Warns
    -----
    UserWarning
        If a mask is all zeros, or if DIPY would ignore the masks.
    """
    static_mask = _ignore_empty_mask(static.mask, "static_mask")
    moving_mask = _ignore_empty_mask(moving.mask, "moving_mask")
    masked = static_mask is not None or moving_mask is not None
    if masked and options.sampling_proportion not in (None, 1):
        warn_user(
            "DIPY ignores masks if sampling_proportion is below 1; this package uses "
            "them."
        )
    pair = dipy_adapter.make_pair(
        static.values,
        moving.values,
        static_grid2world=static.grid2world,
        moving_grid2world=moving.grid2world,
        static_mask=static_mask,
        moving_mask=moving_mask,
        device=options.device,
        apart=True,
        find_masks=True,
    )
    dim = pair.static_grid.dim
    if options.metric.dim not in (None, dim):
        raise ValueError(
            f"metric is for {options.metric.dim}D images, but the images are {dim}D."
        )
    start = starting_matrix(starting_affine, static.values, moving.values, pair)
    return pair._replace(prealign=start)


def _ignore_empty_mask(mask: np.ndarray | None, name: str) -> np.ndarray | None:
    """Replace a mask of zeros by None, with a warning, as DIPY does."""
    if mask is None or np.any(mask):
        return mask
    warn_user(f"{name} is all zeros and is ignored: the whole image is used.")
    return None


def starting_matrix(
    start: str | np.ndarray | None,
    static: np.ndarray,
    moving: np.ndarray,
    pair: Pair,
) -> np.ndarray:
    """Compute the starting matrix from the option `starting_affine`.

    Parameters
    ----------
    start : None, str or array
        None is the identity; ``"mass"`` aligns centres of mass, ``"centers"`` central
        voxels, ``"voxel-origin"`` the first voxels; or the matrix itself, which may
        lack its last row.
    static, moving : array
        The images.
    pair : Pair
        The same images with their grids and masks.

    Returns
    -------
    matrix : ndarray, shape (D + 1, D + 1)
        Static's world to moving's.

    Raises
    ------
    ValueError
        If `start` is none of these.
    """
    dim = pair.static_grid.dim
    if start is None:
        return np.eye(dim + 1)
    if not isinstance(start, str):
        return check_affine(_add_last_row(start, dim), dim, "starting_affine")
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


def _add_last_row(matrix: np.ndarray, dim: int) -> np.ndarray:
    """Add the last row of an affine matrix if it is missing, as DIPY does."""
    if np.shape(matrix) == (dim, dim + 1):
        return np.vstack([matrix, np.eye(dim + 1)[-1]])
    return matrix


def centre_of_mass(
    image: np.ndarray, mask: torch.Tensor | None, grid2world: np.ndarray
) -> np.ndarray:
    """Compute the mean position of an image's voxels, weighted by their values.

    Parameters
    ----------
    image : ndarray, shape (*shape)
        Values of any real type.
    mask : Tensor, shape (1, 1, *shape), or None
        1 at voxels that are used, 0 elsewhere.
    grid2world : ndarray, shape (D + 1, D + 1)
        Voxels to world.

    Returns
    -------
    centre : ndarray, shape (D,)
        In the world, mm.

    Notes
    -----
    If an image has positive and negative values (for example, an image of mean 0), the
    sum of its values can be about 0 and cannot be used as a mass.  Therefore, unless
    the positive values clearly outweigh the negative ones, the smallest value is
    subtracted from all.  Values far outside the range of all others are clipped, as in
    the registration itself, because a single such voxel could determine the centre.
    """
    options: dict[str, Any] = {"dtype": np.float64}
    counted = image
    if mask is not None:
        options["where"] = np.asarray(mask[0, 0].cpu()) > 0
        counted = image[options["where"]]
    low, high = extreme_limits(counted)
    if low > counted.min() or high < counted.max():
        image = np.clip(image.astype(np.float64), low, high)
        counted = image if mask is None else image[options["where"]]
    negative = float(-np.minimum(counted, 0).sum(dtype=np.float64))
    total = float(counted.sum(dtype=np.float64))
    offset = 0.0
    if negative > _NEGATIVE * (total + negative):
        offset = float(counted.min())
        total -= offset * counted.size
    centre = np.ones(image.ndim + 1)
    for axis, size in enumerate(image.shape):
        others = tuple(k for k in range(image.ndim) if k != axis)
        profile = image.sum(others, **options)
        if offset:
            count = np.broadcast_to(1.0, image.shape).sum(others, **options)
            profile = profile - offset * count
        centre[axis] = profile @ np.arange(size) / total
    return (grid2world @ centre)[:-1]


def angle_between(matrix: np.ndarray, other: np.ndarray) -> float:
    """Compute the angle between the rotations of two matrices.

    Parameters
    ----------
    matrix, other : ndarray, shape (D + 1, D + 1)
        Affine matrices.

    Returns
    -------
    angle : float
        From 0 to 180 degrees.
    """
    dim = len(matrix) - 1
    return rotation_angle(matrix[:dim, :dim] @ np.linalg.inv(other[:dim, :dim]))


def compare_poses(poses: Poses, chosen: Candidate) -> PoseComparison:
    """Compare the pose that a registration starts from with the others.

    Parameters
    ----------
    poses : Poses
        Result of the search.
    chosen : Candidate
        The pose from which the registration starts.

    Returns
    -------
    comparison : PoseComparison
        Used by the verdict on the registration.
    """
    for pose in poses.all:
        angle = angle_between(pose.matrix, chosen.matrix)
        if angle > _OTHER_POSE:
            gain = (pose.value - chosen.value) / max(abs(chosen.value), 1e-12)
            return PoseComparison(Rival(angle, gain), poses.mirror_gain)
    return PoseComparison(None, poses.mirror_gain)


class StartingPose(NamedTuple):
    """Starting pose of a registration, after a search over poses.

    Attributes
    ----------
    matrix : ndarray, shape (D + 1, D + 1)
        Static's world to moving's.
    poses : PoseComparison or None
        Comparison with other poses; None without a search.
    message : str or None
        Message for the log, if the search changed the starting pose.
    """

    matrix: np.ndarray
    poses: PoseComparison | None
    message: str | None


def choose_starting_pose(pair: Pair, start: np.ndarray, starts: str) -> StartingPose:
    """Choose between a given starting matrix and poses of any rotation.

    Parameters
    ----------
    pair : Pair
        The images.
    start : ndarray, shape (D + 1, D + 1)
        Static's world to moving's.
    starts : {"one", "auto", "all"}
        See `AffineOptions`.

    Returns
    -------
    pose : StartingPose
        The matrix to start from, how it compares with others, and a message.
    """
    if starts == "one":
        return StartingPose(start, None, None)
    poses = search_rotations(pair, start)
    chosen = choose_pose(poses, start, starts)
    if chosen is None:
        return StartingPose(start, compare_poses(poses, poses.usual), None)
    angle = angle_between(chosen.matrix, start)
    message = f"The starting pose was rotated by {angle:.0f} degrees."
    return StartingPose(chosen.matrix, compare_poses(poses, chosen), message)


def choose_pose(poses: Poses, start: np.ndarray, starts: str) -> Candidate | None:
    """Choose the pose to start from.

    For larger rotations a larger gain in mutual information is required, because images
    with a weak statistical relation match about equally well in very different poses.

    Parameters
    ----------
    poses : Poses
        Result of a search from `start`.
    start : ndarray, shape (D + 1, D + 1)
        Static's world to moving's.
    starts : {"auto", "all"}
        ``"all"`` chooses the best pose.

    Returns
    -------
    pose : Candidate or None
        None if the registration is to start from `start`.
    """
    best, usual = poses.best, poses.usual
    if starts == "all":
        return best
    gain = (usual.value - best.value) / max(abs(usual.value), 1e-12)
    far = angle_between(best.matrix, usual.matrix) > _FAR_POSE
    if gain > (_FAR_GAIN if far else _GAIN):
        return best
    if angle_between(usual.matrix, start) > _FAR_TURN:
        near = angle_between(best.matrix, usual.matrix) <= _FAR_TURN
        return best if near else usual
    return None
