"""An image whose header is read first; its values are read and resampled later."""

from __future__ import annotations

from dataclasses import dataclass
import os
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.images import open_image, read_image
from dipy_dl_reg.io.resampling import resample_array
from dipy_dl_reg.training.image_tensors import as_array
from dipy_dl_reg.validation import check_affine

#: Smoothing before resampling to coarser voxels, as for images that a network is
#: applied to.
_SIGMA_FACTOR = 0.5


@dataclass(frozen=True)
class LazyImage:
    """An image whose header is read, but whose values are not read yet.

    Attributes
    ----------
    name : str
        Its name in error messages.
    image : ndarray or nibabel image
        Holds the values.
    grid : Grid
        Grid of the image; for an array, which has no affine, world coordinates are
        voxel coordinates.
    has_affine : bool
        Whether it has an affine.
    """

    name: str
    image: Any
    grid: Grid
    has_affine: bool

    def values(self) -> np.ndarray:
        """Read the intensities.

        Returns
        -------
        values : ndarray of float32, shape (*shape)
            NaN is missing data.

        Raises
        ------
        ValueError
            If the file is damaged, values are infinite, all NaN, or all equal.
        """
        data, _ = read_image(self.image, name=self.name, dtype=np.float32)
        with np.errstate(over="ignore"):
            data = np.asarray(data, dtype=np.float32).reshape(self.grid.shape)
        if np.isinf(data).any():
            raise ValueError(f"{self.name} has values that are infinite in float32")
        self._check_varies(data)
        return data

    def labels(self) -> np.ndarray:
        """Read a label map.

        Returns
        -------
        labels : ndarray of int32, shape (*shape)
            NaN is 0.

        Raises
        ------
        ValueError
            If the file is damaged, or a value is not a whole number of at least 0 (and
            31 bits).
        """
        data, _ = read_image(self.image, name=self.name)
        data = np.nan_to_num(np.asarray(data)).reshape(self.grid.shape)
        whole = data.astype(np.int64)
        top = np.iinfo(np.int32).max
        if not np.array_equal(whole, data) or whole.min() < 0 or whole.max() > top:
            raise ValueError(f"{self.name} must hold labels, whole numbers from 0")
        return whole.astype(np.int32)

    def values_on(self, grid: Grid, prealign: np.ndarray | None = None) -> np.ndarray:
        """Resample the intensities onto a grid, by one linear interpolation.

        Outside the image, the values at its edge are used.

        Parameters
        ----------
        grid : Grid
            The grid.
        prealign : ndarray, shape (D + 1, D + 1), optional
            From the world of the grid to that of the image.

        Returns
        -------
        values : ndarray of float32, shape (*grid.shape)
            Smoothed first along axes that become coarser; NaN is missing data.

        Raises
        ------
        ValueError
            As in `values`, and if the image and the grid do not overlap.
        """
        matrix, values = self._matrix(grid, prealign), self.values()
        if _is_same(self.grid.shape, grid.shape, matrix):
            return values
        missing = np.isnan(values)
        if missing.any():
            nearest = distance_transform_edt(
                missing, return_distances=False, return_indices=True
            )
            values = values[tuple(nearest)]
        sigma = self._sigma(grid, prealign)
        out = resample_array(gaussian_filter(values, sigma), matrix, grid.shape)
        if missing.any():
            share = gaussian_filter(missing.astype(np.float32), sigma)
            out[resample_array(share, matrix, grid.shape) > 0.5] = np.nan
        self._check_varies(out, " on the common grid")
        return out

    def labels_on(self, grid: Grid, prealign: np.ndarray | None = None) -> np.ndarray:
        """Resample the label map onto a grid, by nearest neighbour, 0 beyond it.

        Parameters
        ----------
        grid : Grid
            The grid.
        prealign : ndarray, shape (D + 1, D + 1), optional
            From the world of the grid to that of the label map.

        Returns
        -------
        labels : ndarray of int32, shape (*grid.shape)
            The map.

        Raises
        ------
        ValueError
            As in `labels`, and if the label map and the grid do not overlap.
        """
        matrix, labels = self._matrix(grid, prealign), self.labels()
        if _is_same(self.grid.shape, grid.shape, matrix):
            return labels
        return resample_array(labels, matrix, grid.shape, order=0, mode="grid-constant")

    def _matrix(self, grid: Grid, prealign: np.ndarray | None) -> np.ndarray:
        """Matrix from the grid's voxels to the image's; raises without an overlap."""
        matrix = grid.to(self.grid, prealign)
        inside = np.ones(self.grid.shape, np.uint8)
        inside = resample_array(
            inside, matrix, grid.shape, order=0, mode="grid-constant"
        )
        if not inside.any():
            raise ValueError(
                f"{self.name} does not overlap the reference through the affines"
                f"{' and prealign' if prealign is not None else ''} given"
            )
        return matrix

    def _sigma(self, grid: Grid, prealign: np.ndarray | None) -> np.ndarray:
        """Standard deviations of the smoothing, in voxels, for the grid's voxels."""
        dim = grid.dim
        scale = 1 if prealign is None else abs(np.linalg.det(prealign)) ** (1 / dim)
        ratio = grid.spacing.min() * scale / self.grid.spacing
        return _SIGMA_FACTOR * np.maximum(ratio - 1, 0)

    def _check_varies(self, values: np.ndarray, where: str = "") -> None:
        """Raise if the image is constant or has only missing values."""
        known = values[~np.isnan(values)]
        if not known.size:
            raise ValueError(f"{self.name} contains only NaN{where}")
        if known.min() == known.max():
            raise ValueError(f"{self.name} is constant{where}: it cannot be registered")


def _is_same(
    shape: tuple[int, ...], other: tuple[int, ...], matrix: np.ndarray
) -> bool:
    """Whether two grids are equal; `matrix` maps the voxels of one to the other."""
    return shape == other and np.allclose(matrix, np.eye(len(matrix)), atol=1e-4)


def open_lazy_image(image: Any, name: str) -> LazyImage:
    """Read an image's header, and check it.

    Parameters
    ----------
    image : str, Path, nibabel image or ndarray
        2D or 3D; further axes of length 1 are dropped.
    name : str
        Its name in error messages, besides the file's.

    Returns
    -------
    opened : LazyImage
        The image, whose values are not read yet.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If it is not an image, is neither 2D nor 3D, does not have real numbers, or has
        a singular affine.
    """
    if isinstance(image, (str, os.PathLike)):
        image = open_image(image, name=name)
    has_affine = hasattr(image, "dataobj")
    if has_affine:
        name = f"{name}: {image.get_filename() or 'an image in memory'}"
        shape, dtype = image.shape, image.get_data_dtype()
    else:
        image = as_array(image)
        shape, dtype = image.shape, image.dtype
    if len(shape) > 3 and set(shape[3:]) == {1}:
        shape = shape[:3]
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"{name} must be one 2D or 3D image, got shape {image.shape}")
    if dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, got {dtype}")
    affine = np.eye(len(shape) + 1)
    if has_affine:
        affine = _check_affine_of(image, len(shape), name)
    grid = Grid(tuple(int(n) for n in shape), affine)
    return LazyImage(name, image, grid, has_affine)


def _check_affine_of(image: Any, dim: int, name: str) -> np.ndarray:
    """A nibabel image's affine, of two axes for a 2D image."""
    affine = check_affine(image.affine, 3, f"the affine of {name}")
    if dim == 3:
        return affine
    if np.abs(affine[2, :2]).max() > 1e-4 * np.abs(affine[:2, :2]).max():
        raise ValueError(f"{name} is 2D and must lie in the xy-plane of the world")
    chosen = [0, 1, 3]
    return check_affine(affine[np.ix_(chosen, chosen)], 2, f"the affine of {name}")
