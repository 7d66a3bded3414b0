"""Registrations of a pair repeated under changes that leave the correct map the same.

The images are exchanged, sampled on another grid, given noise, and aligned by a
slightly different affine.  Where the maps found differ, the images do not determine
the map; :footcite:t:`Kybic2010` estimates errors of registration from such repetitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import logging
from typing import Any, NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.resampling import resample_array
from dipy_dl_reg.registration.deformable import DeepRegistration

#: Voxels along each axis of the other grid, as a part of those of the image's own.
_OTHER_SIZE = 0.93
#: Standard deviation of the noise, as a part of the range of intensities.
_NOISE = 0.03
#: Standard deviations of the changes of the affine: angle (degrees), stretch, and shift
#: as a part of the field of view's longest side.
_ANGLE, _STRETCH, _SHIFT = 2.0, 0.02, 0.01
#: Quantiles between which the range of intensities is measured.
_LOW, _HIGH = 0.02, 0.98


class Repetition(NamedTuple):
    """How a registration is repeated.

    Attributes
    ----------
    swaps : bool
        Exchange the images: static is registered to moving, and the inverse is used.
    resamples : bool
        Sample static on another grid of the same field of view.
    noise : bool
        Add noise to both images.
    moves : bool
        Begin from a slightly different affine.
    seed : int
        Seed of the noise and of the affine.
    """

    swaps: bool
    resamples: bool = False
    noise: bool = False
    moves: bool = False
    seed: int = 0


class PairOfImages(NamedTuple):
    """Two images, and the affine between their worlds.

    Attributes
    ----------
    static, moving : ndarray
        The images.
    static_grid, moving_grid : Grid
        Their grids.
    prealign : ndarray, shape (dim + 1, dim + 1)
        Static world to moving world.
    static_mask, moving_mask : ndarray or None
        Only voxels other than 0 are compared.
    """

    static: np.ndarray
    moving: np.ndarray
    static_grid: Grid
    moving_grid: Grid
    prealign: np.ndarray
    static_mask: np.ndarray | None = None
    moving_mask: np.ndarray | None = None

    def swap(self) -> PairOfImages:
        """Exchange the images.

        Returns
        -------
        pair : PairOfImages
            Moving as static, static as moving.
        """
        return PairOfImages(
            *(self.moving, self.static, self.moving_grid, self.static_grid),
            *(np.linalg.inv(self.prealign), self.moving_mask, self.static_mask),
        )

    def arguments(self) -> dict[str, Any]:
        """Collect the arguments of `DeepRegistration.optimize`.

        Returns
        -------
        arguments : dict
            By name.
        """
        return {
            "static": self.static,
            "moving": self.moving,
            "static_grid2world": self.static_grid.affine,
            "moving_grid2world": self.moving_grid.affine,
            "prealign": self.prealign,
            "static_mask": self.static_mask,
            "moving_mask": self.moving_mask,
        }


def repeat_registration(
    pair: PairOfImages,
    repetition: Repetition,
    points: np.ndarray,
    *,
    num_threads: int | None = None,
    **options: Any,
) -> np.ndarray:
    """Register a pair again, and map points of static.

    Parameters
    ----------
    pair : PairOfImages
        The images.
    repetition : Repetition
        The changes.
    points : ndarray, shape (N, dim)
        World coordinates of static, mm.
    num_threads : int, optional
        Threads on the CPU.
    **options : dict
        Options of `DeepRegistration`.

    Returns
    -------
    mapped : ndarray, shape (N, dim)
        The corresponding points in moving's world, mm.
    """
    changed = change_pair(pair, repetition)
    registration = DeepRegistration(**options)
    registration.verbosity = 0
    with _warnings_only():  # messages on the changed images would be misunderstood
        mapping: DiffeomorphicMap = registration.optimize(
            **changed.arguments(), num_threads=num_threads
        )
    if repetition.swaps:
        return np.asarray(mapping.transform_points_inverse(points))
    return np.asarray(mapping.transform_points(points))


@contextmanager
def _warnings_only() -> Iterator[None]:
    """Log nothing but warnings and errors within a ``with`` block."""

    def is_warning(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    logger.addFilter(is_warning)
    try:
        yield
    finally:
        logger.removeFilter(is_warning)


def change_pair(pair: PairOfImages, repetition: Repetition) -> PairOfImages:
    """Change a pair without a change of its correct map.

    Parameters
    ----------
    pair : PairOfImages
        The images.
    repetition : Repetition
        The changes.

    Returns
    -------
    pair : PairOfImages
        The changed pair; with `swaps`, static is the old moving image.
    """
    random = np.random.default_rng(repetition.seed)
    pair = pair.swap() if repetition.swaps else pair
    if repetition.resamples:
        pair = _resample_static(pair)
    if repetition.noise:
        static, moving = (_add_noise(x, random) for x in (pair.static, pair.moving))
        pair = pair._replace(static=static, moving=moving)
    if repetition.moves:
        pair = pair._replace(prealign=_move(pair, random))
    return pair


def _resample_static(pair: PairOfImages) -> PairOfImages:
    """Sample static, and its mask, on a grid with fewer voxels."""
    old = pair.static_grid
    shape = tuple(max(min(n, 8), round(n * _OTHER_SIZE)) for n in old.shape)
    new = old.resize(shape)
    static = np.asarray(pair.static, dtype=np.float32)
    order = 3 if np.isfinite(static).all() else 1
    matrix = new.to(old)
    nearest = resample_array(static, matrix, shape, order=0, mode="nearest")
    static = resample_array(static, matrix, shape, order=order, mode="nearest")
    # Cubic interpolation makes values that are not zero in a background that is; noise
    # would be added there, and a skull-stripped brain taken for a whole head.
    static = np.where(nearest != 0, static, 0).astype(np.float32)
    mask = pair.static_mask
    if mask is not None:
        inside = np.ascontiguousarray(np.not_equal(mask, 0), dtype=np.uint8)
        mask = resample_array(inside, matrix, shape, order=0, mode="nearest")
    return pair._replace(static=static, static_grid=new, static_mask=mask)


def _add_noise(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise where the image is not background."""
    values = np.asarray(image, dtype=np.float32)
    known = values[np.isfinite(values) & (values != 0)]
    low, high = np.quantile(known, (_LOW, _HIGH))
    noise = random.normal(0, _NOISE * max(high - low, 0), values.shape)
    return np.where(values != 0, values + noise, values).astype(np.float32)


def _move(pair: PairOfImages, random: np.random.Generator) -> np.ndarray:
    """Multiply the prealign by a small affine about the middle of static."""
    grid, dim = pair.static_grid, pair.static_grid.dim
    skew, stretch = random.normal(size=(2, dim, dim))
    linear = np.eye(dim) + (skew - skew.T) / np.sqrt(2) * np.deg2rad(_ANGLE)
    linear += (stretch + stretch.T) / 2 * _STRETCH
    middle = (grid.affine @ [*(np.array(grid.shape) - 1) / 2, 1])[:dim]
    shift = random.normal(size=dim) * _SHIFT * grid.longest_side
    small = np.eye(dim + 1)
    small[:dim, :dim] = linear
    small[:dim, dim] = middle - linear @ middle + shift
    return pair.prealign @ small
