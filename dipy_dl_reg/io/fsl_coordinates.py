"""FSL's coordinates, and FLIRT's matrices between them.

FSL gives points of an image in mm from the centre of its first voxel, along the axes of
the voxel array.  If the affine has a positive determinant, the first axis is reversed,
and points are in mm from the centre of the first voxel of the reversed axis.  A FLIRT
matrix leads from these coordinates of the moving image to those of the static image.
"""

from __future__ import annotations

import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.validation import check_affine


def fsl_coordinates(grid: Grid) -> np.ndarray:
    r"""Matrix from voxels to FSL's coordinates.

    .. math::

        S = \begin{cases}
        \mathrm{diag}(p_x, p_y, p_z) & \det A < 0 \\
        \mathrm{diag}(-p_x, p_y, p_z) + ((n_x - 1) p_x, 0, 0)^\top & \det A > 0
        \end{cases}

    with the affine :math:`A`, the voxel sizes :math:`p` and :math:`n_x` voxels along
    the first axis.

    Parameters
    ----------
    grid : Grid
        Grid of a 3D image.

    Returns
    -------
    matrix : ndarray, shape (4, 4)
        Voxel indices to mm.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg.grid import Grid
    >>> from dipy_dl_reg.io.fsl_coordinates import fsl_coordinates
    >>> fsl_coordinates(Grid((10, 10, 10), np.diag([2.0, 2, 2, 1])))[0]
    array([-2.,  0.,  0., 18.])
    """
    matrix = np.diag([*grid.spacing, 1.0])
    if np.linalg.det(grid.affine[:3, :3]) > 0:
        matrix[0, 0] *= -1
        matrix[0, 3] = (grid.shape[0] - 1) * grid.spacing[0]
    return matrix


def world_to_fsl(grid: Grid) -> np.ndarray:
    """Matrix from world coordinates to FSL's.

    Parameters
    ----------
    grid : Grid
        Grid of a 3D image.

    Returns
    -------
    matrix : ndarray, shape (4, 4)
        World (RAS, mm) to FSL's coordinates of this image.
    """
    return fsl_coordinates(grid) @ grid.inverse


def flirt_matrix(prealign: np.ndarray, static: Grid, moving: Grid) -> np.ndarray:
    """Convert a prealign to the matrix that FLIRT would write.

    Parameters
    ----------
    prealign : ndarray, shape (4, 4)
        Static world to moving world.
    static, moving : Grid
        Grids of the images: FLIRT's ``-ref`` and ``-in``.

    Returns
    -------
    matrix : ndarray, shape (4, 4)
        FSL's coordinates of moving to those of static.

    Raises
    ------
    ValueError
        If `prealign` is not an invertible affine matrix.
    """
    prealign = check_affine(prealign, 3, "prealign")
    there = world_to_fsl(moving) @ prealign @ np.linalg.inv(world_to_fsl(static))
    return np.linalg.inv(there)


def prealign_of_flirt(matrix: np.ndarray, static: Grid, moving: Grid) -> np.ndarray:
    """Convert FLIRT's matrix to a prealign.

    Parameters
    ----------
    matrix : ndarray, shape (4, 4)
        FSL's coordinates of moving to those of static.
    static, moving : Grid
        Grids of the images: FLIRT's ``-ref`` and ``-in``.

    Returns
    -------
    prealign : ndarray, shape (4, 4)
        Static world to moving world.

    Raises
    ------
    ValueError
        If `matrix` is not an invertible affine matrix.
    """
    there = np.linalg.inv(check_affine(matrix, 3, "matrix"))
    return np.linalg.inv(world_to_fsl(moving)) @ there @ world_to_fsl(static)
