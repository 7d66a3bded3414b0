"""Resampling of images of directions by a map: grids, frames and background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.diffusion.frames import choose_frame, frame_to_world
from dipy_dl_reg.diffusion.jacobians import direction_matrices
from dipy_dl_reg.maps.apply import ResamplingGrids, find_grids, transform_array
from dipy_dl_reg.maps.dipy_map import as_mapping
from dipy_dl_reg.validation import check_affine

#: Values are known where more than this part of the interpolation's weight is.
_LEAST_WEIGHT = 0.5


@dataclass(frozen=True)
class Resampling:
    """How an image of directions is resampled by a map in 3D.

    Attributes
    ----------
    mapping : DiffeomorphicMap
        The map.
    grids : ResamplingGrids
        Grids of the image and of the result.
    frame : {"voxel", "fsl", "world"}
        Axes in which directions are given, in the image and in the result.
    inverse : bool
        Whether the map is applied from static to moving.
    """

    mapping: DiffeomorphicMap
    grids: ResamplingGrids
    frame: str
    inverse: bool

    def interpolate(
        self, channels: np.ndarray, known: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Interpolate channels linearly between the voxels where they are known.

        Parameters
        ----------
        channels : ndarray, shape (X, Y, Z, C)
            The values.
        known : ndarray of bool, shape (X, Y, Z)
            Where there are any.

        Returns
        -------
        values : ndarray of float64, shape (N, C)
            Weighted means of the known neighbours.
        inside : ndarray of bool, shape (*out_shape)
            The N voxels where the known neighbours have more than half of the weight.
        """
        weights = self.transform(known.astype(np.float32), "linear")
        inside = weights > _LEAST_WEIGHT
        values = np.empty((int(inside.sum()), channels.shape[-1]))
        for k in range(channels.shape[-1]):
            channel = np.where(known, channels[..., k], 0)
            values[:, k] = self.transform(channel, "linear")[inside]
        return values / weights[inside][:, None], inside

    def pick_nearest(
        self, channels: np.ndarray, known: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Take the values of the nearest voxels, where they are known.

        Parameters
        ----------
        channels : ndarray, shape (X, Y, Z, C)
            The values.
        known : ndarray of bool, shape (X, Y, Z)
            Where there are any.

        Returns
        -------
        values : ndarray, shape (N, C)
            Of the type of `channels`.
        inside : ndarray of bool, shape (*out_shape)
            The N voxels whose nearest voxel is known.
        """
        inside = self.transform(known.astype(np.uint8), "nearest") > 0
        return self.transform(channels, "nearest")[inside], inside

    def direction_matrices(self, inside: np.ndarray) -> np.ndarray:
        """Matrices that take directions in the image to those in the result.

        Parameters
        ----------
        inside : ndarray of bool, shape (*out_shape)
            Voxels of the result.

        Returns
        -------
        matrices : ndarray of float64, shape (N, 3, 3)
            Between the frames of the two images: the frame of the image, the inverse of
            the map's Jacobian matrix in the world, the frame of the result.
        """
        out_grid2world = self.grids.out_grid2world
        points = np.argwhere(inside) @ out_grid2world[:3, :3].T + out_grid2world[:3, 3]
        matrices = direction_matrices(self.mapping, points, inverse=self.inverse)
        to_world = frame_to_world(self.grids.image_grid2world, self.frame)
        from_world = frame_to_world(out_grid2world, self.frame).T
        return from_world @ matrices @ to_world

    def input_points(
        self, known: np.ndarray, *, nearest: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Points of the image that correspond to voxels of the result.

        Parameters
        ----------
        known : ndarray of bool, shape (X, Y, Z)
            Voxels of the image that may be used.
        nearest : bool, optional
            Whether the nearest voxel must be known, instead of more than half of the
            weight of linear interpolation.

        Returns
        -------
        points : ndarray of float64, shape (N, 3)
            Voxel coordinates in the image.
        inside : ndarray of bool, shape (*out_shape)
            The N voxels of the result for which there is something known.
        """
        how = "nearest" if nearest else "linear"
        inside = self.transform(known.astype(np.float32), how) > _LEAST_WEIGHT
        transform = self.mapping.transform_points
        if self.inverse:
            transform = self.mapping.transform_points_inverse
        points = transform(
            np.argwhere(inside).astype(np.float64),
            coord2world=self.grids.out_grid2world,
            world2coord=np.linalg.inv(self.grids.image_grid2world),
        )
        return np.asarray(points), inside

    def transform(self, image: np.ndarray, interpolation: str) -> np.ndarray:
        """Apply the map to an array.

        Parameters
        ----------
        image : ndarray, shape (X, Y, Z) or (X, Y, Z, C)
            The values.
        interpolation : {"linear", "nearest"}
            The interpolation.

        Returns
        -------
        warped : ndarray, shape (*out_shape) or (*out_shape, C)
            The values on the grid of the result.
        """
        return transform_array(
            self.mapping,
            image,
            image_grid2world=self.grids.image_grid2world,
            out_shape=self.grids.out_shape,
            out_grid2world=self.grids.out_grid2world,
            interpolation=interpolation,
            inverse=self.inverse,
        )


def plan_resampling(
    mapping: DiffeomorphicMap | AffineMap | np.ndarray,
    shape: Sequence[int],
    *,
    image_grid2world: np.ndarray | None = None,
    out_shape: Sequence[int] | None = None,
    out_grid2world: np.ndarray | None = None,
    frame: str | None = None,
    default_frame: str = "voxel",
    inverse: bool = False,
) -> Resampling:
    """Check the arguments of a resampling of directions.

    Parameters
    ----------
    mapping : DiffeomorphicMap, AffineMap or ndarray of shape (4, 4)
        The map; it must be 3D.  A matrix, from static's world to moving's, has no
        grids: `image_grid2world`, `out_shape` and `out_grid2world` must then be given.
    shape : tuple of int
        Shape of the image; only the first three axes are considered.
    image_grid2world, out_shape, out_grid2world : optional
        As in `apply_mapping`.
    frame : {"voxel", "fsl", "world"}, optional
        Axes in which directions are given; see `frame_to_world`.
    default_frame : {"voxel", "fsl", "world"}, optional
        The frame if none is given; see `choose_frame`.
    inverse : bool, optional
        As in `apply_mapping`.

    Returns
    -------
    resampling : Resampling
        What is done.

    Raises
    ------
    ValueError
        If the map is not 3D, a shape does not fit its grid, or the frame is unknown.
    """
    if isinstance(mapping, np.ndarray):
        mapping = _with_grids(
            mapping, shape, image_grid2world, out_shape, out_grid2world, inverse
        )
    mapping = as_mapping(mapping)
    if mapping.dim != 3:
        raise ValueError(f"mapping must be 3D for directions, got {mapping.dim}D")
    grids = find_grids(
        mapping, shape, image_grid2world, out_shape, out_grid2world, inverse
    )
    affines = grids.image_grid2world, grids.out_grid2world
    frame = choose_frame(frame, *affines, default=default_frame)
    return Resampling(mapping, grids, frame, inverse)


def _with_grids(
    matrix: np.ndarray,
    shape: Sequence[int],
    image_grid2world: np.ndarray | None,
    out_shape: Sequence[int] | None,
    out_grid2world: np.ndarray | None,
    inverse: bool,
) -> AffineMap | np.ndarray:
    """Affine map of a matrix between the grids that were given, or the matrix."""
    if any(given is None for given in (image_grid2world, out_shape, out_grid2world)):
        return matrix
    grids = [(out_shape, out_grid2world), (tuple(shape[:3]), image_grid2world)]
    (static_shape, static_matrix), (moving_shape, moving_matrix) = (
        grids[::-1] if inverse else grids
    )
    return AffineMap(
        check_affine(matrix, 3, "mapping"),
        domain_grid_shape=static_shape,
        domain_grid2world=static_matrix,
        codomain_grid_shape=moving_shape,
        codomain_grid2world=moving_matrix,
    )


def find_known(valid: np.ndarray, mask: np.ndarray | None, name: str) -> np.ndarray:
    """Voxels that hold directions, inside a mask.

    Parameters
    ----------
    valid : ndarray of bool, shape (X, Y, Z)
        Voxels whose values can be used.
    mask : ndarray, shape (X, Y, Z), or None
        Voxels to use: those that are neither 0 nor NaN.
    name : str
        Name of the image in error messages.

    Returns
    -------
    known : ndarray of bool, shape (X, Y, Z)
        Voxels that are valid and in the mask.

    Raises
    ------
    ValueError
        If the mask has another shape, or no voxel remains.
    """
    known = valid
    if mask is not None:
        mask = np.nan_to_num(np.ma.filled(mask, 0))
        if mask.shape != known.shape:
            raise ValueError(
                f"mask must have the shape {known.shape} of {name}, got {mask.shape}"
            )
        known = known & (mask != 0)
    if not known.any():
        where = "" if mask is None else " inside the mask"
        raise ValueError(f"{name} must not be zero or NaN everywhere{where}")
    return known
