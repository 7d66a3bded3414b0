r"""Grids as FreeSurfer's files of maps describe them.

A volume geometry has a flag, the shape, the voxel sizes :math:`p`, the directions of
the axes :math:`D` and the world point :math:`c` of the voxel :math:`n / 2`, all
big-endian, and the name of a file:

.. math:: x = D\,\mathrm{diag}(p)\,(v - n / 2) + c
"""

from __future__ import annotations

import struct

import numpy as np

from dipy_dl_reg.grid import Grid

#: Flag and shape; voxel sizes, axes and centre.
_NUMBERS = struct.Struct(">4i15f")
#: Length of the name of a file where it is fixed.
_NAME = 512
#: Length in bytes where the length of the name is fixed.
SIZE = _NUMBERS.size + _NAME
#: Largest cosine of the angle between two axes of a grid without shears.
_PERPENDICULAR = 1e-4


def pack_geometry(grid: Grid, *, sheared: bool = False, name: bool = True) -> bytes:
    """Convert a grid to FreeSurfer's volume geometry.

    Parameters
    ----------
    grid : Grid
        The grid.
    sheared : bool, optional
        Add the three numbers of the variant with shears, all 0.
    name : bool, optional
        Reserve the fixed length for the name; else store its length, 0.

    Returns
    -------
    packed : bytes
        The geometry, without a name.

    Raises
    ------
    ValueError
        If the axes of the grid are not perpendicular.
    """
    axes = grid.affine[:3, :3] / grid.spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > _PERPENDICULAR:
        raise ValueError(
            "mapping must have grids with perpendicular axes for FreeSurfer's files, "
            f"got an affine with shears: {grid.affine[:3, :3].tolist()}"
        )
    centre = grid.affine[:3] @ [*(np.array(grid.shape) / 2), 1]
    packed = _NUMBERS.pack(1, *grid.shape, *grid.spacing, *axes.T.ravel(), *centre)
    if sheared:
        packed += struct.pack(">3f", 0, 0, 0)
    return packed + (bytes(_NAME) if name else struct.pack(">i", 0))


def unpack_geometry(packed: bytes) -> Grid | None:
    """Convert FreeSurfer's volume geometry to a grid.

    Parameters
    ----------
    packed : bytes
        The geometry; what follows its numbers is not used.

    Returns
    -------
    grid : Grid or None
        The grid; None if the geometry is marked as invalid.

    Raises
    ------
    struct.error
        If there are too few bytes.
    """
    valid, *numbers = _NUMBERS.unpack_from(packed)
    shape = tuple(numbers[:3])
    sizes, axes, centre = np.split(np.array(numbers[3:]), [3, 12])
    if not valid or min(shape) < 1:
        return None
    affine = np.eye(4)
    affine[:3, :3] = axes.reshape(3, 3).T * sizes
    affine[:3, 3] = centre - affine[:3, :3] @ (np.array(shape) / 2)
    return Grid(shape, affine)
