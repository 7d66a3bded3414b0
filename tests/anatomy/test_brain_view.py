"""Whether an image can show a brain, and whether its maps do."""

import numpy as np
import pytest
import torch

from dipy_dl_reg.anatomy.brain_view import can_show_brain, shows_brain
from dipy_dl_reg.anatomy.classes import CLASSES
from dipy_dl_reg.anatomy.prediction import AnatomyMaps
from dipy_dl_reg.grid import Grid


@pytest.mark.parametrize(
    "shape, spacing, possible",
    [
        ((80, 100, 80), (2, 2, 2), True),
        ((100, 100, 12), (2, 2, 4), True),  # a slab of 48 mm
        ((100, 100, 12), (2, 2, 2), False),  # 24 mm
        ((45, 45, 45), (2, 2, 2), False),  # 90 mm wide
        ((100, 100), (2, 2), False),
        ((40, 40, 40), (1000, 1000, 1000), False),  # micrometres
        ((132, 80, 114), (100, 100, 100), False),  # a mouse brain in micrometres
        ((100, 100, 1001), (1, 1, 1), False),
        ((256, 256, 500), (1, 1, 2), True),  # a head with the neck, and 1 m long
    ],
)
def test_field_of_view(shape, spacing, possible):
    assert can_show_brain(Grid(shape, np.diag([*spacing, 1.0]))) == possible


@pytest.mark.parametrize(
    "shape, spacing, possible",
    [
        ((80, 100, 80), (2, 2, 2), True),
        ((100, 100, 12), (2, 2, 4), False),  # a slab
        ((51, 51, 51), (2, 2, 2), False),  # 1.1 litres
        ((40, 40, 40), (1000, 1000, 1000), False),
    ],
)
def test_field_of_view_of_a_whole_head(shape, spacing, possible):
    assert can_show_brain(Grid(shape, np.diag([*spacing, 1.0])), whole=True) == possible


@pytest.mark.parametrize("part, found", [(0.0, False), (0.3, True), (1.0, False)])
def test_volume_of_the_brain(part, found):
    """Of a field of view of 4 litres: nothing, 1.2 litres, everything."""
    grid = Grid((20, 20, 20), np.diag([8.0, 8, 8, 1]))
    maps = torch.zeros(len(CLASSES), 20, 20, 20)
    maps[0], maps[1] = 1 - part, part
    assert shows_brain(AnatomyMaps(maps, grid)) == found
