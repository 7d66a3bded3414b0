"""Anatomy maps of two heads of which one may be turned against its header."""

from __future__ import annotations

from collections.abc import Sequence

from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.anatomy.plausibility import is_plausible
from dipy_dl_reg.anatomy.prediction import AnatomyMaps, predict_anatomy
from dipy_dl_reg.grid import Grid, rotation_angle
from dipy_dl_reg.initialization.head_rotation import find_head_rotation


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
