"""Registration of a volume of a series to its reference, and its interpolation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from dipy.align.imaffine import AffineMap
from dipy.utils.omp import determine_num_threads
import numpy as np
from scipy.ndimage import affine_transform

from dipy_dl_reg.diffusion.motion_options import VolumeSteps
from dipy_dl_reg.geometry.affine_transforms.registry import make_transform
from dipy_dl_reg.maps.interpolation import interpolate_linearly
from dipy_dl_reg.optimization.affine import optimize_levels
from dipy_dl_reg.optimization.affine_sampling import make_levels
from dipy_dl_reg.registration import dipy_adapter
from dipy_dl_reg.registration.affine.poses import starting_matrix
from dipy_dl_reg.registration.devices import threads

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Reference(NamedTuple):
    """Image to which a volume is registered.

    Attributes
    ----------
    image : ndarray, shape (X, Y, Z)
        The image.
    mask : ndarray of bool, shape (X, Y, Z), or None
        Voxels that are compared.
    """

    image: np.ndarray
    mask: np.ndarray | None


def register_volume(
    reference: Reference,
    volume: np.ndarray,
    grid2world: np.ndarray,
    start: np.ndarray,
    how: VolumeSteps,
    name: str = "data",
) -> np.ndarray:
    """Register a volume to a reference on the same grid.

    Parameters
    ----------
    reference : Reference
        The static image.
    volume : ndarray, shape (X, Y, Z)
        The moving image.
    grid2world : ndarray, shape (4, 4)
        Voxels to world of both.
    start : ndarray, shape (4, 4)
        Matrix from which the registration starts.
    how : VolumeSteps
        Steps, levels and metric.
    name : str, optional
        Name of the volume in error messages.

    Returns
    -------
    matrix : ndarray, shape (4, 4)
        From the world of the reference to that of the volume.

    Raises
    ------
    ValueError
        If the volume cannot be registered, for example because it is constant.
    """
    try:
        pair = dipy_adapter.make_pair(
            reference.image,
            volume,
            static_grid2world=grid2world,
            moving_grid2world=grid2world,
            static_mask=reference.mask,
            device=how.device,
            apart=True,
        )
    except ValueError as error:
        raise ValueError(f"{name} cannot be registered: {error}") from error
    levels = make_levels(
        pair,
        how.levels.factors,
        how.levels.sigmas,
        most_points=how.points,
        grids=how.metric.name == "CC",
    )
    matrix = start
    for step in how.steps:
        if step == "center_of_mass":
            matrix = starting_matrix("mass", reference.image, volume, pair)
            continue
        transform = make_transform(step, 3)
        found, _ = optimize_levels(
            levels[:1] if step == "translation" != how.steps[-1] else levels,
            transform,
            matrix,
            None,
            level_iters=how.levels.level_iters,
            metric=how.metric,
        )
        matrix = transform.numpy_matrix(found) @ matrix
    return matrix


def align_volume(
    volume: np.ndarray, matrix: np.ndarray, grid2world: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Align a volume for the prediction of others; its edge is repeated beyond it.

    Parameters
    ----------
    volume : ndarray of float32, shape (X, Y, Z)
        The volume as it was measured; NaN counts as 0.
    matrix : ndarray, shape (4, 4)
        From the world of the corrected series to that of the volume.
    grid2world : ndarray, shape (4, 4)
        Voxels to world.

    Returns
    -------
    aligned : ndarray of float32, shape (X, Y, Z)
        The volume, interpolated linearly.
    known : ndarray of bool, shape (X, Y, Z)
        Voxels that lie in the volume.
    """
    voxels = np.linalg.solve(grid2world, matrix @ grid2world)
    aligned = affine_transform(
        np.nan_to_num(volume, copy=False, posinf=0, neginf=0),
        voxels[:3, :3],
        voxels[:3, 3],
        order=1,
        mode="nearest",
    )
    return aligned, _known_voxels(voxels, volume.shape)


def _known_voxels(voxels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Voxels that a matrix maps into an image of the same shape."""
    known = np.ones(shape, dtype=bool)
    x, y, z = np.ogrid[tuple(slice(n) for n in shape)]
    for row, size in zip(voxels[:3], shape):
        place = (row[0] * x + row[3]) + row[1] * y + row[2] * z
        known &= (place >= -0.5) & (place <= size - 0.5)
    return known


def resample_volume(
    volume: np.ndarray,
    matrix: np.ndarray,
    grid2world: np.ndarray,
    interpolation: str = "linear",
) -> np.ndarray:
    """Interpolate a volume, as it was measured, on the grid of the corrected series.

    Parameters
    ----------
    volume : ndarray of float32, shape (X, Y, Z)
        The volume; NaN and infinities are missing data for linear interpolation, and
        0 for cubic.
    matrix : ndarray, shape (4, 4)
        From the world of the corrected series to that of the volume.
    grid2world : ndarray, shape (4, 4)
        Voxels to world.
    interpolation : {"linear", "cubic"}, optional
        Order of the interpolation.

    Returns
    -------
    corrected : ndarray of float32, shape (X, Y, Z)
        The volume; 0 where it was not measured, or where most of what surrounds a
        voxel is missing.
    """
    if interpolation == "linear":
        shape = volume.shape
        affine_map = AffineMap(
            matrix,
            domain_grid_shape=shape,
            domain_grid2world=grid2world,
            codomain_grid_shape=shape,
            codomain_grid2world=grid2world,
        )
        resampled = interpolate_linearly(affine_map.transform, volume)
        return np.nan_to_num(resampled.astype(np.float32, copy=False), copy=False)
    voxels = np.linalg.solve(grid2world, matrix @ grid2world)
    return affine_transform(
        np.nan_to_num(volume, posinf=0, neginf=0),
        voxels[:3, :3],
        voxels[:3, 3],
        order=3,
        mode="constant",
    )


class Workers(ThreadPoolExecutor):
    """Threads, and their number.

    Parameters
    ----------
    count : int
        Number of threads.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count = count


@contextmanager
def open_workers(count: int | None) -> Iterator[Workers]:
    """Start threads that each work on one volume with one thread of torch.

    Parameters
    ----------
    count : int or None
        Number of threads; None and -1 take all processors.

    Yields
    ------
    workers : Workers
        The threads.
    """
    with threads(1), Workers(determine_num_threads(count)) as workers:
        try:
            yield workers
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise


def map_in_order(
    workers: Workers,
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
) -> Iterator[_Result]:
    """Apply a function to items in several threads; few results wait at a time.

    Parameters
    ----------
    workers : Workers
        The threads.
    function : callable
        The function of one item.
    items : iterable
        The items.

    Yields
    ------
    result
        The results, in the order of the items.
    """
    waiting: deque[Future] = deque()
    for item in items:
        waiting.append(workers.submit(function, item))
        if len(waiting) > workers.count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
