"""An image whose header is read first, and which is brought onto any grid."""

from dataclasses import dataclass
import os

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.images import open_image, read_image
from dipy_dl_reg.io.resampling import resample_array
from dipy_dl_reg.training.training_set import as_array
from dipy_dl_reg.validation import check_affine

#: Smoothing on the way to coarser voxels, as for images that a network is applied to.
_SIGMA_FACTOR = 0.5


@dataclass(frozen=True)
class Scan:
    """An image whose header was read, and whose values were not.

    Attributes
    ----------
    name : str
        What errors call it.
    image : ndarray or nibabel image
        Where the values are.
    grid : Grid
        Where they lie: voxels are the world for an array, which has no affine.
    placed : bool
        Whether it came with an affine.
    """

    name: str
    image: object
    grid: Grid
    placed: bool

    def values(self):
        """Read the intensities.

        Returns
        -------
        values : ndarray of float32, shape (*shape)
            NaN is missing data.

        Raises
        ------
        ValueError
            If the file is damaged, or holds infinities, nothing but NaN or one value.
        """
        data, _ = read_image(self.image, name=self.name, dtype=np.float32)
        with np.errstate(over="ignore"):
            data = np.asarray(data, dtype=np.float32).reshape(self.grid.shape)
        if np.isinf(data).any():
            raise ValueError(f"{self.name} holds infinities, or beyond float32")
        self._check_some(data)
        return data

    def labels(self):
        """Read a label map.

        Returns
        -------
        labels : ndarray of int32, shape (*shape)
            NaN is 0.

        Raises
        ------
        ValueError
            If the file is damaged, or a value is no whole number from 0 (of 31 bits).
        """
        data, _ = read_image(self.image, name=self.name)
        data = np.nan_to_num(np.asarray(data)).reshape(self.grid.shape)
        whole = data.astype(np.int64)
        top = np.iinfo(np.int32).max
        if not np.array_equal(whole, data) or whole.min() < 0 or whole.max() > top:
            raise ValueError(f"{self.name} must hold labels, whole numbers from 0")
        return whole.astype(np.int32)

    def values_on(self, grid, prealign=None):
        """The intensities on a grid, by one linear interpolation.

        Beyond the image they go on with the values at its edge.

        Parameters
        ----------
        grid : Grid
            The grid.
        prealign : ndarray, optional
            From the grid's world to the image's.

        Returns
        -------
        values : ndarray of float32, shape (*grid.shape)
            Smoothed first along axes that become coarser; NaN is missing data.

        Raises
        ------
        ValueError
            As `values` does, and if nothing of the image is on the grid.
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
            gone = gaussian_filter(missing.astype(np.float32), sigma)
            out[resample_array(gone, matrix, grid.shape) > 0.5] = np.nan
        self._check_some(out, " on the common grid")
        return out

    def labels_on(self, grid, prealign=None):
        """The label map on a grid, by nearest neighbour, 0 beyond it.

        Parameters
        ----------
        grid : Grid
            The grid.
        prealign : ndarray, optional
            From the grid's world to the map's.

        Returns
        -------
        labels : ndarray of int32, shape (*grid.shape)
            The map.

        Raises
        ------
        ValueError
            As `labels` does, and if nothing of the map is on the grid.
        """
        matrix, labels = self._matrix(grid, prealign), self.labels()
        if _is_same(self.grid.shape, grid.shape, matrix):
            return labels
        return resample_array(labels, matrix, grid.shape, order=0, mode="grid-constant")

    def _matrix(self, grid, prealign):
        """From the grid's voxels to these, if any of them meet."""
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

    def _sigma(self, grid, prealign):
        """Standard deviations, in voxels, that the grid's coarser voxels ask for."""
        dim = grid.dim
        scale = 1 if prealign is None else abs(np.linalg.det(prealign)) ** (1 / dim)
        ratio = grid.spacing.min() * scale / self.grid.spacing
        return _SIGMA_FACTOR * np.maximum(ratio - 1, 0)

    def _check_some(self, values, where=""):
        """Raise unless there is something to register."""
        known = values[~np.isnan(values)]
        if not known.size:
            raise ValueError(f"{self.name} holds nothing but NaN{where}")
        if known.min() == known.max():
            raise ValueError(f"{self.name} is constant{where}: nothing to register")


def _is_same(shape, other, matrix):
    """Whether voxels of two grids are the same ones."""
    return shape == other and np.allclose(matrix, np.eye(len(matrix)), atol=1e-4)


def open_scan(image, name):
    """Read an image's header, and check it.

    Parameters
    ----------
    image : str, Path, nibabel image or ndarray
        2D or 3D; further axes of length 1 are dropped.
    name : str
        What errors call it, besides the file's name.

    Returns
    -------
    scan : Scan
        Its values still unread.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If it is no image, neither 2D nor 3D, not of real numbers, or its affine is
        singular.
    """
    if isinstance(image, (str, os.PathLike)):
        image = open_image(image, name=name)
    placed = hasattr(image, "dataobj")
    if placed:
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
    affine = _affine(image, len(shape), name) if placed else np.eye(len(shape) + 1)
    return Scan(name, image, Grid(tuple(int(n) for n in shape), affine), placed)


def _affine(image, dim, name):
    """A nibabel image's affine, of two axes for a 2D image."""
    affine = check_affine(image.affine, 3, f"the affine of {name}")
    if dim == 3:
        return affine
    if np.abs(affine[2, :2]).max() > 1e-4 * np.abs(affine[:2, :2]).max():
        raise ValueError(f"{name} is 2D, and must lie in the world's xy-plane")
    chosen = [0, 1, 3]
    return check_affine(affine[np.ix_(chosen, chosen)], 2, f"the affine of {name}")
