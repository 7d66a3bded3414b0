"""Where voxels lie in the world."""

from dataclasses import dataclass

import numpy as np

#: How much larger a voxel must become for an image to be resampled.
_WORTH_IT = 1.3


@dataclass(frozen=True)
class Grid:
    """A voxel grid in world space: a shape and a voxel-to-world matrix.

    Attributes
    ----------
    shape : tuple of int
        D numbers of voxels.
    affine : ndarray, shape (D + 1, D + 1)
        Voxel indices to world coordinates (mm), ``x = affine @ [i, j, k, 1]``.
    """

    shape: tuple
    affine: np.ndarray

    @property
    def dim(self):
        """Number of axes."""
        return len(self.shape)

    @property
    def inverse(self):
        """World-to-voxel matrix."""
        return np.linalg.inv(self.affine)

    @property
    def spacing(self):
        """Voxel size along every axis, mm: the lengths of the affine's columns."""
        return np.linalg.norm(self.affine[: self.dim, : self.dim], axis=0)

    def resized(self, shape):
        """The grid of another shape whose corner voxels have the same centres.

        Parameters
        ----------
        shape : tuple of int
            New numbers of voxels.

        Returns
        -------
        grid : Grid
            An axis of one voxel keeps its spacing and stands at the old centre.
        """
        old, new = np.array(self.shape), np.array(shape)
        scale = np.where(new > 1, (old - 1) / np.maximum(new - 1, 1), 1.0)
        scale[old == 1] = 1.0
        step = np.eye(self.dim + 1)
        step[: self.dim, : self.dim] = np.diag(scale)
        step[: self.dim, self.dim] = np.where(new > 1, 0.0, (old - 1) / 2)
        return Grid(tuple(int(n) for n in new), self.affine @ step)

    def coarsened(self, spacing, *, least=8):
        """The grid over the same field of view with voxels of about a given size.

        Parameters
        ----------
        spacing : float
            Wanted voxel size, mm.  Axes already about as coarse stay as they are.
        least : int, optional
            No axis is brought below this many voxels.

        Returns
        -------
        grid : Grid
            Never finer than this one.
        """
        extent = (np.array(self.shape) - 1) * self.spacing
        wanted = np.rint(extent / spacing).astype(int) + 1
        # Resampling costs sharpness, which a slightly larger voxel is not worth.
        wanted = np.where(spacing > _WORTH_IT * self.spacing, wanted, self.shape)
        shape = np.minimum(self.shape, np.maximum(wanted, least))
        return self.resized(tuple(shape))

    def to(self, other, prealign=None):
        """Matrix from this grid's voxels to another's.

        Parameters
        ----------
        other : Grid
            The grid arrived at.
        prealign : ndarray, shape (D + 1, D + 1), optional
            Between the two worlds, from this one's to the other's.

        Returns
        -------
        matrix : ndarray, shape (D + 1, D + 1)
            ``inv(other.affine) @ prealign @ self.affine``.
        """
        world = self.affine if prealign is None else prealign @ self.affine
        return other.inverse @ world
