"""Anatomy maps of two heads of which one may be turned against its header."""

from __future__ import annotations

from collections.abc import Sequence

from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.anatomy.plausibility import is_plausible
from dipy_dl_reg.anatomy.prediction import AnatomyMaps, predict_anatomy
from dipy_dl_reg.grid import Grid, rotation_angle
from dipy_dl_reg.initialization.head_rotation import find_head_rotation

#: Rotation of a registration (degrees) from which a head is turned to the other one.
TURNED = 30.0
#: Rotation (degrees) by which the heads of two people differ at most, if the axes of
#: one image are exchanged or reversed.
_SAME_AXES = 25.0


def predict_registered(
    images: Sequence[np.ndarray], grids: Sequence[Grid], prealign: np.ndarray
) -> tuple[list[AnatomyMaps], int | None]:
    """Predict the maps of two registered heads, each in a pose in which it is upright.

    Parameters
    ----------
    images : tuple of ndarray, 3D
        Static and moving; NaN is missing data.
    grids : tuple of Grid
        Their grids.
    prealign : ndarray, shape (4, 4)
        Static world to moving world.

    Returns
    -------
    maps : list of AnatomyMaps
        Of each image, on a grid in its own world.
    turned : int or None
        Which image is turned against its header, 0 or 1: it shows no brain that is
        upright in its own world, but one after its registration to the other image.
    """
    maps = [predict_anatomy(*given) for given in zip(images, grids)]
    linear = prealign[:3, :3]
    if np.linalg.det(linear) <= 0 or rotation_angle(linear) < TURNED:
        return maps, None
    upright = [is_plausible(each) for each in maps]
    if all(upright) or not any(upright):
        return maps, None
    wrong = upright.index(False)
    pose = np.linalg.inv(prealign) if wrong else prealign
    posed = predict_anatomy(images[wrong], grids[wrong], pose=pose)
    if not is_plausible(posed, pose):
        return maps, None
    maps[wrong] = posed
    return maps, wrong


def exchanges_axes(matrix: np.ndarray) -> bool:
    """Whether a rotation exchanges or reverses axes, as wrong headers do.

    Parameters
    ----------
    matrix : ndarray, shape (4, 4)
        An affine registration of two heads.

    Returns
    -------
    exchanged : bool
        Whether its rotation differs by less than 25 degrees from one, other than none,
        that maps each axis of the world to an axis.
    """
    left, _, right = np.linalg.svd(matrix[:3, :3])
    nearest = np.round(left @ right)
    if not np.array_equal(nearest @ nearest.T, np.eye(3)):
        return False
    moves = not np.array_equal(nearest, np.eye(3))
    return moves and rotation_angle(nearest.T @ left @ right) < _SAME_AXES


def predict_upright(
    images: Sequence[np.ndarray], grids: Sequence[Grid]
) -> list[AnatomyMaps | None]:
    """Predict the maps of two heads, each in a pose in which it is upright.

    If only one head is upright in its own world, all rotations of the other one are
    searched, and its maps are predicted in the pose of the first.

    Parameters
    ----------
    images : tuple of ndarray, 3D
        Static and moving; NaN is missing data.
    grids : tuple of Grid
        Their grids.

    Returns
    -------
    maps : list of AnatomyMaps or None
        Of each image, on a grid in its own world; None if it shows no upright head in
        either pose.
    """
    maps: list[AnatomyMaps | None] = [
        predict_anatomy(image, grid) for image, grid in zip(images, grids)
    ]
    upright = [each is not None and is_plausible(each) for each in maps]
    if not any(upright):
        return [None, None]
    if not all(upright):
        wrong = upright.index(False)
        maps[wrong] = _predict_in_pose_of_other(images, grids, wrong)
    return maps


def _predict_in_pose_of_other(
    images: Sequence[np.ndarray], grids: Sequence[Grid], wrong: int
) -> AnatomyMaps | None:
    """Maps of one head after it was rotated to the other one, if they are plausible."""
    turned, upright = ((images[k], grids[k]) for k in (wrong, 1 - wrong))
    pose = find_head_rotation(*turned, *upright)
    maps = predict_anatomy(*turned, pose=pose)
    if not is_plausible(maps, pose):
        return None
    name = ("static", "moving")[wrong]
    logger.info(
        f"{name} shows a head that is turned by {rotation_angle(pose[:3, :3]):.0f} "
        "degrees against its header; its brain was found in the pose of the other one."
    )
    return maps
