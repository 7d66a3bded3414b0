"""Checks a registration by the anatomy maps of its images."""

from __future__ import annotations

from typing import Any

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.anatomy.brain_view import can_show_brain
from dipy_dl_reg.anatomy.overlap import AnatomyOverlap, measure_anatomy_overlap
from dipy_dl_reg.grid import Grid, rotation_angle
from dipy_dl_reg.maps.checks import add_anatomy, find_worst
from dipy_dl_reg.maps.verdict import Verdict
from dipy_dl_reg.registration import dipy_adapter
from dipy_dl_reg.registration.devices import threads
from dipy_dl_reg.registration.head_poses import exchanges_axes, predict_registered


def measure_anatomy(
    mapping: DiffeomorphicMap,
    static: np.ndarray,
    moving: np.ndarray,
    *,
    num_threads: int | None = None,
) -> tuple[AnatomyOverlap | None, int | None]:
    """Measure the overlap of two images' anatomy maps before and after a registration.

    The network predicts the maps of each image by itself, which takes about as long as
    a registration at 2 mm.  An image that is turned against its header is predicted in
    the pose of the other one.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map of the registration; its grids are those of the images.
    static, moving : ndarray, 3D
        The images; NaN is missing data.
    num_threads : int, optional
        Threads on the CPU; None uses Torch's default, -1 all processors.

    Returns
    -------
    overlap : AnatomyOverlap or None
        The overlap.  None if an image shows no brain, or cannot show one: it is not 3D,
        has no matrix, or its field of view is smaller than half a litre.
    turned : int or None
        Which image is turned against its header, 0 or 1.
    """
    grids = [
        Grid(tuple(int(n) for n in shape), np.asarray(matrix, dtype=float))
        for shape, matrix in (
            (mapping.codomain_shape, mapping.codomain_grid2world),
            (mapping.domain_shape, mapping.domain_grid2world),
        )
        if matrix is not None
    ]
    if len(grids) < 2 or any(not can_show_brain(grid) for grid in grids):
        return None, None
    prealign = np.eye(4) if mapping.prealign_inv is None else mapping.prealign_inv
    with threads(num_threads):
        maps, turned = predict_registered((static, moving), grids, prealign)
        field_grid = grids[0]
        if mapping.disp_grid2world is not None:
            shape = tuple(int(n) for n in mapping.disp_shape)
            field_grid = Grid(shape, np.asarray(mapping.disp_grid2world, dtype=float))
        u = dipy_adapter.displacement_to_tensor(mapping.backward, field_grid)
        overlap = measure_anatomy_overlap(
            *maps, prealign=prealign, displacement=u, grid=field_grid
        )
        return overlap, turned


def check_anatomy(
    verdict: Verdict,
    mapping: DiffeomorphicMap,
    static: Any,
    moving: Any,
    *,
    num_threads: int | None = None,
) -> Verdict:
    """Add the overlap of the anatomy maps to a verdict, and log it.

    Parameters
    ----------
    verdict : Verdict
        Verdict on the registration; one that has this measure is returned unchanged.
    mapping : DiffeomorphicMap
        The map of the registration.
    static, moving : ndarray
        The images.
    num_threads : int, optional
        Threads on the CPU.

    Returns
    -------
    verdict : Verdict
        With the measure, and with a reason for doubt if the overlap falls or is low,
        or if the header of one image may have exchanged or reversed axes.
    """
    if verdict.measures is None or verdict.measures.anatomy is not None:
        return verdict
    overlap, turned = measure_anatomy(mapping, static, moving, num_threads=num_threads)
    if overlap is None:
        logger.info("Anatomy maps were not compared: no brain was found in an image.")
        return verdict
    logger.info(
        f"Overlap of the anatomy maps: raw {overlap.before:.3f}, affine "
        f"{overlap.affine:.3f}, deformed {overlap.after:.3f}"
    )
    checked = add_anatomy(verdict, overlap)
    if turned is not None:
        checked = _add_turn(checked, ("static", "moving")[turned], mapping.prealign_inv)
    for reason in checked.reasons[len(verdict.reasons) :]:
        logger.warning(f"Verdict on the registration: {checked.grade}: {reason}.")
    return checked


def _add_turn(verdict: Verdict, name: str, prealign: np.ndarray) -> Verdict:
    """Add that a head is turned against its header, a doubt if its axes may be wrong.

    Reversed axes exchange left and right, which the registration cannot see.
    """
    words = (
        f"{name} shows no upright head in the orientation of its header (the affine "
        f"part turns by {rotation_angle(prealign[:3, :3]):.0f} degrees)"
    )
    if not exchanges_axes(prealign):
        logger.warning(f"{words}. Its brain was found in the pose of the other image.")
        return verdict
    reason = f"{words}: if axes are reversed in it, left and right are exchanged"
    grade = find_worst(verdict.grade, "doubtful")
    return verdict._replace(grade=grade, reasons=(*verdict.reasons, reason))
