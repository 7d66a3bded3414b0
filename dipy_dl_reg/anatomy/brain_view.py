"""Whether the field of view of an image can show a brain."""

from __future__ import annotations

import numpy as np

from dipy_dl_reg.grid import Grid

#: Smallest field of view that can show enough of a brain, mm^3.
_LEAST_FIELD_OF_VIEW = 5e5
#: Smallest length along each axis that the network needs, and smallest length of the
#: two longest axes, mm: a slab shows a brain, a small object does not.
_LEAST_EXTENT, _LEAST_WIDTH = 32.0, 100.0
#: Smallest side and field of view in which a whole head is expected, mm and mm^3.
_LEAST_SIDE_OF_HEAD, _LEAST_HEAD = 100.0, 2.5e6
#: Largest side and field of view, mm and mm^3: the grid of a larger one, which has
#: another unit than mm, does not fit into memory.
_LARGEST_SIDE, _LARGEST_FIELD_OF_VIEW = 2200.0, 6e8
#: Smallest length of the longest side that the network can see, mm.
_LEAST_LENGTH = 34.0


def can_show_brain(grid: Grid, *, whole: bool = False) -> bool:
    """Whether a field of view has three dimensions and the size of a head.

    Parameters
    ----------
    grid : Grid
        Grid of an image, in mm.
    whole : bool, optional
        Whether a whole head must fit: at least 100 mm along each axis, 2.5 litres.

    Returns
    -------
    possible : bool
        False for 2D images, for fields of view below half a litre, for those shorter
        than 32 mm along an axis or than 100 mm along two, and for those that are
        larger than a body (`explain_wrong_size`).
    """
    if grid.dim != 3 or explain_wrong_size(grid):
        return False
    sides = np.sort(np.array(grid.shape) * grid.spacing)
    if whole:
        return bool(sides[0] >= _LEAST_SIDE_OF_HEAD and np.prod(sides) >= _LEAST_HEAD)
    wide = sides[0] >= _LEAST_EXTENT and sides[1] >= _LEAST_WIDTH
    return bool(wide and np.prod(sides) >= _LEAST_FIELD_OF_VIEW)


def explain_wrong_size(grid: Grid) -> str:
    """Explain why a field of view cannot be in mm, if it shows a part of a body.

    Parameters
    ----------
    grid : Grid
        Grid of an image.

    Returns
    -------
    reason : str
        With the voxel size; empty if a side is at least 34 mm, none is longer than
        2.2 m, and the volume is at most 600 litres.
    """
    sides = np.array(grid.shape) * grid.spacing
    small = sides.max() < _LEAST_LENGTH
    if not small and sides.max() <= _LARGEST_SIDE:
        if sides.prod() <= _LARGEST_FIELD_OF_VIEW:
            return ""
    voxel, view = (
        " x ".join(f"{x:.3g}" for x in each) for each in (grid.spacing, sides)
    )
    return (
        f"its voxels of {voxel} mm make a field of view of {view} mm, which is too "
        f"{'small' if small else 'large'}: check the unit of its matrix"
    )
