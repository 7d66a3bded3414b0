"""Overlap of labels before and after a registration."""

from __future__ import annotations

from typing import NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.maps.apply import transform_array


class LabelRow(NamedTuple):
    """The overlap of one label.

    Attributes
    ----------
    label : int
        The label.
    voxels : int
        Its number of voxels in static.
    before, after : float
        Dice coefficient with the prealign alone, and with the whole map.
    """

    label: int
    voxels: int
    before: float
    after: float


class LabelOverlap(NamedTuple):
    """The overlap of all labels.

    Attributes
    ----------
    rows : list of LabelRow
        One for each label that both images have.
    before, after : float
        Means over the labels.
    """

    rows: list[LabelRow]
    before: float
    after: float


def measure_label_overlap(
    mapping: DiffeomorphicMap,
    static: np.ndarray,
    moving: np.ndarray,
    moving_grid2world: np.ndarray | None = None,
) -> LabelOverlap | None:
    """Measure the Dice coefficient of each label.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    static : ndarray, shape of static
        Labels of static; 0 is background.
    moving : ndarray
        Labels of moving.
    moving_grid2world : ndarray, optional
        Grid-to-world matrix of `moving`; by default that of the map.

    Returns
    -------
    overlap : LabelOverlap or None
        None if the images share no label.

    Raises
    ------
    ValueError
        If `static` does not have the shape of static.
    """
    shape = tuple(int(n) for n in mapping.codomain_shape)
    if static.shape != shape:
        raise ValueError(f"static_labels must have shape {shape}, got {static.shape}")
    affine_only = mapping.shallow_copy()
    zeros = np.zeros_like(mapping.backward, dtype=np.float32)
    affine_only.forward = affine_only.backward = zeros
    before, after = (
        transform_array(
            m, moving, image_grid2world=moving_grid2world, interpolation="nearest"
        )
        for m in (affine_only, mapping)
    )
    shared = np.intersect1d(np.unique(static), np.unique(moving))
    rows = [
        LabelRow(
            int(label),
            int((static == label).sum()),
            _dice(static == label, before == label),
            _dice(static == label, after == label),
        )
        for label in shared[shared != 0]
    ]
    if not rows:
        return None
    means = np.mean([(row.before, row.after) for row in rows], axis=0)
    return LabelOverlap(rows, float(means[0]), float(means[1]))


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice coefficient of two regions, of which the first is not empty."""
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())
