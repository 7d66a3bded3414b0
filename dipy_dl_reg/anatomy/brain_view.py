"""Whether an image shows a brain, so that its anatomy maps are meaningful."""

from __future__ import annotations

import numpy as np

from dipy_dl_reg.anatomy.classes import brain_probability
from dipy_dl_reg.anatomy.prediction import AnatomyMaps
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
_LARGEST_SIDE, _LARGEST_FIELD_OF_VIEW = 1000.0, 2.5e8
#: Volume of a brain or of a large part of it, from and to, mm^3.
_BRAIN_VOLUME = (2.5e5, 3e6)


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
        than 32 mm along an axis or than 100 mm along two, and for those that are too
        large (`exceeds_body`).
    """
    if grid.dim != 3 or exceeds_body(grid):
        return False
    sides = np.sort(np.array(grid.shape) * grid.spacing)
    if whole:
        return bool(sides[0] >= _LEAST_SIDE_OF_HEAD and np.prod(sides) >= _LEAST_HEAD)
    wide = sides[0] >= _LEAST_EXTENT and sides[1] >= _LEAST_WIDTH
    return bool(wide and np.prod(sides) >= _LEAST_FIELD_OF_VIEW)


def exceeds_body(grid: Grid) -> bool:
    """Whether a field of view is larger than any image of a head, with the neck.

    Parameters
    ----------
    grid : Grid
        Grid of an image.

    Returns
    -------
    large : bool
        Whether a side is longer than 1 m, or the volume larger than 250 litres: the
        voxel size is then probably not in mm.
    """
    sides = np.array(grid.shape) * grid.spacing
    return bool(sides.max() > _LARGEST_SIDE or sides.prod() > _LARGEST_FIELD_OF_VIEW)


def shows_brain(maps: AnatomyMaps) -> bool:
    """Whether the maps of an image contain a brain.

    Parameters
    ----------
    maps : AnatomyMaps
        The maps.

    Returns
    -------
    found : bool
        Whether the volume of the brain is between a quarter of a litre (children, and
        slabs of a brain) and three litres.
    """
    voxel = float(np.prod(maps.grid.spacing))
    volume = voxel * float(brain_probability(maps.probabilities).sum())
    return _BRAIN_VOLUME[0] <= volume <= _BRAIN_VOLUME[1]
