"""Whether anatomy maps show a head as it should lie in its world.

The network finds structures in every image, also in one that shows no head, or a head
that is turned or mirrored against its header.  The centroids of the structures then
do not lie as in a brain.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.anatomy.classes import CLASSES, OUTSIDE
from dipy_dl_reg.anatomy.prediction import AnatomyMaps, load_once
from dipy_dl_reg.grid import rotation_angle

#: Structures of a smaller volume (mm^3) are not compared, and fewer structures than
#: this are not enough for a comparison.
_LEAST_VOLUME, _LEAST_STRUCTURES = 200.0, 12
#: Limits of a plausible head: distance of the centroids (mm), volume of the brain with
#: its fluid (ml), scales along the axes, and rotation (degrees).
_RESIDUAL = 4.0
_VOLUMES = (400.0, 2600.0)
_SCALES = (0.7, 1.45)
_ROTATION = 40.0


class MeanBrainFit(NamedTuple):
    """The affine that maps a mean brain to the structures of an image.

    Attributes
    ----------
    matrix : ndarray, shape (4, 4)
        From mm about the middle of the mean brain to the world of the image.
    residual : float
        Root mean square distance, mm, of the structures' centroids from those of the
        mean brain after this affine.
    volume : float
        Volume of the brain with its fluid, ml.
    """

    matrix: np.ndarray
    residual: float
    volume: float

    def is_plausible(self, pose: np.ndarray | None = None) -> bool:
        """Whether an upright brain of a usual size was found.

        Parameters
        ----------
        pose : ndarray, shape (4, 4), optional
            From the world of the image to one in which the head is upright, as it was
            given to `predict_anatomy`.

        Returns
        -------
        plausible : bool
            See the function `is_plausible`.
        """
        matrix = self.matrix[:3, :3]
        matrix = matrix if pose is None else np.asarray(pose)[:3, :3] @ matrix
        scales = np.linalg.svd(matrix)[1]
        return bool(
            self.residual <= _RESIDUAL
            and _VOLUMES[0] <= self.volume <= _VOLUMES[1]
            and _SCALES[0] <= scales.min() <= scales.max() <= _SCALES[1]
            and rotation_angle(matrix) <= _ROTATION
            and np.linalg.det(matrix) > 0
        )


def measure_centroids(maps: AnatomyMaps) -> tuple[np.ndarray, np.ndarray]:
    """Measure the volume and the centroid of each class.

    Parameters
    ----------
    maps : AnatomyMaps
        The maps.

    Returns
    -------
    volumes : ndarray, shape (K,)
        Sum of the probabilities, mm^3.
    centroids : ndarray, shape (K, 3)
        In the world, mm.
    """
    p = maps.probabilities.cpu()  # not every device has double precision
    sums = p.sum((1, 2, 3), dtype=torch.float64)
    places = []
    for axis in range(3):
        others = [k + 1 for k in range(3) if k != axis]
        line = torch.arange(p.shape[axis + 1], dtype=torch.float64)
        profile = p.sum(others, dtype=torch.float64)
        places.append((profile * line).sum(1) / sums.clamp_min(1e-9))
    voxels = torch.stack(places, 1).numpy()
    centroids = voxels @ maps.grid.affine[:3, :3].T + maps.grid.affine[:3, 3]
    return sums.numpy() * float(maps.grid.spacing.prod()), centroids


def fit_mean_brain(maps: AnatomyMaps) -> MeanBrainFit | None:
    """Fit a mean brain to the structures that were found in an image.

    Parameters
    ----------
    maps : AnatomyMaps
        The maps.

    Returns
    -------
    fit : MeanBrainFit or None
        The affine of least squares, the structures weighted by the square root of their
        volume; None if fewer than twelve structures were found.
    """
    volumes, centroids = measure_centroids(maps)
    brain = [k for k in range(len(CLASSES)) if k not in OUTSIDE]
    found = [k for k in brain if volumes[k] > _LEAST_VOLUME]
    if len(found) < _LEAST_STRUCTURES:
        return None
    weights = np.sqrt(volumes[found])[:, None]
    mean = np.c_[_mean_centroids()[found], np.ones(len(found))]
    rows, *_ = np.linalg.lstsq(weights * mean, weights * centroids[found], rcond=None)
    squared = np.square(mean @ rows - centroids[found]).sum(1)
    matrix = np.eye(4)
    matrix[:3] = rows.T
    residual = float(np.sqrt(np.average(squared, weights=weights[:, 0])))
    return MeanBrainFit(matrix, residual, float(volumes[brain].sum()) / 1000)


def is_plausible(maps: AnatomyMaps, pose: np.ndarray | None = None) -> bool:
    """Whether maps show an upright brain of a usual size.

    Parameters
    ----------
    maps : AnatomyMaps
        The maps.
    pose : ndarray, shape (4, 4), optional
        The pose that was given to `predict_anatomy`.

    Returns
    -------
    plausible : bool
        False for other objects, for heads that are turned or mirrored against their
        header, and for slabs in which a large part of the brain is missing.
    """
    fit = fit_mean_brain(maps)
    return fit is not None and fit.is_plausible(pose)


@lru_cache(maxsize=1)
def _mean_centroids() -> np.ndarray:
    """Centroids (K, 3) of the classes in a mean brain, mm about its middle."""
    return np.array(load_once("cpu").card["centroids"])
