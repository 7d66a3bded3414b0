"""Grids of voxels in world space."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

#: Smallest ratio of the new voxel size to the old one for which an image is resampled.
_LEAST_RATIO = 1.3


@dataclass(frozen=True)
class Grid:
    """A voxel grid in world space: a shape and a voxel-to-world matrix.

    Attributes
    ----------
    shape : tuple of int
        Number of voxels along each of the D axes.
    affine : ndarray, shape (D + 1, D + 1)
        Voxel indices to world coordinates (mm), ``x = affine @ [i, j, k, 1]``.
    """

    shape: tuple[int, ...]
    affine: np.ndarray

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def inverse(self) -> np.ndarray:
        """World-to-voxel matrix."""
        return np.linalg.inv(self.affine)

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size along every axis, mm: the lengths of the affine's columns."""
        return np.linalg.norm(self.affine[: self.dim, : self.dim], axis=0)

    def contains(self, points: np.ndarray, *, margin: float = 1e-6) -> np.ndarray:
        """Tell which points lie on the grid.

        Parameters
        ----------
        points : ndarray, shape (N, D)
            World coordinates, mm.
        margin : float, optional
            Accepted distance beyond the centres of the outermost voxels, in voxels; by
            default rounding errors only.

        Returns
        -------
        inside : ndarray of bool, shape (N,)
            True on the grid.
        """
        inverse = self.inverse
        voxels = points @ inverse[:-1, :-1].T + inverse[:-1, -1]
        last = np.array(self.shape) - 1
        return ((voxels >= -margin) & (voxels <= last + margin)).all(1)

    def resize(self, shape: tuple[int, ...]) -> Grid:
        """Make a grid of another shape with the same centres of the corner voxels.

        Parameters
        ----------
        shape : tuple of int
            New number of voxels along each axis.

        Returns
        -------
        grid : Grid
            The new grid.  If an axis is reduced to one voxel, it has the old spacing,
            and the voxel is at the old centre.
        """
        old, new = np.array(self.shape), np.array(shape)
        scale = np.where(new > 1, (old - 1) / np.maximum(new - 1, 1), 1.0)
        scale[old == 1] = 1.0
        step = np.eye(self.dim + 1)
        step[: self.dim, : self.dim] = np.diag(scale)
        step[: self.dim, self.dim] = np.where(new > 1, 0.0, (old - 1) / 2)
        return Grid(tuple(int(n) for n in new), self.affine @ step)

    @property
    def longest_side(self) -> float:
        """Length of the longest side of the field of view, mm."""
        return float(max(np.array(self.shape) * self.spacing))

    def coarsen(self, spacing: float, *, least: int = 8) -> Grid:
        """Make a grid of the same field of view with voxels of about a given size.

        Parameters
        ----------
        spacing : float
            Requested voxel size, mm.  Axes with nearly this voxel size are not changed.
        least : int, optional
            Minimum number of voxels along an axis.

        Returns
        -------
        grid : Grid
            Never finer than this one.
        """
        extent = (np.array(self.shape) - 1) * self.spacing
        wanted = np.rint(extent / spacing).astype(int) + 1
        # Resampling blurs the image, which is not worthwhile for a similar voxel size.
        wanted = np.where(spacing > _LEAST_RATIO * self.spacing, wanted, self.shape)
        shape = np.minimum(self.shape, np.maximum(wanted, least))
        return self.resize(tuple(shape))

    def to_standard(self, spacing: float | None = None) -> Grid:
        """Make the grid of the same field of view in the standard form of networks.

        Axes are ordered and flipped so that each points along its world axis as nearly
        as possible (RAS for nibabel's images), and voxels are isotropic.

        Parameters
        ----------
        spacing : float, optional
            Voxel size, mm.  By default the smallest voxel size of this grid; axes with
            nearly this voxel size are not resampled.

        Returns
        -------
        grid : Grid
            The standard grid, with the same centre.
        """
        rotation = self.affine[: self.dim, : self.dim] / self.spacing
        order = max(
            permutations(range(self.dim)),
            key=lambda p: sum(abs(rotation[d, axis]) for d, axis in enumerate(p)),
        )
        signs = np.array([-1 if rotation[d, a] < 0 else 1 for d, a in enumerate(order)])
        shape, own = np.array(self.shape)[list(order)], self.spacing[list(order)]
        if spacing is None:
            finest = own[shape > 1].min(initial=np.inf)
            size = np.where(own <= _LEAST_RATIO * finest, own, finest)
        else:
            size = np.full(self.dim, float(spacing))
        size = np.where(shape > 1, size, own)
        new = np.rint((shape - 1) * own / size).astype(int) + 1
        affine = np.eye(self.dim + 1)
        affine[:-1, :-1] = rotation[:, list(order)] * (signs * size)
        middle = self.affine @ [*(np.array(self.shape) - 1) / 2, 1]
        affine[:-1, -1] = middle[:-1] - affine[:-1, :-1] @ ((new - 1) / 2)
        return Grid(tuple(int(n) for n in new), affine)

    def to(self, other: Grid, prealign: np.ndarray | None = None) -> np.ndarray:
        """Matrix from this grid's voxels to another's.

        Parameters
        ----------
        other : Grid
            The target grid.
        prealign : ndarray, shape (D + 1, D + 1), optional
            From the world of this grid to that of the other.

        Returns
        -------
        matrix : ndarray, shape (D + 1, D + 1)
            ``inv(other.affine) @ prealign @ self.affine``.
        """
        world = self.affine if prealign is None else prealign @ self.affine
        return other.inverse @ world


def rotation_angle(linear: np.ndarray) -> float:
    """Angle of the rotation nearest to a matrix.

    Parameters
    ----------
    linear : ndarray, shape (D, D)
        Linear part of an affine map.  If it contains a reflection, the last axis is
        reflected first.

    Returns
    -------
    angle : float
        Degrees, from 0 to 180.
    """
    dim = len(linear)
    left, _, right = np.linalg.svd(linear)
    if np.linalg.det(linear) < 0:
        left = left @ np.diag([1.0] * (dim - 1) + [-1.0])
    trace = np.trace(left @ right)
    cosine = (trace - 1) / 2 if dim == 3 else trace / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
